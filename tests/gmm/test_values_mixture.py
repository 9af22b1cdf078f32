"""What a mixture accepts at the ends of its ranges, and what it draws, one number at a time."""

import math

import numpy as np
import pytest

from gmm import GaussianMixture, TaskDistribution
from gmm.mixture import as_samples


class Given:
    """In place of a generator: normals and labels that the test has written down."""

    def __init__(self, normals, labels):
        self.normals, self.labels, self.chances = np.array(normals), np.array(labels), []

    def standard_normal(self, size):
        assert size == self.normals.shape
        return self.normals.copy()

    def choice(self, n, size, p):
        assert size == len(self.labels)
        assert len(p) == n
        self.chances.append(list(p))
        return self.labels.copy()


@pytest.mark.parametrize("number", [1e150, -1e150])
def test_the_largest_numbers_of_samples(number):
    """Up to 1e150 of either sign; the next float is refused, whatever the other numbers are."""
    assert as_samples([[number, 0.5], [-0.25, 2.0]])[0, 0] == number
    beyond = math.nextafter(number, 2 * number)
    with pytest.raises(ValueError, match=r"X reaches 1e\+150, more than 1e\+150, whose square"):
        as_samples([[0.5, -0.25], [2.0, beyond]])


def test_weights_may_be_zero_and_off_by_a_millionth():
    assert GaussianMixture([0.0, 1.0], [[1.0], [2.0]]).weights.tolist() == [0.0, 1.0]
    for off in (-0.9e-6, 0.9e-6):
        assert GaussianMixture([0.25, 0.75 + off], [[1.0], [2.0]]).weights[1] == 0.75 + off
    for off in (-1.1e-6, 1.1e-6):
        with pytest.raises(ValueError, match=r"weights must sum to 1, got (0\.9999989|1\.0000011)$"):
            GaussianMixture([0.25, 0.75 + off], [[1.0], [2.0]])


def test_one_scale_that_is_not_positive_is_refused():
    for bad, message in ((0.0, "got 0$"), (-0.5, "got -0.5$")):
        with pytest.raises(ValueError, match="scales must be positive, " + message):
            GaussianMixture([0.5, 0.5], [[1.0, 3.0], [2.0, 4.0]], [[1.0, 2.0], [bad, 3.0]])


@pytest.mark.parametrize("scales", [None, [[0.5, 2.0], [3.0, 0.25], [1.5, 0.75]]])
def test_samples_in_numbers(scales):
    """Sample i is mu_k + s_k z_i for k = labels[i], coordinate by coordinate."""
    weights, means = [0.2, 0.3, 0.5], [[1.0, -2.0], [4.0, 0.5], [-3.0, 7.0]]
    rng = Given([[0.3, -1.1], [2.0, 0.7], [-0.4, 0.9], [1.3, -0.2]], [2, 0, 1, 2])
    X, labels = GaussianMixture(weights, means, scales).sample(4, rng)
    assert labels.tolist() == [2, 0, 1, 2]
    for i, k in enumerate(labels):
        for j in range(2):
            scale = 1.0 if scales is None else scales[k][j]
            assert math.isclose(X[i, j], means[k][j] + scale * rng.normals[i][j], rel_tol=1e-12)


def test_weights_that_nearly_sum_to_one_are_drawn_in_their_ratio():
    """Generators want a sum of one to 1e-8, mixtures to 1e-6."""
    weights = [0.2, 0.8 - 8e-7]
    model = GaussianMixture(weights, [[1.0], [2.0]])
    rng = Given([[0.0]], [0])
    model.sample(1, rng)
    ((one, other),) = rng.chances
    assert math.isclose(one + other, 1.0, rel_tol=1e-15)
    assert math.isclose(one / other, weights[0] / weights[1], rel_tol=1e-12)
    assert model.sample(3, np.random.default_rng(0))[0].shape == (3, 1)


@pytest.mark.parametrize("anisotropic", [False, True])
def test_densities_in_numbers(anisotropic):
    """log sum_k pi_k prod_j exp(-(x_j - mu_kj)^2 / (2 s_kj^2)) / sqrt(2 pi s_kj^2), and the shares in it."""
    rng = np.random.default_rng(3)
    model = TaskDistribution(3, mean_range=1.5, max_cosine=1.0, anisotropic=anisotropic).sample_mixture(
        4, rng
    )
    X = rng.uniform(-2, 2, (5, 3))
    logs = []
    for x in X:
        parts = []
        for k in range(4):
            density = float(model.weights[k])
            for j in range(3):
                s = float(model.scales[k, j]) if anisotropic else 1.0
                density *= math.exp(-((x[j] - model.means[k, j]) ** 2) / (2 * s * s)) / math.sqrt(
                    2 * math.pi * s * s
                )
            parts.append(density)
        logs.append(math.log(sum(parts)))
        assert math.isclose(model.score_samples([x])[0], logs[-1], rel_tol=1e-12)
        for share, part in zip(model.responsibilities([x])[0], parts, strict=True):
            assert math.isclose(share, part / sum(parts), rel_tol=1e-12)
    assert math.isclose(model.log_likelihood(X), sum(logs) / 5, rel_tol=1e-12)
