"""The matched loss against scipy's assignment and the metrics of `gmm`."""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from gmm import GaussianMixture, l2_error
from trainable.loss import estimate_loss, l2_errors, match, oracle_errors, own_mean_loss, reorder
from trainable.network import Estimates
from trainable.sampler import sample_group


def problem(K=4, b=12, d=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    group = sample_group(b, 40, d, K, generator)
    means = group.means + torch.randn(group.means.shape, generator=generator) * 3
    weights = torch.rand((b, K), generator=generator) + 0.1
    weights = weights / weights.sum(dim=1, keepdim=True)
    return Estimates(weights, weights.log(), means, None), group


def test_matching_is_the_assignment_problem():
    for K in (2, 3, 5):
        found, group = problem(K)
        order = match(found.means, group.means)
        for one, truth, p in zip(found.means.numpy(), group.means.numpy(), order.numpy(), strict=True):
            cost = ((truth[:, None] - one[None]) ** 2).sum(axis=2)
            assert np.array_equal(linear_sum_assignment(cost)[1], p)


def test_errors_are_those_of_the_metric():
    found, group = problem()
    for i, error in enumerate(l2_errors(found, group)):
        estimate = GaussianMixture(found.weights[i].double().numpy(), found.means[i].double().numpy())
        truth = GaussianMixture(group.weights[i].double().numpy(), group.means[i].double().numpy())
        assert np.isclose(float(error), l2_error(estimate, truth), rtol=1e-4)


def test_the_oracle_averages_over_the_labels():
    _, group = problem()
    i, K = 3, 4
    X, labels = group.X[i].numpy(), group.labels[i].numpy()
    means = [X[labels == k].mean(axis=0) if (labels == k).any() else np.zeros(3) for k in range(K)]
    weights = [(labels == k).mean() for k in range(K)]
    off = ((means - group.means[i].numpy()) ** 2).mean(axis=1) + (weights - group.weights[i].numpy()) ** 2
    assert np.isclose(float(oracle_errors(group)[i]), off.mean(), rtol=1e-4)


def test_the_matched_loss_does_not_see_the_order_and_the_sorted_one_does():
    found, group = problem()
    turned = Estimates(*(part[:, [2, 0, 3, 1]] if part is not None else None for part in found))
    assert torch.isclose(estimate_loss(found, group), estimate_loss(turned, group))
    assert not torch.isclose(estimate_loss(found, group, "sorted"), estimate_loss(turned, group, "sorted"))


def test_the_truth_has_no_loss():
    _, group = problem()
    order = group.weights.argsort(dim=1)
    weights, means = reorder(group.weights, order), reorder(group.means, order)
    perfect = Estimates(weights, weights.log(), means, None)
    for labels in ("matched", "sorted"):
        assert abs(float(estimate_loss(perfect, group, labels))) < 1e-6
    own = group.means.gather(1, group.labels[:, :, None].expand(-1, -1, 3))
    assert float(own_mean_loss(own, group)) == 0
    assert float(own_mean_loss(own + 1, group)) == 1
