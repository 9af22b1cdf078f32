"""The spectral construction against Algorithms A.2 and A.3, from the same starts."""

import math
import warnings

import numpy as np
import pytest

from tests import naive
from tests.compare import assert_bound, assert_exact, gap
from tests.constructions.spectral_cases import (
    ENCODING_MISTAKES,
    MISTAKES,
    broken,
    corrupt,
    distance,
    exact,
    network,
    reference,
    samples,
    unwatched,
)
from tests.gmm.spectral_cases import naive_spectral

TOLERANCE = 1e-9
BIG = 1e-8


def sample_problem(seed):
    rng = np.random.default_rng([1, seed])
    K = int(rng.integers(1, 4))
    return samples(int(rng.integers(max(3, K), 9)), K, int(rng.integers(800, 2001)), rng), K


def exact_problem(seed):
    rng = np.random.default_rng([2, seed])
    K = int(rng.integers(1, 4))
    return *exact(int(rng.integers(max(3, K), 9)), K, int(rng.integers(1, 6)), rng), K


@pytest.mark.parametrize("first", [0, pytest.param(5, marks=pytest.mark.slow)])
def test_samples(first):
    """35 data sets, with one set of weights."""
    net = network()
    for seed in range(first, first + (5 if first == 0 else 30)):
        X, K = sample_problem(seed)
        apart = distance(net.run(X, K), reference(net, X, K))
        print(f"difference {apart:.2g}")
        assert apart <= TOLERANCE


@pytest.mark.parametrize("first", [0, pytest.param(5, marks=pytest.mark.slow)])
def test_exact_moments(first):
    """30 token sets: the answer of Algorithm A.2, which here is the mixture itself."""
    net = network()
    for seed in range(first, first + (5 if first == 0 else 25)):
        X, truth, K = exact_problem(seed)
        found = net.run(X, K)
        apart = distance(found, reference(net, X, K))
        print(f"difference {apart:.2g}")
        assert apart <= TOLERANCE
        order = ((found.means[:, None] - truth.means) ** 2).sum(axis=2).argmin(axis=1)
        assert sorted(order) == list(range(K))
        assert distance(found, (truth.weights[order], truth.means[order])) <= TOLERANCE


@pytest.mark.slow
def test_sixteen_dimensions_five_components_six_restarts():
    net = network(16, 5, n_power=4, n_restarts=6, n_polish=10, pi_min=0.03, c_max=1024.0, n_max=4096)
    for seed, (d, K, N) in enumerate([(12, 5, 4000), (16, 4, 2000), (9, 5, 3000), (6, 2, 1500)]):
        X = samples(d, K, N, np.random.default_rng(seed))
        apart = distance(net.run(X, K), reference(net, X, K))
        print(f"difference {apart:.2g}, {net.sizes().layers} layers, D = {net.sizes().width}")
        assert apart <= BIG


@pytest.mark.slow
@pytest.mark.parametrize("n_restarts", [2, 3, 5])
def test_restarts(n_restarts):
    """An even and two odd numbers in the tournament, for one to three components."""
    net = network(5, 3, n_power=5, n_restarts=n_restarts, n_polish=8, seed=n_restarts)
    for seed, K in enumerate((1, 2, 3, 3)):
        X = samples(5, K, 1000, np.random.default_rng(seed))
        assert distance(net.run(X, K), reference(net, X, K)) <= TOLERANCE


def test_it_follows_the_whole_path_not_only_its_end():
    """One or two power steps: nothing has converged, and the means agree all the same."""
    for n_power in (1, 2):
        net = network(5, 2, n_power=n_power, eps=1e-13, seed=3)
        X, _, _ = exact_problem(5)
        X = samples(4, 2, 500, np.random.default_rng(7))
        mu = reference(net, X, 2)[1]
        assert gap(unwatched(net, X, 2).means, mu) <= 1e-8
        assert gap(unwatched(network(5, 2, n_power=8, seed=3), X, 2).means, mu) > 1e-3


@pytest.mark.slow
def test_literal_loop_over_the_matrices():
    net = network(3, 2, n_power=2, eps=1e-6, n_max=64, v_min=0.05)
    X = samples(3, 2, 36, np.random.default_rng(4))
    H = net.encode(X)
    want = naive.forward(net.transformer().matrices(), H)
    for mode in ("dense", "structured"):
        got = net.transformer()(net.as_tokens(H), mode).numpy()
        assert_exact(got, want, ulps=1e7, scale=float(np.abs(want).max()))


