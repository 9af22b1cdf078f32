"""Rigorous enclosures of logarithms of rational numbers, for certifying inequalities.

Arb (python-flint, extra `certify`) where it is installed, else mpmath's interval arithmetic.
"""

from __future__ import annotations

from fractions import Fraction

from mpmath import iv

try:
    from flint import arb, ctx, fmpq
except ImportError:
    arb = None

PRECISION = 140

Interval = tuple[Fraction, Fraction]


def log_interval(x: Fraction) -> Interval:
    """Rational numbers below and above log x."""
    return by_mpmath(x) if arb is None else by_arb(x)


def by_arb(x: Fraction) -> Interval:
    """`log_interval` by python-flint."""
    ctx.prec = PRECISION
    value = arb(fmpq(x.numerator, x.denominator)).log()
    (m, e), (r, f) = value.mid().man_exp(), value.rad().man_exp()
    middle, radius = (Fraction(int(a)) * Fraction(2) ** int(b) for a, b in ((m, e), (r, f)))
    return middle - radius, middle + radius


def by_mpmath(x: Fraction) -> Interval:
    """`log_interval` by mpmath."""
    iv.prec = PRECISION
    ends = iv.log(iv.mpf(x.numerator) / iv.mpf(x.denominator))._mpi_
    low, high = (
        Fraction(-int(mantissa) if sign else int(mantissa)) * Fraction(2) ** int(exponent)
        for sign, mantissa, exponent, _ in ends
    )
    return low, high
