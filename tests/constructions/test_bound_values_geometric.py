"""Values, bounds and refusals of the functions on geometric knots, derived once more in scalar loops."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest

from constructions import geometric
from constructions.geometric import clipped_reciprocal_and_log, geometric_square, pieces

SQUARES = [(60.0, 0.05, 0.07), (7.3, 1.9, 0.012), (1.0, 0.4, 0.83), (0.0031, 4e-5, 0.21)]
CLIPPED = [(0.3, 9.0, 0.011), (1e-5, 0.37, 0.2), (2.7, 5e4, 0.06), (0.2, 7.0, 0.9), (1.3, 1.4, 0.4)]
UNIT_ROUNDOFF = 2.0**-53


def close(got, want):
    return math.isclose(got, want, rel_tol=1e-9)


def knots_on(low, high, eps):
    """Ends of the fewest pieces of equal ratio <= q on [low, high], (sqrt q + 1 / sqrt q) / 2 = e^eps."""
    root = math.exp(eps) + math.sqrt(math.exp(2 * eps) - 1)
    count = 1
    while (high / low) ** (1 / count) > root**2:
        count += 1
    return [low * (high / low) ** (i / count) for i in range(count + 1)]


def half_cosh(knots):
    """cosh(h / 2) for the ratio e^h of the first two knots."""
    ratio = knots[1] / knots[0]
    return (ratio + 1) / (2 * math.sqrt(ratio))


def chord(x, knots, values):
    """Linear between the knots and constant outside."""
    if x <= knots[0]:
        return values[0]
    for (low, high), (at_low, at_high) in zip(pairwise(knots), pairwise(values), strict=True):
        if x <= high:
            return at_low + (at_high - at_low) * (x - low) / (high - low)
    return values[-1]


def gap_of_log(knots):
    """How far log is above its chord at most: at the logarithmic mean of the ends, where the slopes agree."""
    low, high = knots[:2]
    x = (high - low) / math.log(high / low)
    return math.log(x / low) - (x - low) / x


def points(knots):
    """In every piece, at knots, and on both sides."""
    inside = [low + part * (high - low) for low, high in pairwise(knots) for part in (0.0, 0.23, 0.5, 0.81)]
    return [0.4 * knots[0], *inside, knots[-1], 1.7 * knots[-1]]


@pytest.mark.parametrize(("reach", "floor", "eps"), SQUARES)
def test_square(reach, floor, eps):
    """kappa x^2 at the knots, lines between, and the last line goes on; below r_0 it is a line through 0."""
    f = geometric_square(reach, floor, eps)
    knots = knots_on(2 * floor * math.sqrt(eps), reach, eps)
    kappa = 1 / half_cosh(knots)
    slope = kappa * (knots[-1] + knots[-2])
    for x in points(knots):
        want = chord(x, [0.0, *knots], [0.0, *(kappa * r * r for r in knots)])
        want += slope * max(0.0, x - knots[-1])
        assert close(float(f(x)), want)
        assert close(float(f(-x)), want)
    assert f.units == 2 * len(knots)
    assert f.domain == (-reach, reach)
    # of kappa x^2 and of the chord's greatest excess, kappa cosh(h / 2)^2 x^2
    assert close(f.relative, -math.log(kappa))
    # kappa r_0 x - x^2 / kappa on [0, r_0] is greatest at kappa^2 r_0 / 2
    peak = kappa**2 * knots[0] / 2
    assert close(f.absolute, kappa * knots[0] * peak - peak**2 / kappa)
    assert close(f.rounding, 4 * (f.units + 8) * UNIT_ROUNDOFF)


@pytest.mark.parametrize(("low", "high", "eps"), CLIPPED)
def test_reciprocal_and_log(low, high, eps):
    """kappa / x and log x plus half its chord's gap at the knots, lines between, constant outside."""
    reciprocal, log = clipped_reciprocal_and_log(low, high, eps)
    knots = knots_on(low, high, eps)
    kappa, gap = 1 / half_cosh(knots), gap_of_log(knots)
    size = math.log(high / low) + 2 + abs(math.log(high))
    for x in points(knots):
        assert close(float(reciprocal(x)), chord(x, knots, [kappa / r for r in knots]))
        want = chord(x, knots, [math.log(r) + gap / 2 for r in knots])
        assert abs(float(log(x)) - want) <= 1e-12 * size
    for f in (reciprocal, log):
        assert f.units == len(knots) + 1
        assert all(map(close, f.domain, (low, high)))
    assert close(reciprocal.relative, -math.log(kappa))
    assert reciprocal.absolute == 0
    assert close(reciprocal.rounding, 4 * (reciprocal.units + 8) * UNIT_ROUNDOFF)
    assert log.relative == 0
    assert math.isclose(log.absolute, gap / 2, rel_tol=1e-9, abs_tol=1e-15)
    assert close(log.rounding, 4 * (log.units + 8) * UNIT_ROUNDOFF * size)