@pytest.mark.slow
def test_literal_matrix_products_at_300_tokens():
    """Definitions 4 and 5 as products of whole matrices, every ReLU head by itself."""
    net = network(4, 2, n_power=6, n_max=512)
    X = samples(4, 2, 300, np.random.default_rng(1))
    H = net.encode(X)
    for layer in net.transformer().matrices():
        heads = zip(layer["Q"], layer["K"], layer["V"], strict=True)
        H = H + sum(np.maximum((H @ Q.T) @ (H @ K.T).T, 0) @ (H @ V.T) for Q, K, V in heads) / len(H)
        H = H + np.maximum(H @ layer["W1"].T, 0) @ layer["W2"].T
    assert distance(net.readout(H, 4, 2), net.run(X, 2)) <= TOLERANCE
    assert distance(net.readout(H, 4, 2), reference(net, X, 2)) <= TOLERANCE


def test_triple_loops():
    """Algorithm A.2 without any code of `gmm`: as the paper prints it, moments included."""
    net = network(4, 2, n_power=8, seed=2)
    X = samples(3, 2, 200, np.random.default_rng(6))
    weights, means = naive_spectral(X, net.starts[:2, :, :3], 8, 0)
    raw = net.raw_readout(net.transformer()(net.as_tokens(net.encode(X)), "structured"), 3, 2)
    assert distance(raw, (weights, means)) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("n_teeth", [16, 20, 24])
def test_teeth_need_no_code_and_lose_a_factor_four_each(n_teeth):
    """C^2 4^-(m+1) is the error of one square; here C is 128, and the output's error at most 30 times."""
    net = network(5, 2, square="teeth", n_teeth=n_teeth, c_max=128.0, n_power=10)
    assert not {"code", "count"} & set(net.layout.names)
    X = samples(5, 2, 1000, np.random.default_rng(8))
    error = distance(net.run(X, 2), reference(net, X, 2))
    square = 128.0**2 * 4.0 ** -(n_teeth + 1)
    assert_bound(error, 30 * square + 1e-11)
    assert error > 1e-3 * square


def test_newton_schulz_layers_square_the_error():
    """eps = 10^-1, 10^-2, 10^-4, 10^-8: a layer more in each stage, and an error about eps."""
    X = samples(5, 2, 800, np.random.default_rng(9))
    layers, errors = [], []
    for eps in (1e-1, 1e-2, 1e-4, 1e-8):
        net = network(5, 2, eps=eps)
        layers.append(net.schedule["sign"] + net.schedule["root"])
        errors.append(distance(unwatched(net, X, 2), reference(net, X, 2)))
        assert_bound(errors[-1], 10 * eps)
    assert np.diff(layers).max() <= 2
    assert layers[-1] - layers[0] <= 8
    assert errors[-1] < 1e-6 < 1e-4 < errors[0]


def test_float32():
    net, single = network(), network(dtype="float32", eps=1e-7)
    for seed in (0, 3):
        X, K = sample_problem(seed)
        error = distance(single.run(X, K), net.run(X, K))
        assert_bound(error, 1e-3)
        assert error > 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_twins(mistake):
    net = network(5, 2, n_power=8)
    X = samples(5, 2, 500, np.random.default_rng(2))
    want = reference(net, X, 2)
    assert distance(unwatched(net, X, 2), want) <= TOLERANCE
    assert off(broken(net, mistake), X, want) > 1e6 * TOLERANCE


def test_without_a_tournament_a_worse_start_may_win():
    net = network(5, 2, n_power=5, n_restarts=3, n_polish=8, seed=3)
    X = samples(5, 2, 1000, np.random.default_rng(4))
    want = reference(net, X, 2)
    assert distance(unwatched(net, X, 2), want) <= TOLERANCE
    assert off(broken(net, "no tournament"), X, want) > 1e6 * TOLERANCE


@pytest.mark.parametrize("mistake", ENCODING_MISTAKES)
def test_twins_of_the_encoding(mistake):
    net = network(5, 2, n_power=8)
    X = samples(5, 2, 500, np.random.default_rng(0))
    H = corrupt(net, mistake, net.encode(X))
    assert off(net, X, reference(net, X, 2), H) > 1e6 * TOLERANCE


def off(net, X, want, H=None):
    """How far an unwatched run is off; infinite where it does not end in numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = unwatched(net, X, 2, H)
        except OverflowError:
            return math.inf
    values = np.concatenate([found.weights, found.means.ravel()])
    return distance(found, want) if np.isfinite(values).all() else math.inf


def test_a_bound_too_small_breaks_the_square():
    """With C below the largest |<v, W X>| tokens see each other's squares."""
    X = samples(5, 2, 500, np.random.default_rng(0))
    net = network(5, 2, n_power=8, c_max=1.0)
    assert off(net, X, reference(net, X, 2)) > 1e-2
    with pytest.raises(ValueError, match="A2 is violated in component 0"):
        net.run(X, 2)


