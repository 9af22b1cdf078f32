"""The numbers of the bounds on EM steps, derived once more in scalar loops.

From the proposition in `constructions.bounds` and I1, I4, I5 of docs/improved.md, at numbers of which no two
are alike, and with rounding so coarse that every term of it shows.
"""

import math

import numpy as np
import pytest

from constructions import EMTransformer, em
from constructions.bounds import Levels, StepBound, em_step_bound, propagate
from constructions.construction import Estimate
from constructions.mixture import Left
from tests.problems import em_cases


def close(got, want):
    return math.isclose(got, want, rel_tol=1e-9)


# ---- the same formulas, one number at a time


def step_bound(X, w, eta, eps, log_A, average):
    """I4 for the weight and I5 for the mean of each component, and the rounding of either average."""
    N, t = len(X), 2 * eta + eps
    longest = max(math.hypot(*x) for x in X)
    found = []
    for k in range(len(w[0])):
        total = sum(w[i][k] for i in range(N))
        pi = total / N
        on_weight = (math.exp(2 * eta) - 1) * pi + average
        kept = math.exp(log_A) * pi  # A pi+
        if kept <= math.exp(2 * eta):
            found.append((on_weight, math.inf))
            continue
        mean = [sum(w[i][k] * X[i][a] for i in range(N)) / total for a in range(len(X[0]))]
        s = sum(w[i][k] / total * math.dist(X[i], mean) for i in range(N))
        m = sum(math.dist(x, mean) for x in X) / N
        largest = math.exp(eps) if eps > 2 * eta else math.exp(2 * eta)
        numerator = math.exp(t) * ((math.exp(t) - 1) * s + largest * m / kept)
        found.append((on_weight, numerator / (1 - math.exp(2 * eta) / kept) + average * longest))
    return found


def product(one, other):
    return [
        [sum(a * b for a, b in zip(row, col, strict=True)) for col in zip(*other, strict=True)] for row in one
    ]


def spectral_norm(block):
    """Of a matrix with one row or one column, and of one of size 2: the larger root of
    s^4 - |B|_F^2 s^2 + det(B)^2."""
    entries = [x for row in block for x in row]
    square = sum(x * x for x in entries)
    if len(block) == 2 and len(block[0]) == 2:
        determinant = block[0][0] * block[1][1] - block[0][1] * block[1][0]
        square = (square + math.sqrt(square**2 - 4 * determinant**2)) / 2
    return math.sqrt(square)


def carried(jacobians, steps, K, d):
    """sum_l J_L ... J_(l+1) delta_l by the norms of blocks, for each L; delta is (pi, mu_1, ..., mu_K)."""
    places = [[k] for k in range(K)] + [[K + k * d + a for a in range(d)] for k in range(K)]
    found = []
    for last in range(len(steps)):
        total = [0.0] * (2 * K)
        for first in range(last + 1):
            matrix = [[float(a == b) for b in range(K + K * d)] for a in range(K + K * d)]
            for number in range(first + 1, last + 1):
                matrix = product(jacobians[number], matrix)
            for row in range(2 * K):
                for col in range(2 * K):
                    block = [[matrix[a][b] for b in places[col]] for a in places[row]]
                    total[row] += spectral_norm(block) * steps[first][col]
        found.append(total)
    return found


def chord_gap(h):
    """How far log exceeds its chord from 1 to e^h: where the slopes agree."""
    x = math.expm1(h) / h
    return math.log(x) - (x - 1) * h / math.expm1(h)


def log_error(log_length, delta, width):
    """What the pieces that `delta` asks for err by; those of the lemma interpolate, the fewest halve it."""
    if width == "paper":
        return chord_gap(log_length / math.ceil(log_length / delta))
    pieces = 1
    while chord_gap(log_length / pieces) > 2 * delta:
        pieces += 1
    return chord_gap(log_length / pieces) / 2


def square_error(A, delta, width):
    if width == "paper":
        return (2 * A / math.ceil(2 * A * A / delta)) ** 2 / 4
    pieces = 1
    while (2 * A / pieces) ** 2 / 8 > delta:
        pieces += 1
    return (2 * A / pieces) ** 2 / 8


