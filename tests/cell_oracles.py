"""More cells in NumPy float64, written from the equations of the papers, as in `oracles`.

Axes: B batch, D input features, U units, P projected units.

Each factory gives a step for `oracles.run`: (weights, x_t [B, D], states) -> (output, states).
`weights` is a list in the order that the factory names; an array too many or too few is an error.
"Peer" says what a library of the same name does otherwise: TFA is TensorFlow Addons.
"""

import numpy as np
from oracles import ACTIVATIONS, sigmoid


def named(layout, weights):
    return dict(zip(layout, weights, strict=True))


def standardise(a, eps):
    """Mean 0 and variance 1 over the whole last axis, with the variance of the population.

    Ba et al. 2016, eq. 3, has no eps: implementations add it against a variance of 0.
    """
    centred = a - a.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)


def clip(a, limit):
    return a if limit is None else np.clip(a, -limit, limit)


def general_lstm_step(
    peephole=False, coupled=False, cell_clip=None, projection=False, projection_clip=None
):
    """The LSTM with options: Gers and Schmidhuber 2000, Sak et al. 2014, Greff et al. 2017.

    Weights: kernel [D, GU], recurrent [P or U, GU], bias [GU], peephole [3, U] (rows i, f, o),
    projection [U, P]. Columns i, f, g, o. Coupled has no f: columns i, g, o and a peephole [2, U]
    (rows i, o). States (h, c).

    i and f see the old c through the peephole, o sees the new one. Coupled (CIFG) is f = 1 - i.
    c is clipped as soon as it is made, so o and h see the clipped c. Only a projected h is clipped.

    Peer: TFA's PeepholeLSTMCell has the same columns, and three vectors for the rows of the
    peephole. TF1's LSTMCell has columns i, g, f, o, adds forget_bias (1.0) to f in the step, keeps
    its states as (c, h), and clips as here. TF1's CoupledInputForgetGateLSTMCell learns f (columns
    g, f, o) and takes 1 - f for the input; Greff's coupled cell, and this one, learn i.
    """
    layout = ["kernel", "recurrent", "bias"] + ["peephole"] * peephole + ["projection"] * projection

    def step(weights, x, states):
        w = named(layout, weights)
        h, c = states
        z = x @ w["kernel"] + h @ w["recurrent"] + w["bias"]
        if coupled:
            zi, zg, zo = np.split(z, 3, axis=1)
            pi, po = w["peephole"] if peephole else (0, 0)
            i = sigmoid(zi + pi * c)
            forget = 1 - i
        else:
            zi, zf, zg, zo = np.split(z, 4, axis=1)
            pi, pf, po = w["peephole"] if peephole else (0, 0, 0)
            i = sigmoid(zi + pi * c)
            forget = sigmoid(zf + pf * c)
        c = clip(forget * c + i * np.tanh(zg), cell_clip)
        h = sigmoid(zo + po * c) * np.tanh(c)
        if projection:
            h = clip(h @ w["projection"], projection_clip)
        return h, (h, c)

    return step


def layer_norm_lstm_step(
    eps=1e-5, normalize=("input", "recurrent", "cell"), carry_normalized=False
):
    """Ba et al. 2016, eq. 20-22. One standardisation over all 4U columns, not one for each gate.

    Weights: kernel [D, 4U], recurrent [U, 4U], bias [4U], then those that `normalize` asks for:
    input_gamma [4U], recurrent_gamma [4U], cell_gamma [U], cell_beta [U].
    Columns i, f, g, o. States (h, c).

    The two products have no beta: the paper's beta_1 + beta_2 + b is one bias. The normalised c
    goes to the output alone, the next step gets the raw c, as in the paper and in haste.

    Peer: haste has eps 1e-5, columns i, g, f, o and both gammas of the products in one array
    [2, 4U]. TFA keeps a beta for each product beside the bias, has eps 1e-3, and its state is the
    normalised c, so it is normalised again and again: carry_normalized=True.
    """
    extra = {"input": ["input_gamma"], "recurrent": ["recurrent_gamma"]}
    extra["cell"] = ["cell_gamma", "cell_beta"]
    layout = ["kernel", "recurrent", "bias"]
    layout += [name for part in extra if part in normalize for name in extra[part]]

    def step(weights, x, states):
        w = named(layout, weights)
        h, c = states
        z_x = x @ w["kernel"]
        z_h = h @ w["recurrent"]
        if "input" in normalize:
            z_x = w["input_gamma"] * standardise(z_x, eps)
        if "recurrent" in normalize:
            z_h = w["recurrent_gamma"] * standardise(z_h, eps)
        zi, zf, zg, zo = np.split(z_x + z_h + w["bias"], 4, axis=1)
        c = sigmoid(zf) * c + sigmoid(zi) * np.tanh(zg)
        shown = c
        if "cell" in normalize:
            shown = w["cell_gamma"] * standardise(c, eps) + w["cell_beta"]
        h = sigmoid(zo) * np.tanh(shown)
        return h, (h, shown if carry_normalized else c)

    return step


