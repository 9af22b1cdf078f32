"""Sizes of the EM construction, its ranges, and what it refuses to build."""

import math
import warnings

import numpy as np
import pytest
import torch

from constructions import EMTransformer
from constructions.piecewise import log_chord_gap, log_pieces, square_pieces
from gmm import GaussianMixture, TaskDistribution, start_mixture
from tests.compare import assert_exact, gap


def build(d0=8, K0=5, **options):
    return EMTransformer(d0, K0, **({"eps": 1e-2, "r_max": 16, "pi_min": 1e-2} | options))


@pytest.mark.parametrize("approximator", ["minimax", "paper"])
@pytest.mark.parametrize("remainder", ["count", "drop"])
@pytest.mark.parametrize(("d0", "K0"), [(1, 1), (2, 3), (8, 5)])
def test_sizes_are_those_of_the_paper(d0, K0, remainder, approximator):
    em = build(d0, K0, remainder=remainder, approximator=approximator, eps=0.1, r_max=4)
    announced = em.sizes(3)
    sizes = em.transformer(3).sizes()
    assert announced[:4] == sizes[:4]
    assert announced[5:] == sizes[5:]
    assert_exact(announced.norm, sizes.norm, ulps=1e4, scale=sizes.norm)
    assert sizes.width == 2 * d0 + 5 * K0 + 2 + (remainder == "count")
    assert sizes.layers == 6
    assert sizes.heads_per_layer == (1, 2) * 3
    log_w, log_pi, square = (f.units for f in em.approximations)
    e_layer = K0 * log_w + 2 * (K0 + d0 + 1)
    m_layer = K0 * log_pi + d0 * square + 2 * 3 * K0
    assert sizes.hidden_per_layer == (e_layer, m_layer) * 3
    assert em.n_bytes() == sum(layer.W1.nbytes + layer.W2.nbytes for layer in em.program.unique())


@pytest.mark.parametrize("eps", [1e-1, 1e-2, 1e-3, 1e-4])
def test_minimax_widths_are_optimal_and_the_papers_are_the_lemmas(eps):
    em, paper = build(eps=eps), build(eps=eps, approximator="paper")
    log_A, delta = em.range_log, 2 * eps / 8
    if em.n_bytes() < 2**28:
        units = [f.units for f in em.approximations]
        fewest = [log_pieces(log_A, eps), log_pieces(math.log(100), eps), square_pieces(16, delta)]
        assert all(count in (n - 1, n, n + 1) for count, n in zip(units, fewest, strict=True))
        # one piece fewer would not do
        assert log_chord_gap(log_A / (fewest[0] - 1)) > 2 * eps
        assert (2 * 16 / (fewest[2] - 1)) ** 2 > 8 * delta
    e_layer, m_layer = paper.hidden_widths()
    assert e_layer == 5 * (math.ceil(2 * log_A / eps) + 1) + 2 * (5 + 8 + 1)
    square = math.ceil(2 * 16**2 / delta) + 1
    assert m_layer == 5 * (math.ceil(2 * math.log(100) / eps) + 1) + 8 * square + 6 * 5


def test_each_log_and_half_norm_is_within_eps():
    for approximator in ("minimax", "paper"):
        em = build(d0=3, approximator=approximator, eps=0.05)
        log_w, log_pi, square = em.approximations
        assert log_w.sup_error <= 0.05 * (1 + 1e-9)
        assert log_pi.sup_error <= 0.05 * (1 + 1e-9)
        assert 3 * square.sup_error / 2 <= 0.05 * (1 + 1e-9)
        assert square.domain == (-16, 16)
        assert log_w.domain[0] <= math.exp(-em.range_log) * (1 + 1e-9)


def test_the_papers_width_is_built_and_runs():
    em = build(3, 3, r_max=8, approximator="paper")
    assert em.sizes().hidden_width == em.program.body[1].W1.shape[0] > 50_000
    rng = np.random.default_rng(0)
    truth = TaskDistribution(3, mean_range=2).sample_mixture(3, rng)
    X, _ = truth.sample(50, rng)
    minimax = build(3, 3, r_max=8)
    for mode in ("dense", "structured"):
        (one,), (other,) = (network.run(X, truth, 1, mode=mode) for network in (em, minimax))
        assert 0 < gap(one.means, other.means) < 4 * 1e-2 * np.sqrt(3)


@pytest.mark.parametrize("eps", [5e-12, 1e-11, 2e-11, 3e-11])
def test_the_eps_that_is_said_to_fit_fits(eps):
    def make(eps):
        return EMTransformer(4, 2, eps=eps, r_max=8, pi_min=0.01)

    with pytest.raises(ValueError, match=r"eps >= .* fits") as caught:
        make(eps).program  # noqa: B018
    fits = float(str(caught.value).split("eps >= ")[1].split()[0])
    assert 0.99 * 4 * 2**30 < make(fits).n_bytes() <= 4 * 2**30
    with pytest.raises(ValueError, match="no eps makes them fit"):
        EMTransformer(4, 5, eps=1e-3, r_max=2.0**21, pi_min=0.1).program  # noqa: B018


