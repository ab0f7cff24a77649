"""LSTM and GRU over a whole sequence, layers and directions together, as one call of cuDNN.

    (outputs,), (states,) = run_masked("lstm", x, [weights], [states], training=True, mask=mask)

cuDNN computes one kind of LSTM and one of GRU, on NVIDIA's GPUs, and reads all weights from one
flat buffer: `obstacle` says what it cannot compute, `pack` makes the buffer.

Axes: T time (leading), B batch, D input features, U units, G gates.
"""

import functools

import keras
import tensorflow as tf

from keras_rnnx.cells import places
from keras_rnnx.engine.backward import Full
from keras_rnnx.engine.backward import read
from keras_rnnx.engine import masking
from keras_rnnx.engine.masking import select
from keras_rnnx.engine.masking import swap_time_and_batch

# Each gate of cuDNN, in its order, by its place among the gates of Keras.
GATES = {kind: places(kind, "cudnn") for kind in ("lstm", "gru")}
# TensorFlow computes bfloat16 in float32 here: right, but no faster.
DTYPES = ("float16", "bfloat16", "float32", "float64")


def obstacle(
    kind,
    *,
    activation,
    recurrent_activation,
    dtype,
    reset_after=True,
    unroll=False,
    backward="full",
    portable=False,
):
    """Why cuDNN cannot run a layer, or None if it can: a sentence.

    Args:
        kind: "lstm", "gru" or what else the cell calls itself.
        activation, recurrent_activation: the functions of the cell.
        dtype: name of the dtype of the computation.
        reset_after: of a GRU, whether the reset gate acts after the recurrent product.
        unroll, backward: options of the layer.
        portable: whether the graph shall run anywhere.
    """
    if kind not in GATES:
        return f"cuDNN computes LSTM and GRU, not {kind}."
    if activation is not keras.activations.tanh:
        return f"cuDNN computes with activation tanh only, not {_name(activation)}."
    if recurrent_activation is not keras.activations.sigmoid:
        name = _name(recurrent_activation)
        return f"cuDNN computes with recurrent activation sigmoid only, not {name}."
    if not reset_after:
        return "cuDNN computes the GRU with reset_after=True only."
    if unroll:
        return "The layer has unroll=True, and cuDNN repeats the step by itself."
    if backward == "autodiff":
        return 'The layer has backward="autodiff", and cuDNN gives first derivatives only.'
    if read(backward) != Full():
        return f"The layer has backward={backward}, and cuDNN goes back over the whole sequence."
    if dtype not in DTYPES:
        return f"cuDNN computes in {', '.join(DTYPES)}, not in {dtype}."
    if portable:
        return "keras_rnnx.portable() is on, and a graph with cuDNN in it runs on GPUs only."
    return None


@functools.cache
def failure():
    """Why there is no cuDNN here, or None."""
    # MIOpen, which serves the same operation on AMD's GPUs, has the gates in another order.
    if not tf.sysconfig.get_build_info().get("is_cuda_build"):
        return "This TensorFlow is built without CUDA, so there is no cuDNN."
    if not tf.config.list_physical_devices("GPU"):
        return "There is no GPU here, so there is no cuDNN."
    return None


def pack(kind, cells):
    """The weights of `cells` as cuDNN's flat buffer.

    First come the matrices, transposed, of all cells, then the biases of all cells; for each cell
    those of the input go before the recurrent ones. Cells are layers from bottom to top, and
    where there are two directions the forward cell of a layer stands before the backward one.

    Args:
        kind: "lstm" or "gru".
        cells: list of `{name: tensor}` as Keras lays them out: kernel `[D, G*U]`,
            recurrent_kernel `[U, G*U]` and perhaps bias, `[4U]` (LSTM) or `[2, 3U]` (GRU).
    """
    names = ("kernel", "recurrent_kernel")
    matrices = [_in_order(kind, tf.transpose(cell[name])) for cell in cells for name in names]
    biases = [_in_order(kind, bias) for cell in cells for bias in _two_biases(cell)]
    return tf.concat([tf.reshape(part, [-1]) for part in matrices + biases], axis=0)


def run_masked(
    kind,
    x,
    cells,
    states,
    *,
    directions=1,
    training=False,
    mask=None,
    steps=None,
    last_only=False,
    zero_masked=False,
    kernel=None,
):
    """As `run`, with a mask `[T, B]` of any pattern, and the arguments of `keras_rnnx.engine.run`.

    The real steps of each row are gathered at its start, and the outputs go back to where they
    belong: since nothing happens in a masked step, the recurrence is the same. With two directions
    and a mask, outputs of all steps need `zero_masked`. kernel: a function in place of `run`.

    Returns:
        The outputs of each direction of the last layer, a list of `[T, B, U]`, all in the order of
        x, or of `[B, U]`, each direction's last; and the last states of each cell.
    """
    mask, lengths = masking.with_steps(mask, steps, x), None
    if mask is not None:
        x, lengths = masking.real_steps_first(x, mask)
    compute = kernel or run
    outputs, last = compute(kind, x, cells, states, lengths, training, directions)
    if not last_only:
        outputs = tf.split(outputs, directions, axis=-1)
        if mask is not None:
            outputs = [masking.back_to_places(one, mask, zero_masked) for one in outputs]
        return outputs, last
    outputs = [of_cell[0] for of_cell in last[-directions:]]  # h, which is the output
    if mask is not None:
        real = (mask[-1], mask[0]) if zero_masked else (lengths > 0, lengths > 0)
        pairs = zip(real, outputs)
        outputs = [select(keep, h, tf.zeros([], x.dtype)) for keep, h in pairs]
    return outputs, last


