"""Claims 79-86: what the approximations do to a step (Theorems C.6 and C.7), and the proof of Theorem C.1."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.special import softmax

from constructions import EMTransformer, square_approximation
from gmm import em_step
from tests.claims.em_problems import cases, network
from tests.claims.evidence import Found
from tests.claims.separated import separated, starts
from tests.compare import gap
from tests.constructions.twins import broken

pytestmark = pytest.mark.filterwarnings("ignore:.*leaves the bound")


@pytest.mark.claim(79)
def test_the_error_does_not_grow_with_n(claim):
    """Largest |mu^ - mu+| over starts, eps = 1e-2; slope of its log in log n, n = 50 to 50000, and half
    of a 99% bootstrap interval."""
    em, truth = EMTransformer(2, 3, eps=1e-2, r_max=16, pi_min=0.02), separated(2, 3, 3.0)
    sizes = [50, 500, 5000, 50_000]
    found = []
    for n in sizes:
        X, _ = truth.sample(n, claim.rng)
        found.append(
            [
                np.log(np.linalg.norm(em.run(X, start, 1)[0].means - em_step(X, start).means, axis=1).max())
                for start in starts(truth, 0.5, 0.3, claim.rng)
            ]
        )
    found = np.array(found)
    picks = (claim.rng.integers(found.shape[1], size=found.shape[1]) for _ in range(300))
    slopes = [np.polyfit(np.log(sizes), found[:, pick].mean(axis=1), 1)[0] for pick in picks]

    def check(power):
        low, high = np.quantile(slopes, (0.005, 0.995))
        return Found(max(high - power, power - low), 0.3, found.size, confidence=0.99)

    claim.holds(check, 0.0)
    claim.printed("a factor n", check, 1.0)


@pytest.mark.claim(80)
def test_the_first_weights_are_exact(claim):
    def check(em):
        worst = 0.0
        for case in cases(claim.rng, 8):
            worst = max(
                worst, gap(em.run(case.X, case.init, 1)[0].weights, em_step(case.X, case.init).weights)
            )
        return Found(worst, 1e-12, 8)

    claim.holds(check, network())
    claim.holds(check, network(eps=0.3))
    claim.twin("c without its half", check, broken(network(), "c without its half"))
    claim.twin("weight head removed", check, broken(network(), "weight head removed"))


@pytest.mark.claim(81)
def test_the_exponential(claim):
    def check(constant):
        e = np.linspace(1e-6, 0.01, 1000)
        return Found(float((np.expm1(2 * e) / e).max()), constant, len(e))

    claim.holds(check, 4.0)
    claim.twin("2 eps", check, 2.0)


@pytest.mark.claim(82)
def test_delta_of_the_squares(claim):
    """d = 8, K = 2: every coordinate of the mean where the built square is worst; |c/2 - c^/2| over eps/2."""

    def check(delta):
        worst, eps = 0.0, 0.05
        for d, K in ((8, 2), (32, 2), (128, 5)):
            f = square_approximation(4.75, delta(eps, d, K))
            x = np.linspace(0, 4.75, 20_001)
            error = np.abs(f(x) + f.dropped - x**2).max()
            worst = max(worst, d * error / 2 / (eps / 2))
        return Found(worst, 1 + 1e-6, 3)

    claim.holds(check, lambda eps, d, K: eps / d)
    claim.printed("delta = eps/K", check, lambda eps, d, K: eps / K)


def changes(rng, size, count=200):
    """Softmaxes under logits changed by +-size: random ones, and the two-valued ones that are worst."""
    for _ in range(count):
        K = int(rng.integers(2, 6))
        z = rng.standard_normal(K) * 3
        yield softmax(z), softmax(z + rng.choice([-size, size], K))
    for z in (0.0, -4.0, -8.0, -16.0):
        yield softmax([z, 0.0]), softmax([z + size, -size])


@pytest.mark.claim(83)
def test_responsibilities(claim):
    def check(bound):
        ratios = [
            np.abs(other - p).max() / bound(eps)
            for eps in (1e-3, 1e-2)
            for p, other in changes(claim.rng, 1.5 * eps)
        ]
        return Found(max(ratios), 1 + 1e-9, len(ratios))

    claim.holds(check, lambda eps: 6 * eps, slack=7.9)
    claim.twin("99% of tanh(3 eps/4)", check, lambda eps: 0.99 * math.tanh(0.75 * eps))


@pytest.mark.claim(84)
def test_normalised_weights(claim):
    """Largest |v^/v - 1|: log-weights within 4 eps, normalised."""

    def check(bound):
        ratios = [
            np.abs(other / p - 1).max() / bound(eps)
            for eps in (1e-3, 1e-2)
            for p, other in changes(claim.rng, 4 * eps)
        ]
        return Found(max(ratios), 1 + 1e-9, len(ratios))

    claim.holds(check, lambda eps: math.expm1(8 * eps))
    claim.printed("4 eps", check, lambda eps: 4 * eps)


@pytest.mark.claim(85)
def test_the_constant_doubles(claim):
    def check(constant):
        return Found(abs(2 * Fraction(72) - constant), 0, 1)

    claim.holds(check, 144)
    claim.twin("72 again", check, 72)


@pytest.mark.claim(86)
def test_the_induction(claim):
    """D_{l+1} = beta D_l + eps from D_1 = a, over fractions, eps < a (1 - beta); and delta/2 + delta/2."""

    def check(share):
        worst = abs(2 * Fraction(1, 20) - Fraction(1, 10))
        for a in (Fraction(51, 100), Fraction(3, 4), Fraction(99, 100)):
            for b in (Fraction(1, 10), Fraction(1, 2), Fraction(9, 10)):
                D = a
                for _ in range(20):
                    D = b * D + share * a * (1 - b)
                    worst = max(worst, D - a)
        return Found(float(worst), 0, 180)

    claim.holds(check, Fraction(99, 100))
    claim.twin("eps above a (1 - beta)", check, Fraction(101, 100))
