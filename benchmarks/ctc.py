"""The CTC loss and its gradient beside those of TensorFlow and PyTorch.

    python -m benchmarks.ctc

Rows of random lengths with random labels. All are asked in turns: milliseconds of one loss with the
gradient of the logits, medians, and how many times as long the others take, medians over rounds.
`tf.nn.ctc_loss` gets dense labels, in a graph, as does ours; PyTorch runs as it is, on all cores.

Axes: B rows, T steps, L labels, C classes with the blank.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import statistics
import time

import numpy as np

from benchmarks import stats

SIZES = ((1, 200, 30, 40), (32, 200, 30, 40), (8, 200, 30, 1000))
ROUNDS = 9


def draw(B, T, L, C):
    """`(labels, logits, label lengths, lengths)`; every row can be spelled."""
    rng = np.random.default_rng(0)
    counts = rng.integers(L // 2, L + 1, size=B).astype("int32")
    lengths = rng.integers(T // 2, T + 1, size=B).astype("int32")
    lengths[0] = T
    labels = rng.integers(1, C, size=(B, L)).astype("int32")
    return labels, rng.normal(size=(B, T, C)).astype("float32"), counts, lengths


def with_tensorflow(loss, labels, logits, counts, lengths):
    """A function that gives losses and gradient of `loss(labels, logits, counts, lengths)`."""
    import tensorflow as tf

    @tf.function(autograph=False)
    def run(labels, logits, counts, lengths):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            losses = loss(labels, logits, counts, lengths)
        return losses, tape.gradient(losses, logits)

    given = [tf.constant(a) for a in (labels, logits, counts, lengths)]
    return lambda: [a.numpy() for a in run(*given)]


def ours(labels, logits, counts, lengths):
    from keras_rnnx.heads import ctc_loss

    return ctc_loss(labels, logits, label_length=counts, sequence_length=lengths)


def theirs(labels, logits, counts, lengths):
    import tensorflow as tf

    options = {"logits_time_major": False, "blank_index": 0}
    return tf.nn.ctc_loss(labels, logits, counts, lengths, **options)


def with_torch(labels, logits, counts, lengths):
    import torch

    labels, counts, lengths = (torch.tensor(a).long() for a in (labels, counts, lengths))

    def run():
        x = torch.tensor(logits, requires_grad=True)
        log_p = x.log_softmax(-1).transpose(0, 1)
        losses = torch.nn.functional.ctc_loss(log_p, labels, lengths, counts, reduction="none")
        losses.sum().backward()
        return losses.detach().numpy(), x.grad.numpy()

    return run


def turns(sizes):
    """`{name: rounds of seconds}`; the answers of all are compared first."""
    given = draw(*sizes)
    runs = {
        "ours": with_tensorflow(ours, *given),
        "tensorflow": with_tensorflow(theirs, *given),
        "torch": with_torch(*given),
    }
    found = {name: run() for name, run in runs.items()}  # traces and compiles
    for name in ("tensorflow", "torch"):
        np.testing.assert_allclose(found["ours"][0], found[name][0], rtol=1e-4)
        np.testing.assert_allclose(found["ours"][1], found[name][1], atol=2e-3)
    rounds = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            once = time.perf_counter() - start
            calls = []
            for _ in range(max(1, min(10, int(0.1 / once)))):
                start = time.perf_counter()
                run()
                calls.append(time.perf_counter() - start)
            rounds[name].append(calls)
    return rounds


def main():
    print(f"CTC loss and gradient: ms, medians of {ROUNDS} rounds; times as long as ours")
    print(f"{'B':>4} {'T':>5} {'L':>4} {'C':>5} {'ours':>9} {'tensorflow':>18} {'torch':>18}")
    for sizes in SIZES:
        rounds = turns(sizes)
        ms = {n: 1e3 * statistics.median(sum(found, [])) for n, found in rounds.items()}
        B, T, L, C = sizes
        line = f"{B:>4} {T:>5} {L:>4} {C:>5} {ms['ours']:9.2f}"
        for name in ("tensorflow", "torch"):
            ratio = stats.ratio(rounds[name], rounds["ours"])[1]
            line += f" {ms[name]:10.2f} {ratio:6.1f}x"
        print(line, flush=True)


if __name__ == "__main__":
    main()