@pytest.mark.parametrize("factor", [0.0, -1.0])
def test_left_sided_units_that_bend_back_are_refused(factor):
    """Of these too, and a unit that does not bend at all is one whose knot coincides with another."""
    for f in clipped_reciprocal_and_log(0.1, 8.0, 0.01):
        a = f.a.copy()
        a[3] *= factor
        with pytest.raises(ValueError, match=f"the {f.target} must bend one way: its knots coincide"):
            replace(f, a=a)


def test_a_square_with_a_unit_that_does_not_bend_is_refused():
    f = geometric_square(8.0, 0.1, 0.01)
    a = f.a.copy()
    a[3] = 0.0
    with pytest.raises(ValueError, match="the square must bend one way"):
        replace(f, a=a)


def test_outside_the_domain_it_may_bend_either_way():
    """Below the first knot the two are constant: this bend is the other way."""
    for f in clipped_reciprocal_and_log(0.1, 8.0, 0.01):
        assert f.a[0] * f.a[1] < 0
        for factor in (0.0, -1.0, 1.0):
            a = f.a.copy()
            a[0] *= factor
            assert replace(f, a=a).units == f.units


@pytest.mark.parametrize(
    ("low", "high", "eps"),
    [(0.0, 2.0, 0.1), (2.0, 2.0, 0.1), (1.0, math.inf, 0.1), (1.0, 2.0, 0.0), (1.0, 2.0, 1.0)],
)
def test_ends_of_the_arguments_are_refused(low, high, eps):
    message = rf"no geometric knots on \[{low:g}, {high:g}\] for eps = {eps:g}"
    with pytest.raises(ValueError, match=message):
        clipped_reciprocal_and_log(low, high, eps)


def test_a_square_needs_a_floor_and_a_reach_above_its_first_knot():
    """r_0 = 2 * 1 * sqrt(1/4) = 1."""
    with pytest.raises(ValueError, match=r"no geometric knots on \[1, 1\] for eps = 0\.25"):
        geometric_square(1.0, 1.0, 0.25)
    with pytest.raises(ValueError, match=r"no geometric knots on \[0, 1\] for eps = 0\.25"):
        geometric_square(1.0, 0.0, 0.25)
    assert geometric_square(1.0 + 1e-9, 1.0, 0.25).units == 4


def test_as_many_pieces_as_the_limit_are_built(monkeypatch):
    count = pieces(1.0, 100.0, 0.1)
    monkeypatch.setattr(geometric, "MAX_PIECES", count)
    assert clipped_reciprocal_and_log(1.0, 100.0, 0.1).log.units == count + 2
    monkeypatch.setattr(geometric, "MAX_PIECES", count - 1)
    with pytest.raises(ValueError, match=f"eps = 0.1 takes {count} pieces; at most {count - 1} are built"):
        clipped_reciprocal_and_log(1.0, 100.0, 0.1)
