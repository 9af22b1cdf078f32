"""Piecewise-linear square, reciprocal and log on knots of equal ratio: the range costs only its log.

With h = 2 arccosh(e^eps) ~ sqrt(8 eps), on a piece [b, b e^h] the chords of x^2 and of 1/x exceed
them by at most the factor cosh^2(h/2) (for x^2 at the harmonic mean of the ends, for 1/x at the
arithmetic mean).  Interpolating kappa x^2 and kappa / x, kappa = 1 / cosh(h/2) = e^-eps, balances it:
|log(f / x^2)| and |log(f x)| are at most eps.  The chord of log lies below it by at most
e(h) ~ h^2 / 8 (`piecewise.log_chord_gap`), so that log + e(h) / 2 at the knots errs by e(h) / 2 ~ eps / 2.

The square has units on both sides of 0, its knots 0, r_0, r_0 e^h, ..., with f(0) = 0 exactly.  On [0, r_0]
    e^-eps x^2 <= f(x) = kappa r_0 x <= e^eps x^2 + kappa^3 r_0^2 / 4,
which is within eps floor^2 of x^2 for r_0 = 2 floor sqrt(eps).

The reciprocal and the log have the same hidden units relu(b - x), the left-sided ones at all knots, and
are constant below the first knot and above the last: they are functions of x clipped to the domain.

Conditioning.  All terms of the square are >= 0; of the other two, on the domain, of one sign but for the
constant.  So the rounding error of a sum of M terms is a small multiple of (M + 8) u times its size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from constructions.piecewise import MAX_PIECES, UNIT_ROUNDOFF, log_chord_gap
from constructions.weights import Array


@dataclass(frozen=True, eq=False)
class GeometricSum:
    """x -> sum_j a_j relu(w_j x + b_j), and what is proved about it on `domain`.

    a, w, b: (M,) float64.
    relative, absolute: e^-relative target - absolute <= sum <= e^relative target + absolute in exact
        arithmetic; relative is 0 for the log, and the lower bound needs no `absolute` for the others.
    rounding: what storing a, w, b and evaluating in float64 add to `relative` (for the log: to `absolute`).
    """

    a: Array
    w: Array
    b: Array
    target: Literal["square", "reciprocal", "log"]
    domain: tuple[float, float]
    relative: float
    absolute: float
    rounding: float

    def __post_init__(self) -> None:
        shapes = {self.a.shape, self.w.shape, self.b.shape}
        if len(shapes) != 1 or self.a.ndim != 1:
            raise ValueError(f"a, w, b must be vectors of one length, got shapes {shapes}")
        if not np.isfinite(np.stack([self.a, self.w, self.b])).all():
            raise ValueError("coefficients leave float64: the domain is too wide")
        inside = self.a[(self.w != 0) & (-self.w * self.b > self.domain[0])]
        if not ((inside > 0).all() or (inside < 0).all()):
            raise ValueError(f"the {self.target} must bend one way: its knots coincide in float64")
        for array in (self.a, self.w, self.b):
            array.flags.writeable = False

    @property
    def units(self) -> int:
        """M: the number of hidden units."""
        return len(self.a)

    def __call__(self, x: object) -> Array:
        """The sum at each entry of `x`."""
        points = np.asarray(x, dtype=np.float64)
        total = np.zeros(points.shape)
        for a, w, b in zip(self.a, self.w, self.b, strict=True):
            total += a * np.maximum(w * points + b, 0)
        return total


class ClippedPair(NamedTuple):
    """Functions of x clipped to their domain, with the same w and b."""

    reciprocal: GeometricSum
    log: GeometricSum


def piece_length(eps: float) -> float:
    """h = 2 arccosh(e^eps)."""
    return 2 * (eps + math.log1p(math.sqrt(-math.expm1(-2 * eps))))


def pieces(low: float, high: float, eps: float) -> int:
    """Pieces of equal ratio, none longer than `piece_length`, on [low, high]."""
    return math.ceil(math.log(high / low) / piece_length(eps))


def first_knot(floor: float, eps: float) -> float:
    """r_0 of the square that is within eps floor^2 near 0."""
    return 2 * floor * math.sqrt(eps)


def square_units(reach: float, floor: float, eps: float) -> int:
    """Units of `geometric_square`."""
    return 2 * (1 + pieces(first_knot(floor, eps), reach, eps))


def clipped_units(low: float, high: float, eps: float) -> int:
    """Units that the two functions of `clipped_reciprocal_and_log` share."""
    return pieces(low, high, eps) + 2


def geometric_square(reach: float, floor: float, eps: float) -> GeometricSum:
    """x^2 on [-reach, reach] up to the factor e^eps and the addend eps floor^2; exactly 0 at 0.

    Grows linearly beyond the domain.  ValueError unless 0 < 2 floor sqrt(eps) < reach and eps < 1, or for
    more than 2^27 pieces.
    """
    h, count = _ratio(first_knot(floor, eps), reach, eps)
    kappa = 1 / math.cosh(h / 2)
    knots = first_knot(floor, eps) * np.exp(h * np.arange(count + 1))
    slopes = kappa * np.append(knots[0], knots[1:] + knots[:-1])
    bends = np.diff(slopes, prepend=0.0)
    starts = np.append(0.0, knots[:-1])
    return GeometricSum(
        a=np.tile(bends, 2),
        w=np.repeat([1.0, -1.0], count + 1),
        b=-np.tile(starts, 2),
        target="square",
        domain=(-reach, reach),
        relative=math.log(math.cosh(h / 2)),
        absolute=kappa**3 * knots[0] ** 2 / 4,
        rounding=4 * (2 * count + 10) * UNIT_ROUNDOFF,
    )


def clipped_reciprocal_and_log(low: float, high: float, eps: float) -> ClippedPair:
    """1/c up to the factor e^eps and log c up to about eps / 2, for c = x clipped to [low, high].

    ValueError unless 0 < low < high and 0 < eps < 1, or for more than 2^27 pieces.
    """
    h, count = _ratio(low, high, eps)
    kappa, gap = 1 / math.cosh(h / 2), log_chord_gap(h)
    knots = low * np.exp(h * np.arange(count + 1))
    w, b = np.append(np.full(count + 1, -1.0), 0.0), np.append(knots, 1.0)
    widths = np.diff(knots)
    falls, rises = kappa / (knots[1:] * knots[:-1]), h / widths
    size = math.log(knots[-1] / low) + 2 + abs(math.log(knots[-1]))
    return ClippedPair(
        GeometricSum(
            a=np.append(_left_sided(-falls), kappa / knots[-1]),
            w=w,
            b=b,
            target="reciprocal",
            domain=(low, float(knots[-1])),
            relative=math.log(math.cosh(h / 2)),
            absolute=0.0,
            rounding=4 * (count + 10) * UNIT_ROUNDOFF,
        ),
        GeometricSum(
            a=np.append(_left_sided(rises), math.log(knots[-1]) + gap / 2),
            w=w,
            b=b,
            target="log",
            domain=(low, float(knots[-1])),
            relative=0.0,
            absolute=gap / 2,
            rounding=4 * (count + 10) * UNIT_ROUNDOFF * size,
        ),
    )


def _left_sided(slopes: Array) -> Array:
    """a of sum_j a_j relu(b_j - x) at knots b_0 < ... < b_n with these slopes between them, flat outside."""
    return np.diff(slopes, prepend=0.0, append=0.0)


def _ratio(low: float, high: float, eps: float) -> tuple[float, int]:
    """The log-length of a piece and how many there are."""
    if not (0 < low < high < math.inf and 0 < eps < 1):
        raise ValueError(f"no geometric knots on [{low:g}, {high:g}] for eps = {eps:g}")
    count = pieces(low, high, eps)
    if count > MAX_PIECES:
        raise ValueError(f"eps = {eps:g} takes {count} pieces; at most {MAX_PIECES} are built")
    return math.log(high / low) / count, count
