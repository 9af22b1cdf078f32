"""The sampler has the law of `gmm.TaskDistribution`, and never returns a task of zeros."""

import numpy as np
import pytest
import torch
from scipy import stats

from gmm import TaskDistribution
from trainable.config import NetworkConfig, TrainConfig
from trainable.objective import draw
from trainable.sampler import MAX_COSINE, acceptance, candidates, sample_group, sample_means


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def cosines(means):
    directions = means / np.linalg.norm(means, axis=2, keepdims=True)
    return (directions @ directions.transpose(0, 2, 1))[:, *np.triu_indices(means.shape[1], 1)]


@pytest.mark.parametrize(("d", "K"), [(2, 3), (2, 5), (8, 4)])
def test_means_and_weights_have_the_same_law(d, K):
    """Kolmogorov-Smirnov tests on entries, cosines and weights, with 600 tasks from either side."""
    rng = np.random.default_rng(0)
    law = TaskDistribution(d, n_components=(K,))
    theirs = [law.sample_mixture(K, rng) for _ in range(600)]
    ours = sample_group(600, 8, d, K, generator())
    for got, want in (
        (ours.means.numpy()[:, 0, 0], [m.means[0, 0] for m in theirs]),
        (cosines(ours.means.numpy())[:, 0], cosines(np.array([m.means for m in theirs]))[:, 0]),
        (ours.weights.numpy()[:, 0], [m.weights[0] for m in theirs]),
    ):
        assert stats.ks_2samp(np.asarray(got), np.asarray(want)).pvalue > 1e-3


def test_scales_have_the_same_law():
    rng = np.random.default_rng(0)
    law = TaskDistribution(2, n_components=(3,), anisotropic=True)
    theirs = [law.sample_mixture(3, rng).scales[0, 0] for _ in range(600)]
    ours = sample_group(600, 8, 2, 3, generator(), anisotropic=True).scales.numpy()[:, 0, 0]
    assert stats.ks_2samp(ours, theirs).pvalue > 1e-3
    assert stats.ks_2samp(np.log1p(ours), theirs).pvalue < 1e-6


def test_batches():
    """One N for each step, uniform on the multiples of 8; as many of every K; steps and seeds apart."""
    network, training = NetworkConfig(2), TrainConfig((2,), 1, batch=8)

    def batch(step, seed=0):
        return draw(step, seed, network, training, torch.device("cpu"))

    sizes = []
    for step in range(300):
        groups = batch(step)
        assert [g.weights.shape for g in groups] == [(2, 2), (2, 3), (2, 4), (2, 5)]
        assert len({g.X.shape[1] for g in groups}) == 1
        sizes.append(groups[0].X.shape[1])
    values, counts = np.unique(sizes, return_counts=True)
    assert values.tolist() == list(range(64, 129, 8))
    assert stats.chisquare(counts).pvalue > 1e-3
    assert torch.equal(batch(5)[3].means, batch(5)[3].means)
    assert not torch.equal(batch(5)[3].means, batch(6)[3].means)
    assert not torch.equal(batch(5)[3].means, batch(5, seed=1)[3].means)


def test_a_sampler_without_the_cosine_bound_has_another_law():
    rng = np.random.default_rng(0)
    law = TaskDistribution(2, n_components=(3,), max_cosine=1.0)
    loose = np.array([law.sample_mixture(3, rng).means for _ in range(600)])
    ours = sample_means(600, 2, 3, generator()).numpy()
    assert stats.ks_2samp(cosines(ours)[:, 0], cosines(loose)[:, 0]).pvalue < 1e-6


@pytest.mark.parametrize(("d", "K"), [(2, 5), (32, 5)])
def test_every_task_is_a_task(d, K):
    means = sample_means(500, d, K, generator(1))
    assert cosines(means.numpy()).max() <= MAX_COSINE + 1e-6
    assert (means.norm(dim=2) > 0).all()
    assert len(torch.unique(means[:, 0, 0])) == 500


def test_kept_sets_are_used_again_when_too_few_are_kept(monkeypatch):
    monkeypatch.setattr("trainable.sampler.candidates", lambda b, d, K: 200)
    means = sample_means(500, 2, 5, generator(2))
    assert cosines(means.numpy()).max() <= MAX_COSINE + 1e-6
    assert len(torch.unique(means[:, 0, 0])) < 100


def test_enough_candidates_are_drawn():
    """The count kept is binomial; the chance of fewer than b is below 1e-4."""
    for d, K in ((2, 2), (2, 5), (8, 5)):
        for b in (16, 64):
            assert stats.binom.cdf(b - 1, candidates(b, d, K), acceptance(d, K)) < 1e-4


def test_samples_are_of_their_components():
    group = sample_group(400, 100, 2, 3, generator(3), anisotropic=True)
    shares = torch.stack([(group.labels == k).float().mean(dim=1) for k in range(3)], dim=1)
    assert (shares - group.weights).abs().mean() < 0.05
    own = group.labels[:, :, None].expand(-1, -1, 2)
    noise = (group.X - group.means.gather(1, own)) / group.scales.gather(1, own)
    assert stats.kstest(noise.flatten().numpy()[:5000], "norm").pvalue > 1e-3


def test_a_generator_gives_the_same_tasks_again():
    assert torch.equal(sample_group(5, 16, 4, 2, generator(4)).X, sample_group(5, 16, 4, 2, generator(4)).X)


def test_impossible_tasks_are_refused():
    with pytest.raises(ValueError, match="dimension 1"):
        sample_means(4, 1, 3, generator())
