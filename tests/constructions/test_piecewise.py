"""Lemmas C.4 and C.5, certified from the stored floats piece by piece.

Between two neighbouring kinks the sum of ReLUs is one line with rational slope and intercept.  Its
difference to log is convex: greatest at an end, least at x = 1/slope.  Its difference to x^2 is
concave: least at an end, greatest at x = slope/2.  So a handful of exact or enclosed numbers bound the
error on the whole piece; nothing is sampled.
"""

import math
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from constructions import log_approximation, square_approximation
from constructions.piecewise import UNIT_ROUNDOFF, log_chord_gap, log_piece_length, log_pieces, square_pieces
from tests import intervals
from tests.compare import assert_bound, assert_exact, slope
from tests.intervals import log_interval

E = math.e


def lines(f, low, high):
    """(left end, right end, slope, intercept) of every line of f on [low, high], exact rationals."""
    units = [tuple(map(Fraction, unit)) for unit in zip(f.a, f.w, f.b, strict=True)]
    kinks = sorted({-b / w for _, w, b in units if w != 0 and low < -b / w < high})
    ends = [low, *kinks, high]
    # slope and intercept change by a|w| and a b sign(w) where a unit switches
    active = [
        unit
        for unit in units
        if unit[1] * ends[0] + unit[2] > 0 or (unit[1] * ends[0] + unit[2] == 0 and unit[1] > 0)
    ]
    steps = {}
    for a, w, b in units:
        if w != 0 and low < -b / w < high:
            s, c = steps.get(-b / w, (0, 0))
            sign = 1 if w > 0 else -1
            steps[-b / w] = (s + sign * a * w, c + sign * a * b)
    m, c = sum(a * w for a, w, _ in active), sum(a * b for a, _, b in active)
    for left, right in pairwise(ends):
        if left in steps:
            m, c = m + steps[left][0], c + steps[left][1]
        yield left, right, m, c


def sup_error_to_log(f):
    """An upper bound on the sup over the domain of |f + dropped - log|, from enclosures."""
    low, high = map(Fraction, f.domain)
    shift, worst = Fraction(f.dropped), Fraction(0)
    for left, right, m, c in lines(f, low, high):
        for x in (left, right):
            below, above = log_interval(x)
            worst = max(worst, m * x + c + shift - below, above - (m * x + c + shift))
        if m > 0 and left < 1 / m < right:
            _, above = log_interval(m)
            worst = max(worst, -(1 + c + shift + log_interval(m)[0]))
    return worst


def sup_error_to_square(f):
    """The sup over the domain of |f + dropped - x^2|, exactly."""
    low, high = map(Fraction, f.domain)
    shift, worst = Fraction(f.dropped), Fraction(0)
    for left, right, m, c in lines(f, low, high):
        for x in (left, right):
            worst = max(worst, abs(m * x + c + shift - x * x))
        if left < m / 2 < right:
            worst = max(worst, abs(m * m / 4 + c + shift))
    return worst


@pytest.mark.parametrize("x", [Fraction(1, 3), Fraction(1), Fraction(10**40, 7), Fraction(7, 10**300)])
def test_enclosures_of_logs(x):
    """Both libraries, where both are here, against each other and against the floating-point log."""
    makers = [intervals.by_mpmath] + ([intervals.by_arb] if intervals.arb is not None else [])
    for low, high in (make(x) for make in makers):
        assert low <= high
        assert high - low < Fraction(1, 2**120)
        size = abs(math.log(x.numerator)) + abs(math.log(x.denominator)) + 1
        assert_exact(float(low), math.log(x.numerator) - math.log(x.denominator), ulps=4, scale=size)
    assert max(make(x)[0] for make in makers) <= min(make(x)[1] for make in makers)


def is_monotone(f, low, high):
    return all(m >= 0 for _, _, m, _ in lines(f, Fraction(low), Fraction(high)))


