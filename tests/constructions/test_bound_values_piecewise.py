"""Values, error bounds and refusals of the piecewise-linear functions, derived once more in scalar loops."""

import math
from dataclasses import replace
from decimal import Decimal, localcontext
from itertools import pairwise

import numpy as np
import pytest

from constructions import log_approximation, piecewise, square_approximation
from constructions.piecewise import (
    UNIT_ROUNDOFF,
    inverse_root_approximation,
    inverse_root_gap,
    log_chord_gap,
    log_piece_length,
    log_pieces,
    reciprocal_approximation,
    square_pieces,
)

LOGS = [(9.3, 0.031, None), (1.7, 0.4, None), (60.0, 0.11, 1.0), (7.1, 0.02, 2.3), (40.0, 0.013, 0.6)]
SQUARES = [(3.7, 0.11), (0.43, 0.013), (11.0, 2.9), (1.9, 0.31), (5.3, 40.0), (2.6, 0.9)]
WIDTHS = ["minimax", "paper"]


def close(got, want):
    return math.isclose(got, want, rel_tol=1e-9)


def line_at(x, knots, values):
    """Through the values at the knots; the first and the last line go on."""
    at = 0
    while at + 2 < len(knots) and x > knots[at + 1]:
        at += 1
    low, high = knots[at], knots[at + 1]
    return values[at] + (values[at + 1] - values[at]) * (x - low) / (high - low)


def inside(knots):
    """The knots, and points between them."""
    return [
        *knots,
        *(low + part * (high - low) for low, high in pairwise(knots) for part in (0.31, 0.5, 0.87)),
    ]


# ---- log


def greatest_gap(ratio):
    """Between log and its chord over [1, ratio]: at the logarithmic mean, where the slopes agree."""
    x = (ratio - 1) / math.log(ratio)
    return math.log(x) - (x - 1) / x


def log_knots(low, high, delta, width):
    """As many as the module says, of equal ratio."""
    count = 1
    if width == "paper":
        while math.log(high / low) > count * delta:
            count += 1
    else:
        while greatest_gap((high / low) ** (1 / count)) > 2 * delta:
            count += 1
    return [low * (high / low) ** (i / count) for i in range(count + 1)]


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("A", "delta", "upper"), LOGS)
def test_log(A, delta, upper, width, constant):
    """log, plus half the gap for the least error, at knots of equal ratio; constant above the last."""
    f = log_approximation(A, delta, width=width, upper=upper, constant=constant)
    end = A if upper is None else upper
    knots = log_knots(1 / A, end, delta, width)
    gap = greatest_gap(knots[1] / knots[0])
    up = gap / 2 if width == "minimax" else 0.0
    length = math.log(A) + math.log(end)
    values = [math.log(r) + up for r in knots]
    xs = [0.0, 0.4 / A, *inside(knots), 1.3 * end]
    for x, got in zip(xs, f(xs), strict=True):
        assert abs(got + f.dropped - line_at(min(x, end), knots, values)) <= 1e-11 * (length + 2)
    carries = constant and values[-1] != 0
    assert f.units == len(knots) - 1 + carries
    assert abs(f.dropped - (0.0 if constant else values[-1])) <= 1e-12
    if carries:
        assert f.w[-1] == 0
        assert f.b[-1] == 1
    assert all(map(close, f.domain, (1 / A, end)))
    assert math.isclose(f.closed_form, gap - up, rel_tol=1e-9, abs_tol=1e-14)
    assert close(f.rounding, (f.units + 8) * 2.0**-53 * (length + 2 + abs(math.log(end))))
    assert f.sup_error == f.closed_form + f.rounding
    assert f.A == A


def exact_gap(h):
    """s - 1 - log s with s = h / (e^h - 1), to 50 digits."""
    with localcontext() as context:
        context.prec = 60
        s = Decimal(h) / (Decimal(h).exp() - 1)
        return s - 1 - s.ln()


def test_the_gap_of_a_chord_of_log():
    for h in (1e-3, 0.0017, 0.03, 0.4, 0.99, 1.0, 1.01, 2.5, 9.0, 40.0):
        assert close(log_chord_gap(h), float(exact_gap(h)))


