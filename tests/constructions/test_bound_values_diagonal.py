"""The numbers of the diagonal construction and of the bound on its step, derived once more in scalar loops.

Levels are chosen by hand, so that no term is small against the others and no two numbers are alike.
"""

import math
from typing import NamedTuple

import numpy as np
import pytest

from constructions import diagonal
from constructions.construction import Estimate
from constructions.diagonal import DiagonalEMTransformer
from constructions.diagonal_bounds import DiagonalLevels, _grown, diagonal_step_bound

UNIT = {"float64": 2.0**-53, "float32": 2.0**-24}

EXACT = DiagonalLevels(
    square=0.0, floor=0.0, precision=0.0, log_v=0.0, log_pi=0.0, log_w=0.0, log_A=50.0,
    r_max=100.0, pi_min=0.01, scale_min=0.05, scale_max=20.0,
)  # fmt: skip


def close(got, want):
    return math.isclose(got, want, rel_tol=1e-9)


def build(d0=2, K0=3, **options):
    numbers = {"eps": 0.02, "r_max": 7.0, "pi_min": 0.03, "scale_min": 0.3, "scale_max": 1.9}
    return DiagonalEMTransformer(d0, K0, **(numbers | options))


# ---- the piecewise-linear functions: their errors, from the formulas of the documentation


class Errors(NamedTuple):
    """Units M, relative and absolute error in exact arithmetic, and what rounding adds in float64."""

    units: int
    relative: float
    absolute: float
    rounding: float


def chord_gap(h):
    """By how much log exceeds its chord at most, on a piece of log-length h: at b / s for a piece from b."""
    slope = h / (math.exp(h) - 1)
    return slope - 1 - math.log(slope) if h > 0.1 else h**2 / 8 - h**4 / 576 + h**6 / 25920


def geometric_pieces(log_length, eps):
    """How many of log-length 2 arccosh(e^eps) at most."""
    n = 1
    while log_length / n > 2 * math.acosh(math.exp(eps)):
        n += 1
    return n, log_length / n


def of_square(em):
    """Chords of kappa x^2 on both sides of 0, and on [0, r_0] at most kappa^3 r_0^2 / 4 above."""
    r_0 = 2 * em.scale_min * math.sqrt(em.eps)
    n, h = geometric_pieces(math.log(em.r_max / r_0), em.eps)
    M, kappa = 2 * n + 2, 1 / math.cosh(h / 2)
    return Errors(M, -math.log(kappa), kappa**3 * r_0**2 / 4, 4 * (M + 8) * 2.0**-53)


def of_precision_and_log_v(em):
    low, high = em.scale_min**2, em.scale_max**2
    n, h = geometric_pieces(math.log(high / low), em.eps)
    M, size = n + 2, math.log(high / low) + 2 + abs(math.log(high))
    rounding = 4 * (M + 8) * 2.0**-53
    precision = Errors(M, math.log(math.cosh(h / 2)), 0.0, rounding)
    return precision, Errors(M, 0.0, chord_gap(h) / 2, rounding * size)


def of_log(log_length, eps):
    """The fewest pieces whose chords, moved up by half their gap, are within eps of log."""
    n = 1
    while chord_gap(log_length / n) > 2 * eps:
        n += 1
    return Errors(n, 0.0, chord_gap(log_length / n) / 2, (n + 8) * 2.0**-53 * (log_length + 2))


def default_log_A(em):
    """A = 2 (r_max / scale_min)^2 / (eps pi_min)."""
    return math.log(2 * (em.r_max / em.scale_min) ** 2 / (em.eps * em.pi_min))


def flat_logit(em):
    """Every coordinate's log of a scale, met within 1, and the log of a weight, within 2."""
    low, high = math.log(em.scale_min), math.log(em.scale_max)
    farthest = high if high > -low else -low
    return sum(farthest + 1 for _ in range(em.d0)) + math.log(1 / em.pi_min) + 2


