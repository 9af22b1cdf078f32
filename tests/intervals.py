"""Rigorous enclosures of logarithms of rational numbers, for certifying inequalities.

Arb (python-flint, extra `certify`) where it is installed, else mpmath's interval arithmetic.
"""

from __future__ import annotations

from fractions import Fraction

from mpmath import iv, mpf

try:
    from flint import arb, ctx, fmpq
except ImportError:
    arb = None

PRECISION = 140


def _exact(value: mpf) -> Fraction:
    sign, mantissa, exponent, _ = value._mpf_
    return Fraction(-mantissa if sign else mantissa) * Fraction(2) ** exponent


def log_interval(x: Fraction) -> tuple[Fraction, Fraction]:
    """Rational numbers below and above log x."""
    if arb is not None:
        ctx.prec = PRECISION
        value = arb(fmpq(x.numerator, x.denominator)).log()
        (m, e), (r, f) = value.mid().man_exp(), value.rad().man_exp()
        middle, radius = (Fraction(int(a)) * Fraction(2) ** int(b) for a, b in ((m, e), (r, f)))
        return middle - radius, middle + radius
    iv.prec = PRECISION
    value = iv.log(iv.mpf(x.numerator) / iv.mpf(x.denominator))
    return _exact(value.a), _exact(value.b)