def test_too_large_is_refused_with_the_bytes_and_the_eps_that_fits():
    em = build(r_max=32, eps=1e-4, approximator="paper")
    sizes = em.sizes()
    assert sizes.hidden_width > 10**8
    with pytest.raises(ValueError, match=r"more than max_bytes = 4 GiB; eps >= .* fits") as caught:
        em.transformer(1)
    assert f"{em.n_bytes() / 2**30:.3g} GiB" in str(caught.value)
    fits = float(str(caught.value).split("eps >= ")[1].split()[0])
    assert build(r_max=32, eps=fits, approximator="paper").n_bytes() <= 1.01 * 4 * 2**30
    assert build(r_max=32, eps=0.9 * fits, approximator="paper").n_bytes() > 4 * 2**30


def test_sizes_beyond_any_array_have_no_norm():
    sizes = build(r_max=1024, eps=1e-7, approximator="paper").sizes()
    assert sizes.hidden_width > 10**13
    assert math.isnan(sizes.norm)


def test_log_range_follows_the_truncation_theorem():
    """Below the range a responsibility moves a mean by at most about eps: (2 r_max + sqrt d) / (A pi)."""
    em = build(eps=1e-3)
    A = math.exp(em.range_log)
    assert_exact((2 * 16 + math.sqrt(8)) / (A * 1e-2), 1e-3 / 2, ulps=100)
    assert build(log_A=33.0).range_log == 33.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d0": 0}, "d0 must be a positive integer, got 0"),
        ({"K0": 2.5}, r"K0 must be a positive integer, got 2\.5"),
        ({"eps": 0}, "eps must be positive and below 1, got 0"),
        ({"eps": -1e-3}, r"eps must be positive and below 1, got -0\.001"),
        ({"eps": math.nan}, "eps must be positive and below 1, got nan"),
        ({"r_max": math.inf}, "r_max must be positive and finite, got inf"),
        ({"pi_min": 1.0}, "pi_min must be positive and below 1, got 1"),
        ({"approximator": "best"}, "approximator must be one of"),
        ({"remainder": "keep"}, "remainder must be one of"),
        ({"pooling_kind": "mean"}, "pooling_kind must be one of"),
        ({"dtype": "float16"}, "dtype float16 cannot hold the construction: .* use float64 or float32"),
        ({"dtype": torch.bfloat16}, "dtype bfloat16 cannot hold the construction"),
        (
            {"dtype": "float32", "log_A": 86},
            r"log A = 86\.0 does not .* give log_A in \(0, 85\]",
        ),
        ({"log_A": 706}, r"log A = 706\.0 does not fit float64"),
        ({"log_A": -1}, r"log A = -1\.0 does not fit float64, .* give log_A in \(0, 705\]"),
        ({"pi_min": 1e-40, "dtype": "float32", "log_A": 80}, "pi_min = 1e-40 does not fit float32; at least"),
        (
            {"eps": 1e-9, "dtype": "float32"},
            r"eps = 1e-09 is far below the rounding error 1\.5e-05 of \|mu\|\^2 in float32 at r_max = 16; "
            r"use eps >= 1\.6e-05 or a smaller r_max",
        ),
    ],
)
def test_what_cannot_be_held_is_refused_with_what_works(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_the_eps_in_the_refusal_works():
    with pytest.raises(ValueError, match="use eps >=") as caught:
        build(eps=1e-9, dtype="float32")
    suggested = float(str(caught.value).split("eps >= ")[1].split()[0])
    assert build(eps=suggested, dtype="float32").eps == suggested


MIXTURE = GaussianMixture([0.5, 0.5], [[0.0, 0.0], [1.0, 1.0]])
DATA = np.zeros((5, 2))


@pytest.mark.parametrize(
    ("X", "init", "message"),
    [
        (np.zeros((5, 9)), GaussianMixture([1.0], np.zeros((1, 9))), "holds dimension up to d0 = 8, got 9"),
        (DATA, GaussianMixture(np.full(6, 1 / 6), np.zeros((6, 2))), "holds components up to K0 = 5, got 6"),
        (DATA[:1], MIXTURE, "N >= K is needed: got 1 samples for 2 components"),
        (
            DATA,
            GaussianMixture([1.0], [[20.0, 0.0]]),
            r"mean of norm 20, outside r_max = 16; build with r_max >= 20",
        ),
        (
            DATA,
            GaussianMixture([0.995, 0.005], MIXTURE.means),
            r"weight 0\.005, outside pi_min = 0\.01; .* <= 0\.005",
        ),
        (DATA, GaussianMixture([1.0, 0.0], MIXTURE.means), "weights must be positive, got 0"),
        (DATA * np.nan, MIXTURE, r"X must be finite, got nan at \[0, 0\]"),
        (np.zeros(5), MIXTURE, r"X must have 2 axes and not be empty, got shape \(5,\)"),
        ([["a", "b"]], MIXTURE, "X must be a rectangular array of numbers"),
        ([[1.0], [1.0, 2.0]], MIXTURE, "X must be a rectangular array of numbers"),
        (
            np.zeros((5, 3)),
            MIXTURE,
            r"means must be \(K, d\) = \(2, 3\) .*, got \(2, 2\)",
        ),
    ],
)
def test_bad_problems_are_refused(X, init, message):
    em = build()
    for call in (lambda: em.encode(X, init), lambda: em.run(X, init, 1)):
        with pytest.raises(ValueError, match=message):
            call()


class Start:
    def __init__(self, weights, means):
        self.weights, self.means = weights, means


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.5, 0.6], r"weights must sum to 1, got 1\.1"),
        ([-0.5, 1.5], r"weights must be positive, got -0\.5"),
        ([0.5, np.nan], r"weights must be finite, got nan at \[1\]"),
        ([1.0], r"means must be \(K, d\) = \(1, 2\)"),
    ],
)
def test_bad_starts_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        build().encode(DATA, Start(weights, MIXTURE.means))


