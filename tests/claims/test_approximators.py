"""Claims 69-72: Lemmas C.4 and C.5 and Remark C.6, certified from the stored floats.

Every line between two kinks is taken in exact rational numbers and compared with x^2 exactly, with log by
rigorous enclosures; nothing is sampled.  The minimax width is judged beside the paper's: it has fewer units,
so it proves the lemmas as well.
"""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from scipy.optimize import linprog

from constructions import log_approximation, square_approximation
from constructions.piecewise import log_chord_gap
from tests.claims.evidence import Found
from tests.constructions.test_piecewise import is_monotone, lines, sup_error_to_log, sup_error_to_square
from tests.intervals import log_interval

WIDTHS = ("paper", "minimax")
ROUNDING = 1e-9
"""What storing coefficients in float64 may add, relative to delta; all delta here are above 1e-3."""


def unchanged(f):
    return f


def without_a_unit(f):
    return replace(f, a=f.a[1:], w=f.w[1:], b=f.b[1:])


def one_sign_turned(f):
    return replace(f, a=f.a * np.where(np.arange(f.units) == f.units // 2, -1, 1))


def largest_share(f, A, M):
    """Of the lemmas' limits on units and coefficients, the one that is used most."""
    return max(f.units / M, np.abs(f.a).max() / (2 * A), np.abs(f.w).max(), np.abs(f.b).max() / A)


def lemma_c4_units(A, delta):
    """ceil(2 log A / delta) + 1, from an enclosure that leaves one value."""
    found = {math.ceil(2 * end / Fraction(delta)) + 1 for end in log_interval(Fraction(A))}
    assert len(found) == 1
    return found.pop()


@pytest.mark.claim(69)
def test_lemma_c4(claim):
    """Largest of: sup error over delta on the exact [1/A, A], the units over M, the coefficients over their
    limits; infinite where a line falls.  The printed "any A > 0": at A = 1/2, delta = 1/10 there would be
    -12 units (the check counts what is missing to 1)."""

    def check(subject):
        change, cases = subject
        worst = 0.0
        for A, delta in cases:
            M = lemma_c4_units(A, delta)
            if M < 1:
                return Found(1 + 1 - M, 1, 1)
            for width in WIDTHS:
                f = change(log_approximation(A, delta, width=width, constant=True))
                f = replace(f, domain=(1 / Fraction(A), Fraction(A)))
                error = float(sup_error_to_log(f)) / delta - ROUNDING
                falls = 0 if is_monotone(f, *f.domain) else math.inf
                worst = max(worst, error, largest_share(f, A, M), falls)
        return Found(worst, 1, 2 * len(cases))

    cases = [(A, delta) for A in (1.001, 1.5, 10.0, 1e4) for delta in (0.3, 0.1, 0.01)]
    claim.holds(check, (unchanged, cases))
    claim.twin("without a unit", check, (without_a_unit, [(10.0, 0.1)]))
    claim.twin("one slope turned", check, (one_sign_turned, [(10.0, 0.1)]))
    claim.printed("A = 1/2, delta = 1/10: M = -12", check, (unchanged, [(0.5, 0.1)]))


@pytest.mark.claim(70)
def test_remark_c6(claim):
    """Largest of log_delta(x) + log A over delta, on [0, 1/A], where log_delta is one line.

    The interpolating log_delta stays below -log A.  The balanced one for A = 2 with a single piece, delta =
    e(2 log 2) / 2 = 0.0430, has all that Lemma C.4 asks for, and -log A + delta at 1/A.
    """
    delta = log_chord_gap(2 * math.log(2)) / 2

    def check(subject):
        width, allowed, cases = subject
        worst = -math.inf
        for A, wanted in cases:
            f = log_approximation(A, wanted, width=width, constant=True)
            exact_A = Fraction(A)
            g = replace(f, domain=(1 / exact_A, exact_A))
            assert sup_error_to_log(g) <= Fraction(wanted) * Fraction(1 + ROUNDING)
            assert is_monotone(g, 0, exact_A)
            assert largest_share(g, A, lemma_c4_units(A, wanted)) <= 1
            _, above = log_interval(exact_A)
            for left, right, m, c in lines(f, Fraction(0), 1 / exact_A):
                worst = max(worst, *(float((m * x + c + above) / Fraction(wanted)) for x in (left, right)))
        return Found(worst - allowed, ROUNDING, len(cases))

    cases = [(A, wanted) for A in (2.0, 5.0, 30.0) for wanted in (0.3, 0.05, delta)]
    claim.holds(check, ("minimax", 1, cases))
    claim.holds(check, ("paper", 0, cases))
    claim.printed("-log A: A = 2, one piece, delta = 0.043", check, ("minimax", 0, [(2.0, delta)]))


@pytest.mark.claim(71)
def test_lemma_c5(claim):
    """Largest of: sup error over delta, the units over M, the coefficients over their limits."""

    def check(subject):
        change, cases = subject
        worst = 0.0
        for A, delta in cases:
            M = math.ceil(2 * Fraction(A) ** 2 / Fraction(delta)) + 1
            for width in WIDTHS:
                f = change(square_approximation(A, delta, width=width, constant=True))
                error = float(sup_error_to_square(f)) / delta - ROUNDING
                worst = max(worst, error, largest_share(f, A, M))
        return Found(worst, 1, 2 * len(cases))

    cases = [(0.3, 1.0), (0.3, 0.01), (1.0, 2.0), (1.0, 0.1), (4.0, 0.3), (10.0, 1.0)]
    claim.holds(check, (unchanged, cases))
    claim.twin("without a unit", check, (without_a_unit, [(4.0, 0.3)]))
    claim.twin("one slope turned", check, (one_sign_turned, [(4.0, 0.3)]))


@pytest.mark.claim(72)
def test_squares_rise_on_the_right_half(claim):
    """Sum of all falls of phi_delta over the interval, relative to A^2, exactly; the printed interval at the
    smallest A and delta = 2/5 A^2."""

    def check(low):
        worst, count = Fraction(0), 0
        for A in (1.0, 4.0):
            for delta in (0.4 * A**2, 0.1):
                for width in WIDTHS:
                    f = square_approximation(A, delta, width=width)
                    rises = (
                        m * (right - left) for left, right, m, _ in lines(f, *map(Fraction, (low * A, A)))
                    )
                    falls = -sum(rise for rise in rises if rise < 0)
                    worst, count = max(worst, falls / Fraction(A) ** 2), count + 1
        return Found(float(worst), ROUNDING, count)

    claim.holds(check, 0)
    claim.printed("on [-A, A]", check, -1)


@pytest.mark.claim(72)
def test_no_rising_function_is_close_to_the_square(claim):
    """phi(-A) >= A^2 - delta and phi(0) <= delta, so delta >= A^2 / 2: as a linear program on 41 points of
    [-1, 1], whose optimum is a lower bound for all functions; the constant 1/2 attains it."""
    x = np.linspace(-1, 1, 41)
    eye, n = np.eye(41), 41
    inequalities = np.block(
        [[eye, -np.ones((n, 1))], [-eye, -np.ones((n, 1))], [eye[:-1] - eye[1:], np.zeros((n - 1, 1))]]
    )
    limits = np.concatenate([x**2, -(x**2), np.zeros(n - 1)])
    best = linprog(np.append(np.zeros(n), 1), A_ub=inequalities, b_ub=limits, bounds=[(None, None)] * (n + 1))

    def check(delta):
        return Found(best.fun, delta + 1e-6, n)  # the solver's tolerance

    claim.holds(check, 1 / 2)
    claim.printed("delta = 0.49 A^2", check, 0.49)
