import numpy as np
import pytest
from scipy.stats import binomtest, kstest

from gmm import TaskDistribution


def sample(count=2000, seed=0, **settings):
    return TaskDistribution(**{"dim": 3, **settings}).sample(count, np.random.default_rng(seed))


def test_tasks_follow_algorithm_1():
    tasks = sample(max_samples=64)
    sizes = np.array([len(task.X) for task in tasks])
    assert (sizes.min(), sizes.max()) == (32, 64)
    assert len(set(sizes)) == 33
    components = np.array([task.mixture.n_components for task in tasks])
    for K in (2, 3, 4, 5):
        assert binomtest(int((components == K).sum()), 2000, 0.25).pvalue > 1e-4
    for task in tasks[:100]:
        assert task.X.shape == (len(task.labels), 3)
        assert task.mixture.scales is None
        assert task.labels.max() < task.mixture.n_components


def test_means_are_uniform_apart_from_the_cosine_filter():
    means = np.concatenate([task.mixture.means for task in sample(max_cosine=1.0)])
    assert kstest(means.ravel(), "uniform", args=(-5, 10)).pvalue > 1e-4


def test_no_two_means_point_the_same_way():
    worst = []
    for task in sample(dim=2):
        direction = task.mixture.means / np.linalg.norm(task.mixture.means, axis=1, keepdims=True)
        cosine = direction @ direction.T
        worst.append(cosine[np.triu_indices(len(cosine), 1)].max())
    assert max(worst) <= 0.8
    assert max(worst) > 0.78


def test_weights_are_normalised_uniforms():
    """For K = 2, pi_1 = u / (u + v): its largest ratio is 4, its mean 1/2."""
    weights = np.array([task.mixture.weights for task in sample(n_components=(2,))])
    ratio = weights.max(axis=1) / weights.min(axis=1)
    assert 3.5 < ratio.max() <= 4
    assert abs(weights[:, 0].mean() - 0.5) < 4 * weights[:, 0].std() / np.sqrt(2000)


def test_perturbation_adds_noise_to_the_means():
    still = np.concatenate([t.mixture.means for t in sample(n_components=(3,), max_cosine=1.0)])
    moved = np.concatenate(
        [t.mixture.means for t in sample(n_components=(3,), max_cosine=1.0, mean_perturbation=4.0)]
    )
    want = still.var() + 16
    assert abs(moved.var() / want - 1) < 4 * np.sqrt(2 / moved.size)


def test_anisotropic_scales_are_softplus_of_uniforms():
    scales = np.concatenate([task.mixture.scales.ravel() for task in sample(anisotropic=True)])
    uniform = np.log(np.expm1(scales))
    assert kstest(uniform, "uniform", args=(-1, 2)).pvalue > 1e-4


def test_the_seed_decides_everything():
    one, two = sample(5, seed=3), sample(5, seed=3)
    assert all((a.X == b.X).all() and (a.labels == b.labels).all() for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 0}, "dim and every n_components must be at least 1, got 0"),
        ({"dim": 2, "n_components": ()}, "dim and every n_components must be at least 1"),
        ({"dim": 2, "n_components": (2.5,)}, "must be whole numbers, got"),
        ({"dim": 2, "max_samples": float("nan")}, "must be whole numbers, got"),
        ({"dim": 2, "mean_range": float("nan")}, "mean_range must be positive"),
        ({"dim": 2, "max_cosine": float("nan")}, "max_cosine must be between -1 and 1, got nan"),
        ({"dim": 2, "max_samples": 0}, "max_samples must be at least 1, got 0"),
        ({"dim": 1}, "in dimension 1 more than two means cannot have pairwise cosines at most 0.8"),
        ({"dim": 2, "weight_range": (0.8, 0.2)}, "weight_range must be positive and ordered"),
        ({"dim": 2, "mean_range": 0}, "mean_range must be positive"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TaskDistribution(**settings)


def test_a_filter_that_nothing_passes_is_reported():
    with pytest.raises(ValueError, match=r"no 12 means with pairwise cosines at most -0\.5 in dimension 2"):
        TaskDistribution(2, n_components=(12,), max_cosine=-0.5).sample(1, np.random.default_rng(0))