@pytest.mark.parametrize("log_A", [None, 9.5])
def test_bounds_count_the_rounding(log_A):
    """At eps = 1e-5 it is 2e-8 to 3e-7 of an error."""
    em = build(eps=1e-5, log_A=log_A)
    L = log_A or default_log_A(em)
    square, (precision, log_v) = of_square(em), of_precision_and_log_v(em)
    log_w, log_pi = of_log(L, em.eps), of_log(math.log(1 / 0.03), em.eps)
    assert min(square.rounding / square.relative, log_v.rounding / log_v.absolute) > 1e-8
    want = {
        "r_max": 7.0, "pi_min": 0.03, "scale_min": 0.3, "scale_max": 1.9, "log_A": L,
        "log_w_error": log_w.absolute + log_w.rounding,
        "log_pi_error": log_pi.absolute + log_pi.rounding,
        "square_factor": square.relative + square.rounding,
        "square_error_at_zero": square.absolute,
        "precision_factor": precision.relative + precision.rounding,
        "log_v_error": log_v.absolute + log_v.rounding,
    }  # fmt: skip
    assert em.bounds.keys() == want.keys()
    for name, value in want.items():
        assert close(em.bounds[name], value), name


def test_bounds_count_the_rounding_of_their_own_format():
    em = build(dtype="float32")
    square, (precision, log_v) = of_square(em), of_precision_and_log_v(em)
    ratio = UNIT["float32"] / UNIT["float64"]
    for name, error in (("square_factor", square), ("precision_factor", precision)):
        assert close(em.bounds[name], error.relative + ratio * error.rounding)
        assert ratio * error.rounding > 1e-4 * error.relative
    assert close(em.bounds["log_v_error"], log_v.absolute + ratio * log_v.rounding)


@pytest.mark.parametrize("N", [1, 6, 311])
@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "float32"},
        {"dtype": "float32", "eps": 0.3, "log_A": 9.5, "scale_min": 0.6, "scale_max": 4.5},
        {"d0": 4, "K0": 2, "eps": 1e-5},
    ],
)
def test_levels(options, N):
    """Evaluating the functions costs as much more than in float64 as the unit roundoff is larger."""
    em = build(**options)
    u = UNIT[em.dtype]
    square, (precision, log_v) = of_square(em), of_precision_and_log_v(em)
    L = em.log_A or default_log_A(em)
    log_w, log_pi = of_log(L, em.eps), of_log(-math.log(em.pi_min), em.eps)

    def in_dtype(rounding):
        return u * (rounding * 2.0**53)

    D = 4 * em.K0 * em.d0 + em.d0 + 5 * em.K0 + 2
    ratio = math.exp(em.eps) + math.sqrt(math.exp(2 * em.eps) - 1)  # e^(h / 2), cosh(h / 2) = e^eps
    want = {
        "square": square.relative + in_dtype(square.rounding),
        "floor": square.absolute,
        "precision": precision.relative + in_dtype(precision.rounding),
        "log_v": log_v.absolute + in_dtype(log_v.rounding),
        "log_pi": log_pi.absolute + in_dtype(log_pi.rounding),
        # a log of the size of log A is also stored, and multiplied in a score
        "log_w": log_w.absolute + in_dtype(log_w.rounding) + L * 4 * u,
        "log_A": L,
        "r_max": em.r_max,
        "pi_min": em.pi_min,
        "scale_min": em.scale_min,
        "scale_max": em.scale_max,
        "average": N * u + 8 * u,
        "score": D * u + 4 * u,
        "size": flat_logit(em) + math.log(N),
        "residual": ratio * (4 * u * square.units + 32 * u),
    }
    got = em.levels(np.zeros((N, 2)))
    assert set(got._fields) == want.keys()
    for name, value in want.items():
        assert close(getattr(got, name), value), name


