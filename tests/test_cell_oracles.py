"""The oracles of `cell_oracles` against those of `oracles`, identities, and numbers from elsewhere.

The numbers called TFA's are the ones that TensorFlow Addons' own tests of its cells expect.
"""

import cell_oracles as cells
import numpy as np
import oracles
import pytest

pytestmark = pytest.mark.quick

B, T, D, U, P = 3, 4, 5, 6, 2
TINY = 1e-14  # an eps that leaves layer normalisation scale-free to the tolerance of `assert_same`


def random(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def full(value, *shape):
    return np.full(shape, value, "float64")


def gates(count, rows=U, columns=U):
    """Kernel, recurrent and bias of a cell with `count` blocks of columns."""
    width = count * columns
    return [random(D, width), random(rows, width, seed=1), random(width, seed=2)]


def run(step, weights, *widths, x=None):
    """Outputs and states over T steps, from states that are not zero."""
    states = [random(B, width, seed=3 + k) / 2 for k, width in enumerate(widths or (U,))]
    outputs, _, states = oracles.run(step, weights, random(B, T, D) if x is None else x, states)
    return [outputs, *states]


def assert_same(actual, expected):
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-9, atol=1e-10)


def assert_differ(actual, expected):
    assert np.abs(actual[0] - expected[0]).max() > 1e-3


def scaled(weights, index, factor):
    return [w * factor if k == index else w for k, w in enumerate(weights)]


# The LSTM and its options.


def test_general_lstm_is_the_lstm():
    weights = gates(4)
    assert_same(
        run(cells.general_lstm_step(), weights, U, U), run(oracles.lstm_step(), weights, U, U)
    )


def test_general_lstm_projects():
    weights = [*gates(4, rows=P), random(U, P)]
    step = cells.general_lstm_step(projection=True)
    assert_same(run(step, weights, P, U), run(oracles.projected_lstm_step(), weights, P, U))


@pytest.mark.parametrize("peephole", (False, True))
def test_coupled_gates(peephole):
    """1 - sigmoid(v) is sigmoid(-v): coupled is uncoupled with the columns of i, negated, for f."""
    coupled = gates(3) + [random(2, U)] * peephole
    whole = []
    for k, w in enumerate(coupled):
        blocks = np.split(w, 3, axis=-1) if k < 3 else list(w)
        whole.append(np.concatenate([blocks[0], -blocks[0], *blocks[1:]], axis=-1))
    if peephole:
        whole[3] = whole[3].reshape(3, U)
    assert_same(
        run(cells.general_lstm_step(peephole=peephole, coupled=True), coupled, U, U),
        run(cells.general_lstm_step(peephole=peephole), whole, U, U),
    )


def test_peephole_of_zeros_is_none():
    weights = gates(4)
    step = cells.general_lstm_step(peephole=True)
    expected = run(cells.general_lstm_step(), weights, U, U)
    assert_same(run(step, [*weights, np.zeros((3, U))], U, U), expected)
    assert_differ(run(step, [*weights, np.ones((3, U))], U, U), expected)


@pytest.mark.parametrize("row", range(3))
def test_peephole_rows(row):
    """One unit whose gates see c alone: i and f the old one, o the new one."""
    peephole = np.zeros((3, 1))
    peephole[row] = 2.0
    weights = [np.zeros((1, 4)), np.zeros((1, 4)), np.array([0, 0, 1.0, 0]), peephole]
    h, (_, c) = cells.general_lstm_step(peephole=True)(
        weights, np.zeros((1, 1)), (np.zeros((1, 1)), full(0.7, 1, 1))
    )
    open_gate = 1 / (1 + np.exp(-2 * 0.7))
    i, f = (open_gate if row == 0 else 0.5), (open_gate if row == 1 else 0.5)
    new = f * 0.7 + i * np.tanh(1)
    o = 1 / (1 + np.exp(-2 * new)) if row == 2 else 0.5
    np.testing.assert_allclose([c.item(), h.item()], [new, o * np.tanh(new)])


def test_peephole_numbers_of_tfa():
    """Kernel and peephole of ones, forget bias of 1, no state, an input of 1 or of nothing."""
    weights = [np.ones((1, 20)), np.zeros((5, 20)), np.repeat([0, 1.0, 0, 0], 5), np.ones((3, 5))]
    zeros = np.zeros((2, 5))
    h, _ = cells.general_lstm_step(peephole=True)(weights, np.array([[1.0], [0]]), (zeros, zeros))
    np.testing.assert_allclose(h, [[0.417551] * 5, [0] * 5], rtol=1e-6)


