"""Linear recurrences: one step after the other, and in chunks side by side.

    python -m benchmarks.scan

Prints milliseconds, medians of 7 runs, of the recurrence alone (`h = a * h + b`, no projection),
in a plain graph and compiled, forward only and with the gradients of a and b. From these figures
`engine/plan.py` takes the sizes from which chunks are worth it.
"""

import statistics
import time

import tensorflow as tf

from keras_rnnx import engine
from keras_rnnx.engine.plan import CHUNKS

SIZES = ((100, 1, 256), (1000, 1, 128), (8192, 1, 64), (100, 32, 256), (1000, 32, 128))


def step(weights, product, x, states, constants):
    a, b = x
    h = a * states[0] + b
    return h, (h,)


def in_order(a, b, h, plan):
    def run(x, mask, states):
        return engine.run(step, x, {}, states, plan=plan)

    return engine.in_parts(run, plan.parts, (a, b), None, (h,), False)[0]


def in_chunks(a, b, h, plan):
    options = {"plan": plan, "last_only": False, "zero_masked": False}
    return engine.run_in_chunks(a, b, h, CHUNKS, **options)[0]


def timed(recurrence, sizes, backend, training):
    """Median milliseconds of one call in a graph."""
    T, B, U = sizes
    a, b = tf.random.uniform([T, B, U]), tf.random.normal([T, B, U])
    plan = engine.Plan(backend, training, (), 2 if backend == "compiled" else 1)

    @tf.function(autograph=False)
    def call(a, b):
        with tf.GradientTape() as tape:
            tape.watch([a, b])
            loss = tf.reduce_sum(recurrence(a, b, tf.zeros([B, U]), plan) ** 2)
        return tape.gradient(loss, [a, b]) if training else loss

    def once():
        start = time.perf_counter()
        for result in tf.nest.flatten(call(a, b)):
            result.numpy()
        return 1e3 * (time.perf_counter() - start)

    once()  # traces and compiles
    return statistics.median(once() for _ in range(7))


def main():
    print(f"{'T x B x U':>14} {'backend':>9} {'':>8} {'in order':>9} {'chunks':>7} {'ratio':>6}")
    for sizes in SIZES:
        for backend in ("plain", "compiled"):
            for training in (False, True):
                name, what = "x".join(map(str, sizes)), "training" if training else "forward"
                loop = timed(in_order, sizes, backend, training)
                chunks = timed(in_chunks, sizes, backend, training)
                times = f"{loop:9.1f} {chunks:7.1f} {loop / chunks:6.2f}"
                print(f"{name:>14} {backend:>9} {what:>8} {times}")


if __name__ == "__main__":
    main()
