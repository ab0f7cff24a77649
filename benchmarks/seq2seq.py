"""Attention decoders and beam search beside what one would write without this package.

    python -m benchmarks.seq2seq

Training: forward and backward over a target, gradients of weights, input and memory; beside
`keras.layers.RNN` with a cell of one's own under XLA, which computes the same numbers.
Beam search: `Seq2Seq.decode`, one loop in the graph, as stock operations and compiled with XLA,
beside a Python loop over compiled single steps that encodes once and carries its state, with the
same scores.

Prints milliseconds, medians of rounds in which both take turns, and their ratio.

Axes: B batch, T target steps, S memory positions, D input, M memory and U cell features.
"""

import statistics
import time

import keras
import numpy as np
import tensorflow as tf
from keras import ops

import keras_rnnx
from keras_rnnx.attention import BahdanauAttention
from keras_rnnx.attention import LuongAttention
from keras_rnnx.seq2seq import Decoder
from keras_rnnx.seq2seq import Encoder
from keras_rnnx.seq2seq import Seq2Seq

T, S, D, M, U, A = 20, 20, 64, 256, 256, 128
VOCABULARY, WIDTH, LONGEST = 60, 4, 30
ROUNDS = 9


class AttentiveGRU(keras.layers.GRUCell):
    """A GRU cell that looks at `self.memory [B, S, M]`, as a user of Keras would write it."""

    def __init__(self, units, score, feeding):
        super().__init__(units)
        self.score, self.feeding = score, feeding
        self.memory = None
        self.state_size = (1 + feeding) * [units]

    def build(self, shape):
        super().build((*shape[:-1], shape[-1] + self.feeding * self.units))
        weight = lambda name, *shape: self.add_weight(shape=shape, name=name)
        if self.score == "additive":
            self.query_kernel, self.memory_kernel = weight("q", U, A), weight("m", M, A)
            self.v = weight("v", A)
        else:
            self.memory_kernel = weight("m", M, U)
        self.attention_kernel = weight("a", U + M, U)

    def get_initial_state(self, batch_size=None):
        return [ops.zeros((batch_size, self.units)) for _ in range(1 + self.feeding)]

    def call(self, x, states, training=False):
        h = states[0]
        if self.feeding:
            x = ops.concatenate([x, states[1]], axis=-1)
        h, _ = super().call(x, h, training=training)
        if self.score == "additive":
            z = ops.tanh(self.keys + ops.expand_dims(h @ self.query_kernel, 1))
            scores = ops.squeeze(ops.matmul(z, ops.expand_dims(self.v, -1)), -1)
        else:
            scores = ops.squeeze(ops.matmul(self.keys, ops.expand_dims(h, -1)), -1)
        a = ops.softmax(scores)
        context = ops.squeeze(ops.matmul(ops.expand_dims(a, 1), self.memory), 1)
        vector = ops.tanh(ops.concatenate([h, context], axis=-1) @ self.attention_kernel)
        return vector, [h, vector][: 1 + self.feeding]


def ours(score, feeding):
    attention = BahdanauAttention(A) if score == "additive" else LuongAttention("general")
    cell = keras_rnnx.AttentionCell(
        keras_rnnx.GRUCell(U), attention, input_feeding=feeding, attention_size=U
    )
    return keras_rnnx.RNN(cell, return_sequences=True)


def training_call(run, weights, xla):
    """A function of the inputs that gives the loss and all gradients."""

    @tf.function(jit_compile=xla or None, autograph=False)
    def call(x, memory):
        with tf.GradientTape() as tape:
            tape.watch([x, memory])
            loss = tf.reduce_sum(run(x, memory) ** 2)
        return loss, tape.gradient(loss, [x, memory, *weights()])

    return call


def compare_training(B, score, feeding):
    """Milliseconds of a training step: (Keras under XLA, ours)."""
    draw = np.random.default_rng(0)
    x = tf.constant(draw.standard_normal((B, T, D)), tf.float32)
    memory = tf.constant(draw.standard_normal((B, S, M)), tf.float32)
    cell = AttentiveGRU(U, score, feeding)
    theirs = keras.layers.RNN(cell, return_sequences=True)
    layer = ours(score, feeding)

    def run_theirs(x, memory):
        cell.memory = memory  # a cell of Keras has no other way to a memory
        cell.keys = memory @ tf.convert_to_tensor(cell.memory_kernel)
        return theirs(x, training=True)

    run_ours = lambda x, memory: layer(x, constants={"memory": memory}, training=True)
    theirs.build((B, T, D))
    run_ours(x, memory)
    order = {"query_kernel": "q", "memory_kernel": "m", "attention_v": "v", "attention_kernel": "a"}
    by_name = {w.name: w for w in theirs.weights}
    for weight in layer.weights:
        by_name[order.get(weight.name, weight.name)].assign(weight)
    calls = (
        training_call(run_theirs, lambda: theirs.trainable_variables, xla=True),
        training_call(run_ours, lambda: layer.trainable_variables, xla=False),
    )
    found = [call(x, memory) for call in calls]
    for one, other in zip(*(tf.nest.flatten(result[1][:2]) for result in found)):
        scale = np.abs(one).max()
        np.testing.assert_allclose(one / scale, other / scale, atol=1e-4)
    return take_turns([lambda call=call: call(x, memory)[0].numpy() for call in calls])


