"""Claims 59-68: what a sample step differs by from the population's."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import beta

from gmm import GaussianMixture, em_step
from tests.claims.evidence import Found
from tests.claims.separated import separated, smallest_distance, starts, step
from tests.compare import gap


@pytest.mark.claim(59)
def test_constant_of_the_third_term(claim):
    """Lemma C.3 at delta / 2 has 2 * 36 in the place of its 36, and Theorem C.4 has 72."""

    def check(constant):
        return Found(abs(Fraction(constant) / Fraction(1, 2) - 72), 0, 1)

    claim.holds(check, 36)
    claim.printed("18", check, 18)


@pytest.mark.claim(60)
def test_the_covering_number(claim):
    def check(least):
        grid = [Fraction(k, 600) for k in range(1, 2000)]  # n L r / delta
        excess = [1 + 12 * x - 18 * x for x in grid if 6 * x >= least]
        return Found(float(max(excess)), 0, len(excess))

    claim.holds(check, 1)
    claim.twin("without the condition", check, 0)


@pytest.mark.claim(61)
def test_number_of_parameters(claim):
    def check(count):
        off = 0
        for d, K in ((1, 2), (2, 3), (8, 5)):
            mixture = separated(d, K, 3.0)
            off += mixture.weights.size + mixture.means.size != count(d, K)
            off += mixture.weights.size + mixture.means.size > 2 * K * d
        return Found(off, 0, 6)

    claim.holds(check, lambda d, K: K * (d + 1))
    claim.printed("K d", check, lambda d, K: K * d)


def around(truth, a, count, rng):
    """Mixtures in D_a: means moved by a, weights by a share of a."""
    K, d = truth.means.shape
    for _ in range(count):
        shift = rng.standard_normal((K, d))
        weights = truth.weights * (1 + 0.5 * a * rng.uniform(-1, 1, K))
        shift *= a / np.linalg.norm(shift, axis=1, keepdims=True)
        yield GaussianMixture(weights / weights.sum(), truth.means + shift)


def slopes(measure, sizes, repeats, rng):
    """(mean slope of log measure against log n, half of its 99.9% bootstrap interval)."""
    found = np.log([[measure(n) for _ in range(repeats)] for n in sizes])
    x = np.log(sizes)
    draws = [
        np.polyfit(x, found[:, rng.integers(repeats, size=repeats)].mean(axis=1), 1)[0] for _ in range(500)
    ]
    low, high = np.quantile(draws, (0.0005, 0.9995))
    return float(np.polyfit(x, found.mean(axis=1), 1)[0]), float(high - low) / 2


def rate_check(claim, value, population_value):
    """The rate in n of the largest |sample average - expectation| over 12 theta in D_a."""
    truth = separated(2, 3, 3.0)
    thetas = list(around(truth, 0.75, 12, claim.rng))
    expected = [population_value(step(truth, theta)) for theta in thetas]

    def deviation(n):
        X, _ = truth.sample(n, claim.rng)
        pairs = zip(thetas, expected, strict=True)
        return max(np.abs(value(theta.responsibilities(X), X) - want).max() for theta, want in pairs)

    slope, width = slopes(deviation, [100, 400, 1600, 6400], 20, claim.rng)

    def check(rate):
        return Found(abs(slope - rate) + width, 0.2, 80, confidence=0.999)

    claim.rate(check, -0.5)
    claim.twin("rate 1/4", check, -0.25)
    claim.twin("rate 1", check, -1.0)


def average_wX(w, X):
    return w.T @ X / len(X)


@pytest.mark.claim(62)
def test_rate_of_the_weights(claim):
    rate_check(claim, lambda w, X: w.mean(axis=0), lambda after: after.weights)


@pytest.mark.claim(62)
def test_responsibilities_are_lipschitz(claim):
    """Largest |w(theta) - w(theta')| / D(theta, theta') over samples and pairs in D_a, a = 0.75."""

    def check(constant):
        worst, count = 0.0, 0
        for d, K in ((1, 2), (2, 3), (8, 3)):
            truth = separated(d, K, 3.0)
            X, _ = truth.sample(100, claim.rng)
            for theta in around(truth, 0.6, 20, claim.rng):
                near = GaussianMixture(theta.weights, theta.means + 0.01 * claim.rng.standard_normal((K, d)))
                distance = np.linalg.norm(near.means - theta.means, axis=1).max()
                change = np.abs(theta.responsibilities(X) - near.responsibilities(X)).max()
                R = np.linalg.norm(truth.means, axis=1).max()
                worst, count = max(worst, change / distance / constant(d, K, R)), count + 1
        return Found(worst, 1, count, confidence=0.999)

    claim.holds(check, lambda d, K, R: K**2 * (math.sqrt(d) + 2 * R + 4))
    claim.twin("a constant of 1/20", check, lambda d, K, R: 0.05)


@pytest.mark.claim(63)
def test_rate_of_the_moments(claim):
    rate_check(claim, average_wX, lambda after: after.weights[:, None] * after.means)


@pytest.mark.claim(64)
def test_hoeffding(claim):
    """Share of 400 samples of n = 100 in which some component exceeds it, upper end of a 99.9% interval."""
    truth, delta = separated(2, 3, 2.0), 0.3
    start = next(iter(around(truth, 0.75, 1, claim.rng)))
    expected = step(truth, start).weights
    off = [
        np.abs(start.responsibilities(truth.sample(100, claim.rng)[0]).mean(axis=0) - expected).max()
        for _ in range(400)
    ]

    def check(c):
        bound = c * math.sqrt(math.log(9 / delta) / 100)
        exceeded = sum(x > bound for x in off)
        return Found(beta.ppf(0.999, exceeded + 1, 400 - exceeded), delta / 3, 400, confidence=0.999)

    claim.holds(check, 1.0)
    claim.twin("a constant of 1/10", check, 0.1)


def pairs_at(R, rng):
    """d = 1, K = 2, means 0 and R, and 300 samples of n = 500."""
    truth = GaussianMixture([0.5, 0.5], [[0.0], [R]])
    start = GaussianMixture([0.5, 0.5], [[0.3], [R - 0.3]])
    return start, step(truth, start), [truth.sample(500, rng)[0] for _ in range(300)]


@pytest.mark.claim(65)
def test_the_moments_error_is_linear_in_r(claim):
    """90% quantile of |avg w X - E w X|, divided by the power of R: largest over smallest, R = 5 to 5120."""
    quantiles = []
    for R in (5.0, 80.0, 1280.0, 5120.0):
        start, population, samples = pairs_at(R, claim.rng)
        want = population.weights[1] * population.means[1, 0]
        off = [abs(average_wX(start.responsibilities(X), X)[1, 0] - want) for X in samples]
        quantiles.append((R, np.quantile(off, 0.9)))

    def check(power):
        implied = [q / R**power for R, q in quantiles]
        return Found(max(implied) / min(implied), 2, len(implied) * 300, confidence=0.999)

    claim.holds(check, 1.0)
    claim.printed("sqrt(Rmax d log(3K/delta)/n)", check, 0.5)


@pytest.mark.claim(66)
def test_the_means_error_does_not_grow_with_r(claim):
    """90% quantile of the error of a step's mean, divided by the power of R: largest over smallest, R = 10 to
    5120."""
    quantiles = []
    for R in (10.0, 80.0, 1280.0, 5120.0):
        start, population, samples = pairs_at(R, claim.rng)
        off = [gap(em_step(X, start).means, population.means) for X in samples]
        quantiles.append((R, np.quantile(off, 0.9)))

    def check(power):
        implied = [q / R**power for R, q in quantiles]
        return Found(max(implied) / min(implied), 2, len(implied) * 300, confidence=0.999)

    claim.holds(check, 0.0)
    claim.printed("sqrt(Rmax (Rmax v d)), linear in Rmax", check, 1.0)


@pytest.mark.claim(67)
def test_new_means_stay_within_the_radius(claim):
    """C = 4 to 64, starts on the boundary of (A1); and Rmax + 1/2 <= 2 Rmax."""

    def check(more):
        worst = -np.inf
        for d, K in ((1, 2), (2, 3)):
            for C in (4.0, 64.0):
                truth = separated(d, K, C)
                R = max(1.0, np.linalg.norm(truth.means, axis=1).max())
                for start in starts(truth, smallest_distance(truth) / 16, 0.5, claim.rng):
                    reach = np.linalg.norm(step(truth, start).means, axis=1).max()
                    worst = max(worst, reach - R - more, R + more - 2 * R)
        return Found(worst, 0, 40)

    claim.holds(check, 0.5)
    claim.twin("a radius smaller by 1/2", check, -0.5)


@pytest.mark.claim(68)
def test_the_smaller_constant_is_enough(claim):
    def check(shift):
        worst = 0.0
        for d, K in ((1, 2), (2, 3)):
            truth = separated(d, K, 64.0)
            for start in starts(truth, shift * smallest_distance(truth), 0.5, claim.rng):
                after = step(truth, start)
                worst = max(worst, gap(after.means, truth.means), gap(after.weights * K, np.ones(K)))
        return Found(worst, 0.5, 20)

    claim.holds(check, 1 / 16)
    claim.twin("starts beyond (A1)", check, 0.6)
