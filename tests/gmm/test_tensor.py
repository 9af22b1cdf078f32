import time

import numpy as np
import pytest
import tensorly as tl
from hypothesis import given
from hypothesis import strategies as st
from tensorly.cp_tensor import cp_to_tensor
from tensorly.decomposition import symmetric_parafac_power_iteration
from threadpoolctl import threadpool_limits

import gmm.tensor
from gmm import power_step, robust_tensor_power
from tests.compare import U, assert_bound, assert_exact, gap
from tests.gmm.spectral_cases import (
    conditioned_mixture,
    naive_power,
    naive_step,
    planted,
    population_moments,
)


def symmetric(d, rng):
    """A symmetric tensor that is far from orthogonal."""
    A = rng.standard_normal((d, d, d))
    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    return sum(np.transpose(A, order) for order in orders) / 6


@given(st.integers(0, 10**6))
def test_step_agrees_with_the_naive_triple_loop(seed):
    """For tensors that are not symmetric too; contracting other indices would not pass."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(2, 8))
    T, v = rng.standard_normal((d, d, d)), rng.standard_normal((3, 2, d))
    got = power_step(T, v)
    want = np.array([[naive_step(T.tolist(), row.tolist()) for row in rows] for rows in v])
    scale = power_step(np.abs(T), np.abs(v)).max()
    assert_exact(got, want, ulps=4 * d, scale=scale)
    assert_exact(power_step(T, v[1, 1]), want[1, 1], ulps=4 * d, scale=scale)
    for order in ((1, 0, 2), (2, 1, 0)):
        assert gap(power_step(np.transpose(T, order), v), want) > 100 * 4 * d * U * scale
    swapped = power_step(np.transpose(T, (0, 2, 1)), v)  # T(I, v, v) does not know their order
    assert_exact(swapped, want, ulps=4 * d, scale=scale)


@pytest.mark.parametrize("d", [1, 2, 5, 32])
def test_step_agrees_with_tensorly(d):
    rng = np.random.default_rng(d)
    T, v = rng.standard_normal((d, d, d)), rng.standard_normal(d)
    peer = tl.tenalg.multi_mode_dot(tl.tensor(T), [v, v], modes=[1, 2])
    assert_exact(power_step(T, v), peer, ulps=4 * d, scale=power_step(np.abs(T), np.abs(v)).max())


def in_order(found, wanted):
    """`found` (K, d) permuted to the rows of `wanted` by largest inner product."""
    order = np.abs(wanted @ found.T).argmax(axis=1)
    assert sorted(order) == list(range(len(wanted))), "a component is missing or found twice"
    return order


@given(st.integers(0, 10**6))
def test_planted_components_are_found(seed):
    """Algorithm A.3, K times: every pair, signs included, K = d too."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(1, 9))
    K = int(rng.integers(1, d + 1))
    T, values, vectors = planted(d, K, rng)
    got_values, got_vectors = robust_tensor_power(T, K, rng=rng)
    order = in_order(got_vectors, vectors)
    # an error E in T moves a pair by about |E| over the smallest eigenvalue, here 0.5
    scale = d * values.max() / 0.5
    assert_exact(got_values[order], values, ulps=16, scale=scale)
    assert_exact(got_vectors[order], vectors, ulps=16, scale=scale)
    rebuilt = cp_to_tensor((tl.tensor(got_values), [tl.tensor(got_vectors.T)] * 3))
    assert_exact(rebuilt, T, ulps=64, scale=scale)