def run(kind, x, cells, states, lengths=None, training=False, directions=1):
    """Outputs `[T, B, directions * U]` of the last layer and last states of all cells.

    Args:
        kind: "lstm" or "gru".
        x: `[T, B, D]`, zeros in padded steps.
        cells: the weights of each cell, see `pack`, in whatever dtype.
        states: for each cell `(h, c)` or `(h,)`, `[B, U]` each, before the first step.
        lengths: `[B]` int32, how many steps of each row are real, all of them before the padding;
            0 is allowed. None if all steps are real.
        training: whether to keep what the backward pass needs. If not, and a backward pass
            comes, it runs forward again.
        directions: 2 if every second cell goes backward in time.

    Outputs of padded steps are zeros; the last states are those after a row's last real step.
    """
    compute = _call if training else _call_without_saving
    params = tf.cast(pack(kind, cells), x.dtype)
    of_all_cells = zip(*states)  # h of all cells, then c
    if lengths is None:
        full = tf.fill([tf.shape(x)[1]], tf.shape(x)[0])
        stacked = [tf.stack(s, axis=0) for s in of_all_cells]
        outputs, *last = compute(kind, directions, full, True, x, params, *stacked)
        return outputs, _by_cell(last, len(cells), axis=0)
    # Time-major, the kernel would keep the descriptor for padding or the one without, as its first
    # batch needs it, and a padded batch after a full one fails (tensorflow/tensorflow#41630).
    # Batch-major it is always ready for padding.
    x = swap_time_and_batch(x)
    stacked = [tf.stack(s, axis=1) for s in of_all_cells]
    # cuDNN refuses rows without a step: they take one, and nothing of it is used.
    lengths_or_1 = tf.maximum(lengths, 1)
    outputs, *last = compute(kind, directions, lengths_or_1, False, x, params, *stacked)
    real = lengths > 0
    outputs = select(real, outputs, tf.zeros([], x.dtype))
    last = [select(real, new, old) for new, old in zip(last, stacked, strict=True)]
    return swap_time_and_batch(outputs), _by_cell(last, len(cells), axis=1)


def _by_cell(states, cells, axis):
    """`[..., cells, ...]` of h and perhaps of c, as a tuple for each cell."""
    return list(zip(*(tf.unstack(state, cells, axis=axis) for state in states)))


def _call(kind, directions, lengths, time_major, x, params, *states, training=True):
    """The operation: outputs, laid out as `x` is, and last states of all cells."""
    results = tf.raw_ops.CudnnRNNV3(
        input=x,
        input_h=states[0],
        # A GRU has no c, and its kernel leaves that gradient undefined: a constant takes it.
        input_c=states[1] if kind == "lstm" else tf.zeros([], x.dtype),
        params=params,
        sequence_lengths=lengths,
        rnn_mode=kind,
        direction=("unidirectional", "bidirectional")[directions - 1],
        is_training=training,
        time_major=time_major,
    )
    return results.output, *(results.output_h, results.output_c)[: len(states)]


def _call_without_saving(kind, directions, lengths, time_major, *tensors):
    """The operation for inference, which TensorFlow refuses to differentiate: if a backward pass
    comes, it runs forward again."""
    options = (kind, directions, lengths, time_major)

    @tf.custom_gradient
    def infer(*tensors):
        def grad(*d_results):
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                results = _call(*options, *tensors)
            return tape.gradient(results, tensors, output_gradients=d_results)

        return _call(*options, *tensors, training=False), grad

    return infer(*tensors)


def _in_order(kind, rows):
    """`rows [G*U, ...]` with the gates in cuDNN's order."""
    order = GATES[kind]
    if list(order) == sorted(order):
        return rows
    gates = tf.split(rows, len(order))
    return tf.concat([gates[place] for place in order], axis=0)


def _two_biases(cell):
    """The biases `[G*U]` of the input and of the recurrent product; cuDNN always adds both."""
    kernel, bias = cell["kernel"], cell.get("bias")
    if bias is not None and bias.shape.rank == 2:
        return tf.unstack(bias, num=2)
    zeros = tf.zeros([kernel.shape[-1]], kernel.dtype)
    return [zeros if bias is None else bias, zeros]


def _name(activation):
    return getattr(activation, "__name__", repr(activation))
