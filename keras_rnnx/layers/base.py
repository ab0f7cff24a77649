"""How a layer over sequences is called: the base of RNN, Bidirectional and Stack."""

from typing import Any

import keras

from keras_rnnx.annotations import States
from keras_rnnx.annotations import Tensor
from keras_rnnx.layers import lengths


class SequenceLayer(keras.layers.Layer):
    """Base: takes `inputs` for `sequences`, leaves out what is None, and gives outputs as asked.

    A subclass sets `return_sequences` and `return_ragged`.
    """

    def __call__(
        self,
        sequences: Tensor | None = None,
        initial_state: States | None = None,
        mask: Tensor | None = None,
        training: bool | None = None,
        inputs: Tensor | None = None,
        **given: Any,
    ) -> Any:
        """See the class. given: further call arguments, such as `sequence_length`."""
        sequences = inputs if sequences is None else sequences
        if sequences is None:
            raise TypeError(f"{self.name} was called without an input: pass `sequences`.")
        self.check_call(sequences, initial_state, mask)
        return super().__call__(
            sequences,
            initial_state=initial_state,
            mask=mask,
            training=training,
            **{name: value for name, value in given.items() if value is not None},
        )

    def check_call(
        self, sequences: Tensor, initial_state: States | None, mask: Tensor | None
    ) -> None:
        """Refuse arguments whose shapes do not go together; here none."""

    def as_asked(self, output: Tensor, mask: Tensor | None, lengths_given: bool) -> Tensor:
        """Outputs `[B, T, ...]` as ragged tensors, or with the mask that their lengths make."""
        if not self.return_sequences:
            return output
        if self.return_ragged:
            return keras.tree.map_structure(lambda a: lengths.ragged(a, mask), output)
        if lengths_given:
            lengths.attach(mask, output)
        return output