@pytest.mark.parametrize(
    "options",
    [
        {"d0": 1, "scale_min": 0.2, "scale_max": 0.7, "eps": 0.5},
        {"d0": 3, "scale_min": 1.4, "scale_max": 8.0, "eps": 0.2},
        {"d0": 2, "scale_min": 0.6, "scale_max": 2.5, "eps": 0.1},
        {"d0": 2, "scale_min": 0.3, "scale_max": 2.5, "eps": 0.1},
    ],
)
def test_tokens_without_a_component_score_a_thousand_times_the_largest_score_below(options):
    """sum_j t_kj r2_ikj / 2 is at most d0 e^(2 eps) (r_max / scale_min)^2 / 2: both factors err by e^eps."""
    em = build(**options)
    product = 0.0
    for _ in range(em.d0):
        precision, square = math.exp(em.eps) / em.scale_min**2, math.exp(em.eps) * em.r_max**2
        product += precision * square / 2
    assert close(em.flat_logit, flat_logit(em))
    assert close(em.silence, 1000 * product + 1000 * flat_logit(em))
    (attention,) = em.program.body[0].heads
    assert close(attention.K[-1, em.layout.slice("one").start], -em.silence)


# ---- what is built, at its ends


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale_max": 0.25, "scale_min": 0.25}, r"scale_max must exceed scale_min = 0\.25, got 0\.25$"),
        ({"r_max": 0.5, "scale_min": 0.25}, r"r_max must exceed 2 scale_min = 0\.5, got 0\.5$"),
    ],
)
def test_bounds_that_leave_no_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_bounds_just_above_those_are_taken():
    above, twice = math.nextafter(0.25, 1), math.nextafter(0.5, 1)
    em = build(scale_min=0.25, scale_max=above, r_max=twice)
    assert (em.scale_max, em.r_max) == (above, twice)


def test_config_holds_every_argument_but_the_device():
    em = build(4, 2, log_A=8, dtype="float32", device="cpu", max_bytes=10**7)
    assert em.config == {
        "d0": 4, "K0": 2, "eps": 0.02, "r_max": 7.0, "pi_min": 0.03, "scale_min": 0.3, "scale_max": 1.9,
        "log_A": 8, "dtype": "float32", "max_bytes": 10**7,
    }  # fmt: skip


def test_the_norm_is_left_out_above_the_largest_width(monkeypatch):
    """A layer may be as wide as the most pieces that a function may have, and no wider."""
    widest = max(build().hidden_widths())
    norm = build().sizes().norm
    monkeypatch.setattr(diagonal, "MAX_PIECES", widest)
    assert build().sizes().norm == norm
    monkeypatch.setattr(diagonal, "MAX_PIECES", widest - 1)
    sizes = build().sizes()
    assert math.isnan(sizes.norm)
    assert sizes.hidden_width == widest


# ---- data in, estimates out


@pytest.mark.parametrize(("N", "K"), [(1, 1), (2, 2), (3, 3), (2, 1), (4, 3), (7, 2)])
def test_tokens_are_stored_once_for_each_component_and_once_for_all_others(N, K):
    """And not once more where there are no others."""
    start = Estimate(np.full(K, 1 / K), np.ones((K, 2)), np.ones((K, 2)))
    tokens = build().fill(np.zeros((N, 2)), start)
    assert tokens.counts.tolist() == [1.0] * K + [float(N - K)] * (N > K)
    assert len(tokens.groups) == len(tokens.counts)


@pytest.mark.parametrize(("d", "K"), [(1, 1), (2, 1), (2, 2), (1, 3)])
def test_the_readout_attends_by_the_components_of_the_mixture_only(d, K):
    """Ko h = [e_1, ..., e_K; 0] and column k of Qo is [100 e_k; 0], as long as [pi; mu; v]."""
    em = build()
    Qo, Ko = em.pooling(d, K)[1:3]
    first = em.layout.slice("e").start
    assert Ko.shape == (K + 2 * K * d, em.layout.width)
    assert Qo.shape == (K + 2 * K * d, K)
    for row in range(K + 2 * K * d):
        for c in range(em.layout.width):
            assert Ko[row, c] == (1.0 if row < K and c == first + row else 0.0)
        for k in range(K):
            assert Qo[row, k] == (100.0 if row == k else 0.0)


