from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2, multivariate_normal

from gmm import GaussianMixture, TaskDistribution
from gmm.em import as_mixture
from tests.compare import assert_exact


def mixture(seed, d=3, K=4, anisotropic=False):
    tasks = TaskDistribution(d, max_cosine=1.0, anisotropic=anisotropic)
    return tasks.sample_mixture(K, np.random.default_rng(seed))


@pytest.mark.parametrize("anisotropic", [False, True])
@pytest.mark.parametrize(("d", "K"), [(1, 1), (1, 3), (3, 4), (8, 5)])
def test_densities_agree_with_scipy(d, K, anisotropic):
    model = mixture(d + K, d, K, anisotropic)
    X, _ = model.sample(50, np.random.default_rng(1))
    scales = np.ones((K, d)) if model.scales is None else model.scales
    parts = np.array(
        [
            weight * multivariate_normal(mean, np.diag(scale**2)).pdf(X)
            for weight, mean, scale in zip(model.weights, model.means, scales, strict=True)
        ]
    ).reshape(K, 50)
    largest = np.abs(model.joint_log_density(X)).max()
    assert_exact(model.score_samples(X), np.log(parts.sum(axis=0)), ulps=64, scale=largest)
    assert_exact(model.responsibilities(X), (parts / parts.sum(axis=0)).T, ulps=64, scale=largest)
    assert_exact(model.log_likelihood(X), np.log(parts.sum(axis=0)).mean(), ulps=64, scale=largest)


def test_responsibilities_underflow_without_nan():
    model = GaussianMixture([0.5, 0.5], [[-120.0], [120.0]])
    resp = model.responsibilities([[-120.0], [120.0]])
    assert resp.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_samples_have_the_moments_of_the_mixture():
    model = mixture(3, d=2, K=3, anisotropic=True)
    X, labels = model.sample(200_000, np.random.default_rng(0))
    counts = np.bincount(labels, minlength=3)
    # Pearson's statistic at the 0.1% level
    expected = 200_000 * model.weights
    assert ((counts - expected) ** 2 / expected).sum() < chi2(2).ppf(0.999)
    for k in range(3):
        part = X[labels == k]
        error = np.abs(part.mean(axis=0) - model.means[k]) / (model.scales[k] / np.sqrt(len(part)))
        assert error.max() < 4  # six checks at 6e-5 each
        spread = np.abs(part.std(axis=0) / model.scales[k] - 1) * np.sqrt(2 * len(part))
        assert spread.max() < 4


@given(st.integers(0, 10**6))
def test_permuting_components_permutes_responsibilities(seed):
    rng = np.random.default_rng(seed)
    model = mixture(seed)
    X, _ = model.sample(10, rng)
    order = rng.permutation(4)
    size = np.abs(model.joint_log_density(X)).max()
    assert_exact(
        model.permuted(order).responsibilities(X), model.responsibilities(X)[:, order], ulps=16, scale=size
    )


def test_values_are_frozen_copies():
    means = np.zeros((2, 1))
    model = GaussianMixture([0.5, 0.5], means)
    means[0] = 7
    assert model.means[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        model.means[0] = 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5, 0.6], [[0.0], [1.0]]), "weights must sum to 1, got 1.1"),
        (([-0.5, 1.5], [[0.0], [1.0]]), "weights must be non-negative, got -0.5"),
        (([np.nan, 1.0], [[0.0], [1.0]]), "weights must be finite, got nan"),
        (([1.0], [[0.0], [1.0]]), r"means must have shape \(1, \?\), got \(2, 1\)"),
        (([1.0], [0.0]), r"means must have shape \(1, \?\), got \(1,\)"),
        (([], np.zeros((0, 1))), r"weights must have shape \(\?,\), got \(0,\)"),
        (([1.0], [[np.inf]]), "means must be finite, got inf"),
        (([1.0], [[0.0]], [[0.0]]), "scales must be positive, got 0"),
        (([1.0], [[0.0]], [1.0]), r"scales must have shape \(1, 1\), got \(1,\)"),
    ],
)
def test_bad_mixtures_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(*arguments)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([1.0, 2.0], r"X must have shape \(n, d\) with n, d >= 1, got \(2,\); use X\[:, None\]"),
        (np.zeros((0, 1)), r"got \(0, 1\)"),
        ([[1.0], [np.nan]], "X must be finite, got nan in row 1, column 0"),
        ([[1.0, 2.0]], "X has 2 columns, the mixture lives in dimension 1"),
        ([["a"]], "X must be a rectangular array of numbers"),
    ],
)
def test_bad_samples_are_refused(X, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture([1.0], [[0.0]]).log_likelihood(X)


def test_anything_with_weights_and_means_is_an_init():
    model = as_mixture(SimpleNamespace(weights=[1.0], means=[[2.0]]))
    assert model.means.tolist() == [[2.0]]
    assert model.scales is None
