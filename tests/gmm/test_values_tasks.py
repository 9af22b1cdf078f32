"""Settings of a task distribution at their ends, and what it makes of the numbers that it draws."""

import math

import numpy as np
import pytest

from gmm import TaskDistribution


class Given:
    """In place of a generator: uniforms at given parts of their ranges, and given normals."""

    def __init__(self, uniforms, normals=()):
        self.uniforms, self.normals, self.draws = list(uniforms), list(normals), 0

    def uniform(self, low, high, size):
        self.draws += 1
        parts = np.array(self.uniforms[(self.draws - 1) % len(self.uniforms)])
        assert parts.shape == (size if isinstance(size, tuple) else (size,))
        return low + (high - low) * parts

    def standard_normal(self, size):
        normals = np.array(self.normals.pop(0)) if self.normals else np.zeros(size)
        assert normals.shape == size
        return normals


@pytest.mark.parametrize(
    "settings",
    [
        {"dim": 1, "n_components": (1,)},
        {"dim": 1, "n_components": (2,)},
        {"dim": 1, "n_components": (2, 3, 4), "max_cosine": 1},
        {"dim": 2, "n_components": (1, 7)},
        {"dim": 2, "max_samples": 1},
        {"dim": 2, "max_cosine": -1},
        {"dim": 2, "weight_range": (0.3, 0.3)},
        {"dim": 2, "mean_perturbation": 0.0},
        {"dim": 2, "mean_range": 5e-324, "mean_perturbation": 1e300},
    ],
)
def test_settings_at_their_ends_are_accepted(settings):
    assert TaskDistribution(**settings).dim == settings["dim"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_components": (0, 3)}, r"every n_components must be at least 1, got 2 and \(0, 3\)"),
        ({"n_components": (3, 0)}, r"every n_components must be at least 1, got 2 and \(3, 0\)"),
        ({"weight_range": (0.0, 0.5)}, r"weight_range must be positive and ordered, got \(0.0, 0.5\)"),
        ({"weight_range": (-0.1, 0.5)}, r"weight_range must be positive and ordered, got \(-0.1, 0.5\)"),
        ({"weight_range": (0.2, math.inf)}, r"weight_range must be positive and ordered, got \(0.2, inf\)"),
        ({"max_cosine": 1.001}, "max_cosine must be between -1 and 1, got 1.001"),
        ({"max_cosine": -1.001}, "max_cosine must be between -1 and 1, got -1.001"),
        ({"mean_range": 0.0}, "mean_range must be positive and mean_perturbation non-negative, got 0.0 and"),
        ({"mean_range": math.inf}, "mean_range must be positive and .* got inf and 0.0"),
        ({"mean_perturbation": math.inf}, "mean_perturbation non-negative, got 5.0 and inf"),
        ({"mean_perturbation": -0.1}, "mean_perturbation non-negative, got 5.0 and -0.1"),
        ({"dim": 1, "n_components": (2, 3)}, "in dimension 1 more than two means cannot have"),
        ({"dim": 1, "n_components": (3,), "max_cosine": 0.999}, "cosines at most 0.999; use max_cosine=1"),
    ],
)
def test_settings_beyond_their_ends_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TaskDistribution(**{"dim": 2} | settings)


@pytest.mark.parametrize("anisotropic", [False, True])
def test_a_mixture_in_numbers(anisotropic):
    """Means, then the noise of the means, then weights, then standard deviations log(1 + e^u)."""
    at, moved = [[0.9, 0.3, 0.55], [0.1, 0.8, 0.25]], [[0.4, -1.2, 0.7], [2.0, 0.1, -0.6]]
    shares, soft = [0.25, 0.7], [[0.1, 0.6, 0.9], [0.35, 0.0, 1.0]]
    tasks = TaskDistribution(
        3, mean_range=2.5, weight_range=(0.3, 1.7), mean_perturbation=1.5, anisotropic=anisotropic
    )
    found = tasks.sample_mixture(2, Given([at, shares, soft], [moved]))
    raw = [0.3 + 1.4 * share for share in shares]
    for k in range(2):
        assert math.isclose(found.weights[k], raw[k] / (raw[0] + raw[1]), rel_tol=1e-12)
        for j in range(3):
            assert math.isclose(found.means[k, j], 5 * at[k][j] - 2.5 + 1.5 * moved[k][j], rel_tol=1e-12)
            if anisotropic:
                scale = math.log(1 + math.exp(2 * soft[k][j] - 1))
                assert math.isclose(found.scales[k, j], scale, rel_tol=1e-12)
    assert (found.scales is not None) == anisotropic


def test_means_are_drawn_again_until_every_pair_is_apart():
    """cos = 3/5 for the pair (1, 0), (3/5, 4/5), and 24/25 for (3/5, 4/5), (4/5, 3/5)."""
    wide, narrow = [[1.0, 0.5], [0.8, 0.9]], [[0.8, 0.9], [0.9, 0.8]]
    for max_cosine, draws, first in (
        (0.61, [narrow, wide], [[1.0, 0.0], [0.6, 0.8]]),
        (0.97, [narrow], [[0.6, 0.8], [0.8, 0.6]]),
    ):
        rng = Given([*draws, [0.3, 0.4]])
        found = TaskDistribution(2, mean_range=1.0, max_cosine=max_cosine).sample_mixture(2, rng).means
        assert np.allclose(found, first, rtol=1e-12)
        assert rng.draws == len(draws) + 1


def test_one_close_pair_is_enough_to_draw_all_again():
    close = [[0.1, 0.3], [0.9, 0.8], [0.85, 0.8]]
    apart = [[0.1, 0.3], [0.9, 0.8], [0.8, 0.1]]
    rng = Given([close, close, apart, [0.1, 0.3, 0.2]])
    found = TaskDistribution(2, mean_range=0.5, max_cosine=0.5).sample_mixture(3, rng).means
    assert np.allclose(found, np.array(apart) - 0.5, rtol=1e-12)
    assert rng.draws == 4


def test_means_whose_cosine_is_the_largest_allowed_pass():
    """On a line cosines are exactly 1 or -1."""
    rng = np.random.default_rng(0)
    for _ in range(10):
        one, other = TaskDistribution(1, n_components=(2,), max_cosine=-1).sample_mixture(2, rng).means
        assert one * other < 0
    assert TaskDistribution(1, n_components=(3,), max_cosine=1).sample_mixture(3, rng).means.shape == (3, 1)


def test_how_often_means_are_drawn():
    """As often as the message says."""

    class Counter:
        means, draws = np.array([[0.9], [0.8]]), 0

        def uniform(self, low, high, size):
            self.draws += 1
            return self.means

    rng = Counter()
    with pytest.raises(ValueError, match=r"cosines at most 0\.5 in dimension 1 after 100000 draws"):
        TaskDistribution(1, n_components=(2,), max_cosine=0.5).sample_mixture(2, rng)
    assert rng.draws == 100_000


@pytest.mark.parametrize(("largest", "least"), [(1, 1), (2, 1), (3, 2), (5, 3), (6, 3)])
def test_sizes_are_from_half_of_the_largest_on(largest, least):
    tasks = TaskDistribution(1, n_components=(1,), max_samples=largest)
    sizes = [len(task.X) for task in tasks.sample(80, np.random.default_rng(0))]
    assert len(sizes) == 80
    assert sorted(set(sizes)) == list(range(least, largest + 1))