OUTSIDE = {
    "r_max": {"means": [[0.0, 1.0], [math.nextafter(5.0, 6), 2.0]]},
    "pi_min": {"weights": [1 - math.nextafter(0.03, 0), math.nextafter(0.03, 0)]},
    "scale_min": {"scales": [[0.3, 1.0], [1.9, math.nextafter(0.3, 0)]]},
    "scale_max": {"scales": [[0.3, 1.0], [math.nextafter(1.9, 2), 1.0]]},
}


@pytest.mark.parametrize("bound", [None, *OUTSIDE])
def test_a_state_at_its_bounds_leaves_none_of_them(bound):
    """|X - mu| = 7 = r_max, a weight 0.03 = pi_min, scales 0.3 = scale_min and 1.9 = scale_max; the next
    float after each leaves one."""
    state = {"weights": [0.97, 0.03], "means": [[0.0, 1.0], [5.0, 2.0]], "scales": [[0.3, 1.0], [1.9, 1.0]]}
    state |= OUTSIDE.get(bound, {})
    X = np.array([[-2.0, 1.0], [4.0, 3.0]])
    found = build().outside(Estimate(*map(np.array, state.values())), X)
    assert [left.bound for left in found] == ([bound] if bound else [])


# ---- the bound on a step


class Worst(NamedTuple):
    """Bounds for weights, means and scales, and which cases of the proposition were met."""

    weights: list
    means: list
    scales: list
    met: set


def by_the_proposition(X, weights, means, scales, b):
    """Its formulas one number at a time, with every rounding term of `DiagonalLevels`."""
    (N, d), K = X.shape, len(weights)
    met = set()

    def of_a_square(distance, size):
        return b.residual * (size + distance) * (distance + 4 * b.floor**0.5)

    def clipped(k, j):
        return min(max(scales[k][j], b.scale_min), b.scale_max) ** 2

    w, eta = [[0.0] * K for _ in range(N)], [[0.0] * K for _ in range(N)]
    for i in range(N):
        for k in range(K):
            w[i][k], Q, addends = weights[k], 0.0, 0.0
            for j in range(d):
                z = abs(X[i, j] - means[k][j])
                w[i][k] *= math.exp(-z * z / clipped(k, j) / 2) / math.sqrt(clipped(k, j))
                Q += z * z / clipped(k, j)
                addends += (b.floor + of_a_square(z, abs(X[i, j]) + abs(means[k][j]))) / clipped(k, j)
            a_and_b = math.exp(b.square) * math.exp(b.precision)
            eta[i][k] = b.log_pi + 0.5 * d * b.log_v + 0.5 * (a_and_b - 1) * Q
            eta[i][k] += 0.5 * math.exp(b.precision) * addends
            eta[i][k] += b.score * b.size + b.score * Q  # a score of that size, rounded
        mass = sum(w[i])
        w[i] = [value / mass for value in w[i]]

    bounds = Worst([], [], [], met)
    for k in range(K):
        moved_pi, M, D = 0.0, 0.0, []
        for i in range(N):
            own, rest_up, rest_down = w[i][k], 0.0, 0.0
            for l in range(K):
                if l != k:
                    rest_up += w[i][l] / math.exp(eta[i][l] + eta[i][k])
                    rest_down += w[i][l] * math.exp(eta[i][l] + eta[i][k])
            up, down = 1 / (own + rest_up), own + rest_down  # e^u and e^o
            far_up, far_down = up * math.exp(b.log_w), down * math.exp(b.log_w)
            assert far_up < math.e, "a level beyond those that the proposition is for"
            moved_pi += own * max(up - 1, 1 - 1 / down) / N
            if own / down < math.exp(-b.log_A):
                highest = max(math.exp(b.log_w) / math.exp(b.log_A), own * far_up)
                D.append(max(highest - own, own))
                rest = "from w" if highest == own * far_up else "from 1/A"
                met.add("cut, may vanish" if highest < 2 * own else f"cut, may grow, {rest}")
            else:
                D.append(own * max(far_up - 1, 1 - 1 / far_down))
                M += own / far_down
                met.add("up" if far_up - 1 > 1 - 1 / far_down else "down")
        bounds.weights.append(moved_pi + b.average)  # the largest responsibility is 1
        if M == 0:
            bounds.means.append([math.inf] * d)
            bounds.scales.append([math.inf] * d)
            met.add("no mass")
            continue
        of_means, of_scales, total = [], [], sum(w[i][k] for i in range(N))
        for j in range(d):
            mean = sum(w[i][k] * X[i, j] for i in range(N)) / total
            v = sum(w[i][k] * (X[i, j] - mean) ** 2 for i in range(N)) / total
            shift = b.average * max(abs(X[i, j]) for i in range(N))  # of the average, rounded
            beta = sum(D[i] / M * abs(X[i, j] - mean) for i in range(N))
            of_means.append(beta + shift)
            q = sum(D[i] / M * abs((X[i, j] - mean) ** 2 - v) for i in range(N))
            q += shift * shift  # a second moment about a point beside the mean is larger
            grown = math.exp(b.square)
            above, below = grown * q + (grown - 1) * v + b.floor, (q + beta**2) / grown + (1 - 1 / grown) * v
            met.add("above" if above > below else "below")
            V, farthest = max(above, below), 0.0
            for i in range(N):
                distance = abs(X[i, j] - mean) + of_means[-1]
                size = abs(X[i, j]) + abs(mean) + of_means[-1]
                V += of_a_square(distance, size) * (w[i][k] + D[i]) / M
                farthest = max(farthest, distance)
            V = V + (v + V) * b.average  # what is averaged is v + V at most
            if farthest > b.r_max:
                of_scales.append(math.inf)
                met.add("too far")
            else:
                s = math.sqrt(v)
                of_scales.append(max(math.sqrt(v + V) - s, s - math.sqrt(max(v - V, 0.0))))
                met.add("resolved" if v > V else "not resolved")
        bounds.means.append(of_means)
        bounds.scales.append(of_scales)
    return bounds


