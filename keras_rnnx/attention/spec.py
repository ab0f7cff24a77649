"""One step of a cell with attention, and all steps at once where the recurrence allows it."""

import dataclasses
from typing import Any

import tensorflow as tf

from keras_rnnx.cells import Around
from keras_rnnx.cells import Weight
from keras_rnnx.cells import affine
from keras_rnnx.engine import bucket
from keras_rnnx.regularization import draw_normal


@dataclasses.dataclass(frozen=True)
class AttentionSpec(Around):
    """A spec whose step attends to memories.

        query="output"      h, s = cell([x, a'], s)         a' only with input feeding
                            c = attend(h)
        query="state"       c = attend(s[0])
                            h, s = cell([x, c], s)
        both                a = activation([h, c] Wa)       or c, without an attention size

    The product of what is fed is added to the cell's projected input: the cell's kernel has more
    rows for it, which `AttentionCell.tensors` hands over as "feed_kernel".
    """

    attentions: tuple = ()
    memory_sizes: tuple | None = None  # known once the cell is built
    input_feeding: bool = False
    attention_size: int | None = None
    attention_activation: Any = None
    query: str = "output"
    output_mode: str = "attention"
    return_alignments: bool = False
    training: bool = False

    # -- sizes and weights -------------------------------------------------------------------

    @property
    def constant_names(self):
        return (*self.spec.constant_names, "memory")

    @property
    def has_candidate(self):
        return self.spec.has_candidate

    @property
    def gates(self):
        return self.spec.gates

    @property
    def context_size(self):
        return None if self.memory_sizes is None else sum(self.memory_sizes)

    @property
    def vector_size(self):
        """Size of the attention vector."""
        return self.attention_size or self.context_size

    @property
    def query_size(self):
        return self.spec.output_size if self.query == "output" else self.spec.state_sizes[0]

    @property
    def feed_size(self):
        """How many features beside the input enter the cell."""
        if self.query == "state":
            return self.context_size
        return self.vector_size if self.input_feeding else 0

    @property
    def state_sizes(self):
        fed = (self.vector_size,) if self.input_feeding else ()
        kept = sum(len(attention.state_names) for attention in self.attentions)
        return (*self.spec.state_sizes, *fed, *(kept * (None,)))

    @property
    def output_size(self):
        cell, vector = self.spec.output_size, self.vector_size
        unknown = vector is None
        size = {
            "cell": cell,
            "attention": vector,
            "both": None if unknown else cell + vector,
        }[self.output_mode]
        if not self.return_alignments:
            return size
        return [size, *(len(self.attentions) * [None])]

    def own_weights(self):
        """The weights beside those of the cell."""
        weights = {}
        sizes = zip(self.attentions, self.memory_sizes, self.suffixes, strict=True)
        for attention, memory_size, suffix in sizes:
            found = attention.weights(self.query_size, memory_size)
            weights.update({name + suffix: weight for name, weight in found.items()})
        if self.attention_size:
            rows = self.spec.output_size + self.context_size
            weights["attention_kernel"] = Weight((rows, self.attention_size), "kernel")
        return weights

    def weights(self, input_dim):
        return {**self.spec.weights(input_dim + self.feed_size), **self.own_weights()}

    @property
    def suffixes(self):
        """What is appended to names, for each attention."""
        count = len(self.attentions)
        return [""] if count == 1 else [f"_{k}" for k in range(1, count + 1)]

    def _of(self, named, suffix):
        """Those of the tensors that belong to one attention, under their own names."""
        if not suffix:
            return named
        return {k.removesuffix(suffix): v for k, v in named.items() if k.endswith(suffix)}

    # -- once a sequence ---------------------------------------------------------------------

    def prepare(self, weights):
        prepared = dict(self.spec.prepare(weights))
        for attention, suffix in zip(self.attentions, self.suffixes):
            mine = {n: weights[n] for n in self.own_weights() if n != "attention_kernel"}
            found = attention.prepare(self._of(mine, suffix))
            # The keys are made beforehand, once.
            found = {n: w for n, w in found.items() if n != "memory_kernel"}
            prepared.update({name + suffix: weight for name, weight in found.items()})
        for name in ("attention_kernel", "feed_kernel"):
            if name in weights:
                prepared[name] = weights[name]
        return prepared

    def enter(self, weights, given, states, seed, steps, compiled):
        """Memories as the step gets them, with their keys, states as wide as they are, and noise.

        In a compiled loop memories of unknown size are padded to a bucket, as sequences are.
        """
        given = dict(given)
        memories, masks = given.pop("memory"), given.pop("memory_mask")
        made = given.pop("keys", None)
        constants, states, drawn = given, list(states), []
        kept = len(states) - sum(len(a.state_names) for a in self.attentions)
        for k, (attention, suffix) in enumerate(zip(self.attentions, self.suffixes)):
            memory, mask = memories[k], masks[k]
            if made is None:
                memory, mask = padded(memory, mask) if compiled else (memory, mask)
                if mask is not None:  # what padding holds enters no product, NaN included
                    memory = tf.where(mask[..., None], memory, tf.zeros_like(memory))
                keys = attention.keys(self._of(weights, suffix), memory)
            else:
                keys = made[k]
            found = {"memory": memory, "keys": keys, "mask": mask}
            found = {name: value for name, value in found.items() if value is not None}
            constants.update({name + suffix: value for name, value in found.items()})
            shape = tf.shape(memory)[:2]
            for i in range(kept, kept + len(attention.state_names)):
                states[i] = _as_wide(states[i], memory)
            kept += len(attention.state_names)
            if self._noisy(attention):
                # Drawn as wide as a padded memory, so that padding changes no number.
                noise = draw_normal(seed(), [steps, shape[0], bucket(shape[1])], memory.dtype)
                noise = noise[:, :, : shape[1]]
                drawn.append(attention.alignment.sigmoid_noise * noise)
        return ((tuple(drawn),) if drawn else ()), constants, tuple(states)

    def leave(self, given, output, states):
        """Alignments and what is kept of them, without the padding."""
        lengths = [tf.shape(memory)[1] for memory in given["memory"]]
        known = [memory.shape[1] for memory in given["memory"]]
        cut = lambda a, k: a[..., : known[k] or lengths[k]]
        if self.return_alignments:
            output = (output[0], *(cut(a, k) for k, a in enumerate(output[1:])))
        states, position = list(states), len(states)
        for k in reversed(range(len(self.attentions))):
            for _ in self.attentions[k].state_names:
                position -= 1
                states[position] = cut(states[position], k)
        return output, tuple(states)

    def _noisy(self, attention):
        noise = attention.is_monotonic and attention.alignment.mode != "hard"
        return self.training and noise and attention.alignment.sigmoid_noise > 0

    @property
    def noisy(self):
        return any(map(self._noisy, self.attentions))

    def project(self, weights, x):
        x, noise = x if self.noisy else (x, None)
        projected = self.spec.project(weights, x)
        return (projected, noise) if self.noisy else projected

    # -- steps -------------------------------------------------------------------------------

    def step(self, weights, product, x, states, constants):
        x, noise = x if self.noisy else (x, ())
        count = len(self.spec.state_sizes)
        inner, kept = states[:count], states[count:]
        if self.query == "state":
            context, alignments, kept = self._attend(
                weights, product, inner[0], constants, kept, noise
            )
            x = self._fed(product, context, x)
            h, inner = self.spec.step(weights, product, x, inner, constants)
        else:
            if self.input_feeding:
                x, kept = self._fed(product, kept[0], x), kept[1:]
            h, inner = self.spec.step(weights, product, x, inner, constants)
            context, alignments, kept = self._attend(weights, product, h, constants, kept, noise)
        vector = self._vector(product, h, context)
        fed = (vector,) if self.input_feeding else ()
        return self._output(h, vector, alignments), (*inner, *fed, *kept)

    def after(self, weights, product, h, constants):
        """The outputs of steps whose cell's outputs are `h [..., B, U]`: one, or all at once."""
        context, alignments, _ = self._attend(weights, product, h, constants, (), ())
        return self._output(h, self._vector(product, h, context), alignments)

    def _attend(self, weights, product, query, constants, kept, noise):
        noise, contexts, alignments, new = iter(noise), [], [], []
        for attention, suffix in zip(self.attentions, self.suffixes):
            named = lambda name, h, suffix=suffix, **options: product(name + suffix, h, **options)
            count = len(attention.state_names)
            context, a, states = attention.attend(
                self._of(weights, suffix),
                named,
                query,
                self._of(constants, suffix),
                kept[:count],
                next(noise) if self._noisy(attention) else None,
            )
            kept = kept[count:]
            contexts.append(context)
            alignments.append(a)
            new.extend(states)
        context = contexts[0] if len(contexts) == 1 else tf.concat(contexts, axis=-1)
        return context, tuple(alignments), tuple(new)

    def _fed(self, product, fed, x):
        """The projected input `x`, the first of its tree, with the product of what is fed."""
        flat = tf.nest.flatten(x)
        flat[0] = product("feed_kernel", fed, plus=flat[0])
        return tf.nest.pack_sequence_as(x, flat)

    def _vector(self, product, h, context):
        if not self.attention_size:
            return context
        return self.attention_activation(
            product("attention_kernel", tf.concat([h, context], axis=-1))
        )

    def _output(self, h, vector, alignments):
        if self.output_mode == "both":
            output = tf.concat([h, vector], axis=-1)
        else:
            output = {"cell": h, "attention": vector}[self.output_mode]
        return (output, *alignments) if self.return_alignments else output