def test_cell_clip():
    """o and h see the clipped c; a limit that c does not reach changes nothing."""
    weights = [*gates(4), random(3, U)]
    plain = run(cells.general_lstm_step(peephole=True), weights, U, U)
    assert_same(run(cells.general_lstm_step(peephole=True, cell_clip=9), weights, U, U), plain)
    step = cells.general_lstm_step(peephole=True, cell_clip=0.1)
    _, _, c = run(step, weights, U, U)
    assert np.abs(c).max() == 0.1 and (np.abs(c) < 0.1).any()

    open_gates = [np.zeros((D, 4)), np.zeros((1, 4)), full(9.0, 4), np.array([[0], [0], [-20.0]])]
    h, (_, c) = cells.general_lstm_step(peephole=True, cell_clip=0.25)(
        open_gates, np.zeros((1, D)), (np.zeros((1, 1)), np.ones((1, 1)))
    )
    assert c.item() == 0.25
    np.testing.assert_allclose(h.item(), np.tanh(0.25) / (1 + np.exp(-9 + 20 * 0.25)))


def test_projection_clip():
    """The projected h is clipped, as output and as state; h without a projection never is."""
    weights = [*gates(4, rows=P), random(U, P)]
    step = cells.general_lstm_step(projection=True, projection_clip=0.2)
    outputs, h, _ = run(step, weights, P, U)
    assert np.abs(outputs).max() == 0.2 and (np.abs(outputs) < 0.2).any()
    assert (h == outputs[:, -1]).all()
    unlimited = cells.general_lstm_step(projection=True)
    assert np.abs(run(unlimited, weights, P, U)[0]).max() > 0.3
    free = run(cells.general_lstm_step(projection_clip=1e-3), gates(4), U, U)
    assert_same(free, run(cells.general_lstm_step(), gates(4), U, U))


def test_wrong_number_of_weights():
    with pytest.raises(ValueError):
        run(cells.general_lstm_step(), [*gates(4), random(3, U)], U, U)
    with pytest.raises(ValueError):
        run(cells.layer_norm_lstm_step(normalize=()), [*gates(4), random(4 * U)], U, U)


# Layer normalisation.


def test_standardise():
    """The variance of 1, 2, 3, 4 is 1.25 in a population (and 5/3 in a sample)."""
    found = cells.standardise(np.array([[1.0, 2, 3, 4], [5, 5, 5, 5]]), 0.75)
    np.testing.assert_allclose(found, [np.array([-1.5, -0.5, 0.5, 1.5]) / np.sqrt(2), [0] * 4])


def layer_norm_lstm_weights(normalize=("input", "recurrent", "cell")):
    weights = gates(4)
    for k, (part, widths) in enumerate(
        {"input": [4 * U], "recurrent": [4 * U], "cell": [U, U]}.items()
    ):
        if part in normalize:
            weights += [1 + random(w, seed=9 + k + j) / 2 for j, w in enumerate(widths)]
    return weights


def layer_norm_gru_weights(normalize=("input", "recurrent")):
    kernel, recurrent, _ = gates(3)
    weights = [kernel, recurrent, random(2, 3 * U)]
    return weights + [1 + random(3 * U, seed=9 + len(part)) / 2 for part in normalize]


LAYER_NORM = {
    "lstm": (cells.layer_norm_lstm_step, layer_norm_lstm_weights, (U, U)),
    "gru": (cells.layer_norm_gru_step, layer_norm_gru_weights, (U,)),
}


@pytest.mark.parametrize("name", LAYER_NORM)
def test_without_normalisation(name):
    plain = {"lstm": oracles.lstm_step(), "gru": oracles.gru_step()}[name]
    make_step, make_weights, widths = LAYER_NORM[name]
    weights = make_weights(())
    found = run(make_step(normalize=()), weights, *widths)
    assert_same(found, run(plain, weights, *widths))


@pytest.mark.parametrize("part", ("input", "recurrent"))
@pytest.mark.parametrize("name", LAYER_NORM)
def test_scale_of_a_normalised_product(name, part):
    """It counts for nothing, unlike that of the other product, of one gate, or of gamma."""
    make_step, make_weights, widths = LAYER_NORM[name]
    step = make_step(eps=TINY, normalize=(part,))
    weights = make_weights((part,))
    index = ("input", "recurrent").index(part)
    before = run(step, weights, *widths)
    assert_same(run(step, scaled(weights, index, 3), *widths), before)
    assert_differ(run(step, scaled(weights, 1 - index, 3), *widths), before)
    assert_differ(run(step, scaled(weights, 3, 3), *widths), before)
    one_gate = np.concatenate([full(3, U), np.ones(weights[0].shape[1] - U)])
    assert_differ(run(step, scaled(weights, index, one_gate), *widths), before)
    assert_differ(run(make_step(eps=1.0, normalize=(part,)), weights, *widths), before)


