"""A model in steps: who carries the states of its recurrent layers from one call to the next.

While a `Stream` is open, every recurrent layer that is called takes its states from it and leaves
its new ones there, in the order of the calls. So a model of any kind becomes a function of its
input and its states, without a second model that would have to share its weights.
"""

import contextlib
import contextvars

from keras_rnnx.layers import checks

_open = contextvars.ContextVar("keras_rnnx_stream", default=None)


class Stream:
    """States of the recurrent layers of one call of a model, in the order in which they run.

    states: a list of the states of each layer, or None for the first ones of a sequence.
    """

    def __init__(self, states=None):
        self.states = states
        self.layers = []
        self.last = []

    @contextlib.contextmanager
    def opened(self):
        token = _open.set(self)
        try:
            yield self
        finally:
            _open.reset(token)

    def read(self, layer, batch):
        checks.causal(layer)
        self.layers.append(layer)
        if self.states is None:
            return layer.get_initial_state(batch)
        return self.states[len(self.layers) - 1]

    def write(self, states):
        self.last.append(states)


def stream(layer):
    """The stream that is open, or None."""
    return _open.get()
