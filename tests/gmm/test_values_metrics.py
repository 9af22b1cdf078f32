"""The errors in scalar loops over every order of the components, with no two numbers alike."""

import itertools
import math

import numpy as np
import pytest

from gmm import GaussianMixture, clustering_accuracy, l2_error, parameter_distance


def two(seed, K, d, scaled=(True, True)):
    rng = np.random.default_rng(seed)
    made = []
    for has_scales in scaled:
        scales = rng.uniform(0.3, 2, (K, d)) if has_scales else None
        made.append(GaussianMixture(rng.dirichlet(np.full(K, 3.0)), rng.normal(0, 2, (K, d)), scales))
    return made


def matched(estimate, truth):
    """Pairs (component of the estimate, component of the truth) whose squared distances sum to the least."""

    def cost(order):
        return sum(math.dist(estimate.means[a], truth.means[b]) ** 2 for b, a in enumerate(order))

    order = min(itertools.permutations(range(truth.n_components)), key=cost)
    return [(a, b) for b, a in enumerate(order)]


@pytest.mark.parametrize("scaled", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize(("K", "d"), [(1, 3), (3, 2), (2, 5), (4, 4)])
def test_l2_error_in_numbers(K, d, scaled):
    estimate, truth = two(10 * K + d, K, d, scaled)
    total = 0.0
    for a, b in matched(estimate, truth):
        for j in range(d):
            total += (estimate.means[a, j] - truth.means[b, j]) ** 2 / d
            if all(scaled):
                total += (estimate.scales[a, j] - truth.scales[b, j]) ** 2 / d
        total += (estimate.weights[a] - truth.weights[b]) ** 2
    assert math.isclose(l2_error(estimate, truth), total / K, rel_tol=1e-12)


@pytest.mark.parametrize(("K", "d"), [(1, 3), (3, 2), (2, 5), (4, 4)])
@pytest.mark.parametrize("shrink", [1.0, 1e-3])
def test_parameter_distance_in_numbers(K, d, shrink):
    """The means decide, or the weights where the means are all but equal."""
    estimate, truth = two(10 * K + d, K, d)
    near = GaussianMixture(estimate.weights, truth.means + shrink * (estimate.means - truth.means))
    far, off = [], []
    for a, b in matched(near, truth):
        far.append(math.dist(near.means[a], truth.means[b]))
        off.append(abs(near.weights[a] - truth.weights[b]) / truth.weights[b])
    assert (max(far) > max(off)) == (shrink == 1.0 or K == 1)
    assert math.isclose(parameter_distance(near, truth), max(far + off), rel_tol=1e-12)


def test_a_truth_with_one_weight_zero_has_no_parameter_distance():
    means = [[0.0], [1.0], [2.0]]
    with pytest.raises(ValueError, match="needs a truth with positive weights, got a weight of 0"):
        parameter_distance(GaussianMixture([0.2, 0.3, 0.5], means), GaussianMixture([0.4, 0.0, 0.6], means))


@pytest.mark.parametrize("seed", range(4))
def test_accuracy_in_numbers(seed):
    """Three components and labels that are mostly a renaming of the nearest mean, over all namings."""
    rng = np.random.default_rng(seed)
    model = GaussianMixture([1 / 3] * 3, [[0.0, 0.0], [4.0, 1.0], [-2.0, 5.0]])
    X = rng.normal(1, 3, (30, 2))
    nearest = [min(range(3), key=lambda k, x=x: math.dist(x, model.means[k])) for x in X]
    names = [int(n) for n in rng.permutation([3, 5, 8])]
    labels = [names[k] if rng.uniform() < 0.8 else 5 for k in nearest]
    best = max(
        sum(naming[k] == label for k, label in zip(nearest, labels, strict=True))
        for naming in itertools.permutations(names)
    )
    assert 15 < best < 30
    assert clustering_accuracy(model, X, labels) == best / 30