@pytest.mark.parametrize("index", (0, 1))
@pytest.mark.parametrize("name", LAYER_NORM)
def test_order_of_gammas(name, index):
    """First the input's, then the recurrent one: the gamma of a product of 0 counts for nothing."""
    make_step, make_weights, widths = LAYER_NORM[name]
    weights = scaled(make_weights(), index, 0)
    before = run(make_step(), weights, *widths)
    assert_same(run(make_step(), scaled(weights, 3 + index, 3), *widths), before)
    assert_differ(run(make_step(), scaled(weights, 4 - index, 3), *widths), before)


def test_layer_norm_of_the_cell():
    """What the output sees has mean beta and deviation gamma; only carry_normalized keeps it."""
    weights = [*gates(4)[:2], np.repeat([0.0, 0, 1, 50], U), full(0.3, U), full(0.1, U)]
    x, states = random(B, D), (random(B, U) / 2, random(B, U, seed=1))
    found = {}
    for carry in (False, True):
        step = cells.layer_norm_lstm_step(TINY, ("cell",), carry)
        h, (state, c) = step(weights, x, states)
        assert (h == state).all()
        found[carry] = h, c
    raw, normalised = found[False][1], found[True][1]
    assert_same(found[False][:1], found[True][:1])
    np.testing.assert_allclose(normalised.mean(axis=1), 0.1)
    np.testing.assert_allclose(normalised.std(axis=1), 0.3)
    np.testing.assert_allclose(found[True][0], np.tanh(normalised), rtol=1e-9)  # o is open
    _, (_, expected) = oracles.lstm_step()(weights[:3], x, states)
    np.testing.assert_allclose(raw, expected)
    assert_differ(
        run(cells.layer_norm_lstm_step(carry_normalized=True), layer_norm_lstm_weights(), U, U),
        run(cells.layer_norm_lstm_step(), layer_norm_lstm_weights(), U, U),
    )


def test_layer_norm_lstm_numbers_of_tfa():
    """Weights of 0.5, forget bias of 1, two units: the c that is kept is -1 and 1."""
    bias = np.repeat([0.5, 1, 0.5, 0.5], 2)
    weights = [full(0.5, 3, 8), full(0.5, 2, 8), bias]
    weights += [np.ones(8), np.ones(8), np.ones(2), np.zeros(2)]
    step = cells.layer_norm_lstm_step(eps=1e-12, carry_normalized=True)
    h, (_, c) = step(weights, np.ones((1, 3)), (np.array([[0.2, 0.3]]), np.array([[0, 0.1]])))
    np.testing.assert_allclose(h, [[-0.47406167, 0.47406143]], rtol=1e-5)
    np.testing.assert_allclose(c, [[-1, 1]], rtol=1e-5)


def test_layer_norm_gru_limits():
    """z at 1 keeps h. z and r at 0: n has no recurrent part. r at 1: it has all, with its bias."""
    kernel, recurrent, bias, *gammas = layer_norm_gru_weights()
    kernel[:], gammas[1][:U], gammas[1][U : 2 * U] = 0, 0, 0
    h, x = random(B, U), random(B, D)

    def new(z, r):
        bias[0, :U], bias[0, U : 2 * U] = z, r
        return cells.layer_norm_gru_step()([kernel, recurrent, bias, *gammas], x, (h,))[0]

    product = cells.standardise(h @ recurrent, 1e-5)[:, 2 * U :] * gammas[1][2 * U :]
    x_n, h_n = bias[:, 2 * U :]
    np.testing.assert_allclose(new(99, 0), h)
    np.testing.assert_allclose(new(-99, -99), np.tanh(np.tile(x_n, (B, 1))))
    np.testing.assert_allclose(new(-99, 99), np.tanh(x_n + product + h_n))


def test_layer_norm_simple():
    """The sum is standardised: scaling both products changes nothing, scaling one does."""
    weights = [*gates(1), 1 + random(U) / 2]
    step = cells.layer_norm_simple_step(eps=TINY)
    before = run(step, weights)
    assert_same(run(step, scaled(scaled(weights, 0, 3), 1, 3)), before)
    for index in range(4):
        assert_differ(run(step, scaled(weights, index, 3)), before)
    linear = cells.layer_norm_simple_step(TINY, "linear")
    outputs, _ = run(linear, [*weights[:2], full(0.1, U), full(0.3, U)])
    np.testing.assert_allclose(outputs.mean(axis=-1), 0.1)
    np.testing.assert_allclose(outputs.std(axis=-1), 0.3)