def same_second_moments(net, N, rng):
    """Two data sets (N, 3) for which (1/N) sum_j h_j h_j^T is equal, codes and markers included: one
    skewed, one not.  Their columns are orthonormal and orthogonal to all else that a token holds."""
    features = net.encode(np.zeros((N, 3)))
    directions, sizes, _ = np.linalg.svd(features)
    free = directions[:, (sizes > 1e-9).sum() :]
    skewed, even = rng.standard_exponential((N, 3)), rng.standard_normal((N, 3))
    frames = (free @ np.linalg.qr(free.T @ draw)[0] for draw in (skewed, even))
    return [math.sqrt(N) * frame * (2.0, 1.8, 1.0) for frame in frames]


def random_layers(width, rng):
    return [
        [0.3 * rng.standard_normal((width, width)) / math.sqrt(width) for _ in range(8)] for _ in range(3)
    ]


def forward(layers, H, sigma):
    """Two heads and an MLP a layer, with the activation given."""
    for *heads, W1, W2 in layers:
        H = H + sum(sigma((H @ Q.T) @ (H @ K.T).T) @ (H @ V.T) for Q, K, V in (heads[:3], heads[3:])) / len(H)
        H = H + sigma(H @ W1.T) @ W2.T
    return H


@pytest.mark.parametrize("seed", range(3))
def test_without_relu_third_moments_are_invisible(seed):
    """With the identity for ReLU no network tells the two data sets apart in its pooled output
    (1/N) sum_i h_i h_i^T, of which any linear pooling is a part; with ReLU networks do, ours among them."""
    rng = np.random.default_rng(seed)
    net, N = network(4, 2, n_power=4, n_max=512), 256
    one, other = same_second_moments(net, N, rng)
    tokens = [net.encode(X) for X in (one, other)]
    second = [H.T @ H / N for H in tokens]
    assert_exact(second[0], second[1], ulps=1e4, scale=float(N * N))
    thirds = [np.einsum("ni,nj,nk->ijk", X, X, X) / N for X in (one, other)]
    assert gap(*thirds) > 1.0
    layers = random_layers(net.layout.width, rng)
    for H in tokens:
        H[:, net.layout.slice("count")] = 1.0
    for sigma, seen in ((lambda x: x, False), (lambda x: np.maximum(x, 0), True)):
        pooled = [H.T @ H / N for H in (forward(layers, H, sigma) for H in tokens)]
        size = float(np.abs(pooled[0]).max())
        if seen:
            assert gap(*pooled) > 1e-4 * size
        else:
            assert_exact(pooled[0], pooled[1], ulps=1e6, scale=size)
    found = [unwatched(net, X, 2).means for X in (one, other)]
    assert gap(*found) > 1e-2


def test_sizes_are_those_of_the_schedule():
    for d0, K0, R, options in ((8, 3, 1, {}), (5, 2, 3, {"n_polish": 4}), (3, 3, 2, {})):
        net = network(d0, K0, n_restarts=R, **options)
        b, schedule = net.limits, net.schedule
        E, rounds = 3, math.ceil(math.log2(R))
        normalise = schedule["normalise"] // (K0 * (1 + (R > 1)))
        restarts = (normalise + E + 1 + rounds) * (R > 1)
        stage = 1 + 3 * b.n_power + restarts + 3 * b.n_polish + normalise + E + 1 + 1
        recovery = 1 + b.reciprocal_steps + 1
        sizes = net.sizes()
        assert sizes.layers == 3 + schedule["sign"] + schedule["root"] + K0 * stage + recovery
        assert sizes.width == d0 * (12 + 3 * R + 3 * K0) + R * (10 + 2 * K0) + 4 * K0 + 2 + b.bits
        assert sizes.heads == max(R * (5 + 2 * K0), 4 * K0 + 1)


def test_one_pass():
    with pytest.raises(ValueError, match="one pass"):
        network().transformer(2)


def test_the_run_says_how_it_was_evaluated_and_keeps_every_state():
    net = network(3, 2, n_power=3)
    X = samples(3, 2, 300, np.random.default_rng(0))
    found = net.run(X, 2, trace=True)
    assert any("few positive scores" in rule for rule in found.used)
    assert not any("dense" in rule for rule in found.used)
    assert found.trace.n_layers == net.sizes().layers
    assert_exact(net.readout(found.trace.state(found.trace.n_layers), 3, 2).means, found.means, ulps=64)
    assert net.run(X, 2).trace is None
    assert net.run(X, 2, mode="dense").used == ("dense",)
