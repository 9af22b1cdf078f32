import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from gmm import GaussianMixture, TaskDistribution, em_step, population_em_step
from tests.compare import assert_exact, gap


def pair(d, K, seed, spread=2.0):
    rng = np.random.default_rng(seed)
    tasks = TaskDistribution(d, mean_range=spread, max_cosine=1.0)
    return tasks.sample_mixture(K, rng), tasks.sample_mixture(K, rng)


@pytest.mark.parametrize("K", [1, 2, 3])
def test_one_dimension_agrees_with_adaptive_quadrature(K):
    truth, current = pair(1, K, seed=K)

    def moment(k, power):
        def integrand(x):
            density = sum(w * norm.pdf(x, m) for w, m in zip(truth.weights, truth.means[:, 0], strict=True))
            return current.responsibilities([[x]])[0, k] * x**power * density

        return quad(integrand, -12, 12, epsabs=1e-13, epsrel=1e-13, limit=500, points=[-2, 0, 2])[0]

    after, error = population_em_step(truth, current, return_error=True)
    mass = np.array([moment(k, 0) for k in range(K)])
    means = np.array([moment(k, 1) for k in range(K)]) / mass
    assert gap(after.weights, mass) <= error + 1e-11
    assert gap(after.means[:, 0], means) <= error + 1e-11
    assert error < 1e-9


def test_the_truth_is_a_fixed_point():
    """At the truth the map is the identity, in any dimension and for any number of components."""
    for d, K, seed in [(1, 2, 0), (2, 3, 1), (3, 4, 2), (8, 2, 3), (32, 4, 4)]:
        truth, _ = pair(d, K, seed)
        after, error = population_em_step(truth, truth, return_error=True)
        assert gap(after.means, truth.means) <= 2 * error + 1e-12
        assert gap(after.weights, truth.weights) <= 2 * error + 1e-12
        assert error < 1e-3


@pytest.mark.parametrize(("d", "K"), [(2, 2), (3, 3), (3, 5), (8, 3)])
def test_quadrature_agrees_with_a_large_sample(d, K):
    truth, current = pair(d, K, seed=10 * d + K)
    after, error = population_em_step(truth, current, return_error=True)
    X, _ = truth.sample(400_000, np.random.default_rng(0))
    sample = em_step(X, current)
    # five standard errors of the ratio sum w X / sum w, for at most 40 numbers
    resp = current.responsibilities(X)
    spread = [(w[:, None] * (X - m)).std(axis=0).max() for w, m in zip(resp.T, after.means, strict=True)]
    tolerance = 5 * max(spread / after.weights) / np.sqrt(400_000) + error
    assert gap(after.means, sample.means) < tolerance
    assert gap(after.weights, sample.weights) < 5 / np.sqrt(400_000) + error
    assert gap(after.means, current.means) > 10 * tolerance


def test_directions_without_differences_are_integrated_out():
    """Adding coordinates in which all means agree changes nothing else."""
    truth, current = pair(1, 3, seed=5)
    wide = [GaussianMixture(m.weights, np.hstack([m.means, np.full((3, 2), 7.0)])) for m in (truth, current)]
    narrow, after = population_em_step(truth, current), population_em_step(*wide)
    assert_exact(after.means[:, :1], narrow.means, ulps=256, scale=7)
    assert_exact(after.means[:, 1:], np.full((3, 2), 7.0), ulps=64, scale=7)


def test_monte_carlo_above_three_dimensions():
    truth, current = pair(5, 5, seed=1)
    results = [
        population_em_step(truth, current, n_samples=200_000, rng=np.random.default_rng(s), return_error=True)
        for s in (1, 2)
    ]
    (one, error), (two, _) = results
    assert 0 < gap(one.means, two.means) < 2 * error
    assert error < 0.1
    with pytest.raises(ValueError, match="span 4 dimensions, too many for quadrature: give rng"):
        population_em_step(truth, current)


def test_bad_arguments_are_refused():
    truth, current = pair(2, 2, seed=0)
    scaled = GaussianMixture(truth.weights, truth.means, np.ones((2, 2)))
    with pytest.raises(ValueError, match="for unit-variance mixtures"):
        population_em_step(scaled, current)
    with pytest.raises(ValueError, match="truth has dimension 2, current 1"):
        population_em_step(truth, pair(1, 2, seed=0)[1])


@pytest.mark.parametrize("dim", [1, 6])
def test_a_component_without_mass_keeps_its_mean(dim):
    """As in `em_step`; by quadrature and by sampling."""
    rng = np.random.default_rng(0)
    near = rng.standard_normal((dim - 1, dim)) if dim > 1 else np.zeros((1, 1))
    means = np.concatenate([near, np.full((1, dim), 1e3)])
    current = GaussianMixture(np.full(len(means), 1 / len(means)), means)
    after = population_em_step(GaussianMixture([1.0], np.zeros((1, dim))), current, rng=rng)
    assert_exact(after.means[-1], means[-1], ulps=0)
    assert after.weights[-1] == 0
