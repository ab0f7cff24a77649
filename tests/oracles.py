"""What the layers must compute, in NumPy float64, written from the equations of the papers.

Axes: B batch, T time, D input features, U units.

A step takes (weights, x_t [B, D], states) and returns (output [B, U], states).
`run` repeats a step over time; nothing here knows of Keras.
"""

import numpy as np


def sigmoid(v):
    return np.where(
        v >= 0, 1 / (1 + np.exp(-np.abs(v))), np.exp(-np.abs(v)) / (1 + np.exp(-np.abs(v)))
    )


ACTIVATIONS = {
    "linear": lambda v: v,
    "relu": lambda v: np.maximum(v, 0),
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "hard_sigmoid": lambda v: np.clip(v / 6 + 0.5, 0, 1),  # Keras 3: relu6(v + 3) / 6
    "softsign": lambda v: v / (1 + np.abs(v)),
    "elu": lambda v: np.where(v > 0, v, np.exp(np.minimum(v, 0)) - 1),
}


def simple_step(activation="tanh", use_bias=True):
    """Elman 1990: h' = f(x W + h R + b)."""
    f = ACTIVATIONS[activation]

    def step(weights, x, states):
        kernel, recurrent, *bias = weights
        (h,) = states
        h = f(x @ kernel + h @ recurrent + (bias[0] if use_bias else 0))
        return h, (h,)

    return step


def lstm_step(activation="tanh", recurrent_activation="sigmoid", use_bias=True):
    """Hochreiter and Schmidhuber 1997 with the forget gate of Gers 2000, no peephole.

    Columns in Keras' order: input gate, forget gate, candidate, output gate.
    """
    f = ACTIVATIONS[activation]
    gate = ACTIVATIONS[recurrent_activation]

    def step(weights, x, states):
        kernel, recurrent, *bias = weights
        h, c = states
        z = x @ kernel + h @ recurrent + (bias[0] if use_bias else 0)
        zi, zf, zg, zo = np.split(z, 4, axis=1)
        i, forget, o = gate(zi), gate(zf), gate(zo)
        c = forget * c + i * f(zg)
        h = o * f(c)
        return h, (h, c)

    return step


def projected_lstm_step():
    """Sak et al. 2014: the LSTM with h' = W_p m, where m is the LSTM's own output."""
    step = lstm_step()

    def projected(weights, x, states):
        *weights, projection = weights
        h, c = states
        m, (_, c) = step(weights, x, (h, c))
        h = m @ projection
        return h, (h, c)

    return projected


def gru_step(activation="tanh", recurrent_activation="sigmoid", use_bias=True, reset_after=True):
    """Cho 2014, columns in Keras' order: update, reset, candidate; h' = z h + (1 - z) n.

    reset_after=False is version 3 of arXiv 1406.1078: n = f(x W + (r h) R + b).
    reset_after=True is version 1, as cuDNN has it: n = f(x W + b + r (h R + b')),
    with one bias for the input and one for the recurrent product.
    """
    f = ACTIVATIONS[activation]
    gate = ACTIVATIONS[recurrent_activation]

    def step(weights, x, states):
        kernel, recurrent, *bias = weights
        (h,) = states
        width = 3 * h.shape[1]
        if not use_bias:
            bias_x, bias_h = np.zeros(width), np.zeros(width)
        elif reset_after:
            bias_x, bias_h = bias[0]
        else:
            bias_x, bias_h = bias[0], np.zeros(width)
        xz, xr, xn = np.split(x @ kernel + bias_x, 3, axis=1)
        rz, rr, rn = np.split(recurrent, 3, axis=1)
        bz, br, bn = np.split(bias_h, 3)
        z = gate(xz + h @ rz + bz)
        r = gate(xr + h @ rr + br)
        if reset_after:
            n = f(xn + r * (h @ rn + bn))
        else:
            n = f(xn + (r * h) @ rn)
        h = z * h + (1 - z) * n
        return h, (h,)

    return step


def stacked_step(steps, weight_counts, state_counts):
    """Several cells on top of each other, as one step."""

    def step(weights, x, states):
        weights, states, new = list(weights), list(states), []
        for inner, w, s in zip(steps, weight_counts, state_counts, strict=True):
            x, inner_new = inner(weights[:w], x, states[:s])
            weights, states = weights[w:], states[s:]
            new.extend(inner_new)
        return x, tuple(new)

    return step


def run(step, weights, x, states, mask=None, go_backwards=False, zero_output_for_mask=False):
    """Repeat a step over time: outputs [B, T, U], last output [B, U], last states.

    Where the mask is off the states stay and the output is the one before it (zeros before the
    first valid step), or zeros everywhere with zero_output_for_mask. go_backwards reads the steps
    from the last to the first and gives the outputs in the order in which they were computed.
    """
    x = np.asarray(x, "float64")
    weights = [np.asarray(w, "float64") for w in weights]
    states = tuple(np.asarray(s, "float64") for s in states)
    steps = x.shape[1]
    mask = np.ones(x.shape[:2], bool) if mask is None else np.asarray(mask, bool)
    x = np.where(mask[:, :, None], x, 0)
    previous = np.zeros_like(step(weights, np.zeros_like(x[:, 0]), states)[0]) if steps else None
    outputs = []
    for t in reversed(range(steps)) if go_backwards else range(steps):
        valid = mask[:, t, None]
        output, new = step(weights, x[:, t], states)
        states = tuple(np.where(valid, n, s) for n, s in zip(new, states, strict=True))
        previous = np.where(valid, output, 0 if zero_output_for_mask else previous)
        outputs.append(previous)
    return np.stack(outputs, axis=1), outputs[-1], states


def run_bidirectional(steps, weights, x, states, mask=None, merge="concat", sequences=False):
    """Two directions over one input: merged output and the states of both.

    A sequence of outputs has zeros where the mask is off; the last output is not touched by that.
    """
    halves = []
    for backward in (False, True):
        w = weights[len(weights) // 2 :] if backward else weights[: len(weights) // 2]
        s = states[len(states) // 2 :] if backward else states[: len(states) // 2]
        outputs, last, new = run(steps, w, x, s, mask, backward, zero_output_for_mask=sequences)
        if sequences:
            halves.append((outputs[:, ::-1] if backward else outputs, new))
        else:
            halves.append((last, new))
    (forward, forward_states), (backward, backward_states) = halves
    merged = {
        "concat": lambda: np.concatenate([forward, backward], axis=-1),
        "sum": lambda: forward + backward,
        "ave": lambda: (forward + backward) / 2,
        "mul": lambda: forward * backward,
        None: lambda: (forward, backward),
    }[merge]()
    return merged, (*forward_states, *backward_states)