# ---- one step


def responsibilities(N, K, seed):
    rng = np.random.default_rng(seed)
    w = rng.uniform(0.05, 1.0, (N, K)) ** 3
    return w / w.sum(axis=1, keepdims=True)


SAMPLES = [[0.3, -1.1], [2.2, 0.7], [0.0, -6.3], [-1.9, 0.4], [1.2, 3.1]]
"""The longest lies on an axis."""


@pytest.mark.parametrize(
    ("eta", "eps", "log_A"),
    [(0.03, 0.21, 3.1), (0.13, 0.07, 2.9), (0.02, 0.5, 9.0), (0.3, 0.1, 8.0), (0.17, 0.0, 3.7)],
)
def test_step_bound_in_numbers(eta, eps, log_A):
    """The larger of eps and 2 eta either way, and a range from which much is cut off."""
    for seed in range(4):
        w = responsibilities(5, 3, seed)
        got = em_step_bound(np.array(SAMPLES), w, Levels(eta, eps, log_A, 0.017))
        for k, (weight, mean) in enumerate(step_bound(SAMPLES, w.tolist(), eta, eps, log_A, 0.017)):
            assert mean < math.inf
            assert close(got.weights[k], weight)
            assert close(got.means[k], mean)


def test_what_lies_below_the_range_alone_has_no_bound():
    """A pi+ is e^(2 eta) at log A = 2 eta - log pi+; a component that no sample belongs to is below any."""
    X, w = np.array(SAMPLES), np.array([[0.9, 0.1, 0.0]] * 5)
    for log_A, bounded in ((0.29, 0), (0.31, 1), (2.49, 1), (2.51, 2), (700.0, 2)):
        got = em_step_bound(X, w, Levels(0.1, 0.2, log_A, 0.5))
        assert np.isfinite(got.means).tolist() == [k < bounded for k in range(3)]
        assert got.weights[2] == 0.5
        assert got.largest == math.inf


def test_the_largest_bound_of_all():
    assert StepBound(np.array([0.2, 0.7]), np.array([0.1, 0.6])).largest == 0.7
    assert StepBound(np.array([0.7, 0.2]), np.array([0.9, 0.3])).largest == 0.9


# ---- many steps


@pytest.mark.parametrize(("K", "d"), [(1, 1), (1, 2), (2, 1), (2, 2), (3, 2)])
def test_propagation_in_numbers(K, d):
    rng = np.random.default_rng(10 * K + d)
    jacobians = rng.standard_normal((4, K + K * d, K + K * d))
    deltas = rng.uniform(0.1, 1.0, (4, 2 * K))
    bounds = propagate(list(jacobians), [StepBound(row[:K], row[K:]) for row in deltas])
    for bound, want in zip(bounds, carried(jacobians.tolist(), deltas.tolist(), K, d), strict=True):
        assert bound.weights.shape == bound.means.shape == (K,)
        assert all(map(close, [*bound.weights, *bound.means], want))


