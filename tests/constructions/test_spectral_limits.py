"""What the spectral construction refuses and warns of, and the parts that it is made of."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from constructions import SpectralTransformer
from constructions.newton_schulz import schedule
from constructions.piecewise import reciprocal_approximation
from constructions.spectral_bounds import SpectralBounds
from tests.compare import assert_exact, gap
from tests.constructions.spectral_cases import distance, network, reference, samples
from tests.gmm.spectral_cases import exact_samples

RNG = np.random.default_rng(0)
X = samples(5, 2, 500, np.random.default_rng(0))


def refused(message, K=2, data=X, **options):
    with pytest.raises(ValueError, match=message):
        network(5, 3, n_power=8, **options).run(data, K)


def test_a1_too_many_or_too_few_eigenvalues():
    refused(r"A1 is violated: .* exactly K = 3 must lie in \[max\(tau \+ gap, sigma_min\), sigma_max\] = "
            r"\[1.1, 60\] and the others below tau - gap = 0.3", K=3)  # fmt: skip
    refused(r"A1 is violated: .* exactly K = 1 must lie", K=1)


def test_a1_says_which_tau_would_do():
    spectrum = np.linalg.eigvalsh(X.T @ X / len(X) - np.eye(5))[::-1]
    middle, half = (spectrum[1] + spectrum[2]) / 2, (spectrum[1] - spectrum[2]) / 2
    refused(rf"tau = {middle:.3g} and gap < {half:.3g} would separate them", tau=5.0, gap=1.0)
    bounds = {"tau": float(f"{middle:.3g}"), "gap": 0.95 * half, "sigma_min": spectrum[1] * 0.97}
    net = network(5, 3, n_power=8, **bounds)
    assert distance(net.run(X, 2), reference(net, X, 2)) <= 1e-9


def test_a1_dependent_means():
    rng = np.random.default_rng(1)
    line = np.array([[2.0, 0, 0, 0, 0], [-2.0, 0, 0, 0, 0]])
    data = line[rng.integers(0, 2, 1000)] + rng.standard_normal((1000, 5))
    refused("A1 is violated: .*; the means are not independent enough for K components", data=data)


def test_a1_sigma_max():
    largest = np.linalg.eigvalsh(X.T @ X / len(X) - np.eye(5))[-1]
    refused(f"A1 is violated: the largest eigenvalue of the second moment, {largest:.4g}, exceeds sigma_max "
            rf"= .*; build with sigma_max >= {largest:.4g}", sigma_max=0.99 * largest)  # fmt: skip


def test_a2_and_the_bound_that_suffices():
    with pytest.raises(ValueError, match=r"A2 is violated in component 0: .* more than c_max = 1;") as found:
        network(5, 3, n_power=8, c_max=1.0).run(X, 2)
    enough = float(str(found.value).split("c_max >= ")[1].split()[0])
    net = network(5, 3, n_power=8, c_max=enough)
    assert distance(net.run(X, 2), reference(net, X, 2)) <= 1e-9


def test_a3_a_start_orthogonal_to_the_means():
    data, _ = exact_samples([1, 2], [[2.0, 0, 0], [0, 2.0, 0]])
    starts = np.zeros((2, 1, 3))
    starts[:, :, 2] = 1.0
    net = SpectralTransformer(3, 2, starts=starts, **numbers())
    with pytest.raises(ValueError, match=r"A3 is violated in component 0: \|v\| = .* other starts or more"):
        net.run(data, 2)


def test_a3_a_weight_below_pi_min():
    refused(r"A3 is violated.* 1.3.*(a smaller pi_min|or pi_min is too large)", y_max=1.2)


@pytest.mark.slow
def test_a4_two_components_that_score_alike():
    """Means 2 e_1 and 2 e_2 with weights that differ by little, and no polishing that would decide."""
    data, _ = exact_samples([500, 499], [[3.0, 0.0], [0.0, 3.0]])
    starts = np.array([[[1.0, 0.1], [0.1, 1.0]], [[1.0, 0.1], [0.1, 1.0]]])
    options = numbers() | {"margin": 0.1, "n_power": 8}
    with pytest.warns(UserWarning, match="A4 is violated in component 0: restarts 1 and 0 differ by"):
        SpectralTransformer(2, 2, starts=starts, **options).run(data, 2)
    net = SpectralTransformer(2, 2, starts=starts, **(options | {"margin": 1e-6}))
    assert distance(net.run(data, 2), reference(net, data, 2)) <= 1e-9


def test_equal_scores_are_no_matter():
    data, truth = exact_samples([1, 1], [[3.0, 0.0], [0.0, 3.0]])
    starts = np.array([[[1.0, 0.1], [0.1, 1.0]], [[1.0, 0.1], [0.1, 1.0]]])
    options = numbers() | {"n_polish": 6}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = SpectralTransformer(2, 2, starts=starts, **options).run(data, 2)
    assert_exact(np.sort(found.means, axis=0), np.sort(truth.means, axis=0), ulps=1e4)


def numbers():
    return {"tau": 0.7, "gap": 0.4, "sigma_min": 1.1, "sigma_max": 60.0, "c_max": 512.0, "pi_min": 0.05,
            "n_power": 8}  # fmt: skip


@pytest.mark.parametrize(
    ("data", "K", "message"),
    [
        (X, 0, "this network holds 1 to K0 = 3 components, got 0"),
        (X, 4, "got 4; build one with K0 >= 4"),
        (X[:, :1], 2, "2 means in dimension 1 are not independent"),
        (X[:4], 2, "N >= d0 = 5 samples are needed for the position markers, got 4"),
        (np.ones((10, 6)), 2, "dimension up to d0 = 5, got 6; build one with d0 >= 6"),
        (np.full((10, 2), np.nan), 2, "X must be finite"),
        (np.zeros((3000, 5)), 2, "N up to n_max = 2048, got 3000; build one with n_max >= 3000"),
        ([[1.0], [1.0, 2.0]], 1, "X must be a rectangular array of numbers"),
    ],
)
def test_unsuitable_data(data, K, message):
    refused(message, K=K, data=data, n_max=2048)


@pytest.mark.parametrize(
    ("d0", "K0", "options", "message"),
    [
        (2, 3, {}, "1 <= K0 <= d0"),
        (0, 0, {}, "1 <= K0 <= d0"),
        (3, 2, {"tau": math.nan}, "tau must be positive and finite, got nan"),
        (3, 2, {"tau": "x"}, "tau must be a number, got 'x'"),
        (3, 2, {"gap": 0.8}, "gap must be below tau = 0.7, got 0.8"),
        (3, 2, {"sigma_max": 1.0}, "sigma_max = 1 must exceed"),
        (3, 2, {"pi_min": 1.5}, "pi_min must be below 1"),
        (3, 2, {"c_max": -1.0}, "c_max must be positive"),
        (3, 2, {"y_max": 0.9}, "y_max must exceed 1, got 0.9"),
        (3, 2, {"n_power": 0}, "n_power must be positive"),
        (3, 2, {"n_power": 2.5}, "n_power must be a whole number, got 2.5"),
        (3, 2, {"n_restarts": 0}, "n_restarts must be at least 1"),
        (3, 2, {"square": "teeth"}, "n_teeth must be positive"),
        (3, 2, {"square": "round"}, 'square must be "select" or "teeth"'),
        (3, 2, {"dtype": "float16"}, "dtype must be float64 or float32, got float16"),
        (3, 2, {"rng": None}, "give rng to draw start directions from, or the starts"),
        (3, 2, {"starts": np.ones((2, 1, 4))}, r"starts must be \(2, R, 3\), got \(2, 1, 4\)"),
        (3, 2, {"starts": np.zeros((2, 1, 3))}, "a start direction is zero"),
        (3, 2, {"colour": 1}, "unknown option: .*colour"),
    ],
)
def test_impossible_networks(d0, K0, options, message):
    with pytest.raises(ValueError, match=message):
        SpectralTransformer(d0, K0, **({"rng": np.random.default_rng(0)} | numbers() | options))


# ---- parts


@given(st.floats(1e-6, 1.0), st.floats(1e-14, 0.9))
def test_newton_schulz_brings_the_interval_to_one(low, eps):
    x = np.concatenate([np.geomspace(low, 1.0, 200), [low, 1.0]])
    least = low
    for a in schedule(low, eps):
        x = 1.5 * a * x - 0.5 * (a * x) ** 3
        grown = 1.5 * a * least - 0.5 * (a * least) ** 3
        assert grown >= (1.683 if least <= 0.5 else 1.0) * least * (1 - 1e-15)
        assert 1 - grown <= 1.5 * (1 - least) ** 2 + 1e-15
        least = min(grown, 1.0)
    assert (np.abs(1 - x) <= eps + 8e-16).all()


@pytest.mark.parametrize("low", [1e-8, 1e-3, 0.3])
def test_newton_schulz_takes_as_few_steps_as_the_lemma_says(low):
    for eps in (1e-2, 1e-6, 1e-14):
        growing = max(0, math.ceil(math.log(1 / (2 * low)) / math.log(1.683)))
        squaring = math.ceil(math.log2(math.log(1 / eps) / math.log(4 / 3)))
        assert len(schedule(low, eps)) <= growing + squaring


def test_newton_schulz_wants_an_interval():
    for low, eps in ((0.0, 0.1), (2.0, 0.1), (0.5, 0.0), (0.5, 1.0), (math.nan, 0.1)):
        with pytest.raises(ValueError, match="need 0 < low <= 1 and 0 < eps < 1"):
            schedule(low, eps)


@pytest.mark.parametrize(("low", "high", "ratio"), [(1e-6, 60.0, 2.0), (0.3, 1.0, 2.0), (0.01, 9.0, 1.5)])
def test_reciprocal(low, high, ratio):
    """Between 1/x and (1 + r)^2 / (4 r) times it, reached at the middle of a piece; positive outside."""
    f = reciprocal_approximation(low, high, ratio)
    top = f.domain[1]
    assert top >= high
    x = np.concatenate([np.geomspace(low, top, 20001), [(1 + ratio) / 2 * low]])

    def value(x):
        return np.maximum(np.multiply.outer(x, f.w) + f.b, 0) @ f.a

    product, worst = x * value(x), (1 + ratio) ** 2 / (4 * ratio)
    assert product.min() >= 1 - f.rounding
    assert product.max() <= worst + f.rounding
    assert product.max() >= worst - 1e-6
    assert_exact(f.closed_form, worst - 1, ulps=8)
    assert 0 < value(np.array([2 * top]))[0] <= 1 / top * (1 + 1e-12)
    assert 1 / low <= value(np.array([0.0]))[0] <= 2 / low


@pytest.mark.parametrize(
    "arguments", [(0.0, 1.0, 2.0), (1.0, 1.0, 2.0), (1.0, 2.0, 1.0), (1.0, math.inf, 2.0)]
)
def test_reciprocal_wants_an_interval(arguments):
    with pytest.raises(ValueError, match=r"low|high"):
        reciprocal_approximation(*arguments)


def test_the_lower_bound_on_a_whitened_tensor_is_reached():
    """|P u|^2 <= |T(I, u, u)| <= pi_min^(-1/2), the lower one for P = I reached at a_k^2 = pi_k."""
    rng = np.random.default_rng(3)
    for _ in range(200):
        K = int(rng.integers(1, 6))
        weights = rng.dirichlet(np.ones(K))
        left = rng.integers(0, 2, K).astype(bool)
        left[rng.integers(K)] = True
        for _ in range(20):
            u = rng.standard_normal(K)
            u /= np.linalg.norm(u)
            size = np.linalg.norm(np.where(left, weights**-0.5 * u**2, 0))
            assert size >= (u[left] @ u[left]) * (1 - 1e-12)
            assert size <= weights[left].min() ** -0.5 * (1 + 1e-12)
        u = np.sqrt(weights)
        assert_exact(np.linalg.norm(weights**-0.5 * u**2), 1.0, ulps=64)


def test_bounds_that_are_derived():
    bounds = SpectralBounds(**numbers())
    assert bounds.norms == (1e-3, 1.125 * 1.5 * 0.05**-0.5)
    assert bounds.sign_scale == 59.3
    assert bounds.bits == 15
    z = 2 / sum(bounds.squares)
    for _ in range(bounds.reciprocal_steps):
        z = 2 * z - bounds.squares[1] * z * z
    assert gap(z * bounds.squares[1], 1.0) <= 1e-13