def problem(seed):
    """Overlapping components, near-symmetric data in every other one, scales below and above the bounds."""
    rng = np.random.default_rng(seed)
    N, d, K = (int(n) for n in rng.integers((4, 1, 1), (9, 4, 4)))
    X = rng.uniform(-2, 2, (N, d))
    if seed % 2:  # two points, and nearly the same distance from the mean
        X = np.where(np.arange(N) % 2, 1.0, -1.0)[:, None] * rng.uniform(1.4, 1.5, (N, d))
    weights = rng.uniform(0.5, 1.5, K)
    means, scales = rng.uniform(-0.8, 0.8, (K, d)), rng.uniform(0.9, 3.0, (K, d))
    return X, weights / weights.sum(), means, scales


def levels(seed):
    rng = np.random.default_rng([seed, 1])

    def up_to(top):
        return rng.uniform(0.2, 1) * top

    few = 10.0 ** rng.uniform(-2, 0)
    return DiagonalLevels(
        square=up_to(0.03), floor=up_to(0.04), precision=up_to(0.04), log_v=up_to(0.05),
        log_pi=up_to(0.05) if seed % 4 else rng.uniform(0.25, 0.35),
        log_w=up_to(0.09), log_A=rng.uniform(0.2, 3.0) if seed % 3 else 9.0, r_max=rng.uniform(2.9, 3.6),
        pi_min=0.01, scale_min=rng.uniform(1.0, 1.3), scale_max=rng.uniform(1.9, 2.5),
        average=few * up_to(0.03), score=few * up_to(0.02), size=rng.uniform(1.0, 2.0),
        residual=few * up_to(0.006),
    )  # fmt: skip


SEEDS = range(100)


def test_the_step_bound_in_numbers():
    """Every case of the proposition is met, for a token, a component or a coordinate."""
    met = set()
    for seed in SEEDS:
        X, *state = problem(seed)
        want = by_the_proposition(X, *state, levels(seed))
        got = diagonal_step_bound(X, Estimate(*state), levels(seed))
        for found, wanted in zip(got, want[:3], strict=True):
            assert found.shape == np.shape(wanted)
            assert all(map(close, found.flat, np.ravel(wanted))), seed
        met |= want.met
    assert met == {
        "cut, may vanish", "cut, may grow, from w", "cut, may grow, from 1/A", "up", "down", "above", "below",
        "no mass", "too far", "resolved", "not resolved",
    }  # fmt: skip