def test_the_series_of_the_gap_leaves_out_less_than_rounding():
    """Close to where it ends.  The last term of the series is 3e-16 of the whole."""
    errors = []
    for h in np.linspace(9.9e-4, 9.999e-4, 500):
        exact = exact_gap(h)
        errors.append(float((Decimal(log_chord_gap(float(h))) - exact) / exact))
    assert max(map(abs, errors)) < 4e-16
    assert abs(sum(errors)) / len(errors) < 1.5e-16


@pytest.mark.parametrize("h", [1e-5, 3e-4, 0.0017, 0.03, 0.4, 1.3, 6.0])
def test_the_length_of_a_piece_with_a_given_gap(h):
    assert math.isclose(log_piece_length(float(exact_gap(h))), h, rel_tol=1e-7)


EDGES = [(length, n) for length in (0.37, 2.9, 17.3) for n in (1, 2, 3, 5, 8, 13, 30)]


def test_pieces_of_log_where_one_more_is_not_needed():
    """delta = e(L / n) / 2 takes n pieces, the next float below it one more; rounding may add one."""
    exactly = 0
    for length, n in EDGES:
        delta = log_chord_gap(length / n) / 2
        exactly += log_pieces(length, delta) == n
        for d in (delta, *(delta * (1 + i * 2.0**-52) for i in range(-20, 21))):
            count = log_pieces(length, d)
            assert count in (n, n + 1)
            assert log_chord_gap(length / count) <= 2 * d
        assert log_pieces(length, 0.99 * delta) == n + 1
        assert log_pieces(length, 1.01 * delta) == n
    assert exactly >= len(EDGES) / 4


def test_pieces_of_the_square_where_one_more_is_not_needed():
    """A piece as long as sqrt(8 delta) is short enough."""
    assert square_pieces(4.0, 2.0) == 2
    assert square_pieces(1.5, 0.125) == 3
    repaired = 0
    for A in (0.37, 1.0, 2.9, 17.3):
        for n in (1, 2, 3, 5, 7, 11, 13, 30):
            delta = (A / n) ** 2 / 2
            for d in (delta * (1 + i * 2.0**-52) for i in range(-20, 21)):
                count = square_pieces(A, d)
                assert count in (n, n + 1)
                assert (2 * A / count) ** 2 <= 8 * d
                repaired += math.ceil(A / math.sqrt(2 * d)) < count
            assert square_pieces(A, 0.99 * delta) == n + 1
            assert square_pieces(A, 1.01 * delta) == n
    assert repaired


def test_pieces_of_the_paper():
    """ceil(L / delta) for log, and ceil(2 A^2 / delta) for the square."""
    for length, delta, count in ((3.0, 0.5, 6), (3.0, 0.51, 6), (3.0, 0.49, 7)):
        assert log_pieces(length, delta, "paper") == count
    for A, delta, count in ((1.5, 0.75, 6), (1.5, 0.76, 6), (1.5, 0.74, 7)):
        assert square_pieces(A, delta, "paper") == count


# ---- square


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("A", "delta"), SQUARES)
def test_square(A, delta, width, constant):
    """x^2, or x^2 - l^2 / 8 for the least error, at knots l apart; the outer lines go on, but for the
    paper's units, which are all left-sided and end at A."""
    f = square_approximation(A, delta, width=width, constant=constant)
    count = 1
    while (2 * A * A / count if width == "paper" else (2 * A / count) ** 2 / 8) > delta:
        count += 1
    length = 2 * A / count
    knots = [-A + i * length for i in range(count + 1)]
    down = 0.0 if width == "paper" else length * length / 8
    values = [x * x - down for x in knots]
    xs = [-1.4 * A, *inside(knots), 1.4 * A]
    for x, got in zip(xs, f(xs), strict=True):
        want = line_at(min(x, A) if width == "paper" else x, knots, values)
        assert abs(got + f.dropped - want) <= 1e-12 * (A * A + length * length)
    units = count - 1 if width == "minimax" and count % 2 else count  # two at 0, one for each side
    middle = A * A if width == "paper" else line_at(0.0, knots, values)
    carries = constant and middle != 0
    assert f.units == units + carries
    assert math.isclose(f.dropped, 0.0 if constant else middle, rel_tol=1e-9, abs_tol=1e-15)
    if carries:
        assert f.w[-1] == 0
        assert f.b[-1] == A
    assert close(f.closed_form, length**2 / 4 - down)
    size = 9 * A * A if width == "paper" else A * A + length * length
    assert close(f.rounding, (f.units + 8) * 2.0**-53 * size)
    assert f.domain == (-A, A)
    assert f.A == A


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("A", "delta"), SQUARES)
def test_terms_of_the_square_are_not_larger_than_its_rounding_says(A, delta, width):
    f = square_approximation(A, delta, width=width)
    for x in np.linspace(-A, A, 101):
        terms = sum(abs(a * max(w * x + b, 0.0)) for a, w, b in zip(f.a, f.w, f.b, strict=True))
        assert (f.units + 8) * 2.0**-53 * terms <= f.rounding * (1 + 1e-12)


