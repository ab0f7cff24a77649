"""The loss of a CRF and its gradient, beside a plain loop that TensorFlow differentiates.

    python -m benchmarks.crf

The negative log-likelihood of random tags, with the gradients of potentials and transitions, in a
graph: once with the normalizer of `crf_log_norm`, compiled as in training and as plain operations,
once with a `tf.while_loop` of the same recurrence. Rows of different lengths. Milliseconds, medians
of rounds in which all take turns, and how many times as long the plain loop takes, with quartiles.

Axes: B batch, T steps, K tags.
"""

import time

import numpy as np
import tensorflow as tf

from benchmarks import stats
from keras_rnnx.heads import crf_log_norm
from keras_rnnx.heads import crf_score

SIZES = ((1, 100, 20), (32, 100, 20), (32, 40, 9), (64, 200, 9))
ROUNDS = 15


def compiled(x, transitions, mask):
    return crf_log_norm(x, transitions, mask)


def plain(x, transitions, mask):
    return crf_log_norm(x, transitions, mask, jit_compile=False)


def plain_loop(x, transitions, mask):
    steps, reals = tf.transpose(x, [1, 0, 2]), tf.transpose(mask)
    T = tf.shape(steps)[0]

    def body(t, a):
        paths = a[:, :, None] + transitions
        return t + 1, tf.where(reals[t][:, None], steps[t] + tf.reduce_logsumexp(paths, 1), a)

    start = (tf.constant(1), steps[0])
    _, last = tf.while_loop(lambda t, a: t < T, body, start, maximum_iterations=T)
    return tf.reduce_logsumexp(last, axis=1)


WAYS = {"loop": plain_loop, "plain": plain, "compiled": compiled}


def training(log_norm):
    """Loss and gradients in a graph."""

    @tf.function(autograph=False)
    def call(tags, x, transitions, mask):
        with tf.GradientTape() as tape:
            tape.watch([x, transitions])
            score = crf_score(tags, x, transitions, mask)
            loss = tf.reduce_mean(log_norm(x, transitions, mask) - score)
        return loss, tape.gradient(loss, [x, transitions])

    return call


def measured(B, T, K):
    """Seconds of each way: `{name: rounds}`, see `stats`."""
    rng = np.random.default_rng(0)
    lengths = np.maximum(T * (B - np.arange(B)) // B, 1)
    draw = lambda *shape: tf.constant(rng.normal(size=shape), tf.float32)
    mask = tf.sequence_mask(lengths, T)
    arguments = tf.constant(rng.integers(0, K, (B, T))), draw(B, T, K), draw(K, K), mask
    calls = {name: training(log_norm) for name, log_norm in WAYS.items()}

    def seconds(name):
        start = time.perf_counter()
        found = [a.numpy() for a in tf.nest.flatten(calls[name](*arguments))]
        return time.perf_counter() - start, found

    expected = seconds("loop")[1]
    for name in WAYS:  # traces, compiles, and computes the same
        for one, other in zip(seconds(name)[1], expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    times = {name: [] for name in WAYS}
    for _ in range(ROUNDS):
        for name, rounds in times.items():
            rounds.append([seconds(name)[0] for _ in range(3)])
    return times


def main():
    print(f"Loss and gradient: ms, medians of {ROUNDS} rounds")
    print(f"{'B':>4} {'T':>4} {'K':>3} {'loop':>8} {'plain':>8} {'compiled':>8}  loop / compiled")
    for B, T, K in SIZES:
        times = measured(B, T, K)
        ms = [1e3 * stats.times(rounds)[1] for rounds in times.values()]
        low, middle, high = stats.ratio(times["loop"], times["compiled"])
        columns = " ".join(f"{one:8.2f}" for one in ms)
        print(
            f"{B:>4} {T:>4} {K:>3} {columns}  {middle:5.2f} ({low:.2f} to {high:.2f})", flush=True
        )


if __name__ == "__main__":
    main()