LOGS = [
    (1.5, 0.3), (2.0, 1e-2), (10.0, 1e-3), (E**5, 0.1), (E**30, 1e-2), (E**30, 1e-3), (E**35, 1e-3),
    (E**100, 1e-2), (E**300, 5e-2), (E**700, 5e-2), (E**20, 5.0), (E**15, 2e-5), (1.0001, 1e-9),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("upper", [None, 1.0], ids=["lemma", "weights"])
@pytest.mark.parametrize("width", ["minimax", "paper"])
@pytest.mark.parametrize(("A", "delta"), LOGS)
def test_log_is_certified(A, delta, width, upper):
    length = math.log(A) * (1 if upper else 2)
    if log_pieces(length, delta, width) > 2000:
        delta = length / 1500 if width == "paper" else (length / 7500) ** 2
    f = log_approximation(A, delta, width=width, upper=upper, constant=upper is None)
    assert sup_error_to_log(f) <= Fraction(f.sup_error)
    assert f.sup_error <= delta * (1 + 1e-9) + f.rounding
    assert f.domain == (1 / A, upper or A)
    assert is_monotone(f, 0, max(1, upper or A))
    assert np.abs(f.a).max() <= 2 * A
    assert np.abs(f.w).max() <= 1
    assert np.abs(f.b).max() <= A
    paper = math.ceil(2 * math.log(A) / delta) + 1
    assert f.units <= paper
    if width == "paper" and upper is None:
        assert f.units == paper


@pytest.mark.parametrize("width", ["minimax", "paper"])
@pytest.mark.parametrize(
    ("A", "delta"),
    [(0.3, 1e-2), (1, 2.0), (1, 0.4), (2, 1e-2), (10, 0.2), (10, 1e-3), (100, 1e-2), (1e4, 1e3)],
)
@pytest.mark.parametrize("constant", [True, False])
def test_square_is_certified(A, delta, width, constant):
    if square_pieces(A, delta, width) > 2000:
        delta = A**2 / 900
    f = square_approximation(A, delta, width=width, constant=constant)
    assert sup_error_to_square(f) <= Fraction(f.sup_error)
    assert f.sup_error <= delta * (1 + 1e-9) + f.rounding
    assert np.abs(f.a).max(initial=0) <= 2 * A
    assert np.abs(f.w).max(initial=0) <= 1
    assert np.abs(f.b).max(initial=0) <= A
    paper = math.ceil(2 * A**2 / delta) + 1
    if width == "paper":
        assert f.units == paper - (not constant)
    assert f.units <= paper


def test_a_wrong_coefficient_is_not_certified():
    """The certificate can fail: one slope off by a part in a thousand of delta."""
    for make, sup in ((log_approximation, sup_error_to_log), (square_approximation, sup_error_to_square)):
        f = make(8.0, 1e-3)
        a = f.a.copy()
        a[len(a) // 2] *= 1.05
        assert sup(replace(f, a=a)) > Fraction(f.sup_error)
        assert sup(replace(f, dropped=1e-4)) > Fraction(f.sup_error)


@pytest.mark.parametrize("delta", [1e-5, 1e-3, 1e-2, 0.1, 1.0])
def test_minimax_widths_are_the_proven_optimum(delta):
    """No piece longer than h* is within delta of log, so ceil(L / h*) pieces are needed."""
    h = log_piece_length(2 * delta)
    s = h / math.expm1(h)
    assert_exact(s - 1 - math.log(s), 2 * delta, ulps=1e4, scale=1)
    for length in (0.5, 7.3, 30.0):
        fewest = math.ceil(length / h * (1 - 1e-12))
        assert log_pieces(length, delta) in (fewest, fewest + 1)
    for A in (1.0, 8.0, 50.0):
        fewest = math.ceil(A / math.sqrt(2 * delta) * (1 - 1e-12))
        assert square_pieces(A, delta) in (fewest, fewest + 1)


@pytest.mark.parametrize("delta", [1e-3, 1e-2, 0.1])
def test_a_longer_piece_cannot_do_it(delta):
    """On a piece 1% longer than optimal no line is within delta: three points prove it.

    If a line is within delta at both ends of [b, b e^h], at x = b / s it is at most log's chord plus
    delta, which is more than delta below log.
    """
    h = 1.01 * log_piece_length(2 * delta)
    s = h / math.expm1(h)
    chord = (1 / s - 1) / math.expm1(h) * h
    assert math.log(1 / s) - (chord + delta) > delta
    length = 1.01 * math.sqrt(8 * delta)
    assert (length / 2) ** 2 > 2 * delta


def test_widths_have_the_promised_orders():
    deltas = np.geomspace(1e-6, 1e-2, 9)
    for count, A in ((log_pieces, 30.0), (square_pieces, 10.0)):
        assert abs(slope(deltas, [count(A, d) for d in deltas]) + 0.5) < 0.01
        assert abs(slope(deltas, [count(A, d, "paper") for d in deltas]) + 1) < 0.01


@given(st.floats(-700, 700), st.floats(1e-4, 0.5))
def test_the_chord_gap_is_the_gap(start, h):
    """log_chord_gap against the gap at 200 points of one piece, where it must be attained."""
    b = math.exp(start / 10)
    x = b * np.exp(np.linspace(0, h, 4001))
    chord = math.log(b) + (x - b) / (b * math.expm1(h)) * h
    seen = (np.log(x) - chord).max()
    assert_bound([seen], [log_chord_gap(h) + 1e-13])
    assert seen >= log_chord_gap(h) * (1 - 1e-5) - 1e-13


@given(st.floats(0, 40), st.integers(0, 10**6))
def test_evaluation_errs_by_the_rounding_term_at_most(log_A, seed):
    """Float64 evaluation against exact rationals at random points."""
    A = math.exp(log_A + 0.1)
    f = log_approximation(A, 0.05, upper=1.0, constant=False)
    g = square_approximation(5.0, 0.05)
    rng = np.random.default_rng(seed)
    for function, x in ((f, np.exp(-rng.uniform(0, log_A + 1))), (g, rng.uniform(-5, 5))):
        units = zip(*(map(Fraction, v) for v in (function.a, function.w, function.b)), strict=True)
        exact = sum(a * max(w * Fraction(x) + b, 0) for a, w, b in units)
        assert abs(Fraction(float(function(x))) - exact) <= Fraction(function.rounding)


def right_sided(f):
    """The same function with units relu(x - b): slopes grow from the left."""
    knots = np.concatenate([[f.domain[0]], f.b])
    slopes = np.append(np.cumsum((-f.a)[::-1])[::-1], 0.0)
    a = np.diff(slopes, prepend=0.0)
    value = float(f(f.domain[0]))

    def evaluate(x):
        return value + sum(s * max(x - k, 0.0) for s, k in zip(a, knots, strict=True))

    return evaluate


def test_right_sided_units_lose_everything_at_large_A():
    f = log_approximation(E**100, 1e-2, upper=1.0, constant=False)
    twin = right_sided(f)
    small = right_sided(log_approximation(E**2, 1e-2, upper=1.0, constant=False))
    assert abs(small(0.5) - math.log(0.5)) < 0.03  # the twin is the right function
    errors = [abs(twin(x) - math.log(x)) for x in (1e-20, 1e-3, 0.5)]
    assert max(errors) > 1e6
    assert max(abs(float(f(x)) + f.dropped - math.log(x)) for x in (1e-20, 1e-3, 0.5)) <= f.sup_error


def test_left_sided_terms_have_one_sign_and_a_small_sum():
    f = log_approximation(E**100, 1e-2, upper=1.0, constant=False)
    terms = f.a * np.maximum(f.b - f.domain[0], 0)
    assert (terms <= 0).all()
    assert np.abs(terms).sum() <= 102
    assert UNIT_ROUNDOFF * np.abs(terms).sum() * (f.units + 8) <= f.rounding


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: log_approximation(0.5, 0.1), r"A must exceed 1, got 0\.5: log has an empty domain"),
        (lambda: log_approximation(1.0, 0.1), "A must exceed 1, got 1"),
        (lambda: log_approximation(math.inf, 0.1), "A must be positive and finite, got inf"),
        (lambda: log_approximation(1e308, 0.1), r"log A = 709\.2 does not fit float64; at most 705 works"),
        (lambda: log_approximation(2, 0), r"delta must be positive and finite, got 0\.0"),
        (lambda: log_approximation(2, math.nan), "delta must be positive and finite, got nan"),
        (lambda: log_approximation(2, 0.1, upper=0.4), r"upper must lie in \(1/A, A\]"),
        (lambda: log_approximation(2, 0.1, width="best"), 'width must be "minimax" or "paper", got \'best\''),
        (lambda: log_approximation(2, 1e-12, width="paper"), "takes 1386294361120 pieces; at most 134217728"),
        (lambda: square_approximation(-1, 0.1), r"A must be positive and finite, got -1\.0"),
        (lambda: square_approximation(1, 1e-30), "pieces; at most 134217728 are built"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
