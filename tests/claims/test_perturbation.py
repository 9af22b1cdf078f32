"""Claims 73-78: Gaussian norms, softmax and log-softmax under perturbed logits."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from scipy.stats import beta, chi2

from gmm import GaussianMixture
from tests.claims.evidence import Found
from tests.claims.separated import separated, smallest_distance, starts


@pytest.mark.claim(73)
def test_norms_of_gaussians(claim):
    """By the chi-square's log-survival function on a grid, d up to 5000."""

    def check(exponent):
        worst, count = -np.inf, 0
        for d in (1, 2, 5, 20, 100, 1000, 5000):
            t = np.linspace(0.01, 4, 200)
            worst = max(worst, float((chi2.logsf(d * (1 + t) ** 2, d) + exponent * d * t**2).max()))
            count += len(t)
        return Found(worst, 0, count)

    claim.holds(check, 0.5)
    claim.twin("exponent d t^2", check, 1.0)
    claim.twin("exponent 1.8 d t^2 / 2", check, 0.9)


@pytest.mark.claim(74)
def test_largest_sample(claim):
    """n = 200, delta = 0.1, a mean of norm 5: the upper end of a 99% interval for the share of 300 samples
    that exceed it is under delta/2, and the bound within twice the median."""
    n, delta, R = 200, 0.1, 5.0

    def check(noise):
        worst, count = 0.0, 0
        for d in (2, 8, 32, 128):
            norms = np.linalg.norm(claim.rng.standard_normal((300, n, d)) + R * np.eye(d)[0], axis=2).max(
                axis=1
            )
            bound = R + noise(d, math.log(2 * n / delta))
            exceeded = int((norms > bound).sum())
            upper = beta.ppf(0.99, exceeded + 1, 300 - exceeded)
            worst, count = max(worst, upper / (delta / 2), bound / np.median(norms) / 2), count + 300
        return Found(worst, 1, count, confidence=0.99)

    claim.holds(check, lambda d, log: math.sqrt(d) + math.sqrt(2 * log))
    claim.printed("d (1 + sqrt(2 log(2n/delta)/d))", check, lambda d, log: d * (1 + math.sqrt(2 * log / d)))
    claim.twin("sqrt(d) alone", check, lambda d, log: math.sqrt(d))


def perturbed(rng, count):
    """Logits (K,) and perturbations with entries +-e, random ones and those that favour one component."""
    for _ in range(count):
        K, e = int(rng.integers(2, 6)), float(rng.choice([1e-3, 0.1, 1.0]))
        z = rng.standard_normal(K) * rng.choice([0.1, 1.0, 5.0])
        k = int(rng.integers(K))
        for change in (rng.choice([-e, e], K), np.where(np.arange(K) == k, e, -e)):
            yield z, change, e
    for e in (1e-3, 0.1, 1.0):  # equal weights of two: the worst there is
        yield np.zeros(2), np.array([e, -e]), e
        yield np.array([-12.0, 0.0]), np.array([e, -e]), e


@pytest.mark.claim(75)
def test_log_softmax(claim):
    def check(constant):
        ratios = [
            np.abs(log_softmax(z + c) - log_softmax(z)).max() / e for z, c, e in perturbed(claim.rng, 300)
        ]
        return Found(max(ratios), constant, len(ratios))

    claim.holds(check, 2.0)
    claim.twin("1.99", check, 1.99)


@pytest.mark.claim(76)
def test_softmax(claim):
    """Largest change over the bound; its slack against the sharp value is 4 at small e."""

    def check(bound):
        ratios = [
            np.abs(softmax(z + c) - softmax(z)).max() / bound(e) for z, c, e in perturbed(claim.rng, 300)
        ]
        return Found(max(ratios), 1 + 1e-9, len(ratios))

    claim.holds(check, lambda e: math.expm1(2 * e), slack=3.99)
    claim.twin("99% of tanh(e/2)", check, lambda e: 0.99 * math.tanh(e / 2))


@pytest.mark.claim(77)
def test_distances_of_perturbed_means(claim):
    """Rmax the largest distance of two means, Rmin the smallest; on the line K = 2 attains 9/8."""

    def check(factor):
        worst, count = -np.inf, 0
        for d, K in ((1, 2), (2, 2), (2, 3), (3, 5)):
            truth = separated(d, K, 6.0)
            between = np.linalg.norm(truth.means[:, None] - truth.means[None], axis=2)
            for start in starts(truth, smallest_distance(truth) / 16, 0.5, claim.rng):
                moved = np.linalg.norm(start.means[:, None] - start.means[None], axis=2)
                worst, count = max(worst, moved.max() / between.max()), count + 1
        return Found(worst, float(factor) + 1e-12, count)

    claim.holds(check, Fraction(9, 8))
    claim.twin("17/16", check, Fraction(17, 16))


@pytest.mark.claim(78)
def test_smallest_responsibility(claim):
    """As an inequality over samples and components, and the printed bound over the largest seen."""

    def check(prior):
        worst, count = -np.inf, 0
        for d, K in ((1, 2), (4, 3), (32, 16)):
            truth = GaussianMixture(np.full(K, 1 / K), 3 * claim.rng.standard_normal((K, d)))
            X, _ = truth.sample(200, claim.rng)
            squares = ((X[:, None] - truth.means) ** 2).sum(axis=2)
            bound = prior * np.log(1 / truth.weights) + (squares - squares.min(axis=1, keepdims=True)) / 2
            logs = -log_softmax(np.log(truth.weights) - squares / 2, axis=1)
            R = np.linalg.norm(truth.means, axis=1).max()
            worst = max(worst, float((logs - bound).max()), float(logs.max()) - 2 * K * R * (R + d))
            count += logs.size
        return Found(worst, 1e-9, count)

    claim.holds(check, 1.0)
    claim.twin("without log(1/pi_i)", check, 0.0)