# ---- error levels


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("approximator", ["minimax", "paper"])
def test_levels_in_numbers(dtype, approximator):
    """A logit is x . mu + log pi - |mu|^2 / 2 - log n.  Rounding counts D + 4 times for this inner product
    over the stream, four times for a logarithm and N + 8 times for an average of N terms."""
    u, extra = (2.0**-24, 2**29) if dtype == "float32" else (2.0**-53, 1)
    for d0, K0, eps, r_max, pi_min, log_A, N, d in [
        (3, 2, 0.031, 2.7, 0.07, None, 5, 2),
        (2, 4, 0.013, 0.6, 0.21, 9.3, 11, 1),
        (5, 1, 0.11, 3.9, 0.013, None, 4, 5),
    ]:
        net = EMTransformer(
            d0, K0, eps=eps, r_max=r_max, pi_min=pi_min, log_A=log_A, dtype=dtype,
            approximator=approximator,
        )  # fmt: skip
        if log_A is None:  # what is below 1/A moves a mean by at most eps / 2
            log_A = math.log((2 * r_max + math.sqrt(d0)) / pi_min / (eps / 2))
        X = np.random.default_rng(N).uniform(0.5, 3.0, (N, d)) * (-1.0) ** np.arange(N)[:, None]
        longest = max(math.hypot(*x) for x in X.tolist())
        D = d0 + K0 + d0 + 1 + K0 + K0 + K0 + 1 + 1 + K0
        sides = 2 if approximator == "paper" else 1  # from 1/A to A, or to 1
        in_log_w = log_error(sides * log_A, eps, approximator)
        in_log_pi = log_error(-sides * math.log(pi_min), eps, approximator)
        in_square = square_error(r_max, eps / (d0 / 2), approximator)
        log_w, log_pi, square = (extra * f.rounding for f in net.approximations)
        sizes = [longest * r_max, r_max * r_max / 2, math.log(1 / pi_min), math.log(N)]
        inner = sum((D + 4) * u * size for size in sizes)
        approximate = in_log_pi + log_pi + sum((in_square + square) / 2 for _ in range(d))
        for first in (True, False):
            got = net.levels(X, first=first)
            assert close(got.eta, inner if first else inner + approximate)
            assert close(got.eps, in_log_w + log_w + 4 * u * log_A)
            assert close(got.log_A, log_A)
            assert close(got.average, (N + 8) * u)


def test_levels_bound_what_a_float32_network_does():
    """Its responsibilities in the first step, whose logits come from the encoding, are within e^(2 eta) of
    the mixture's, and its logarithms within eps of log up to one constant."""
    net = EMTransformer(8, 5, eps=1e-3, r_max=32, pi_min=1e-3, dtype="float32")
    for case in em_cases(6, seed=31, max_samples=200):
        K = case.init.n_components
        trace = net.run(case.X, case.init, 1, trace=True).trace
        w, log_w = (np.asarray(x)[:, :K] for x in (trace.at(1, "w", "attention"), trace[1, "log_w"]))
        exact = case.init.responsibilities(case.X)
        levels = net.levels(case.X, first=True)
        seen = exact > 1e-30
        assert np.abs(np.log(w[seen]) - np.log(exact[seen])).max() <= 2 * levels.eta
        above = w > math.exp(-levels.log_A)
        difference = log_w[above] - np.log(w[above])
        assert np.ptp(difference) <= 2 * levels.eps


# ---- the ends of the ranges


def test_a_state_at_the_ends_of_the_bounds_is_inside():
    """|(3, -4)| = 5 = r_max, and a weight of pi_min."""
    net = EMTransformer(2, 2, eps=0.1, r_max=5, pi_min=0.25)
    X = np.array([[3.0, -4.0], [0.5, 1.0], [1.0, -0.5]])
    means = np.array([[1.0, 2.0], [3.0, -4.0]])
    at_end = Estimate(np.array([0.25, 0.75]), means)
    assert net.outside(at_end, X) == []
    assert net.layout.read(net.encode(X, at_end), "mu").tolist() == [[1.0, 2.0], [3.0, -4.0], [1.0, 2.0]]
    beyond = Estimate(np.array([0.8125, 0.1875]), 1.25 * means)
    assert net.outside(beyond, X) == [
        Left("r_max", "a mean of norm 6.25", "6.25"),
        Left("pi_min", "a weight 0.1875", "0.1875"),
    ]


def test_a_network_with_as_many_hidden_units_as_pieces_are_allowed_has_a_norm(monkeypatch):
    net = EMTransformer(1, 2, eps=0.05, r_max=4, pi_min=0.1)
    assert net.hidden_widths() == (28, 26)
    norm = net.sizes().norm
    monkeypatch.setattr(em, "MAX_PIECES", 28)
    assert net.sizes().norm == norm > 0


def test_one_function_of_too_many_pieces_leaves_no_norm():
    """r_max / (2 eps^(1/2)) = 158113884 pieces of x^2 are more than 2^27, beside a few for each log."""
    sizes = EMTransformer(1, 1, eps=0.9, r_max=3e8, pi_min=0.1).sizes()
    assert sizes.hidden_per_layer[0] < 20
    assert sizes.hidden_per_layer[1] > 158113883 > 2**27
    assert math.isnan(sizes.norm)
