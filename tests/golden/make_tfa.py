"""Weights and answers of TensorFlow Addons 0.23.0, from its own code on tf_keras.

    pip install --no-deps --target FOLDER tensorflow-addons==0.23.0 typeguard==2.13.3
    PYTHONPATH=FOLDER python tests/golden/make_tfa.py

writes `tests/golden/tfa/NAME.npz`: "x" and what else went in, the arrays by their names after
"weights/", and what came out. `tests/test_interop_tfa.py` reads them.
"""

import importlib
import os
import sys
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"
for part in ("", ".src", ".src.engine", ".src.engine.keras_tensor"):
    # It was written when Keras 2 had the name `keras`.
    sys.modules[f"keras{part}"] = importlib.import_module(f"tf_keras{part}")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
import tensorflow_addons as tfa  # noqa: E402

B, T, S, D, M, U = 3, 7, 6, 4, 3, 5
FOLDER = Path(__file__).parent / "tfa"
CELLS = {
    "layer_norm_lstm": lambda: tfa.rnn.LayerNormLSTMCell(U),
    "layer_norm_simple_rnn": lambda: tfa.rnn.LayerNormSimpleRNNCell(U),
    "peephole_lstm": lambda: tfa.rnn.PeepholeLSTMCell(U),
    "nas": lambda: tfa.rnn.NASCell(U),
    "nas_projected": lambda: tfa.rnn.NASCell(U, projection=3, use_bias=True),
    "esn": lambda: tfa.rnn.ESNCell(U, connectivity=0.5),
}
ATTENTIONS = {
    "bahdanau": (tfa.seq2seq.BahdanauAttention, "LSTMCell", U, {}),
    "bahdanau_normalized": (tfa.seq2seq.BahdanauAttention, "GRUCell", U, {"normalize": True}),
    "luong": (tfa.seq2seq.LuongAttention, "GRUCell", U, {}),
    "luong_scaled": (tfa.seq2seq.LuongAttention, "LSTMCell", None, {"scale": True}),
    "bahdanau_monotonic": (tfa.seq2seq.BahdanauMonotonicAttention, "LSTMCell", 2, {}),
    "luong_monotonic": (tfa.seq2seq.LuongMonotonicAttention, "GRUCell", 2, {"scale": True}),
}
draw = np.random.default_rng(0)


def randomize(variables):
    for variable in variables:
        variable.assign(draw.normal(scale=0.5, size=variable.shape))


def arrays_of_wrapper(wrapper):
    """The arrays of an AttentionWrapper with one attention, by the names that from_tfa reads."""
    attention, cell = wrapper._attention_mechanisms[0], wrapper._cell
    arrays = {f"cell/{w.name.split('/')[-1]}": w.numpy() for w in cell.weights}
    for name in ("memory_layer", "query_layer"):
        if getattr(attention, name, None) is not None:
            arrays[f"{name}/kernel"] = getattr(attention, name).kernel.numpy()
    for name in ("attention_v", "attention_g", "attention_b", "attention_score_bias"):
        if getattr(attention, name, None) is not None:
            arrays[name] = getattr(attention, name).numpy()
    if getattr(attention, "scale_weight", None) is not None:  # LuongAttention
        arrays["attention_g"] = attention.scale_weight.numpy()
    if wrapper._attention_layers:
        arrays["attention_layer/kernel"] = wrapper._attention_layers[0].kernel.numpy()
    return arrays


def save(name, arrays, **others):
    weights = {f"weights/{n.removesuffix(':0')}": a for n, a in arrays.items()}
    np.savez(FOLDER / f"{name}.npz", **weights, **others)
    print(name, sorted(weights))


def main():
    FOLDER.mkdir(exist_ok=True)
    x = draw.normal(size=(B, T, D)).astype("float32")
    for name, make in CELLS.items():
        cell = make()
        layer = tf.keras.layers.RNN(cell, return_sequences=True)
        layer(x)
        randomize(cell.weights)
        save(name, {w.name: w.numpy() for w in cell.weights}, x=x, y=layer(x).numpy())
    for name, (mechanism, cell, size, options) in ATTENTIONS.items():
        memory = tf.constant(draw.normal(size=(B, S, M)), tf.float32)
        lengths = np.array([6, 2, 4])
        attention = mechanism(U, memory, memory_sequence_length=lengths, **options)
        cell = getattr(tf.keras.layers, cell)(U)
        wrapper = tfa.seq2seq.AttentionWrapper(cell, attention, attention_layer_size=size)
        wrapper(x[:, 0], wrapper.get_initial_state(batch_size=B, dtype=tf.float32))
        randomize(wrapper.weights)
        attention.setup_memory(memory, lengths)  # makes the keys of the new weights
        state = wrapper.get_initial_state(batch_size=B, dtype=tf.float32)
        outputs = []
        for t in range(T):
            output, state = wrapper(x[:, t], state)
            outputs.append(output.numpy())
        given = {"x": x, "memory": memory.numpy(), "lengths": lengths}
        save(name, arrays_of_wrapper(wrapper), **given, y=np.stack(outputs, axis=1))


if __name__ == "__main__":
    main()