PAIR = np.array([[-1.0], [1.0]])


def of_pair(levels, weights=(1.0,), means=(0.0,), scales=(1.0,)):
    """The bound for the samples -1 and 1, about components whose means are 0 unless given."""
    state = Estimate(np.array(weights), np.array([means]).T, np.array([scales]).T)
    return diagonal_step_bound(PAIR, state, levels)


def test_the_lower_end_of_a_variance_by_hand():
    """|X - mu+| = 1 and v+ = 1, so that q = 0: with log_w = 0.3 the mean moves by e^0.3 (e^0.3 - 1), and that
    squared is more than what the square and its addend make of v+ upwards."""
    bound = of_pair(EXACT._replace(log_w=0.3, square=0.1, floor=0.01))
    beta = math.exp(0.3) * (math.exp(0.3) - 1)
    V = beta**2 * math.exp(-0.1) + 1 - math.exp(-0.1)
    assert math.exp(0.1) - 1 + 0.01 < V < 1
    assert close(bound.means[0, 0], beta)
    assert close(bound.scales[0, 0], 1 - math.sqrt(1 - V))


def test_samples_at_r_max_have_a_bound():
    """|X - mu| = |X - mu+| = r_max, and nothing moves."""
    for part in of_pair(EXACT._replace(r_max=1.0)):
        assert (part == 0).all()
    for part in of_pair(EXACT._replace(r_max=math.nextafter(1.0, 0))):
        assert np.isinf(part).all()


def test_samples_at_r_max_from_where_a_mean_may_be_have_a_bound():
    """The old mean is within r_max of all samples; the new one, which may be 1/8 off, is at r_max
    = 9/8 and not below."""
    levels = EXACT._replace(average=0.125, r_max=1.125)
    assert np.isfinite(of_pair(levels).scales).all()
    beyond = of_pair(levels._replace(r_max=math.nextafter(1.125, 1)))
    assert beyond.means.tolist() == [[0.125]]
    assert beyond.scales.tolist() == [[math.inf]]


def test_the_least_weight_may_be_pi_min_and_no_less():
    """The least of all weights counts, and with one below pi_min nothing is bounded."""
    state = {"weights": (0.25, 0.75), "means": (0.0, 0.0), "scales": (1.0, 2.0)}
    assert all(np.isfinite(part).all() for part in of_pair(EXACT._replace(pi_min=0.25), **state))
    for pi_min in (math.nextafter(0.25, 1), 0.5):
        for part in of_pair(EXACT._replace(pi_min=pi_min), **state):
            assert np.isinf(part).all()


def test_a_token_at_the_end_of_the_range_counts():
    """The only component has responsibilities 1 = 1/A for log A = 0; below that, none of them is within."""
    assert of_pair(EXACT._replace(log_A=0.0)).means.tolist() == [[0.0]]
    assert of_pair(EXACT._replace(log_A=-5e-324)).means.tolist() == [[math.inf]]


@pytest.mark.parametrize("w", [1.0, 0.5, 2.0**-40, 0.0])
def test_growth_of_a_responsibility(w):
    """w (e^by - 1), to all digits for small `by`, and finite where w e^by is a float."""
    log_w = np.array(math.log(w) if w else -math.inf)
    for by in (1e-12, 0.3, 0.9, math.nextafter(1.0, 0)):
        small = sum(by**n / math.factorial(n) for n in range(1, 20))
        assert close(float(_grown(log_w, np.array(by))), w * small)
    for by in (1.0, 1.1, 3.7):
        assert close(float(_grown(log_w, np.array(by))), w * (math.exp(by) - 1))
    assert close(float(_grown(np.array(-900.0), np.array(901.0))), math.e)