# The other cells.


@pytest.mark.parametrize("activation", ("relu", "tanh"))
def test_indrnn_is_a_diagonal_rnn(activation):
    kernel, _, bias = gates(1)
    u = random(U)
    found = run(cells.indrnn_step(activation), [kernel, u, bias])
    assert_same(found, run(oracles.simple_step(activation), [kernel, np.diag(u), bias]))
    assert activation == "tanh" or found[0].max() > 1


@pytest.mark.parametrize("width", (None, 5))
def test_nas_numbers_of_tfa(width):
    """Weights of 0.5 and states of 0.1, without and with a projection."""
    expected_h = (
        [0.5767508, 0.6189357, 0.6273934] if width is None else [1.697418, 1.840037, 1.873985]
    )
    expected_c = (
        [0.7157977, 0.7804162, 0.7945764] if width is None else [0.698552, 0.770738, 0.78974]
    )
    weights = [full(0.5, 4, 48), full(0.5, width or 6, 48)] + [full(0.5, 6, 5)] * bool(width)
    x = np.repeat([[1.0], [2], [3]], 4, axis=1)
    step = cells.nas_step(projection=bool(width))
    h, (state, c) = step(weights, x, (full(0.1, 3, width or 6), full(0.1, 3, 6)))
    assert (h == state).all() and h.shape == (3, width or 6) and c.shape == (3, 6)
    np.testing.assert_allclose(
        h, np.repeat(np.array([expected_h]).T, width or 6, axis=1), rtol=2e-6
    )
    np.testing.assert_allclose(c, np.repeat(np.array([expected_c]).T, 6, axis=1), rtol=2e-6)


def test_nas_blocks():
    """One unit, every block its own number: the tree written out by hand."""
    sigma, tanh = oracles.sigmoid, np.tanh
    a, b = np.array([0.3, 0.9, -0.4, 0.8, 0.5, -0.7, 0.6, 1.1]), np.array([0.2, 0.1, 0.7, 0.5] * 2)
    s = a + b
    first = tanh(tanh(sigma(s[0]) * max(s[1], 0)) + 0.25)
    c = first * tanh(sigma(s[2]) + max(a[3] * b[3], 0))
    h = tanh(c * tanh(tanh(tanh(s[4]) * sigma(s[5])) + sigma(tanh(s[6]) + sigma(s[7]))))
    found, (_, kept) = cells.nas_step()(
        [a[None], b[None]], np.ones((1, 1)), (np.ones((1, 1)), full(0.25, 1, 1))
    )
    np.testing.assert_allclose([found.item(), kept.item()], [h, c])


def test_nas_bias():
    """Moved to the input product, by a feature that is always 1, it changes block 3 alone."""
    x = random(B, T, D)
    with_one = np.concatenate([x, np.ones((B, T, 1))], axis=-1)
    kernel, recurrent, bias = gates(8)

    def moved():
        return run(cells.nas_step(), [np.vstack([kernel, bias]), recurrent], U, U, x=with_one)

    step = cells.nas_step(use_bias=True)
    assert_differ(run(step, [kernel, recurrent, bias], U, U, x=x), moved())
    bias[3 * U : 4 * U] = 0
    assert_same(run(step, [kernel, recurrent, bias], U, U, x=x), moved())


def test_esn():
    weights = gates(1)
    assert_same(run(cells.esn_step(), weights), run(oracles.simple_step(), weights))
    h, x = random(B, U), random(B, D)
    whole, still, half = (cells.esn_step(leaky)(weights, x, (h,))[0] for leaky in (1, 0, 0.25))
    assert (still == h).all()
    np.testing.assert_allclose(half, 0.75 * h + 0.25 * whole)


def test_esn_numbers_of_tfa():
    """Weights of 0.5, a reservoir of 0.5 scaled by 0.9 over its Frobenius norm, states of 0.3."""
    reservoir = full(0.5, 3, 3)
    reservoir *= 0.9 / np.linalg.norm(reservoir)
    x = np.repeat([[1.0], [2], [3]], 4, axis=1)
    step = cells.esn_step(activation="linear")
    h, _ = step([full(0.5, 4, 3), reservoir, full(0.5, 3)], x, (full(0.3, 3, 3),))
    np.testing.assert_allclose(h, np.repeat([[2.77], [4.77], [6.77]], 3, axis=1))


