"""Piecewise-linear log and square as sums of ReLUs (Lemmas C.4 and C.5), with certified error.

Lemma C.4.  For A > 1 and delta > 0 there are M = ceil(2 log(A) / delta) + 1 triples with
|a_j| <= 2A, |w_j| <= 1, |b_j| <= A such that log_delta(x) = sum_j a_j relu(w_j x + b_j) is
non-decreasing and within delta of log on [1/A, A].  (The lemma says A > 0; for A <= 1 there is
nothing to approximate and M is not positive.)

Lemma C.5.  The same for x^2 on [-A, A] with M = ceil(2 A^2 / delta) + 1.  (It also says that the
approximation is non-decreasing on [-A, A], which no function within delta < A^2/2 of x^2 is.)

| paper   | here          | shape | meaning                                       |
|---------|---------------|-------|-----------------------------------------------|
| a, w, b | `a`, `w`, `b` | (M,)  | output weights, input weights, biases         |
| M       | `units`       |       | number of hidden units                        |
| A       | `A`           |       | bound of the domain                           |
| delta   | `delta`       |       | wanted error                                  |

Widths.  On a piece from b to b e^h the chord of log lies below it by at most
    e(h) = s - 1 - log s,   s = h / (e^h - 1),
whatever b is (the greatest gap is at x = b / s).  On a piece of length l the chord of x^2 lies
above it by at most l^2 / 4.  A continuous function that interpolates log + e/2 (x^2 - l^2/8) at
equally log-spaced (equally spaced) knots errs by half of that, and no straight line errs less on
such a piece: so ceil(L / h*) pieces with e(h*) = 2 delta are needed and enough on a domain of
log-length L, and ceil(2A / sqrt(8 delta)) for x^2.  This is `width="minimax"`; the paper's width
has pieces of log-length 2 log(A) / (M - 1) <= delta, of length at most delta / A, and interpolates.

Conditioning.  All units of the log are left-sided, -a_j relu(b_j - x) with a_j > 0: every term has
one sign and the sum of their sizes is at most L + 2, so the rounding error is of the order of
(M + 2) u (L + 2).  Right-sided units relu(x - b_j) have terms of the size of A that cancel.  For
the same reason the units of x^2 open outwards from the middle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import brentq

from constructions.weights import Array

Width = Literal["minimax", "paper"]

UNIT_ROUNDOFF = 2.0**-53
"""u of float64, in which coefficients are stored and errors are certified."""

_MAX_LOG_A = 705.0
MAX_PIECES = 2**27


@dataclass(frozen=True, eq=False)
class PiecewiseLinear:
    """x -> sum_j a_j relu(w_j x + b_j), and what is proved about it.

    a, w, b: (M,) float64.
    target: "log", "square", "inverse root" or "reciprocal".
    A: the bound of the lemma: |a| <= 2A, |w| <= 1, |b| <= A.
    domain: the interval on which the error is bounded.
    dropped: the additive constant left out: the sum plus `dropped` approximates the target.
    closed_form: sup error in exact arithmetic, from the formulas at the top of this module.
    rounding: bound on what storing a, w, b and evaluating in float64 add to it.
    """

    a: Array
    w: Array
    b: Array
    target: Literal["log", "square", "inverse root", "reciprocal"]
    A: float
    domain: tuple[float, float]
    dropped: float
    closed_form: float
    rounding: float

    def __post_init__(self) -> None:
        shapes = {self.a.shape, self.w.shape, self.b.shape}
        if len(shapes) != 1 or self.a.ndim != 1:
            raise ValueError(f"a, w, b must be vectors of one length, got shapes {shapes}")
        largest = [float(np.abs(array).max(initial=0)) for array in (self.a, self.w, self.b)]
        if not (largest[0] <= 2 * self.A and largest[1] <= 1 and largest[2] <= self.A):
            raise ValueError(
                f"coefficients leave |a| <= 2A, |w| <= 1, |b| <= A for A = {self.A:g}: largest {largest}"
            )
        for array in (self.a, self.w, self.b):
            array.flags.writeable = False

    @property
    def units(self) -> int:
        """M: the number of hidden units."""
        return len(self.a)

    @property
    def sup_error(self) -> float:
        """Certified sup over the domain of |sum + dropped - target|, in float64."""
        return self.closed_form + self.rounding

    def __call__(self, x: object) -> Array:
        """The sum at each entry of `x`, without `dropped`."""
        points = np.asarray(x, dtype=np.float64)
        total = np.zeros(points.shape)
        for a, w, b in zip(self.a, self.w, self.b, strict=True):
            total += a * np.maximum(w * points + b, 0)
        return total


def log_chord_gap(h: float) -> float:
    """e(h): the greatest gap between log and its chord over a piece of log-length h > 0."""
    if h < 1e-3:  # series; what is left out is below 1e-17 of the first term
        return h**2 / 8 - h**4 / 576 + h**6 / 25920
    s = h / math.expm1(h)
    return s - 1 - (math.log(s) if h > 1 else math.log1p(s - 1))


def log_piece_length(gap: float) -> float:
    """h with log_chord_gap(h) = gap."""
    gap = _positive("gap", gap)
    high = 1e-3
    while log_chord_gap(high) < gap:
        high *= 2
    return float(brentq(lambda h: log_chord_gap(h) - gap, 0.0, high, xtol=1e-300, rtol=1e-14))


def log_pieces(log_length: float, delta: float, width: Width = "minimax") -> int:
    """Pieces of the approximation of log on a domain of the given log-length.

    "minimax": the fewest of any continuous piecewise-linear function with sup error `delta`.
    """
    if width == "paper":
        return math.ceil(log_length / delta)
    pieces = math.ceil(log_length / log_piece_length(2 * delta))
    return pieces + (log_chord_gap(log_length / pieces) > 2 * delta)


def square_pieces(A: float, delta: float, width: Width = "minimax") -> int:
    """Pieces of the approximation of x^2 on [-A, A]; "minimax": the fewest, as in `log_pieces`."""
    if width == "paper":
        return math.ceil(2 * A**2 / delta)
    pieces = math.ceil(A / math.sqrt(2 * delta))
    return pieces + ((2 * A / pieces) ** 2 > 8 * delta)


def log_approximation(
    A: float,
    delta: float,
    *,
    width: Width = "minimax",
    upper: float | None = None,
    constant: bool = True,
) -> PiecewiseLinear:
    """ReLU coefficients of log on [1/A, upper] with sup error at most `delta` (Lemma C.4) in exact
    arithmetic; `rounding` comes on top, and matters for delta below about 10^-8.

    A: bound of the domain, A > 1.
    width: "paper" for the lemma's M, "minimax" for the fewest pieces.
    upper: right end of the domain; A, as in the lemma, unless given.  Responsibilities and
        weights need 1 only.
    constant: whether a unit carries the additive constant.  Inside a softmax it cancels, so the
        constructions can leave it out; its value is then in `dropped`.

    ValueError for A <= 1, a right end outside (1/A, A], A beyond e^705 (float64), delta <= 0, or
    a delta that takes more than 2^27 pieces.
    """
    A, delta = _check(A, delta, width)
    if A <= 1:
        raise ValueError(f"A must exceed 1, got {A:g}: log has an empty domain [1/A, A]")
    log_A = math.log(A)
    if log_A > _MAX_LOG_A:
        raise ValueError(f"log A = {log_A:.1f} does not fit float64; at most {_MAX_LOG_A:g} works")
    end = A if upper is None else _positive("upper", upper)
    if not 1 / A < end <= A:
        raise ValueError(f"upper must lie in (1/A, A] = ({1 / A:g}, {A:g}], got {end:g}")
    length = log_A + math.log(end)
    pieces = _buildable(log_pieces(length, delta, width), delta)
    h = length / pieces
    knots: Array = np.exp(-log_A + h * np.arange(pieces + 1))
    knots[0], knots[-1] = 1 / A, end
    slopes = h / np.diff(knots)
    gap = log_chord_gap(h)
    shift, error = (gap / 2, gap / 2) if width == "minimax" else (0.0, gap)
    return _assemble(
        a=np.append(slopes[1:], 0.0) - slopes,
        w=np.full(pieces, -1.0),
        b=knots[1:],
        target="log",
        A=A,
        domain=(1 / A, end),
        value=math.log(end) + shift,
        constant_bias=1.0 if constant else None,
        closed_form=error,
        size=length + 2 + abs(math.log(end)),
    )


def square_approximation(
    A: float, delta: float, *, width: Width = "minimax", constant: bool = True
) -> PiecewiseLinear:
    """ReLU coefficients of x^2 on [-A, A] with sup error at most `delta` (Lemma C.5).

    A: bound of the domain.
    width: "paper" for the lemma's M, "minimax" for the fewest pieces.
    constant: whether a unit carries the additive constant (see `log_approximation`).

    ValueError for A <= 0, delta <= 0, or a delta that takes more than 2^27 pieces.
    """
    A, delta = _check(A, delta, width)
    pieces = _buildable(square_pieces(A, delta, width), delta)
    length = 2 * A / pieces
    if width == "paper":  # the lemma's M units, all left-sided from the value A^2 at x = A
        b: Array = np.linspace(length - A, A, pieces)
        a, w = np.full(pieces, 2 * length), np.full(pieces, -1.0)
        a[-1] = length - 2 * A
        value, error, size = A**2, length**2 / 4, 9 * A**2
    else:
        first = 0.5 if pieces % 2 else 0.0  # an odd number has a flat middle piece
        knots = length * (first + np.arange(pieces // 2))
        bends = np.full(len(knots), 2 * length)
        if pieces % 2 == 0:
            bends[0] = length  # at 0 the slope turns from -length to +length
        a, b = np.tile(bends, 2), -np.tile(knots, 2)
        w = np.repeat([1.0, -1.0], len(knots))
        error, size = length**2 / 8, A**2 + length**2
        value = first * length**2 / 2 - error
    return _assemble(
        a=a,
        w=w,
        b=b,
        target="square",
        A=A,
        domain=(-A, A),
        value=value,
        constant_bias=A if constant else None,
        closed_form=error,
        size=size,
    )


def inverse_root_approximation(low: float, high: float, delta: float) -> PiecewiseLinear:
    """ReLU coefficients of x^{-1/2} on [low, high] with relative error at most `delta`.

    On a piece from b to b q^2 the chord of x^{-1/2} lies above it by at most the factor
    1 + G = (2/3) m / (q (q + 1)) sqrt(m / 3), m = q^2 + q + 1, at x = b m / 3.  Interpolating
    (1 - delta) x^{-1/2} at knots of equal ratio with 1 + G = (1 + delta) / (1 - delta) balances it.
    Of the result `closed_form` and `rounding` are relative errors.

    ValueError unless 0 < low < high and 0 < delta < 1.
    """
    low, high, delta = _positive("low", low), _positive("high", high), _positive("delta", delta)
    if low >= high or delta >= 1:
        raise ValueError(f"need low < high and delta < 1, got {low:g}, {high:g}, {delta:g}")
    wanted = 2 * delta / (1 - delta)
    largest = math.log(high / low)
    if inverse_root_gap(largest) <= wanted:
        pieces = 1
    else:
        h = brentq(lambda h: inverse_root_gap(h) - wanted, 1e-12, largest, rtol=1e-12)
        pieces = _buildable(math.ceil(largest / h), delta)
    gap = inverse_root_gap(largest / pieces)
    error = gap / (2 + gap)
    knots: Array = low * np.exp(largest / pieces * np.arange(pieces + 1))
    knots[-1] = high
    values = (1 - error) / np.sqrt(knots)
    slopes = -np.diff(values) / np.diff(knots)
    A = max(high, 1 / low, float(slopes[0]))
    return PiecewiseLinear(
        a=np.append(slopes - np.append(slopes[1:], 0.0), values[-1]),
        w=np.append(np.full(pieces, -1.0), 0.0),
        b=np.append(knots[1:], 1.0),
        target="inverse root",
        A=A,
        domain=(low, high),
        dropped=0.0,
        closed_form=error,
        rounding=(pieces + 8) * UNIT_ROUNDOFF * math.sqrt(high / low),
    )


def reciprocal_approximation(low: float, high: float, ratio: float = 2.0) -> PiecewiseLinear:
    """ReLU coefficients of 1/x on [low, high], interpolated at knots of the given ratio.

    Never below 1/x there, and above it by at most the factor (1 + ratio)^2 / (4 ratio), at the middle
    of a piece.  Constant above the last knot; at most 2 / low below the first.  `closed_form` and
    `rounding` are relative errors.

    ValueError unless 0 < low < high and ratio > 1.
    """
    low, high, ratio = _positive("low", low), _positive("high", high), _positive("ratio", ratio)
    if low >= high or ratio <= 1:
        raise ValueError(f"need low < high and ratio > 1, got {low:g}, {high:g}, {ratio:g}")
    pieces = _buildable(math.ceil(math.log(high / low) / math.log(ratio)), ratio)
    knots: Array = low * ratio ** np.arange(pieces + 1.0)
    slopes = 1 / (knots[1:] * knots[:-1])
    return PiecewiseLinear(
        a=np.append(slopes - np.append(slopes[1:], 0.0), 1 / knots[-1]),
        w=np.append(np.full(pieces, -1.0), 0.0),
        b=np.append(knots[1:], 1.0),
        target="reciprocal",
        A=max(float(knots[-1]), float(slopes[0]), 1.0),
        domain=(low, float(knots[-1])),
        dropped=0.0,
        closed_form=(1 + ratio) ** 2 / (4 * ratio) - 1,
        rounding=(pieces + 8) * UNIT_ROUNDOFF * ratio,
    )


def inverse_root_gap(h: float) -> float:
    """G above, for a piece of log-length h = 2 log q."""
    q = math.exp(h / 2)
    m = q * q + q + 1
    return 2 / 3 * m / (q * (q + 1)) * math.sqrt(m / 3) - 1


def _positive(name: str, value: float) -> float:
    value = float(value)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be positive and finite, got {value}")
    return value


def _check(A: float, delta: float, width: str) -> tuple[float, float]:
    if width not in ("minimax", "paper"):
        raise ValueError(f'width must be "minimax" or "paper", got {width!r}')
    return _positive("A", A), _positive("delta", delta)


def _buildable(pieces: int, delta: float) -> int:
    if pieces > MAX_PIECES:
        raise ValueError(f"delta = {delta:g} takes {pieces} pieces; at most {MAX_PIECES} are built")
    return pieces


def _assemble(
    *,
    a: Array,
    w: Array,
    b: Array,
    target: Literal["log", "square"],
    A: float,
    domain: tuple[float, float],
    value: float,
    constant_bias: float | None,
    closed_form: float,
    size: float,
) -> PiecewiseLinear:
    """`value` is the additive constant, `size` a bound on the sum of the sizes of all terms."""
    if not np.isfinite(a).all():
        raise ValueError("knots coincide in float64: delta is too small for this A")
    dropped = value
    if constant_bias is not None and value != 0:
        a, w = np.append(a, value / constant_bias), np.append(w, 0.0)
        b, dropped = np.append(b, constant_bias), 0.0
    rounding = (len(a) + 8) * UNIT_ROUNDOFF * size
    return PiecewiseLinear(a, w, b, target, A, domain, dropped, closed_form, rounding)
