"""Claims 53-58: population EM, and what the sample adds.

The theorems want a separation of C = 64 or 128, where every responsibility is 0 or 1 to hundreds of digits
(`test_far_beyond_underflow`).  What they conclude is looked at where it says something: at C = 4 to 10.
"""

import numpy as np
import pytest
from scipy.integrate import quad

from gmm import GaussianMixture, em_step, parameter_distance, population_em_step
from tests.claims.evidence import Found
from tests.claims.separated import separated, smallest_distance, starts, step, worst_ratio
from tests.compare import gap

SHAPES = [(1, 2), (2, 3), (2, 5)]


@pytest.mark.claim(53)
def test_population_em(claim):
    """In one dimension, against adaptive quadrature of the formulas."""

    def check(power):
        worst = 0.0
        for K in (2, 3):
            truth = GaussianMixture(
                claim.rng.dirichlet(np.full(K, 5.0)), 2 * claim.rng.standard_normal((K, 1))
            )
            current = GaussianMixture(claim.rng.dirichlet(np.full(K, 5.0)), truth.means + 0.5)
            after = population_em_step(truth, current)
            for k in range(K):

                def value(x, p, k=k, truth=truth, current=current):
                    w = current.responsibilities(np.array([[x]]))[0, k]
                    return w * x**p * np.exp(truth.score_samples(np.array([[x]]))[0])

                mass, moment = (
                    quad(value, -15, 15, args=(p,), epsabs=1e-11, limit=200)[0] for p in (0, power)
                )
                worst = max(worst, abs(after.weights[k] - mass), abs(after.means[k, 0] - moment / mass))
        return Found(worst, 1e-7, 5)

    claim.holds(check, 1)
    claim.twin("second moment for the first", check, 2)


def after_one_step(C, shift, rng):
    """Largest D+ over shapes and starts with |d mu_k| = shift R_min, |d pi_k| up to pi*_k / 2."""
    worst = 0.0
    for d, K in SHAPES:
        truth = separated(d, K, C)
        for start in starts(truth, shift * smallest_distance(truth), 0.5, rng):
            worst = max(worst, parameter_distance(step(truth, start), truth))
    return worst


@pytest.mark.claim(54)
def test_one_step_halves(claim):
    """Worst D+ over five ways to move the means and two to change the weights, on the boundary of (A1)."""

    def check(subject):
        return Found(after_one_step(*subject, claim.rng), 0.5, 10 * len(SHAPES))

    for C in (4.0, 8.0):
        claim.holds(check, (C, 1 / 16))
    claim.twin("means off by half of R_min", check, (4.0, 1 / 2))


@pytest.mark.claim(54)
def test_far_beyond_underflow(claim):
    """C = 64: one step gives the truth itself; at C = 4 it does not."""

    def check(C):
        return Found(after_one_step(C, 1 / 16, claim.rng), 1e-9, 10 * len(SHAPES))

    claim.holds(check, 64.0)
    claim.twin("C = 4", check, 4.0)


def contraction(C, rng):
    """Worst D+ / D over shapes, D = 0.9 and 0.1."""
    return max(worst_ratio(separated(d, K, C), D, rng) for d, K in SHAPES for D in (0.9, 0.1))


@pytest.mark.claim(55)
def test_population_em_contracts(claim):
    def check(C):
        return Found(contraction(C, claim.rng), 0.9, 20 * len(SHAPES))

    for C in (6.0, 128.0):
        claim.holds(check, C)
    claim.twin("C = 3", check, 3.0)


@pytest.mark.claim(56)
def test_beta_falls_with_the_separation(claim):
    """By half at least from each C to the next."""

    def check(separations):
        betas = np.array([contraction(C, claim.rng) for C in separations])
        return Found((betas[1:] / betas[:-1]).max(), 0.5, 20 * len(SHAPES) * len(separations))

    claim.holds(check, (4.0, 7.0, 10.0))
    claim.twin("the other way round", check, (10.0, 7.0, 4.0))


@pytest.mark.claim(57)
def test_parts_of_the_sample_error(claim):
    """mu^ = S/W and mu+ = E S / E W: |mu^ - mu*| <= |S/W - ES/W| + |ES/W - ES/EW| + |mu+ - mu*|."""

    def check(parts):
        worst = -np.inf
        for d, K in SHAPES:
            truth = separated(d, K, 3.0)
            for start in starts(truth, 0.5, 0.5, claim.rng):
                X, _ = truth.sample(200, claim.rng)
                w = start.responsibilities(X)
                population, W = step(truth, start), w.mean(axis=0)
                S, ES = w.T @ X / len(X), population.weights[:, None] * population.means
                for k in range(K):
                    sizes = [
                        np.linalg.norm(S[k] / W[k] - ES[k] / W[k]),
                        np.linalg.norm(ES[k] / W[k] - population.means[k]),
                        np.linalg.norm(population.means[k] - truth.means[k]),
                    ]
                    total = np.linalg.norm(em_step(X, start).means[k] - truth.means[k])
                    worst = max(worst, total - sum(sizes[i] for i in parts))
        return Found(worst, 1e-12, 10 * len(SHAPES))

    claim.holds(check, (0, 1, 2))
    for left_out in (0, 2):
        claim.twin(f"without part {left_out + 1}", check, tuple({0, 1, 2} - {left_out}))


@pytest.mark.claim(58)
def test_weights_stay_within_a_factor(claim):
    """a = 0.75, C = 4: pi+ / pi* and the start's own pi over it."""

    def check(a):
        worst = 0.0
        for d, K in SHAPES:
            truth = separated(d, K, 4.0)
            for start in starts(truth, 0.75, 0.75, claim.rng):
                after = step(truth, start).weights / truth.weights
                worst = max(worst, np.abs(after - 1).max(), np.abs(start.weights / truth.weights - 1).max())
        return Found(worst, a, 10 * len(SHAPES))

    claim.holds(check, 0.75 + 1e-12)
    claim.twin("a = 0.5", check, 0.5)


@pytest.mark.claim(58)
def test_the_ratio_is_near_one(claim):
    """E w / pi+ of a sample step of n = 600: the factor (1 + a)/(1 - a) = 7 is not lost."""

    def check(limit):
        worst = 1.0
        for d, K in SHAPES:
            truth = separated(d, K, 6.0)
            for start in starts(truth, 0.75, 0.75, claim.rng):
                X, _ = truth.sample(600, claim.rng)
                ratio = step(truth, start).weights / em_step(X, start).weights
                worst = max(worst, *ratio, *(1 / ratio))
        return Found(worst, limit, 10 * len(SHAPES))

    claim.holds(check, 7.0, slack=3)
    claim.twin("no fluctuation at all", check, 1.001)


def test_starts_are_on_the_boundary():
    rng = np.random.default_rng(0)
    for d, K in SHAPES:
        truth = separated(d, K, 5.0)
        assert np.isclose(smallest_distance(truth), 5 * np.sqrt(np.log(K)))
        for start in starts(truth, 0.3, 0.5, rng):
            shifts = np.linalg.norm(start.means - truth.means, axis=1)
            assert np.allclose(shifts[shifts > 1e-9], 0.3)
            assert np.abs(start.weights * K - 1).max() <= 0.5 + 1e-12
            assert gap(start.weights.sum(), 1.0) < 1e-12