def layer_norm_gru_step(eps=1e-5, normalize=("input", "recurrent")):
    """haste's LayerNormGRU: h' = z h + (1 - z) n, n = tanh(x_n + r p_n), reset after the product.

    Weights: kernel [D, 3U], recurrent [U, 3U], bias [2, 3U] (row 0 with the input, row 1 with the
    recurrent part, both added after the normalisation, so r multiplies row 1 of n), then those that
    `normalize` asks for: input_gamma [3U], recurrent_gamma [3U]. Columns z, r, n. State (h,).

    One standardisation over all 3U columns. The GRU of Ba et al. 2016 is another one: there the 2U
    columns of the gates and the U columns of n are standardised apart, in both products.

    Peer: haste has the same columns and eps 1e-5, its biases as two vectors [3U] and its gammas as
    one array [2, 3U].
    """
    layout = ["kernel", "recurrent", "bias"]
    layout += [f"{part}_gamma" for part in ("input", "recurrent") if part in normalize]

    def step(weights, x, states):
        w = named(layout, weights)
        (h,) = states
        z_x = x @ w["kernel"]
        z_h = h @ w["recurrent"]
        if "input" in normalize:
            z_x = w["input_gamma"] * standardise(z_x, eps)
        if "recurrent" in normalize:
            z_h = w["recurrent_gamma"] * standardise(z_h, eps)
        xz, xr, xn = np.split(z_x + w["bias"][0], 3, axis=1)
        hz, hr, hn = np.split(z_h + w["bias"][1], 3, axis=1)
        z = sigmoid(xz + hz)
        r = sigmoid(xr + hr)
        n = np.tanh(xn + r * hn)
        h = z * h + (1 - z) * n
        return h, (h,)

    return step


def layer_norm_simple_step(eps=1e-5, activation="tanh"):
    """Ba et al. 2016, eq. 4: h' = f(gamma std(x W + h R) + b), one standardisation of the sum.

    Weights: kernel [D, U], recurrent [U, U], bias [U], gamma [U]. State (h,).

    Peer: TFA's LayerNormSimpleRNNCell is this, with eps 1e-5 (its LSTM has 1e-3), and lists gamma
    as a weight of an inner layer; its bias is the paper's b, there is no second beta.
    """
    f = ACTIVATIONS[activation]

    def step(weights, x, states):
        kernel, recurrent, bias, gamma = weights
        (h,) = states
        h = f(gamma * standardise(x @ kernel + h @ recurrent, eps) + bias)
        return h, (h,)

    return step


def indrnn_step(activation="relu"):
    """Li et al. 2018: h' = f(x W + u h + b), every unit sees only itself.

    Weights: kernel [D, U], recurrent [U], bias [U]. State (h,).

    Peer: haste's IndRNN is always tanh, where the paper argues for relu.
    """
    f = ACTIVATIONS[activation]

    def step(weights, x, states):
        kernel, recurrent, bias = weights
        (h,) = states
        h = f(x @ kernel + recurrent * h + bias)
        return h, (h,)

    return step