# ---- x^(-1/2) and 1/x


def root_gap(ratio):
    """By how much the chord of x^(-1/2) over [1, ratio] exceeds it at most, relatively."""
    q = math.sqrt(ratio)
    x = (1 + q + q * q) / 3  # x^(1/2) times the chord has its derivative 0 there
    return math.sqrt(x) * (1 - (1 - 1 / q) * (x - 1) / (ratio - 1)) - 1


@pytest.mark.parametrize("h", [0.01, 0.37, 1.9, 5.0])
def test_the_gap_of_a_chord_of_the_inverse_root(h):
    assert math.isclose(inverse_root_gap(h), root_gap(math.exp(h)), rel_tol=1e-9, abs_tol=1e-15)


ROOTS = [(0.3, 11.0, 0.02), (0.3, 2.0, 0.05), (0.04, 1.7, 0.003), (2.3, 90.0, 0.31), (1.2, 1.9, 0.4),
         (5e-4, 3e3, 0.09)]  # fmt: skip


@pytest.mark.parametrize(("low", "high", "delta"), ROOTS)
def test_inverse_root(low, high, delta):
    """(1 - error) x^(-1/2) at knots of equal ratio; constant above, and the first line goes on below."""
    f = inverse_root_approximation(low, high, delta)
    count = 1
    while 1 + root_gap((high / low) ** (1 / count)) > (1 + delta) / (1 - delta):
        count += 1
    knots = [low * (high / low) ** (i / count) for i in range(count + 1)]
    excess = 1 + root_gap(knots[1] / knots[0])
    error = (excess - 1) / (excess + 1)  # (1 - error) excess = 1 + error
    values = [(1 - error) / math.sqrt(x) for x in knots]
    for x in (0.5 * low, *inside(knots), 1.6 * high):
        assert close(float(f(x)), line_at(min(x, high), knots, values))
    assert f.units == count + 1
    assert close(f.closed_form, error)
    assert close(f.rounding, (count + 8) * 2.0**-53 * math.sqrt(high / low))
    assert f.domain == (low, high)
    assert f.dropped == 0
    steepest = (values[0] - values[1]) / (knots[1] - knots[0])
    assert close(f.A, max(high, 1 / low, steepest))


@pytest.mark.parametrize(
    ("low", "high", "ratio"),
    [(0.3, 11.0, 2.0), (0.04, 1.7, 1.3), (2.3, 90.0, 3.7), (0.6, 0.9, 1.9), (5e-4, 0.3, 2.9)],
)
def test_reciprocal(low, high, ratio):
    """1/x at low, low ratio, ..., until `high` is passed; constant above, and the first line goes on."""
    f = reciprocal_approximation(low, high, ratio)
    knots = [low]
    while knots[-1] < high * (1 - 1e-12):
        knots.append(knots[-1] * ratio)
    values = [1 / x for x in knots]
    for x in (0.0, 0.5 * low, *inside(knots), 1.6 * knots[-1]):
        assert close(float(f(x)), line_at(min(x, knots[-1]), knots, values))
    assert float(f(0.0)) < 2 / low
    assert f.units == len(knots)
    assert all(map(close, f.domain, (low, knots[-1])))
    middle = (1 + ratio) / 2  # of a piece [1, ratio]
    assert close(f.closed_form, middle * (1 + 1 / ratio) / 2 - 1)
    assert close(f.rounding, (len(knots) + 7) * 2.0**-53 * ratio)
    assert f.dropped == 0
    assert close(f.A, max(1.0, knots[-1], 1 / (low * low * ratio)))