class AllSteps:
    """`product` over all steps at once: `h [T, B, K]` by a weight, or by each sample's constant."""

    def __init__(self, weights, constants):
        self.weights, self.constants = weights, constants

    def __call__(self, name, h, transpose=False):
        if name in self.weights:
            return affine(h, tf.transpose(self.weights[name]) if transpose else self.weights[name])
        equation = "tbn,bkn->tbk" if transpose else "tbk,bkn->tbn"
        return tf.einsum(equation, h, self.constants[name])


def padded(memory, mask):
    """A memory of unknown size and its mask, padded to a bucket; a known one as it is."""
    if memory.shape[1] is not None:
        return memory, mask
    B, S = tf.shape(memory)[0], tf.shape(memory)[1]
    extra = bucket(S) - S
    mask = tf.ones([B, S], tf.bool) if mask is None else mask
    return tf.pad(memory, [[0, 0], [0, extra], [0, 0]]), tf.pad(mask, [[0, 0], [0, extra]])


def _as_wide(state, memory):
    """A state `[B, S]` for this memory: zeros at its new positions, all of them at the start."""
    wanted, width = memory.shape[1], state.shape[1]
    if width is not None and width == wanted:
        return state
    if width and wanted:
        raise ValueError(
            f"A state of alignments has the shape {tuple(state.shape)}, and the memory "
            f"{tuple(memory.shape)}: expected a state of another call with this memory, or none."
        )
    extra = tf.shape(memory)[1] - tf.shape(state)[1]
    return tf.ensure_shape(tf.pad(state, [[0, 0], [0, extra]]), [state.shape[0], wanted])
