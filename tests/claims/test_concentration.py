"""Claims 59-63: concentration of a step on a sample, uniformly over D_a (Theorem C.4, Lemmas C.1 to C.3)."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from gmm import GaussianMixture
from tests.claims.evidence import Found
from tests.claims.sampling import rate_check
from tests.claims.separated import separated, smallest_distance, starts, step
from tests.compare import gap

A = 0.75
"""a: the radius of D_a."""


@pytest.mark.claim(59)
def test_constant_of_the_third_term(claim):
    """The arguments of the logarithms over n/delta, with B = sqrt(d) + 2 Rmax + 1/(1-a) and delta_1 = delta_2
    = delta/2: that of (III) is the theorem's 72 K^2 B^2, that of (I), from Lemma C.2, at most that."""

    def check(constant):
        off, cases = Fraction(0), 0
        for K, d, R, a in itertools.product((2, 5), (1, 4), (1, 30), (Fraction(1, 10), Fraction(3, 4))):
            B = math.isqrt(d) + 2 * R + 1 / (1 - a)
            first, third, theorem = 18 * K**2 * B * 2, constant * K**2 * B**2 * 2, 72 * K**2 * B**2
            off = max(off, abs(third - theorem), first - theorem)
            cases += 1
        return Found(float(off), 0, cases)

    claim.holds(check, 36)
    claim.printed("18 K^2 (...)^2", check, 18)


@pytest.mark.claim(60)
def test_the_covering_number(claim):
    """x = n L r / delta from 1/600 to 10/3: where the inequality holds and 6 x is below `least`, or the
    other way round."""

    def check(least):
        grid = [Fraction(k, 600) for k in range(1, 2000)]
        return Found(sum((1 + 12 * x <= 18 * x) != (6 * x >= least) for x in grid), 0, len(grid))

    claim.holds(check, 1)
    claim.twin("6 n L r / delta >= 2", check, 2)
    claim.twin("without the condition", check, 0)


@pytest.mark.claim(60)
def test_the_covering_number_in_lemma_c2(claim):
    """n, L >= 1, r <= 1, delta < 1, small radii among them."""

    def check(constant):
        cases = list(
            itertools.product(
                (1, 10, 1000), (1, 50), (Fraction(1, 1000), Fraction(1)), (Fraction(99, 100), Fraction(1, 10))
            )
        )
        excess = [1 + 12 * n * L * r / delta - constant * n * L / delta for n, L, r, delta in cases]
        return Found(float(max(excess)), 0, len(cases))

    claim.holds(check, 18)
    claim.twin("12 n L / delta", check, 12)


@pytest.mark.claim(61)
def test_number_of_parameters(claim):
    """Coordinates of a mixture's weights and means against the dimension of the balls' product."""

    def check(dimension):
        off, cases = 0, 0
        for d, K in itertools.product((1, 2, 8), (2, 5)):
            truth = separated(d, K, 3.0)
            coordinates = truth.weights.size + truth.means.size
            off = max(off, abs(coordinates - dimension(d, K)), coordinates - 2 * K * d)
            cases += 1
        return Found(off, 0, cases)

    claim.holds(check, lambda d, K: K * (d + 1))
    claim.printed("K d", check, lambda d, K: K * d)


def corners(R, rng):
    """Two components in one dimension with means 0 and R, and 10 theta in D_a: the truth, one at random and
    the corners, where each mean and the first weight (relatively) are a away from the true ones."""
    truth = GaussianMixture([0.5, 0.5], [[0.0], [R]])
    shifts = [*itertools.product((-A, A), repeat=3), (0.0, 0.0, 0.0), tuple(rng.uniform(-A, A, 3))]
    return truth, [
        GaussianMixture([(1 + p) / 2, (1 - p) / 2], [[left], [R + right]]) for left, right, p in shifts
    ]


def deviation_of_weights(theta, population, X, truth):
    return gap(theta.responsibilities(X).mean(axis=0), population.weights)


