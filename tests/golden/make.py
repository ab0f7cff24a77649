"""Make the golden files of this version: saved models with what they answered.

    python tests/golden/make.py

writes `tests/golden/<version>/NAME.keras` and `NAME.npz` where there is none yet. Made once and
then never again: later versions must load them and give the same numbers (`tests/test_golden.py`).
"""

import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
import keras
import numpy as np

import keras_rnnx as rnnx

LAYERS = {
    "lstm": lambda: rnnx.LSTM(5, return_sequences=True, dropout=0.2, recurrent_dropout=0.1, seed=3),
    "gru": lambda: rnnx.GRU(5, return_state=True, go_backwards=True),
    "gru_reset_before": lambda: rnnx.GRU(5, reset_after=False, use_bias=False),
    "simple_rnn": lambda: rnnx.SimpleRNN(5, activation="relu", zero_output_for_mask=True),
    "bidirectional": lambda: rnnx.Bidirectional(rnnx.LSTM(5, return_sequences=True), "sum"),
    "stack": lambda: rnnx.RNN([rnnx.LSTMCell(5), rnnx.GRUCell(3)], return_sequences=True),
    "any_batch": lambda: rnnx.LSTM(5, stateful="any_batch", jit_compile=False),
    "lstm_variants": lambda: rnnx.LSTM(
        5, peephole=True, coupled=True, projection_units=3, cell_clip=1.0, projection_clip=0.5
    ),
    "zoneout": lambda: rnnx.LSTM(5, return_sequences=True, zoneout=(0.1, 0.5), weight_dropout=0.2),
    "variational_lstm": lambda: rnnx.VariationalLSTM(5, recurrent_dropout_mode="gates"),
    "variational_gru": lambda: rnnx.VariationalGRU(5, dropout_mode="step"),
    "layer_norm_lstm": lambda: rnnx.LayerNormLSTM(5, return_sequences=True),
    "layer_norm_lstm_carried": lambda: rnnx.LayerNormLSTM(
        5, normalize=("recurrent", "cell"), epsilon=1e-3, carry="normalized"
    ),
    "layer_norm_gru": lambda: rnnx.LayerNormGRU(5, return_sequences=True),
    "layer_norm_simple_rnn": lambda: rnnx.LayerNormSimpleRNN(5),
    "indrnn": lambda: rnnx.IndRNN(5, return_sequences=True),
    "nas": lambda: rnnx.NAS(5, use_bias=True, projection_units=3),
    "esn": lambda: rnnx.ESN(5, connectivity=0.9, leaky=0.5, return_sequences=True),
    "min_gru": lambda: rnnx.MinGRU(5, return_sequences=True),
    "min_lstm": lambda: rnnx.MinLSTM(5),
    "rg_lru": lambda: rnnx.RGLRU(4, return_sequences=True),
}


def main():
    folder = Path(__file__).parent / rnnx.__version__
    folder.mkdir(exist_ok=True)
    for seed, (name, make) in enumerate(LAYERS.items()):
        if (folder / f"{name}.keras").exists():
            continue
        keras.utils.set_random_seed(seed)
        rng = np.random.default_rng(seed)
        inputs = keras.Input((None, 4))
        masked = keras.layers.Masking()(inputs)
        model = keras.Model(inputs, make()(masked), name=name)
        model.set_weights([rng.normal(scale=0.5, size=w.shape) for w in model.get_weights()])
        x = rng.normal(size=(3, 7, 4)).astype("float32")
        x[1, 4:] = 0  # masked by Masking
        outputs = keras.tree.flatten(model.predict(x, verbose=0))
        model.save(folder / f"{name}.keras")
        arrays = {f"output_{i}": output for i, output in enumerate(outputs)}
        np.savez(folder / f"{name}.npz", x=x, **arrays)


if __name__ == "__main__":
    main()
