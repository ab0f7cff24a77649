"""The chain of a conditional random field as the engine takes it, and what may enter one.

Axes: B batch, T time, K tags.
"""

import tensorflow as tf

from keras_rnnx import engine

PARTS = 2  # of the batch, side by side in compiled loops, as in recurrent layers


class Chain:
    """Potentials, transitions and boundaries of one dtype, with a mask and no NaN in the padding.

    x: `[B, T, K]`, with zeros where no step is real; T is at least 1.
    steps: the number of steps that the caller gave.
    mask: `[B, T]`. any: `[B]`, whether a row has a real step.
    tags: `[B, T]`, with zeros where no step is real; None if none are given.
    """

    def __init__(self, potentials, transitions, mask=None, start=None, end=None, tags=None):
        x = wide(potentials)
        _check(x, transitions, mask, start, end, tags)
        K = x.shape[2]
        self.steps = x.shape[1] or tf.shape(x)[1]
        mask = tf.ones(tf.shape(x)[:2], tf.bool) if mask is None else tf.cast(mask, tf.bool)
        if tags is not None:
            mask = real_steps(tags, mask)
            tags = _with_a_step(tf.where(mask, tf.cast(tags, tf.int32), 0))
        self.mask, self.tags = _with_a_step(mask), tags
        self.x = engine.zero_padding(_with_a_step(x), self.mask)
        self.any = tf.reduce_any(self.mask, axis=1)
        self.transitions = tf.cast(transitions, x.dtype)
        self.start = tf.zeros([K], x.dtype) if start is None else tf.cast(start, x.dtype)
        self.end = tf.zeros([K], x.dtype) if end is None else tf.cast(end, x.dtype)

    def run(self, step, plan, last_only=False):
        """Repeat a step from the first real step of each row on: its outputs and last state.

        The state at the first real step is `start + x`; the step gets the weight `transitions`.
        Outputs are `[T, B, ...]`, those of masked steps and of the first one without a meaning.
        """
        first = self.mask & (tf.cumsum(tf.cast(self.mask, tf.int32), axis=1) == 1)
        begin = self.start + tf.reduce_sum(engine.zero_padding(self.x, first), axis=1)
        x, mask = map(engine.swap_time_and_batch, (self.x, self.mask & ~first))
        x, mask, steps = engine.pad_time(x, mask, plan.backend == "compiled")

        def run(x, mask, states):
            weights = {"transitions": self.transitions}
            options = {"plan": plan, "steps": steps, "mask": mask, "last_only": last_only}
            return engine.run(step, x, weights, states, **options)

        outputs, (last,) = engine.in_parts(run, plan.parts, x, mask, (begin,), last_only)
        return outputs, last


def plan(jit_compile="auto", backward="full"):
    """How the engine runs a chain. An eager call is a graph of its own too."""
    check_options(jit_compile, backward)
    return engine.choose(
        jit_compile=jit_compile,
        backward=backward,
        training=jit_compile == "auto",
        eager=False,
        portable=engine.is_portable(),
        xla_failure=engine.failure(engine.device_type()),
        batch_parts=PARTS,
        one_program=engine.is_enclosed() or engine.device_type() == "GPU",
    )


def check_options(jit_compile, backward):
    if jit_compile not in ("auto", False):
        raise ValueError(f'jit_compile is {jit_compile!r}, expected "auto" or False.')
    if backward not in ("full", "autodiff"):
        raise ValueError(f'backward is {backward!r}, expected "full" or "autodiff".')


def real_steps(tags, mask):
    """`[B, T]` booleans: steps that the mask has and that have a tag, one not below 0."""
    tagged = tf.cast(tags, tf.int32) >= 0
    return tagged if mask is None else tagged & tf.cast(mask, tf.bool)


def wide(x):
    """`x` in at least float32: sums over exponentials need it."""
    x = tf.convert_to_tensor(x)
    return x if x.dtype == tf.float64 else tf.cast(x, tf.float32)


def _with_a_step(a):
    """`a [B, T, ...]` with a step of zeros if T is 0: then there is a first step and a last one."""
    if a.shape[1]:
        return a
    missing = tf.maximum(1 - tf.shape(a)[1], 0)
    return tf.pad(a, [[0, 0], [0, missing]] + (a.shape.rank - 2) * [[0, 0]])


def _check(x, transitions, mask, start, end, tags):
    shape = x.shape
    if shape.rank != 3 or shape[2] is None:
        raise ValueError(
            f"potentials have the shape {tuple(shape) if shape.rank else shape}, expected (batch, "
            "time, tags) with a known number of tags: a score for each tag at each step."
        )
    K = shape[2]
    for name, value, expected in (
        ("transitions", transitions, (K, K)),
        ("start", start, (K,)),
        ("end", end, (K,)),
        ("mask", mask, tuple(shape[:2])),
        ("tags", tags, tuple(shape[:2])),
    ):
        found = None if value is None else tf.convert_to_tensor(value).shape
        if found is not None and not found.is_compatible_with(expected):
            raise ValueError(
                f"{name} of a chain has the shape {tuple(found)}, expected {expected} with "
                f"potentials of shape {tuple(shape)}."
            )