def take_turns(functions):
    """Median milliseconds of each. In a turn, as many calls as fit into 0.1 s."""
    times = [[] for _ in functions]
    for function in functions:
        function()
    start = time.perf_counter()
    functions[0]()
    calls = max(1, int(0.1 / (time.perf_counter() - start)))
    for _ in range(ROUNDS):
        for function, found in zip(functions, times):
            for _ in range(calls):
                start = time.perf_counter()
                function()
                found.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(found) for found in times]


class PythonBeam:
    """Beam search as a loop in Python: each step is compiled, what is kept is sorted by NumPy."""

    def __init__(self, model):
        self.model = model
        self.begin = tf.function(self.started, autograph=False)
        self.step = tf.function(self.stepped, autograph=False, reduce_retracing=True)

    def started(self, source):
        repeated = lambda a: None if a is None else tf.repeat(a, WIDTH, axis=0)
        _, state, constants = self.model.begin(source)
        return tf.nest.map_structure(repeated, (state, constants))

    def stepped(self, ids, parents, state, constants):
        state = tf.nest.map_structure(lambda a: tf.gather(a, parents), state)
        logits, state, *_ = self.model.decoder.step(ids, state, constants)
        return tf.nn.log_softmax(logits), state

    def __call__(self, source):
        B, K, end = len(source), WIDTH, self.model.end
        state, constants = self.begin(source)
        ids = np.zeros((B, K, 0), int)
        scores = np.where(np.arange(K) == 0, 0.0, -np.inf) * np.ones((B, 1))
        last, parents = np.full(B * K, self.model.start), np.arange(B * K)
        for _ in range(LONGEST):
            logs, state = self.step(
                tf.constant(last, tf.int32), tf.constant(parents, tf.int32), state, constants
            )
            logs = logs.numpy().reshape(B, K, -1).copy()
            # All go to the longest length, so that both do as much; 0 is padding and no token.
            logs[:, :, [0, end]] = -np.inf
            totals = (scores[..., None] + logs).reshape(B, -1)
            best = np.argsort(-totals, axis=1, kind="stable")[:, :K]
            scores = np.take_along_axis(totals, best, axis=1)
            rows, last = best // logs.shape[-1], (best % logs.shape[-1]).reshape(-1)
            kept = np.take_along_axis(ids, rows[..., None], axis=1)
            ids = np.concatenate([kept, last.reshape(B, K, 1)], axis=-1)
            parents = (rows + K * np.arange(B)[:, None]).reshape(-1)
        return ids, scores


def compare_beams(B):
    """Milliseconds of a beam search: (Python loop, ours, ours with XLA)."""
    rnn = keras_rnnx.GRU(U, return_sequences=True, return_state=True)
    cell = keras_rnnx.AttentionCell(keras_rnnx.GRUCell(U), BahdanauAttention(A), attention_size=U)
    model = Seq2Seq(
        Encoder(keras_rnnx.Bidirectional(rnn), VOCABULARY, D),
        Decoder(cell, VOCABULARY, D),
        start=1,
        end=2,
    )
    source = tf.constant(np.random.default_rng(1).integers(3, VOCABULARY, (B, S)), tf.int32)
    decode = lambda jit_compile: model.decode(
        source,
        beam_width=WIDTH,
        max_length=LONGEST,
        min_length=LONGEST,
        jit_compile=jit_compile,
    ).scores.numpy()
    loop, ways = PythonBeam(model), (lambda: decode(False), lambda: decode(True))
    for way in ways:
        np.testing.assert_allclose(loop(source)[1], way(), rtol=1e-4)
    return take_turns([lambda: loop(source), *ways])


def main():
    keras.utils.set_random_seed(0)
    print(f"Training, T={T} S={S} D={D} M={M} U={U}; ms a step, medians of {ROUNDS}")
    print(f"{'B':>4} {'score':>9} {'feeding':>8} {'keras RNN, XLA':>15} {'ours':>8} {'ratio':>6}")
    for B in (1, 32):
        for score in ("additive", "general"):
            for feeding in (False, True):
                theirs, mine = compare_training(B, score, feeding)
                row = f"{B:>4} {score:>9} {feeding!s:>8} {theirs:15.2f} {mine:8.2f}"
                print(f"{row} {theirs / mine:6.2f}", flush=True)
    print(f"\nBeam search, width {WIDTH}, {LONGEST} tokens; ms a search, medians of {ROUNDS}")
    print(f"{'B':>4} {'Python loop':>12} {'ours':>8} {'ratio':>6} {'ours, XLA':>10} {'ratio':>6}")
    for B in (1, 16):
        loop, plain, xla = compare_beams(B)
        row = f"{B:>4} {loop:12.1f} {plain:8.1f} {loop / plain:6.2f}"
        print(f"{row} {xla:10.1f} {loop / xla:6.2f}")


if __name__ == "__main__":
    main()