def test_without_deflation_components_are_found_twice(monkeypatch):
    T, values, vectors = planted(5, 4, np.random.default_rng(0))
    starts = np.tile(np.random.default_rng(1).standard_normal((1, 8, 5)), (4, 1, 1))
    monkeypatch.setattr(gmm.tensor, "deflate", lambda T, value, v: T)
    got_values, got_vectors = robust_tensor_power(T, 4, starts=starts)
    with pytest.raises(AssertionError, match="missing or found twice"):
        in_order(got_vectors, vectors)
    assert gap(np.sort(got_values), np.sort(values)) > 100 * 16 * U * 5 * values.max() / 0.5


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_the_path_of_the_iteration_in_closed_form(steps):
    """From sum_k c_k v_k the direction after t steps is sum_k (lambda_k c_k)^(2^t) / lambda_k v_k."""
    T, values, vectors = planted(6, 6, np.random.default_rng(3), low=1, high=1.2)
    c = np.array([0.40, 0.39, 0.41, 0.42, -0.38, 0.37])
    want = ((values * c) ** 2**steps / values) @ vectors
    want /= np.linalg.norm(want)
    _, (got,) = robust_tensor_power(T, 1, starts=[[c @ vectors]], n_iter=steps, n_polish=0)
    assert_exact(got, want, ulps=64, scale=2**steps)  # each step doubles the relative error
    _, (early,) = robust_tensor_power(T, 1, starts=[[c @ vectors]], n_iter=steps + 1, n_polish=0)
    assert gap(early, want) > 100 * 64 * U * 2**steps


@pytest.mark.parametrize("seed", range(6))
def test_agreement_with_loops_from_the_same_starts(seed):
    """On tensors that are not orthogonal, before convergence, in the same order."""
    rng = np.random.default_rng(seed)
    d, K, R = 4, 3, 1 + seed
    T, starts = symmetric(d, rng), rng.standard_normal((K, R, d))
    unit = starts / np.linalg.norm(starts, axis=2, keepdims=True)
    want = naive_power(T, unit, n_iter=4, n_polish=3)
    for got, wanted in zip(robust_tensor_power(T, K, starts=starts, n_iter=4, n_polish=3), want, strict=True):
        assert_bound(gap(got, wanted), 1e-11)
    fewer = robust_tensor_power(T, K, starts=starts, n_iter=4, n_polish=2)[1]
    assert gap(fewer, want[1]) > 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_agreement_with_tensorly_from_the_same_starts(seed, monkeypatch):
    """tensorly takes three steps where its `n_iteration` counts one, and draws positive starts."""
    rng = np.random.default_rng(seed)
    T = planted(5, 3, rng)[0] + 1e-2 * symmetric(5, rng)
    starts = rng.uniform(size=(3, 4, 5))
    draws = iter(starts.reshape(-1, 5))
    monkeypatch.setattr(np.random, "random_sample", lambda size: next(draws))
    peer_values, peer_vectors = symmetric_parafac_power_iteration(tl.tensor(T), 3, n_repeat=4, n_iteration=8)
    assert next(draws, None) is None
    values, vectors = robust_tensor_power(T, 3, starts=starts, n_iter=24)
    assert_exact(values, peer_values, ulps=256, scale=5 * values.max() / values.min())
    assert_exact(vectors, peer_vectors.T, ulps=256, scale=5 * values.max() / values.min())


def test_the_restart_with_the_largest_value_wins():
    T, values, vectors = planted(4, 3, np.random.default_rng(2))
    largest = values.argmax()
    near = vectors + 0.05
    value, (vector,) = robust_tensor_power(T, 1, starts=[near])
    assert_exact(value, values[[largest]], ulps=64, scale=values.max())
    assert_exact(vector, vectors[largest], ulps=64, scale=values.max())
    for k in range(3):  # each start alone stays where it is
        value, _ = robust_tensor_power(T, 1, starts=[near[[k]]])
        assert_exact(value, values[[k]], ulps=64, scale=values.max())
    assert np.diff(np.sort(values)).min() > 0.1


def test_counts_of_iterations():
    """n_polish steps follow n_iter of them, n_iter where it is not given."""
    rng = np.random.default_rng(5)
    T, starts = symmetric(4, rng), rng.standard_normal((1, 1, 4))
    first = robust_tensor_power(T, 1, starts=starts, n_iter=5, n_polish=3)[1]
    assert gap(first, robust_tensor_power(T, 1, starts=starts, n_iter=8, n_polish=0)[1]) == 0
    both = robust_tensor_power(T, 1, starts=starts, n_iter=5)[1]
    assert gap(both, robust_tensor_power(T, 1, starts=starts, n_iter=10, n_polish=0)[1]) == 0
    assert gap(first, both) > 1e-9


