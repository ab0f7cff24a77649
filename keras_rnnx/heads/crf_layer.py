"""The CRF as a Keras layer: it gives tags, on which hangs what they were decoded from."""

import numbers
from typing import Any
from typing import Literal
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_rnnx.annotations import Array
from keras_rnnx.annotations import Initializer
from keras_rnnx.annotations import Regularizer
from keras_rnnx.annotations import Tensor
from keras_rnnx.heads import crf
from keras_rnnx.heads.crf_chain import check_options


class Evidence(NamedTuple):
    """What the tags of a `CRF` were decoded from.

    potentials: `[B, T, K]`. mask: `[B, T]` or None.
    learned: transitions, start and end scores. allowed: these with what is forbidden in them.
    constrained: whether what is forbidden counts in training. options: of `crf_log_norm`.
    """

    potentials: Any
    mask: Any
    learned: tuple
    allowed: tuple
    constrained: bool
    options: dict

    def log_likelihood(self, tags):
        """The log-probability `[B]` of `tags [B, T]`; where one is below 0 there is no step."""
        mask = crf.real_steps(tags, self.mask)
        among = self._chain(mask, self.allowed if self.constrained else self.learned)
        # Labels that break the rules would cost 1e30 were they scored with what is forbidden.
        score = crf.crf_score(tags, self.potentials, *self._chain(mask, self.learned))
        return score - crf.crf_log_norm(self.potentials, *among, **self.options)

    def marginals(self):
        """The probability `[B, T, K]` of each tag at each step, among sequences that may be."""
        chain = self._chain(self.mask, self.allowed)
        return crf.crf_marginals(self.potentials, *chain, **self.options)

    def decode(self):
        """The best tags `[B, T]` among those that may be."""
        return crf.crf_decode(self.potentials, *self._chain(self.mask, self.allowed))[0]

    def _chain(self, mask, scores):
        transitions, start, end = scores
        return transitions, mask, start, end


def evidence(tags):
    """The `Evidence` of the tags that a `CRF` gave."""
    found = getattr(tags, "_crf_evidence", None)
    if found is None:
        raise ValueError(without_evidence(tags))
    return found


def without_evidence(tags):
    return (
        f"Got predictions of shape {tuple(tags.shape)} and type {tags.dtype} that no CRF layer "
        "gave, expected its tags, untouched by other layers. Let the CRF be the last layer on "
        "the way to this output."
    )