# ---- limits


def test_unit_roundoff():
    """1 + u is rounded to 1, and u is the largest power of 2 of which that is true."""
    assert 1 + UNIT_ROUNDOFF == 1
    assert 1 + 2 * UNIT_ROUNDOFF > 1
    assert UNIT_ROUNDOFF == 1.1102230246251565e-16


def test_coefficients_may_be_as_large_as_the_lemma_says():
    f = log_approximation(3.0, 0.2)
    ends = {"a": 6.0, "w": 1.0, "b": 3.0}
    for name, largest in ends.items():
        for sign in (-1.0, 1.0):
            array = getattr(f, name).copy()
            array[1] = sign * largest
            assert replace(f, **{name: array}).units == f.units
            array = array.copy()
            array[1] = sign * math.nextafter(largest, math.inf)
            with pytest.raises(ValueError, match=r"leave \|a\| <= 2A, \|w\| <= 1, \|b\| <= A for A = 3: "):
                replace(f, **{name: array})


def test_no_unit_for_a_constant_that_is_zero():
    """The paper's log on [1/A, 1] is 0 at its right end."""
    f = log_approximation(20.0, 0.3, width="paper", upper=1.0)
    assert f.units == math.ceil(math.log(20.0) / 0.3)
    assert f.dropped == 0
    assert f(1.0) == 0


def test_the_largest_bound_that_fits():
    """e^705 has the logarithm 705 as a float, and so have its neighbours; a little more has not."""
    A = math.exp(705.0)
    assert math.log(A) == 705.0
    assert log_approximation(A, 50.0, upper=1.0).A == A
    above = A * (1 + 1e-12)
    with pytest.raises(ValueError, match=r"log A = 705\.0 does not fit float64; at most 705 works"):
        log_approximation(above, 50.0, upper=1.0)


@pytest.mark.parametrize("upper", [0.25, 4.5])
def test_right_ends_that_leave_nothing_or_too_much(upper):
    with pytest.raises(ValueError, match=rf"upper must lie in \(1/A, A\] = \(0\.25, 4\], got {upper:g}"):
        log_approximation(4.0, 0.1, upper=upper)
    assert log_approximation(4.0, 0.1, upper=4.0).domain == (0.25, 4.0)
    assert log_approximation(4.0, 0.1, upper=0.26).domain == (0.25, 0.26)


def test_as_many_pieces_as_the_limit_are_built(monkeypatch):
    assert piecewise.MAX_PIECES == 134217728
    monkeypatch.setattr(piecewise, "MAX_PIECES", 8)
    assert square_approximation(2.0, 1.0, width="paper").units == 8 + 1
    with pytest.raises(ValueError, match=r"delta = 0\.99 takes 9 pieces; at most 8 are built"):
        square_approximation(2.0, 0.99, width="paper")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: log_approximation(1.0, 0.1), "A must exceed 1, got 1: log has an empty domain"),
        (lambda: log_approximation(0.0, 0.1), r"A must be positive and finite, got 0\.0"),
        (lambda: log_piece_length(0.0), r"gap must be positive and finite, got 0\.0"),
        (lambda: square_approximation(1.0, 0.0), r"delta must be positive and finite, got 0\.0"),
        (lambda: inverse_root_approximation(2.0, 2.0, 0.1), "need low < high and delta < 1, got 2, 2, 0.1"),
        (lambda: inverse_root_approximation(1.0, 2.0, 1.0), "need low < high and delta < 1, got 1, 2, 1"),
        (lambda: reciprocal_approximation(2.0, 2.0, 3.0), "need low < high and ratio > 1, got 2, 2, 3"),
        (lambda: reciprocal_approximation(1.0, 2.0, 1.0), "need low < high and ratio > 1, got 1, 2, 1"),
    ],
)
def test_ends_of_the_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