def test_random_starts_come_from_the_generator():
    T = symmetric(5, np.random.default_rng(0))
    one, same, other = (
        robust_tensor_power(T, 2, n_restarts=3, n_iter=3, rng=np.random.default_rng(s))[1] for s in (1, 1, 2)
    )
    starts = np.random.default_rng(1).standard_normal((2, 3, 5))
    assert gap(one, same) == 0
    assert gap(one, robust_tensor_power(T, 2, n_iter=3, starts=starts)[1]) == 0
    assert gap(one, robust_tensor_power(T, 2, n_iter=3, starts=np.ldexp(starts, 1000))[1]) == 0
    assert gap(one, other) > 1e-6


@pytest.mark.parametrize("exponent", [-900, 0, 900])
def test_scale_of_the_tensor_is_only_a_factor(exponent):
    T, _, _ = planted(4, 3, np.random.default_rng(7))
    values, vectors = robust_tensor_power(T, 3, rng=np.random.default_rng(0))
    scaled = robust_tensor_power(np.ldexp(T, exponent), 3, rng=np.random.default_rng(0))
    assert gap(scaled[0], np.ldexp(values, exponent)) == 0
    assert gap(scaled[1], vectors) == 0


@given(st.integers(0, 10**6))
def test_steps_on_whitened_tensors_have_norms_between_bounds(seed):
    """Section 4.7 of the audit: 1 <= |T(I, v, v)| <= pi_min^(-1/2) for every unit v, the lower bound
    met at c_k = pi_k^(1/2) and the upper one at the component of least weight."""
    rng = np.random.default_rng(seed)
    K = int(rng.integers(1, 7))
    mixture = conditioned_mixture(K + int(rng.integers(0, 3)), K, rng)
    _, m2, m3 = population_moments(mixture)
    sizes, basis = np.linalg.eigh(m2)
    W = basis[:, -K:] / np.sqrt(sizes[-K:])
    T = np.einsum("abc,ap,bq,cr->pqr", m3, W, W, W)
    c = rng.standard_normal((200, K))
    components = np.sqrt(mixture.weights)[:, None] * (mixture.means @ W)
    norms = np.linalg.norm(power_step(T, c / np.linalg.norm(c, axis=1, keepdims=True)), axis=1)
    rounding = 1e3 * U * K
    top = mixture.weights.min() ** -0.5
    assert_bound(1 - norms, np.full(200, rounding))
    assert_bound(norms - top, np.full(200, rounding * top))
    ends = [np.sqrt(mixture.weights) @ components, components[mixture.weights.argmin()]]
    assert_exact(np.linalg.norm(power_step(T, ends), axis=1), [1, top], ulps=1e3 * K, scale=top)


def steps_per_second(run, steps):
    begin = time.perf_counter()
    run()
    return steps / (time.perf_counter() - begin)


@pytest.mark.slow
def test_batched_restarts_outrun_tensorly_tenfold():
    """d = 32, 5 components, 20 restarts of 30 steps and 30 steps to polish; one thread, in pairs."""
    T, _, _ = planted(32, 5, np.random.default_rng(0))
    steps, ratios = 5 * (20 * 30 + 30), []
    with threadpool_limits(1):
        for seed in range(7):
            rng = np.random.default_rng(seed)
            ours = steps_per_second(lambda rng=rng: robust_tensor_power(T, 5, rng=rng), steps)
            # one of tensorly's iterations is three steps
            theirs = steps_per_second(
                lambda: symmetric_parafac_power_iteration(tl.tensor(T), 5, n_repeat=20, n_iteration=10), steps
            )
            ratios.append(ours / theirs)
    assert np.median(ratios) >= 10, ratios
