"""Claims 69-72: Lemmas C.4 and C.5, certified from the stored floats by exact and interval arithmetic."""

import math

import numpy as np
import pytest

from constructions import log_approximation, square_approximation
from tests.claims.evidence import Found
from tests.constructions.test_piecewise import sup_error_to_log, sup_error_to_square


def largest_fall(f, low, high, count=4001):
    """Largest f(x) - f(x') over neighbouring points x < x', kinks among them."""
    kinks = -f.b[f.w != 0] / f.w[f.w != 0]
    x = np.unique(np.concatenate([np.linspace(low, high, count), kinks[(kinks >= low) & (kinks <= high)]]))
    values = f(x)
    return float((values[:-1] - values[1:]).max())


@pytest.mark.claim(69)
def test_lemma_c4(claim):
    """Sup error over delta, certified; sizes of coefficients, the number of units, and monotonicity."""

    def check(subject):
        share, ranges = subject
        worst = 0.0
        for A in ranges:
            for delta in (0.3, 0.1):
                M = math.ceil(2 * math.log(A) / delta) + 1
                if M < 1:
                    return Found(1 - M, 0.5, 1)  # there is no sum of so many units
                f = log_approximation(A, delta * share, width="paper", upper=None, constant=True)
                sizes = [np.abs(f.a).max() / (2 * A), np.abs(f.w).max(), np.abs(f.b).max() / A]
                used = f.units / M if share == 1 else 1.0
                error = float(sup_error_to_log(f)) / delta
                worst = max(worst, error, used, *sizes, 1 + largest_fall(f, 0.0, 2 * A))
        return Found(worst, 1 + 1e-9, 2 * len(ranges))

    claim.holds(check, (1, (1.5, 10.0, 30.0)))
    claim.twin("units for 12 times the error", check, (12, (10.0,)))
    claim.printed("A = 1/2, M = -12", check, (1, (0.5,)))


@pytest.mark.claim(70)
def test_remark_c6(claim):
    """Largest log_delta(x) + log A on [0, 1/A], over delta."""

    def check(share):
        worst = -np.inf
        for A in (5.0, 30.0):
            for delta in (0.3, 0.05):
                for width in ("paper", "minimax"):
                    f = log_approximation(A, delta, width=width)
                    x = np.linspace(0, 1 / A, 50)
                    above = (f(x) + f.dropped + math.log(A)).max() / delta
                    worst = max(worst, above - share, largest_fall(f, 0.0, 1 / A))
        return Found(worst, 1e-9, 8)

    claim.holds(check, 1)
    claim.printed("at most -log A", check, 0)


@pytest.mark.claim(71)
def test_lemma_c5(claim):
    def check(share):
        worst = 0.0
        for A in (1.0, 4.0, 10.0):
            for delta in (1.0, 0.3):
                M = math.ceil(2 * A**2 / delta) + 1
                f = square_approximation(A, delta * share, width="paper", constant=True)
                sizes = [np.abs(f.a).max() / (2 * A), np.abs(f.w).max(), np.abs(f.b).max() / A]
                used = f.units / M if share == 1 else 1.0
                worst = max(worst, float(sup_error_to_square(f)) / delta, used, *sizes)
        return Found(worst, 1 + 1e-9, 6)

    claim.holds(check, 1)
    # the lemma's width is far from the best: it takes A / delta times fewer units to break the error
    claim.twin("units for 400 times the error", check, 400)


@pytest.mark.claim(72)
def test_squares_do_not_rise_everywhere(claim):
    """phi(-A) >= A^2 - delta and phi(0) <= delta."""

    def check(from_zero):
        worst = -np.inf
        for A in (1.0, 4.0):
            for delta in (0.4 * A**2, 0.1):
                for width in ("paper", "minimax"):
                    f = square_approximation(A, delta, width=width)
                    worst = max(worst, largest_fall(f, 0.0 if from_zero else -A, A))
        return Found(worst, 1e-9, 8)

    claim.holds(check, True)
    claim.printed("on [-A, A]", check, False)
