"""The layers under test.

They are those of keras_rnnx. With RNNX_TEST_SUBJECT=keras the same tests run against Keras' own
layers: so one sees that a test is right where Keras is right, and that it can fail where Keras
is known to be wrong. Arguments that only keras_rnnx has are then left out.
"""

import contextlib
import os
import types

import keras

OWN_OPTIONS = ("backward", "jit_compile", "batch_parts", "return_ragged", "save_states")
NAMES = ("LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "LSTMCell", "GRUCell", "SimpleRNNCell")
IS_KERAS = os.environ.get("RNNX_TEST_SUBJECT") == "keras"


def _without_own_options(constructor):
    def make(*args, **kwargs):
        return constructor(*args, **{k: v for k, v in kwargs.items() if k not in OWN_OPTIONS})

    return make


if IS_KERAS:
    rnnx = types.SimpleNamespace(
        portable=contextlib.nullcontext,
        **{name: _without_own_options(getattr(keras.layers, name)) for name in NAMES},
    )
else:
    import keras_rnnx as rnnx  # noqa: F401
