"""Sizes of the diagonal construction, what it refuses, and what it does beyond its bounds."""

import math

import numpy as np
import pytest
import torch

from constructions.diagonal import DiagonalEMTransformer
from constructions.diagonal_bounds import diagonal_step_bound
from constructions.geometric import clipped_units, square_units
from constructions.piecewise import log_pieces
from gmm import GaussianMixture
from tests.compare import assert_bound, assert_exact, gap, slope
from tests.constructions.diagonal_checks import BOUNDS, naive_clipped_step, network, quiet_run


def build(d0=8, K0=5, **options):
    return DiagonalEMTransformer(d0, K0, **({"eps": 1e-2} | BOUNDS | options))


# ---- sizes


@pytest.mark.parametrize(("d0", "K0"), [(1, 1), (2, 3), (8, 5)])
def test_sizes_are_the_stated_ones(d0, K0):
    em = build(d0, K0, eps=0.1, r_max=4)
    announced = em.sizes(3)
    sizes = em.transformer(3).sizes()
    assert announced[:4] == sizes[:4]
    assert announced[5:] == sizes[5:]
    assert_exact(announced.norm, sizes.norm, ulps=1e4, scale=sizes.norm)
    assert sizes.width == 4 * K0 * d0 + d0 + 5 * K0 + 2
    assert sizes.layers == 3 * 3 + 1
    assert sizes.heads_per_layer == (0, *(1, K0 + 1, 1) * 3)
    log_w, log_pi = log_pieces(em.range_log, 0.1), log_pieces(-math.log(em.pi_min), 0.1)
    square, variance = square_units(4, 0.05, 0.1), clipped_units(0.05**2, 20.0**2, 0.1)
    n = K0 * d0
    step = (
        K0 * log_w + 2 * (4 * n + 2 * K0 + 1),
        K0 * log_pi + n * square + 2 * K0,
        n * variance + 2 * K0,
    )
    assert sizes.hidden_per_layer == (K0 * log_pi + n * square + n * variance, *step * 3)
    assert em.n_bytes() == sum(layer.W1.nbytes + layer.W2.nbytes for layer in em.program.unique())
    assert len(em.program.unique()) == 4


def test_widths_grow_like_one_over_root_eps_and_like_the_log_of_the_range():
    levels = [1e-6, 1e-5, 1e-4, 1e-3]
    for layer in range(4):
        assert abs(slope(levels, [build(eps=eps).hidden_widths()[layer] for eps in levels]) + 0.5) < 0.1
    far = [build(eps=1e-4, r_max=r_max).hidden_widths()[2] for r_max in (10.0, 1e3, 1e5)]
    assert abs((far[2] - far[1]) / (far[1] - far[0]) - 1) < 0.01


def test_too_large_is_refused_with_the_bytes_and_the_eps_that_fits():
    em = build(eps=1e-8)
    with pytest.raises(ValueError, match=r"more than max_bytes = 4 GiB; eps >= .* fits") as caught:
        em.transformer(1)
    assert f"{em.n_bytes() / 2**30:.3g} GiB" in str(caught.value)
    fits = float(str(caught.value).split("eps >= ")[1].split()[0])
    assert build(eps=fits).n_bytes() <= 1.01 * 4 * 2**30
    assert build(eps=0.9 * fits).n_bytes() > 4 * 2**30
    assert em.sizes().hidden_width > 10**6


def test_eps_of_a_thousandth_is_within_the_memory():
    em = build(eps=1e-3)
    print(em.sizes(), f"{em.n_bytes() / 2**20:.0f} MiB")
    assert em.sizes().width == 195
    assert em.n_bytes() < 2**27


