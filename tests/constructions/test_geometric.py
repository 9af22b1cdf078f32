"""The functions on geometric knots, certified from the stored floats piece by piece (see test_piecewise).

A line minus a parabola, and x times a line, are quadratic: their extrema are rational numbers.  e^r and
e^-r, 0 < r < 1, are replaced by Taylor polynomials of even degree: below the former, above the latter.
"""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from constructions.geometric import (
    clipped_reciprocal_and_log,
    clipped_units,
    first_knot,
    geometric_square,
    piece_length,
    pieces,
    square_units,
)
from tests.compare import assert_exact, slope
from tests.constructions.test_piecewise import lines, sup_error_to_log

SQUARES = [(60.0, 0.05, 1e-2), (60.0, 0.05, 1e-3), (1e4, 1e-3, 0.1), (1.0, 0.4, 1e-3), (3.0, 0.1, 0.9)]
CLIPPED = [(0.05**2, 20.0**2, 1e-2), (0.3, 9.0, 1e-3), (1e-8, 1e8, 0.1), (1.0, 1.1, 0.5), (0.2, 7.0, 0.9)]


def factors(f):
    """Rational numbers in [e^-r, e^r] near its ends, r the certified relative error."""
    r = Fraction(f.relative) + Fraction(f.rounding)
    return tuple(sum((sign * r) ** n / math.factorial(n) for n in range(21)) for sign in (-1, 1))


def above_and_below_square(f):
    """Largest f - (e^r x^2 + absolute) and largest e^-r x^2 - f on the domain, exactly."""
    low, high = factors(f)
    over, under = [], []
    for left, right, m, c in lines(f, *map(Fraction, f.domain)):
        peaks = [x for x in (left, right, m / (2 * high)) if left <= x <= right]
        over += [m * x + c - high * x * x - Fraction(f.absolute) for x in peaks]
        under += [low * x * x - m * x - c for x in (left, right)]
    return max(over), max(under)


def reciprocal_factors(f):
    """The least and the largest x f(x) on the domain, exactly."""
    values = [
        m * x * x + c * x
        for left, right, m, c in lines(f, *map(Fraction, f.domain))
        for x in (left, right, *([-c / (2 * m)] if m and left < -c / (2 * m) < right else []))
    ]
    return min(values), max(values)


@pytest.mark.parametrize(("reach", "floor", "eps"), SQUARES)
def test_square_is_certified(reach, floor, eps):
    f = geometric_square(reach, floor, eps)
    over, under = above_and_below_square(f)
    assert over <= 0
    assert under <= 0
    assert f.relative <= eps * (1 + 1e-12)
    assert f.absolute <= eps * floor**2
    assert f(0.0) == 0
    assert f.units == square_units(reach, floor, eps) == 2 * (1 + pieces(first_knot(floor, eps), reach, eps))
    x = np.linspace(0, 1, 1001)
    assert (f(-reach * x) == f(reach * x)).all()
    assert (f(reach * (1 + x)) <= (reach * (1 + x)) ** 2 * math.exp(eps)).all()


@pytest.mark.parametrize(("low", "high", "eps"), CLIPPED)
def test_reciprocal_and_log_are_certified(low, high, eps):
    reciprocal, log = clipped_reciprocal_and_log(low, high, eps)
    least, most = reciprocal_factors(reciprocal)
    bottom, top = factors(reciprocal)
    assert bottom <= least <= most <= top
    assert reciprocal.relative <= eps * (1 + 1e-12)
    shifted = replace(log, absolute=log.absolute + log.rounding)
    assert sup_error_to_log(_undropped(shifted)) <= Fraction(shifted.absolute)
    assert log.absolute <= eps / 2 * 1.3
    assert reciprocal.units == log.units == clipped_units(low, high, eps)
    assert (reciprocal.w == log.w).all()
    assert (reciprocal.b == log.b).all()


class _undropped:  # noqa: N801
    """What `sup_error_to_log` reads, of a sum without a dropped constant."""

    dropped = 0.0

    def __init__(self, f):
        self.a, self.w, self.b, self.domain = f.a, f.w, f.b, f.domain


@pytest.mark.parametrize(("low", "high", "eps"), CLIPPED)
def test_both_are_constant_outside_the_domain(low, high, eps):
    for f in clipped_reciprocal_and_log(low, high, eps):
        size = np.abs(f(np.array([low, high]))).max()
        assert_exact(f([0.0, low / 3]), f([low, low]), ulps=8 * f.units, scale=2 * size)
        assert_exact(f([3 * high, 1e9 * high]), f([high, high]), ulps=8 * f.units, scale=size)


def test_a_wrong_coefficient_is_not_certified():
    square = geometric_square(8.0, 0.1, 1e-3)
    reciprocal, log = clipped_reciprocal_and_log(0.1, 8.0, 1e-3)
    for f in (square, reciprocal, log):
        a = f.a.copy()
        a[len(a) // 3] *= 1.1
        wrong = replace(f, a=a)
        if f is square:
            assert max(above_and_below_square(wrong)) > 0
        elif f is reciprocal:
            assert (
                reciprocal_factors(wrong)[1] > factors(f)[1] or reciprocal_factors(wrong)[0] < factors(f)[0]
            )
        else:
            assert sup_error_to_log(_undropped(wrong)) > Fraction(f.absolute + f.rounding)


def test_a_sum_that_bends_both_ways_is_refused():
    f = geometric_square(8.0, 0.1, 1e-3)
    a = f.a.copy()
    a[3] = -a[3]
    with pytest.raises(ValueError, match="the square must bend one way"):
        replace(f, a=a)


def test_the_chord_of_such_a_piece_errs_by_cosh_squared():
    """h is where the chords of x^2 and of 1/x exceed them by the factor e^{2 eps} at most."""
    for eps in (1e-6, 1e-3, 0.1, 0.9):
        h = piece_length(eps)
        assert_exact(math.cosh(h / 2), math.exp(eps), ulps=16, scale=4)
        q = math.exp(h)
        x = np.linspace(1, q, 20001)
        square = ((1 + q) * x - q) / x**2
        reciprocal = (1 + q - x) * x / q
        for ratio in (square, reciprocal):
            assert ratio.max() <= math.exp(2 * eps) * (1 + 1e-13)
            assert ratio.max() >= math.exp(2 * eps) * (1 - 1e-6)


def test_widths_grow_with_the_log_of_the_range():
    eps = np.geomspace(1e-7, 1e-3, 9)
    assert abs(slope(eps, [clipped_units(1e-3, 1e3, e) for e in eps]) + 0.5) < 0.01
    once, twice = (clipped_units(1.0, R, 1e-4) for R in (1e3, 1e6))
    assert abs(twice / once - 2) < 0.02


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: geometric_square(1.0, 2.0, 0.5), "no geometric knots on .* for eps = 0.5"),
        (lambda: geometric_square(1.0, 0.1, 0.0), r"no geometric knots on \[0, 1\] for eps = 0"),
        (lambda: clipped_reciprocal_and_log(2.0, 1.0, 0.1), r"no geometric knots on \[2, 1\]"),
        (lambda: clipped_reciprocal_and_log(1.0, math.inf, 0.1), "no geometric knots"),
        (lambda: clipped_reciprocal_and_log(1.0, 2.0, 1.5), r"for eps = 1\.5"),
        (lambda: clipped_reciprocal_and_log(1.0, 2.0, 1e-20), "takes .* pieces; at most 134217728 are built"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