def test_min_gru():
    """Gates at their limits keep h or take the linear candidate; a GRU without R is the same."""
    kernel, _, bias = gates(2)
    h, x = random(B, U), random(B, D)
    candidate = x @ kernel[:, U:] + bias[U:]
    assert np.abs(candidate).max() > 1
    for z, expected in ((-99, h), (0, (h + candidate) / 2), (99, candidate)):
        still = np.concatenate([np.zeros((D, U)), kernel[:, U:]], axis=1)
        found, _ = cells.min_gru_step()([still, np.append(full(z, U), bias[U:])], x, (h,))
        np.testing.assert_allclose(found, expected)
    # A GRU whose recurrent weights are 0 and whose z is 1 - z of this one.
    gru = [np.concatenate([-kernel[:, :U], np.zeros((D, U)), kernel[:, U:]], axis=1)]
    gru += [
        np.zeros((U, 3 * U)),
        np.array([np.hstack([-bias[:U], full(0, U), bias[U:]]), full(0, 3 * U)]),
    ]
    linear = oracles.gru_step(activation="linear")
    assert_same(run(cells.min_gru_step(), [kernel, bias]), run(linear, gru))


def test_min_lstm():
    """Gates in the same ratio give the same; equal gates give the mean; the first column is f's."""
    kernel = np.concatenate([np.zeros((D, 2 * U)), random(D, U)], axis=1)
    h, x = random(B, U), random(B, D)
    tail = random(U)
    candidate = x @ kernel[:, 2 * U :] + tail

    def new(f, i):
        logits = [np.log(gate / (1 - gate)) for gate in (f, i)]
        bias = np.hstack([full(logits[0], U), full(logits[1], U), tail])
        return cells.min_lstm_step()([kernel, bias], x, (h,))[0]

    np.testing.assert_allclose(new(0.2, 0.2), (h + candidate) / 2)
    np.testing.assert_allclose(new(0.6, 0.2), 0.75 * h + 0.25 * candidate)
    np.testing.assert_allclose(new(0.3, 0.1), new(0.9, 0.3))


def test_min_cells_agree():
    """f/(f + i) is sigmoid(log f - log i): a minGRU whose z is one minus that."""
    weights = [random(D, 3 * U), random(3 * U)]
    x, h = random(B, D), random(B, U)
    f, i, candidate = np.split(x @ weights[0] + weights[1], 3, axis=1)
    z = np.logaddexp(0, -f) - np.logaddexp(0, -i)  # log i - log f
    as_bias = np.concatenate([z, candidate], axis=1)  # minGRU reads it as such with a kernel of 0
    expected, _ = cells.min_gru_step()([np.zeros((D, 2 * U)), as_bias], x, (h,))
    assert_same(cells.min_lstm_step()(weights, x, (h,))[:1], [expected])


def rg_lru(r, i, Lambda, h, x, **options):
    weights = [np.zeros((U, 2 * U)), np.append(full(r, U), full(i, U)), full(Lambda, U)]
    return cells.rg_lru_step(**options)(weights, x, (h,))[0]


def test_rg_lru_limits():
    h, x = random(B, U), random(B, U, seed=1)
    np.testing.assert_allclose(rg_lru(-99, 99, 0, h, x), h)  # r at 0: a is 1, the input is shut
    np.testing.assert_allclose(rg_lru(99, 99, 99, h, x), h)  # sigmoid(Lambda) is 1
    np.testing.assert_allclose(rg_lru(99, 99, -99, h, x), x)  # a is 0
    np.testing.assert_allclose(
        rg_lru(99, -99, -99, h, x), 0 * x, atol=1e-30
    )  # the input gate is shut
    np.testing.assert_allclose(rg_lru(99, 99, 0, h, x, c=1.0), (h + np.sqrt(3) * x) / 2)


def test_rg_lru_in_log_space():
    """a = exp(-c r softplus(-Lambda)), and c is 8 unless told."""
    kernel, bias, Lambda = random(U, 2 * U), random(2 * U), 4 + random(U)
    h, x = random(B, U), random(B, U, seed=1)
    gate_r = 1 / (1 + np.exp(-(x @ kernel[:, :U] + bias[:U])))
    gate_i = 1 / (1 + np.exp(-(x @ kernel[:, U:] + bias[U:])))
    log_a = -8 * gate_r * np.log1p(np.exp(-Lambda))
    expected = np.exp(log_a) * h + np.sqrt(-np.expm1(2 * log_a)) * gate_i * x
    found = cells.rg_lru_step()([kernel, bias, Lambda], x, (h,))
    np.testing.assert_allclose(found[0], expected)
    assert (found[0] == found[1][0]).all()
