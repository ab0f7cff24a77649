"""One graph for every device: a pair of functions, of which TensorFlow takes one.

A call of cuDNN has no kernel on a CPU, and a loop is slow on a GPU. Two functions that say that
they implement the same, each with the device that it prefers, may stand in one graph: the graph
calls the one for the CPU, the other lies beside it, and TensorFlow's optimiser changes the call
where the device is a GPU. On a CPU the operation of cuDNN is then never looked at.

Axes: T time (leading), B batch, D input features, U units.
"""

import uuid

import tensorflow as tf

from keras_rnnx.engine import cudnn

# Up to so many rows the LSTM kernel of a CPU is faster than a loop of single operations
# (`python -m benchmarks.serving`); beyond, its products cost more than the loop's overhead.
ROWS = 4


def run(kind, x, weights, states, loop, *, mask=None, last_only, zero_masked):
    """Outputs and last states of a plain LSTM or GRU on whatever device the graph will run.

    Args:
        kind: "lstm" or "gru".
        x: `[T, B, D]`.
        weights: `{name: tensor}` as Keras lays them out.
        states: tuple of `[B, U]`.
        loop: function `(x, weights, states, mask) -> (outputs, states)`, the same in a loop of
            stock operations: what a CPU does with many rows, and the backward pass.
        mask, last_only, zero_masked: as of `engine.run`.
    """
    given = (x, dict(weights), tuple(states), [] if mask is None else [mask])
    masking = {"last_only": last_only, "zero_masked": zero_masked}

    def in_kernel(x, weights, states, mask, kernel):
        (output,), (last,) = cudnn.run_masked(
            kind, x, [weights], [states], mask=mask[0] if mask else None, kernel=kernel, **masking
        )
        return output, last

    def in_loop(x, weights, states, mask):
        return loop(x, weights, states, mask[0] if mask else None)

    def on_cpu(x, weights, states, mask):
        now = lambda: _flat(in_loop(x, weights, states, mask))
        if kind != "lstm" or x.dtype != tf.float32:
            return now()
        sizes = tf.shape(x)
        few = (sizes[1] <= ROWS) & (sizes[0] > 0)
        return tf.cond(few, lambda: _flat(in_kernel(x, weights, states, mask, _block_lstm)), now)

    def on_gpu(x, weights, states, mask):
        return _flat(in_kernel(x, weights, states, mask, cudnn.run))

    def flat(function):
        return lambda *tensors: function(*tf.nest.pack_sequence_as(given, tensors))

    @tf.custom_gradient
    def call(*tensors):
        results = _pair(kind, flat(on_cpu), flat(on_gpu), tensors)

        def grad(*d_results):
            floats = [a for a in tensors if a.dtype.is_floating]
            with tf.GradientTape() as tape:
                tape.watch(floats)
                again = _flat(flat(in_loop)(*tensors))
            found = tape.gradient(again, floats, output_gradients=d_results)
            return [*found, *[None] * (len(tensors) - len(floats))]  # the mask comes last

        return results, grad

    output, *last = call(*tf.nest.flatten(given))
    return output, tuple(last)


def _pair(kind, on_cpu, on_gpu, tensors):
    """The call of one of two functions that compute the same."""
    # Of a name that begins with "lstm_" LiteRT's converter would think that it knows it.
    name = f"keras_rnnx_{kind}_{uuid.uuid4()}"

    def marked(function, device):
        attributes = {"api_implements": name, "api_preferred_device": device}
        return tf.function(function, autograph=False, experimental_attributes=attributes)

    specs = [tf.TensorSpec(a.shape, a.dtype) for a in tensors]
    cpu = marked(on_cpu, "CPU").get_concrete_function(*specs)
    gpu = marked(on_gpu, "GPU").get_concrete_function(*specs)
    gpu.add_to_graph(tf.compat.v1.get_default_graph())
    results = cpu(*tensors)
    for result, spec in zip(results, gpu.structured_outputs, strict=True):
        result.set_shape(spec.shape)  # a loop knows less of them
    return results


def _flat(results):
    output, states = results
    return output, *states


def _block_lstm(kind, x, cells, states, lengths=None, training=False, directions=1):
    """`cudnn.run` of one LSTM with the kernel that CPUs have for it, gates in Keras' order.

    It takes one length for all rows: each row's last states are read where its own ends.
    """
    ((h, c),), (weights,) = states, cells
    T, B = tf.shape(x)[0], tf.shape(x)[1]
    no_peephole = tf.zeros([h.shape[-1]], x.dtype)
    found = tf.raw_ops.BlockLSTMV2(
        seq_len_max=tf.cast(T, tf.int64),
        x=x,
        cs_prev=c,
        h_prev=h,
        w=tf.concat([weights["kernel"], weights["recurrent_kernel"]], axis=0),
        wci=no_peephole,
        wcf=no_peephole,
        wco=no_peephole,
        b=weights.get("bias", tf.zeros([4 * h.shape[-1]], x.dtype)),
    )
    every = found.h, found.cs
    if lengths is None:
        return found.h, [tuple(a[-1] for a in every)]
    places = tf.stack([tf.maximum(lengths - 1, 0), tf.range(B)], axis=-1)
    real = (lengths > 0)[:, None]
    last = [tf.where(real, tf.gather_nd(a, places), old) for a, old in zip(every, (h, c))]
    return found.h, [tuple(last)]
