from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmm import (
    GaussianMixture,
    TaskDistribution,
    clustering_accuracy,
    l2_error,
    match_components,
    parameter_distance,
)
from tests.compare import assert_exact


def pair(seed, K=4, d=3):
    rng = np.random.default_rng(seed)
    tasks = TaskDistribution(d, max_cosine=1.0)
    return tasks.sample_mixture(K, rng), tasks.sample_mixture(K, rng), rng


@given(st.integers(0, 10**6))
def test_matching_is_the_best_of_all_permutations(seed):
    estimate, truth, _ = pair(seed)
    cost = [((estimate.means[list(order)] - truth.means) ** 2).sum() for order in permutations(range(4))]
    found = ((estimate.means[match_components(estimate, truth)] - truth.means) ** 2).sum()
    assert_exact(found, min(cost), ulps=16, scale=min(cost))


def test_the_permutation_puts_the_estimate_in_the_truths_order():
    """A 3-cycle: the inverse permutation, or leaving it out, gives another order."""
    truth = GaussianMixture([0.2, 0.3, 0.5], [[0.0], [10.0], [20.0]])
    estimate = truth.permuted([1, 2, 0])
    order = match_components(estimate, truth)
    assert order.tolist() == [2, 0, 1]
    assert estimate.permuted(order).means.tolist() == truth.means.tolist()
    assert l2_error(estimate, truth) == 0
    assert parameter_distance(estimate, truth) == 0
    inverted = estimate.permuted(np.argsort(order))
    assert ((inverted.means - truth.means) ** 2).mean() > 100


def test_errors_by_hand():
    truth = GaussianMixture([0.25, 0.75], [[0.0, 0.0], [10.0, 0.0]])
    estimate = GaussianMixture([0.65, 0.35], [[10.0, 4.0], [3.0, 0.0]])
    # matched: component 1 to truth 0 (distance 3, weight off by 0.1), 0 to 1 (4 and -0.1)
    assert_exact(l2_error(estimate, truth), (9 / 2 + 0.01 + 16 / 2 + 0.01) / 2, ulps=8, scale=10)
    assert_exact(parameter_distance(estimate, truth), 4.0, ulps=8, scale=4)
    near = GaussianMixture([0.35, 0.65], truth.means)
    assert_exact(parameter_distance(near, truth), 0.1 / 0.25, ulps=8)


def test_scales_count_where_both_have_them():
    truth = GaussianMixture([0.25, 0.75], [[0.0, 0.0], [10.0, 0.0]], [[1.0, 2.0], [3.0, 4.0]])
    estimate = GaussianMixture([0.75, 0.25], truth.means[::-1], [[3.0, 4.5], [0.5, 2.0]])
    assert_exact(l2_error(estimate, truth), (0.25 / 2 + 0.25 / 2) / 2, ulps=8)
    plain = GaussianMixture(estimate.weights, estimate.means)
    assert l2_error(plain, truth) == l2_error(estimate, plain) == 0


@given(st.integers(0, 10**6))
def test_errors_ignore_the_order_of_components(seed):
    estimate, truth, rng = pair(seed)
    shuffled = estimate.permuted(rng.permutation(4))
    other = truth.permuted(rng.permutation(4))
    for error in (l2_error, parameter_distance):
        assert_exact(error(shuffled, other), error(estimate, truth), ulps=32, scale=error(estimate, truth))


def test_accuracy_counts_the_best_one_to_one_naming():
    model = GaussianMixture([0.5, 0.5], [[-5.0], [5.0]])
    X = np.array([[-5.0], [-4.0], [4.0], [5.0], [6.0]])
    assert clustering_accuracy(model, X, [1, 1, 0, 0, 0]) == 1.0
    assert clustering_accuracy(model, X, [0, 0, 1, 1, 0]) == 0.8
    assert clustering_accuracy(model, X, [7, 7, 7, 7, 7]) == 0.6
    with pytest.raises(ValueError, match=r"labels must have shape \(5,\), got \(2,\)"):
        clustering_accuracy(model, X, [0, 1])


def test_unequal_sizes_are_refused():
    one = GaussianMixture([1.0], [[0.0]])
    two = GaussianMixture([0.5, 0.5], [[0.0], [1.0]])
    with pytest.raises(ValueError, match=r"estimate has means of shape \(1, 1\), the truth \(2, 1\)"):
        l2_error(one, two)
    dead = GaussianMixture([1.0, 0.0], [[0.0], [1.0]])
    with pytest.raises(ValueError, match="needs a truth with positive weights"):
        parameter_distance(two, dead)