def deviation_of_moments(theta, population, X, centre):
    """Largest entry of avg w_i (X - centre_i) - E w_i (X - centre_i)."""
    w = theta.responsibilities(X)
    average = w.T @ X / len(X) - w.mean(axis=0)[:, None] * centre
    return gap(average, population.weights[:, None] * (population.means - centre))


def deviation_centred(theta, population, X, truth):
    return deviation_of_moments(theta, population, X, truth.means)


def deviation_not_centred(theta, population, X, truth):
    return deviation_of_moments(theta, population, X, np.zeros_like(truth.means))


def largest_deviations(deviation, R, n, repeats, rng):
    """The largest over `corners`, for each of `repeats` samples of size n."""
    truth, thetas = corners(R, rng)
    populations = [step(truth, theta) for theta in thetas]
    samples = [truth.sample(n, rng)[0] for _ in range(repeats)]
    return [
        max(deviation(*pair, X, truth) for pair in zip(thetas, populations, strict=True)) for X in samples
    ]


def rate_in_n(deviation, rng):
    sizes = (50, 200, 800, 3200)
    found = [largest_deviations(deviation, 5.0, n, 100, rng) for n in sizes]
    return rate_check(sizes, found, 0.2, rng)


@pytest.mark.claim(62)
def test_rate_of_the_weights(claim):
    check = rate_in_n(deviation_of_weights, claim.rng)
    claim.rate(check, -0.5)
    claim.twin("rate 1/4", check, -0.25)
    claim.twin("rate 1", check, -1.0)


def test_responsibilities_are_lipschitz():
    """Condition 1 of Lemma C.1 with Lemma C.2's L = K^2 (sqrt(d) + 2 Rmax + 1/(1-a)): the average over X of
    the largest |w(theta) - w(theta')| / max_i |theta_i - theta'_i| over 40 pairs, the weights relative to the
    true ones, stays below L / 20."""
    rng = np.random.default_rng(0)
    for d, K in ((1, 2), (2, 3), (8, 3)):
        truth = separated(d, K, 3.0)
        X, _ = truth.sample(2000, rng)
        worst = np.zeros(len(X))
        for theta in starts(truth, 0.9 * A, 0.9 * A, rng):
            for _ in range(4):
                weights = theta.weights * (1 + 0.01 * rng.uniform(-1, 1, K))
                near = GaussianMixture(
                    weights / weights.sum(), theta.means + 0.01 * rng.standard_normal((K, d))
                )
                relative = (near.weights - theta.weights) / truth.weights
                distance = np.hypot(relative, np.linalg.norm(near.means - theta.means, axis=1)).max()
                change = np.linalg.norm(theta.responsibilities(X) - near.responsibilities(X), axis=1)
                worst = np.maximum(worst, change / distance)
        R = smallest_distance(truth)  # all distances are equal, and above the norms of the means
        assert worst.mean() <= K**2 * (math.sqrt(d) + 2 * R + 1 / (1 - A)) / 20


@pytest.mark.claim(63)
def test_rate_of_the_moments(claim):
    check = rate_in_n(deviation_centred, claim.rng)
    claim.rate(check, -0.5)
    claim.twin("rate 1/4", check, -0.25)
    claim.twin("rate 1", check, -1.0)


@pytest.mark.claim(63)
def test_the_moments_do_not_grow_with_r(claim):
    """Slope in Rmax, from 8 to 4096: (14) has Rmax only inside the logarithm."""
    radii = (8.0, 64.0, 512.0, 4096.0)

    def check(deviation):
        found = [largest_deviations(deviation, R, 300, 60, claim.rng) for R in radii]
        return rate_check(radii, found, 0.2, claim.rng)(0.0)

    claim.rate(check, deviation_centred)
    claim.twin("w_i X, not centred at mu_i*", check, deviation_not_centred)