@keras.saving.register_keras_serializable(package="keras_rnnx")
class CRF(keras.layers.Layer):
    """Conditional random field: the tags of a sequence, decided together.

    On top of a recurrent net where tags depend on their neighbours: names in a text, parts of
    speech. Lample et al., "Neural Architectures for Named Entity Recognition", NAACL 2016.

        x[t] = h[t] kernel + bias
        s(y) = start[y[1]] + sum_t x[t, y[t]] + sum_t>1 transitions[y[t-1], y[t]] + end[y[n]]

    The layer gives the tags y of the largest score. In training `CRFLoss` finds the scores beside
    them; nothing is decoded there, unless a metric looks at the tags.

    Args:
        tags: K, the number of tags.
        allowed: `[K + 1, K + 1]` booleans, which tag may follow which, as `allowed_transitions`
            makes them; None: all may. The last row is for the start, the last column for the end.
            What is not allowed is never decoded where another way is left.
        constrain_training: whether it also has no probability in training. Labels that break the
            rules are then scored without them, and their loss, no longer that of a probability,
            may be below 0.
        transitions: `[K, K]` numbers, score of a tag (second axis) after another (first axis), that
            are not learned; None: learned.
        use_kernel: whether the layer has kernel and bias. Without, its input are potentials.
        use_boundary: whether it has scores of the first and the last tag.
        jit_compile: `"auto"`, the loop compiles itself with XLA in training; or False.
        backward: `"full"`, or `"autodiff"` for second derivatives, slower.
        kernel_initializer, bias_initializer, transitions_initializer, boundary_initializer,
        kernel_regularizer, transitions_regularizer: as in layers of Keras.
        **kwargs: of `keras.layers.Layer`.

    Call arguments:
        inputs: `[B, T, D]`; with `use_kernel=False` potentials `[B, T, K]`.
        mask: `[B, T]` booleans of any pattern, True where a step is real.

    Returns:
        `[B, T]` int32 tags, -1 where a step is not real.

    Weights: `kernel [D, K]`, `bias [K]`, `transitions [K, K]`, `start [K]`, `end [K]`.

    Masks: the real steps are the chain, and those on both sides of a hole are neighbours. What
    masked steps hold, NaN included, changes neither tags, loss nor gradients. The mask goes along
    with the tags.

    From the potentials on everything is in float32 or float64.

    Raises:
        ValueError: for input, mask, `allowed` or `transitions` of another shape than expected.
        TypeError: if `tags` is no integer.

    Example:

    >>> import keras, numpy as np
    >>> from keras_rnnx.heads import CRF, CRFLoss
    >>> model = keras.Sequential([keras.Input((None, 4)), CRF(3)])
    >>> model.compile("adam", CRFLoss())
    >>> x, y = np.ones((2, 5, 4)), np.array(2 * [[0, 1, 2, 0, 1]])
    >>> _ = model.fit(x, y, verbose=0)
    >>> model.predict(x, verbose=0).shape
    (2, 5)
    """

    def __init__(
        self,
        tags: int,
        allowed: Array | None = None,
        constrain_training: bool = False,
        transitions: Array | None = None,
        use_kernel: bool = True,
        use_boundary: bool = True,
        jit_compile: Literal["auto", False] = "auto",
        backward: Literal["full", "autodiff"] = "full",
        kernel_initializer: Initializer = "glorot_uniform",
        bias_initializer: Initializer = "zeros",
        transitions_initializer: Initializer = "orthogonal",
        boundary_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        transitions_regularizer: Regularizer = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(tags, bool) or not isinstance(tags, numbers.Integral):
            raise TypeError(f"tags is {tags!r}, expected the number of tags, for example tags=9.")
        if tags < 1:
            raise ValueError(f"tags is {tags}, expected at least 1.")
        check_options(jit_compile, backward)
        self.tags = int(tags)
        self.allowed = _table("allowed", allowed, tags + 1, bool)
        self.constrain_training = constrain_training
        self.given_transitions = _table("transitions", transitions, tags, "float64")
        self.use_kernel, self.use_boundary = use_kernel, use_boundary
        self.jit_compile, self.backward = jit_compile, backward
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.transitions_initializer = keras.initializers.get(transitions_initializer)
        self.boundary_initializer = keras.initializers.get(boundary_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.transitions_regularizer = keras.regularizers.get(transitions_regularizer)
        self.supports_masking = True

    def build(self, input_shape):
        if len(input_shape) != 3 or input_shape[2] is None:
            raise ValueError(
                f"CRF {self.name!r} got input of shape {tuple(input_shape)}, expected (batch, "
                "time, features) with a known number of features. A recurrent layer below it needs "
                "return_sequences=True."
            )
        K, D = self.tags, input_shape[2]
        self.input_spec = keras.layers.InputSpec(ndim=3, axes={-1: D})
        if self.use_kernel:
            self.kernel = self.add_weight(
                shape=(D, K),
                initializer=self.kernel_initializer,
                regularizer=self.kernel_regularizer,
                name="kernel",
            )
            self.bias = self._add("bias", (K,), self.bias_initializer)
        elif D != K:
            raise ValueError(
                f"{self.name} has use_kernel=False and got input of shape {tuple(input_shape)}, "
                f"expected potentials of {K} tags, (batch, time, {K}). Leave use_kernel=False out."
            )
        if self.given_transitions is None:
            self.transitions = self._add(
                "transitions",
                (K, K),
                self.transitions_initializer,
                regularizer=self.transitions_regularizer,
            )
        if self.use_boundary:
            self.start = self._add("start", (K,), self.boundary_initializer)
            self.end = self._add("end", (K,), self.boundary_initializer)

    def _add(self, name, shape, initializer, **options):
        # Scores are not rounded to half precision.
        return self.add_weight(
            shape=shape, initializer=initializer, name=name, autocast=False, **options
        )

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        inputs = tf.convert_to_tensor(inputs)
        mask = None if mask is None else tf.cast(mask, tf.bool)
        found = self._evidence(self._potentials(inputs), mask)
        tags = found.decode()
        tags._crf_evidence = found
        return tags

    def _potentials(self, inputs):
        if not self.use_kernel:
            return crf.wide(inputs)
        x = tf.cast(inputs, self.compute_dtype)
        x = crf.wide(tf.matmul(x, tf.cast(self.kernel, x.dtype)))
        return x + tf.cast(self.bias, x.dtype)

    def _evidence(self, x, mask):
        K, zeros = self.tags, tf.zeros([self.tags], x.dtype)
        given = self.given_transitions
        transitions = tf.cast(self.transitions if given is None else given, x.dtype)
        start, end = (self.start, self.end) if self.use_boundary else (zeros, zeros)
        learned = transitions, tf.cast(start, x.dtype), tf.cast(end, x.dtype)
        allowed = learned
        if self.allowed is not None:
            a = self.allowed
            pairs = zip((a[:K, :K], a[K, :K], a[:K, K]), learned)
            allowed = tuple(tf.where(may, score, crf.FORBIDDEN) for may, score in pairs)
        options = {"jit_compile": self.jit_compile, "backward": self.backward}
        return Evidence(x, mask, learned, allowed, self.constrain_training, options)

    def compute_mask(self, inputs, mask=None):
        return mask

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[:2])

    def compute_output_spec(self, inputs, mask=None):
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), "int32")

    def get_config(self):
        plain = ("tags", "constrain_training", "use_kernel", "use_boundary")
        plain += ("jit_compile", "backward")
        listed = lambda table: None if table is None else table.tolist()
        names = ("kernel", "bias", "transitions", "boundary")
        write = keras.initializers.serialize
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in plain},
            "allowed": listed(self.allowed),
            "transitions": listed(self.given_transitions),
            **{f"{n}_initializer": write(getattr(self, f"{n}_initializer")) for n in names},
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "transitions_regularizer": keras.regularizers.serialize(self.transitions_regularizer),
        }


def _table(name, value, size, dtype):
    """A square table of the configuration, or None."""
    if value is None:
        return None
    value = np.asarray(value, dtype)
    if value.shape != (size, size):
        raise ValueError(
            f"{name} of a CRF has the shape {value.shape}, expected {(size, size)} for "
            f"{size - (name == 'allowed')} tags."
        )
    return value