def test_bounds_and_config():
    em = build(eps=1e-3)
    assert build(**em.config | {"d0": 8, "K0": 5}).config == em.config
    assert em.bounds["square_factor"] <= 1e-3 * (1 + 1e-6)
    assert em.bounds["precision_factor"] <= 1e-3 * (1 + 1e-6)
    assert em.bounds["log_v_error"] <= 0.51e-3
    assert em.bounds["square_error_at_zero"] <= 1e-3 * 0.05**2
    assert_exact(em.bounds["log_A"], math.log(2 * (60 / 0.05) ** 2 / (1e-3 * 1e-3)), ulps=64, scale=1)
    assert "query k is 100 e_k" in em.readout_text


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d0": 0}, "d0 must be a positive integer, got 0"),
        ({"eps": 1}, "eps must be positive and below 1, got 1"),
        ({"scale_min": 0}, "scale_min must be positive and finite, got 0"),
        ({"scale_max": math.inf}, "scale_max must be positive and finite, got inf"),
        ({"scale_max": 0.01}, r"scale_max must exceed scale_min = 0\.05, got 0\.01"),
        ({"r_max": 0.08}, r"r_max must exceed 2 scale_min = 0\.1, got 0\.08"),
        ({"dtype": "float16"}, "dtype float16 cannot hold .* 1 / scale_min.*; use float64 or float32"),
        ({"dtype": torch.bfloat16}, "dtype bfloat16 cannot hold the construction"),
        ({"dtype": "float32", "log_A": 86}, r"log A = 86\.0 does not .* give log_A in \(0, 85\]"),
        (
            {"dtype": "float32", "eps": 1e-8},
            r"eps = 1e-08 is far below the rounding error 7\.2e-05 of r_max / scale_min in float32; use eps",
        ),
    ],
)
def test_what_cannot_be_held_is_refused_with_what_works(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


ONES = np.ones((2, 2))
MIXTURE = GaussianMixture([0.5, 0.5], [[0.0, 0.0], [1.0, 1.0]], ONES)
DATA = np.zeros((5, 2))


class Start:
    def __init__(self, weights, means, scales=None):
        self.weights, self.means, self.scales = weights, means, scales


@pytest.mark.parametrize(
    ("X", "init", "message"),
    [
        (
            np.zeros((5, 9)),
            GaussianMixture([1.0], np.zeros((1, 9)), np.ones((1, 9))),
            "up to d0 = 8, got 9; build one with d0 >= 9",
        ),
        (
            DATA,
            GaussianMixture(np.full(6, 1 / 6), np.zeros((6, 2)), np.ones((6, 2))),
            "components up to K0 = 5, got 6",
        ),
        (DATA[:1], MIXTURE, "N >= K is needed: got 1 samples for 2 components"),
        (
            DATA,
            GaussianMixture([0.5, 0.5], MIXTURE.means),
            r"needs a start with scales \(K, d\), got one without; add them",
        ),
        (
            np.full((5, 2), 70.0),
            MIXTURE,
            r"the start has a sample 70 away from a mean in one coordinate, outside r_max = 60; "
            r"build with r_max >= 70",
        ),
        (
            DATA,
            GaussianMixture([0.9995, 0.0005], MIXTURE.means, ONES),
            r"weight 0\.0005, outside pi_min = 0\.001; build with pi_min <= 0\.0005",
        ),
        (
            DATA,
            GaussianMixture([0.5, 0.5], MIXTURE.means, [[1, 1], [0.01, 1]]),
            r"scale 0\.01, outside scale_min = 0\.05; build with scale_min <= 0\.01",
        ),
        (
            DATA,
            GaussianMixture([0.5, 0.5], MIXTURE.means, [[1, 1], [30, 1]]),
            r"scale 30, outside scale_max = 20; build with scale_max >= 30",
        ),
        (DATA, Start([0.5, 0.5], MIXTURE.means, -ONES), "scales must be positive, got -1"),
        (DATA, Start([0.5, 0.5], MIXTURE.means, np.ones((2, 3))), r"scales must be \(K, d\) = \(2, 2\)"),
        (DATA * np.nan, MIXTURE, r"X must be finite, got nan at \[0, 0\]"),
    ],
)
def test_bad_problems_are_refused(X, init, message):
    for call in (lambda: build().encode(X, init), lambda: build().run(X, init, 1)):
        with pytest.raises(ValueError, match=message):
            call()


def test_a_readout_outside_the_sizes_is_refused():
    with pytest.raises(ValueError, match="need 1 <= d <= 8 and 1 <= K <= 5, got 2 and 6"):
        build().readout(np.zeros((3, build().layout.width)), 2, 6)


# ---- beyond the bounds


def follow(em, X, init, n_iter=8):
    """The run, the path of EM with clipped variances, and whether every finite bound held."""
    run = quiet_run(em, X, init, n_iter)
    state, path = init, []
    for estimate in run:
        path.append(
            naive_clipped_step(X, state.weights, state.means, state.scales, em.scale_min, em.scale_max)
        )
        bound = diagonal_step_bound(X, state, em.levels(X))
        for found, wanted, limit in zip(estimate, path[-1], bound, strict=True):
            decided = np.isfinite(limit)
            assert_bound(np.abs(found - wanted)[decided], limit[decided])
        assert np.isfinite(bound.means).all(), "the bound says nothing"
        state = estimate
    return run, path


RNG = np.random.default_rng(61)
NOISE = RNG.standard_normal((150, 2))
POINT = np.concatenate([NOISE, [[25.0, 25.0]]])
CONSTANT = np.concatenate([NOISE[:100], NOISE[100:] * [1, 0] + [5, 2]])


@pytest.mark.parametrize("scale_min", [0.05, 0.3])
@pytest.mark.parametrize(
    ("X", "init"),
    [
        (POINT, GaussianMixture([0.9, 0.1], [[0, 0], [24.5, 24.5]], ONES)),
        (CONSTANT, GaussianMixture([0.5, 0.5], [[0, 0], [5, 1.5]], ONES)),
        (NOISE * [1, 0], GaussianMixture([0.5, 0.5], [[-1, 0.1], [1, 0.3]], ONES)),
    ],
    ids=["one point", "constant on some", "constant on all"],
)
def test_a_variance_below_the_floor_counts_as_the_floor(X, init, scale_min):
    """The steps stay within their bounds of EM that clips, and the readout shows how small v got."""
    em = network(1e-2, 2, 2, scale_min=scale_min)
    with pytest.warns(UserWarning, match=r"leaves the bound scale_min") as caught:
        em.run(X, init, 8)
    (only,) = [str(w.message) for w in caught]
    assert only.endswith(
        f"leaves the bound scale_min = {scale_min:g}; the E-step uses scale_min instead, and the error "
        "bound is to EM that does so too"
    )
    run, _ = follow(em, X, init)
    first = next(number for number, e in enumerate(run, start=1) if e.scales.min() < scale_min)
    assert only.startswith(f"iteration {first}: a scale {run[first - 1].scales.min():.6g} leaves")
    assert run[-1].scales.min() < math.sqrt(em.eps) * scale_min
    assert np.isfinite(np.concatenate([run[-1].means, run[-1].scales])).all()


def test_a_variance_above_the_cap_counts_as_the_cap():
    X = np.concatenate([NOISE, 12 * NOISE + [3, 0]])
    init = GaussianMixture([0.5, 0.5], [[0.0, 0.0], [2.0, 0.0]], [[1.0, 1.0], [3.5, 3.5]])
    em = network(1e-2, 2, 2, scale_max=4.0)
    with pytest.warns(UserWarning, match=r"iteration 1: a scale .* leaves the bound scale_max = 4; the E-st"):
        em.run(X, init, 3)
    run, path = follow(em, X, init)
    assert run[-1].scales.max() > 8
    free = naive_clipped_step(X, *run[0], 1e-9, 1e9)
    assert np.abs(free[0] - path[1][0]).max() > 0.02, "the cap changes nothing here"


def test_a_component_without_samples_starts_again_from_all():
    """Responsibilities that all underflow have equal logs: the component gets weight 0, the mean and the
    scales of all samples, and counts as a weight of about pi_min / e in the next step."""
    init = GaussianMixture([0.5, 0.5], [[0.0, 0.0], [55.0, 0.0]], ONES)
    em = network(1e-2, 2, 2)
    with pytest.warns(
        UserWarning, match=r"iteration 1: a weight 0 leaves the bound pi_min = 0\.001; the err"
    ):
        run = em.run(NOISE, init, 2, trace=True)
    assert run[0].weights[1] == 0
    assert_exact(run[0].means[1], NOISE.mean(axis=0), ulps=64, scale=4)
    assert abs(run[0].scales[1] - NOISE.std(axis=0)).max() < 0.02
    log_pi = run.trace[3, "log_pi"][0, :2]
    assert abs(log_pi[1] - log_pi[0] - math.log(em.pi_min)) < 1.3
    assert 1e-4 < run[1].weights[1] < 1e-3


def test_a_sample_beyond_r_max_warns_and_goes_on():
    """r_max bounds |X_ij - mu_kj|: a mean that moves can take a sample out of it."""
    X = np.concatenate([NOISE, [[40.0, 0.0]], [[-30.0, 0.0]] * 20])
    init = GaussianMixture([0.5, 0.5], [[0.0, 0.0], [5.0, 0.0]], ONES)
    em = network(1e-2, 2, 2, r_max=45.0, scale_max=60.0)
    with pytest.warns(
        UserWarning, match=r"iteration 1: a sample .* away from a mean in one coordinate"
    ) as caught:
        run = em.run(X, init, 5)
    assert "leaves the bound r_max = 45; the error bound no longer holds from here" in str(caught[0].message)
    for estimate in run:
        assert np.isfinite(np.concatenate([estimate.means, estimate.scales])).all()
        assert gap(estimate.weights.sum(), 1.0) <= 1e-9