def test_scales_are_refused():
    scaled = GaussianMixture(MIXTURE.weights, MIXTURE.means, np.ones((2, 2)))
    with pytest.raises(ValueError, match="for unit variances, got a start with scales"):
        build().encode(DATA, scaled)


def test_at_least_one_iteration():
    with pytest.raises(ValueError, match="n_iter must be at least 1, got 0"):
        build().run(DATA, MIXTURE, 0)


def test_a_readout_outside_the_sizes_is_refused():
    with pytest.raises(ValueError, match="need 1 <= d <= 8 and 1 <= K <= 5, got 9 and 2"):
        build().readout(np.zeros((3, build().layout.width)), 9, 2)
    with pytest.raises(ValueError, match=r"H must be \(N, 44\), got \(3, 4\)"):
        build().readout(np.zeros((3, 4)), 2, 2)


# ---- float32


def float32_gaps(r_max, offset, iterations=5, eps=1e-3, count=12):
    """Largest difference between float32 and float64 runs on clusters that overlap at a distance
    `offset` from the origin, by dense and structured evaluation."""
    rng = np.random.default_rng(int(offset))
    double, single = (build(eps=eps, r_max=r_max, dtype=dtype) for dtype in ("float64", "float32"))
    worst = 0.0
    for _ in range(count):
        d, K = int(rng.integers(1, 9)), int(rng.integers(2, 6))
        truth = TaskDistribution(d, mean_range=3.0, max_cosine=1.0).sample_mixture(K, rng)
        direction = rng.standard_normal(d)
        means = truth.means + offset * direction / np.linalg.norm(direction)
        means *= np.minimum(1, offset / np.linalg.norm(means, axis=1, keepdims=True))
        truth = GaussianMixture(truth.weights, means)
        X, _ = truth.sample(int(rng.integers(20 * K, 400)), rng)
        init = GaussianMixture(truth.weights, 0.99 * start_mixture(X, K, rng).means)
        for mode in ("dense", "structured"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a weight below pi_min
                runs = [em.run(X, init, iterations, mode=mode) for em in (double, single)]
            for one, other in zip(*runs, strict=True):
                worst = max(worst, gap(one.means, other.means), gap(one.weights, other.weights))
    return worst


@pytest.mark.slow
@pytest.mark.parametrize("offset", [4.0, 15.0, 28.0])
def test_float32_is_within_1e_4_up_to_means_of_norm_30(offset):
    assert build(r_max=40, eps=1e-3, dtype="float32").range_log <= 85
    found = float32_gaps(r_max=40.0, offset=offset)
    assert 1e-8 < found <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("offset", [60.0, 120.0, 250.0])
def test_float32_beyond_that_is_a_small_multiple_of_u_r_squared(offset):
    """u = 2^-24; the printed c is what `pytest -rP` shows."""
    found = float32_gaps(r_max=1.3 * offset, offset=offset, eps=1e-2, count=6)
    c = found / (2.0**-24 * offset**2)
    print(f"c = {c:.2f} at |mu| = {offset:g}: {found:.2e} = c u |mu|^2")
    assert 0.01 < c < 10


def test_float32_of_far_separated_clusters():
    rng = np.random.default_rng(0)
    truth = GaussianMixture([0.3, 0.7], [[-28.0], [28.0]])
    X, _ = truth.sample(500, rng)
    init = GaussianMixture([0.5, 0.5], [[-25.0], [25.0]])
    double, single = (build(r_max=32, dtype=dtype).run(X, init, 3) for dtype in ("float64", "float32"))
    assert gap(double[-1].means, single[-1].means) < 1e-4
    assert gap(double[-1].weights, single[-1].weights) < 1e-6
    assert single[-1].means.dtype == np.float64