def nas_step(use_bias=False, projection=False):
    """Zoph and Le 2017, as TFA's NASCell numbers the columns: blocks 0-7 of U.

    Weights: kernel [D, 8U], recurrent [P or U, 8U], bias [8U], projection [U, P].
    States (h, c), h being the projected output.

    The bias belongs to the recurrent product, as in TFA. It matters in block 3 alone, where the two
    products are multiplied: relu(x_3 (h_3 + b_3)). In the other blocks they are added.

    Peer: TFA's states are in the other order, (c, h).
    """
    layout = ["kernel", "recurrent"] + ["bias"] * use_bias + ["projection"] * projection
    relu = ACTIVATIONS["relu"]

    def step(weights, x, states):
        w = named(layout, weights)
        h, c = states
        xs = x @ w["kernel"]
        hs = h @ w["recurrent"] + w.get("bias", 0)
        add = np.split(xs + hs, 8, axis=1)
        multiply = np.split(xs * hs, 8, axis=1)
        update = np.tanh(sigmoid(add[0]) * relu(add[1]))
        scale = np.tanh(sigmoid(add[2]) + relu(multiply[3]))
        left = np.tanh(np.tanh(add[4]) * sigmoid(add[5]))
        right = sigmoid(np.tanh(add[6]) + sigmoid(add[7]))
        c = np.tanh(update + c) * scale
        h = np.tanh(c * np.tanh(left + right))
        if projection:
            h = h @ w["projection"]
        return h, (h, c)

    return step


def esn_step(leaky=1.0, activation="tanh"):
    """Echo state network (Jaeger 2001), leaky: h' = (1 - leaky) h + leaky f(x W + h R + b).

    Weights: kernel [D, U], recurrent [U, U], bias [U], none of them trained. State (h,).

    The leak is outside of f, as in TFA's ESNCell and Lukosevicius 2012. How R is scaled is a matter
    of its initializer and no part of the step.
    """
    f = ACTIVATIONS[activation]

    def step(weights, x, states):
        kernel, recurrent, bias = weights
        (h,) = states
        h = (1 - leaky) * h + leaky * f(x @ kernel + h @ recurrent + bias)
        return h, (h,)

    return step


def min_gru_step():
    """Feng et al. 2024, minGRU, not in log space: h' = (1 - z) h + z cand, cand = x W + b linear.

    Weights: kernel [D, 2U], bias [2U]. Columns z, candidate. State (h,).

    z is the share of the new here: 1 - z of Keras' GRU.

    Peer: minGRU-pytorch has the paper's log-space version, with g(cand) for cand to keep h > 0,
    where g(v) = v + 0.5 for v >= 0 and sigmoid(v) below, no bias, and columns candidate, z.
    """

    def step(weights, x, states):
        kernel, bias = weights
        (h,) = states
        z, candidate = np.split(x @ kernel + bias, 2, axis=1)
        z = sigmoid(z)
        h = (1 - z) * h + z * candidate
        return h, (h,)

    return step


def min_lstm_step():
    """Feng et al. 2024, minLSTM, not in log space, its two gates scaled to the sum 1.

    h' = f/(f + i) h + i/(f + i) cand, cand = x W + b linear, no output gate and no second state.
    Weights: kernel [D, 3U], bias [3U]. Columns f, i, candidate. State (h,).

    Peer: minGRU-pytorch takes g(cand) for cand (see `min_gru_step`), no bias, and columns
    candidate, f, i.
    """

    def step(weights, x, states):
        kernel, bias = weights
        (h,) = states
        f, i, candidate = np.split(x @ kernel + bias, 3, axis=1)
        f, i = sigmoid(f), sigmoid(i)
        h = f / (f + i) * h + i / (f + i) * candidate
        return h, (h,)

    return step


def rg_lru_step(c=8.0):
    """De et al. 2024 (Griffin), eq. 1-4: h' = a h + sqrt(1 - a^2) (i x), a = sigmoid(Lambda)^(c r).

    Weights: kernel [U, 2U], bias [2U], Lambda [U]. Columns r (recurrence gate), i (input gate).
    The input has U features, it is not projected. State (h,).

    log a = -c r softplus(-Lambda): the paper's eq. 6 has lost the minus before Lambda.

    Peer: recurrentgemma's parameter is -Lambda, its gates have block-diagonal kernels, and at the
    first step of a document it has no h and 1 in place of sqrt(1 - a^2).
    """

    def step(weights, x, states):
        kernel, bias, Lambda = weights
        (h,) = states
        r, i = np.split(sigmoid(x @ kernel + bias), 2, axis=1)
        a = sigmoid(Lambda) ** (c * r)
        h = a * h + np.sqrt(1 - a**2) * (i * x)
        return h, (h,)

    return step
