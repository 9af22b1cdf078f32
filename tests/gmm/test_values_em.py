"""EM's numbers in scalar loops: starts, steps, where the iteration ends, derivatives and the noise level."""

import cmath
import itertools
import math

import numpy as np
import pytest

from gmm import GaussianMixture, converge, em_jacobian, em_step, estimate_scale, fit_em, run_em, start_mixture


def close(got, want):
    return math.isclose(got, want, rel_tol=1e-9)


def state(rng):
    return rng.bit_generator.state


def clumps(seed, n=24, d=2):
    """Points around three places, in no symmetric position."""
    rng = np.random.default_rng(seed)
    centres = np.array([[0.0, 0.0, 1.0], [2.5, 1.0, -0.5], [-1.0, 3.0, 0.0]])[:, :d]
    return centres[rng.integers(0, 3, n)] + 0.6 * rng.standard_normal((n, d))


# ---- one step


def step_of(X, weights, means, scales):
    """Algorithm A.1 with standard deviations, in loops."""
    n, d, K = len(X), len(X[0]), len(weights)
    w = []
    for x in X:
        parts = [
            weights[k]
            * math.prod(
                math.exp(-((x[j] - means[k][j]) ** 2) / (2 * scales[k][j] ** 2)) / scales[k][j]
                for j in range(d)
            )
            for k in range(K)
        ]
        w.append([part / sum(parts) for part in parts])
    mass = [sum(w[i][k] for i in range(n)) for k in range(K)]
    after = [[sum(w[i][k] * X[i][j] for i in range(n)) / mass[k] for j in range(d)] for k in range(K)]
    spread = [
        [math.sqrt(sum(w[i][k] * (X[i][j] - after[k][j]) ** 2 for i in range(n)) / mass[k]) for j in range(d)]
        for k in range(K)
    ]
    return [m / n for m in mass], after, spread


@pytest.mark.parametrize("scaled", [True, False])
def test_a_step_in_numbers(scaled):
    X = clumps(0, d=3)
    model = GaussianMixture([0.2, 0.5, 0.3], X[:3] + 0.3, [[0.8, 1.1, 0.7], [0.9, 1.3, 0.6], [1.2, 0.5, 1.4]])
    scales = model.scales if scaled else np.ones((3, 3))
    after = em_step(X, model if scaled else GaussianMixture(model.weights, model.means))
    weights, means, spread = step_of(X.tolist(), model.weights, model.means, scales)
    assert np.allclose(after.weights, weights, rtol=1e-9)
    assert np.allclose(after.means, means, rtol=1e-9)
    assert np.allclose(after.scales, spread, rtol=1e-9) if scaled else after.scales is None


def test_one_collapsed_coordinate_of_one_component_is_an_error():
    """The second component has two samples for itself, alike in their last coordinate."""
    X = [[0.0, 0.0], [1.0, 2.0], [50.0, 9.0], [51.0, 9.0]]
    model = GaussianMixture([0.5, 0.5], [[0.0, 1.0], [50.0, 9.0]], np.ones((2, 2)))
    with pytest.raises(ValueError, match="component 1 collapsed: its variance in coordinate 1 is 0"):
        em_step(X, model)
    X[3][1] = 9.5
    assert close(em_step(X, model).scales[1, 1], 0.25)


def test_runs_have_the_length_that_is_asked_for():
    X = clumps(1)
    init = GaussianMixture([0.4, 0.6], X[:2])
    for n in (0, 1, 3):
        path = run_em(X, init, n)
        assert len(path) == n + 1
        for before, after in itertools.pairwise(path):
            assert after.means.tolist() == em_step(X, before).means.tolist()


# ---- starts


class Given:
    """In place of a generator: the samples that k-means++ draws; keeps the chances it is given."""

    def __init__(self, first, *others):
        self.first, self.others, self.chances = first, list(others), []

    def integers(self, n):
        return self.first

    def choice(self, n, p):
        self.chances.append(None if p is None else list(p))
        return self.others.pop(0)


def test_seeds_are_drawn_by_the_squared_distance_to_the_nearest_one():
    X = clumps(2, n=9)
    drawn = [4, 7, 0, 2]
    rng = Given(*drawn)
    start = start_mixture(X, 4, rng)
    assert start.means.tolist() == X[drawn].tolist()
    assert start.weights.tolist() == [0.25] * 4
    assert start.scales is None
    assert len(rng.chances) == 3
    for count, chances in enumerate(rng.chances, start=1):
        nearest = [min(math.dist(x, X[c]) ** 2 for c in drawn[:count]) for x in X]
        for chance, square in zip(chances, nearest, strict=True):
            assert math.isclose(chance, square / sum(nearest), rel_tol=1e-9, abs_tol=1e-300)


def test_with_too_few_distinct_samples_all_are_as_likely():
    rng = Given(1, 0, 1)
    assert start_mixture([[2.0], [7.0], [2.0]], 3, rng).means.tolist() == [[7.0], [2.0], [7.0]]
    assert rng.chances == [[0.5, 0.0, 0.5], None]


@pytest.mark.parametrize("start", ["kmeans++", "normal"])
def test_the_least_and_the_largest_number_of_components(start):
    X, rng = clumps(3, n=4), np.random.default_rng(0)
    for K in (1, 4):
        assert start_mixture(X, K, rng, start).means.shape == (K, 2)
    for K in (0, 5):
        with pytest.raises(ValueError, match=f"between 1 and the number of samples 4, got {K}"):
            start_mixture(X, K, rng, start)
    if start == "normal":
        means = start_mixture(X, 3, np.random.default_rng(5), start).means
        assert means.tolist() == np.random.default_rng(5).standard_normal((3, 2)).tolist()


# ---- the end of an iteration


def test_an_iteration_ends_after_max_iter_steps():
    """With a gain that is never too small."""
    X, init = clumps(4), GaussianMixture([0.4, 0.6], clumps(4)[:2])
    path = run_em(X, init, 3)
    for n in (1, 2, 3):
        assert converge(X, init, max_iter=n, tol=-1.0).means.tolist() == path[n].means.tolist()
    assert path[2].means.tolist() != path[3].means.tolist()


def test_an_iteration_goes_on_while_the_gain_is_tol_or_more():
    """The gain of the first step, from no likelihood at all, is infinite."""
    X, init = clumps(5), GaussianMixture([0.4, 0.6], clumps(5)[:2])
    path = run_em(X, init, 6)
    scores = [model.log_likelihood(X) for model in path]
    gains = [after - before for before, after in itertools.pairwise(scores)]
    assert converge(X, init, tol=math.inf).means.tolist() == path[1].means.tolist()
    for n in range(1, 5):
        assert gains[n] < gains[n - 1]
        assert converge(X, init, tol=gains[n - 1]).means.tolist() == path[n + 1].means.tolist()
        above = math.nextafter(gains[n - 1], math.inf)
        assert converge(X, init, tol=above).means.tolist() == path[n].means.tolist()


@pytest.mark.parametrize("start", ["kmeans++", "normal"])
@pytest.mark.parametrize("n_init", [1, 2, 5])
def test_a_fit_is_the_most_likely_one_of_its_starts(start, n_init):
    """As many starts as are asked for, and nothing else, come from the generator."""
    X, rng, twin = clumps(6, n=30), np.random.default_rng(n_init), np.random.default_rng(n_init)
    found = fit_em(X, 4, n_init=n_init, rng=rng, start=start, max_iter=5, tol=0.0)
    starts = [start_mixture(X, 4, twin, start) for _ in range(n_init)]
    assert state(rng) == state(twin)
    ends = [run_em(X, start, 5)[-1] for start in starts]
    likely = [sum(math.log(density(x, end)) for x in X) for end in ends]
    best = max(range(n_init), key=likely.__getitem__)
    assert found.means.tolist() == ends[best].means.tolist()
    assert len({round(x, 6) for x in likely}) == n_init


def density(x, model):
    """Of a unit-variance mixture, up to a constant."""
    return sum(
        w * math.exp(-(math.dist(x, mu) ** 2) / 2) for w, mu in zip(model.weights, model.means, strict=True)
    )


def test_counts_of_a_fit_at_their_ends():
    X, rng = clumps(7), np.random.default_rng(0)
    assert fit_em(X, 2, n_init=1, max_iter=1, rng=rng).n_components == 2
    for bad in ({"n_init": 0, "max_iter": 1}, {"n_init": 1, "max_iter": 0}):
        message = f"n_init and max_iter must be at least 1, got {bad['n_init']} and {bad['max_iter']}"
        with pytest.raises(ValueError, match=message):
            fit_em(X, 2, rng=rng, **bad)


# ---- the derivative


def em_map(X, point, K):
    """Weights and means after a step from weights, not normalised, and means, all complex numbers."""
    d = len(X[0])
    weights, means = point[:K], [point[K + k * d : K + k * d + d] for k in range(K)]
    mass, moment = [0.0] * K, [[0.0] * d for _ in range(K)]
    for x in X:
        parts = [
            weights[k] * cmath.exp(-sum((x[j] - means[k][j]) ** 2 for j in range(d)) / 2) for k in range(K)
        ]
        for k in range(K):
            mass[k] += parts[k] / sum(parts)
            for j in range(d):
                moment[k][j] += parts[k] / sum(parts) * x[j]
    return [m / len(X) for m in mass] + [moment[k][j] / mass[k] for k in range(K) for j in range(d)]


@pytest.mark.parametrize(("K", "d"), [(1, 1), (1, 3), (2, 1), (2, 2), (3, 2), (2, 3)])
def test_jacobian_in_numbers(K, d):
    """f(x + i h) = f(x) + i h f'(x) + O(h^2) for an analytic f, and h = 1e-100 leaves the first two."""
    X = clumps(8, n=10, d=d)
    model = GaussianMixture(np.random.default_rng(K).dirichlet(np.full(K, 3.0)), X[:K] + 0.4)
    found, size = em_jacobian(X, model), K + K * d
    assert found.shape == (size, size)
    for column in range(size):
        point = [complex(x) for x in (*model.weights, *model.means.ravel())]
        point[column] += 1e-100j
        for row, value in enumerate(em_map(X.tolist(), point, K)):
            assert math.isclose(found[row, column], value.imag * 1e100, rel_tol=1e-9, abs_tol=1e-13)


def test_jacobian_beside_a_component_without_mass():
    """The other one has all samples, whatever the weights and means are; that one keeps its mean."""
    X = clumps(9, n=6)
    want = [[0.0] * 6 for _ in range(6)]
    want[2][2] = want[3][3] = 1.0
    found = em_jacobian(X, GaussianMixture([0.3, 0.7], [[500.0, 3.0], [0.5, 0.4]]))
    assert np.abs(found - want).max() < 1e-13


# ---- the noise level


def noise_level(X, means, max_iter, tol):
    """(log-likelihood per sample, sigma) of EM with a common variance from equal weights and these means."""
    n, d, K = len(X), len(X[0]), len(means)
    centre = [sum(x[j] for x in X) / n for j in range(d)]
    sigma = math.sqrt(sum((x[j] - centre[j]) ** 2 for x in X for j in range(d)) / (n * d))
    weights = [1 / K] * K

    def densities():
        return [
            [
                weights[k]
                * math.exp(-(math.dist(x, means[k]) ** 2) / (2 * sigma**2))
                / (2 * math.pi * sigma**2) ** (d / 2)
                for k in range(K)
            ]
            for x in X
        ]

    score = sum(math.log(sum(parts)) for parts in densities()) / n
    for _ in range(max_iter):
        w = [[part / sum(parts) for part in parts] for parts in densities()]
        mass = [sum(row[k] for row in w) for k in range(K)]
        weights = [m / n for m in mass]
        means = [
            [sum(row[k] * x[j] for row, x in zip(w, X, strict=True)) / mass[k] for j in range(d)]
            for k in range(K)
        ]
        total = sum(
            row[k] * math.dist(x, means[k]) ** 2 for row, x in zip(w, X, strict=True) for k in range(K)
        )
        sigma = math.sqrt(total / (n * d))
        before, score = score, sum(math.log(sum(parts)) for parts in densities()) / n
        if score - before < tol:
            break
    return score, sigma


@pytest.mark.parametrize("unit", [1.0, 40.0, 0.03])
@pytest.mark.parametrize(("d", "K"), [(1, 3), (2, 1), (2, 3), (3, 2)])
@pytest.mark.parametrize(("max_iter", "tol"), [(1, 1e-6), (2, 1e-6), (5, -1.0), (40, 1e-2), (9, math.inf)])
def test_noise_level_in_numbers(d, K, unit, max_iter, tol):
    X = unit * clumps(10, d=d)
    rng, twin = np.random.default_rng(K), np.random.default_rng(K)
    found = estimate_scale(X, K, n_init=1, rng=rng, max_iter=max_iter, tol=tol)
    means = start_mixture(X, K, twin).means.tolist()
    assert close(found, noise_level(X.tolist(), means, max_iter, tol)[1])
    assert state(rng) == state(twin)


@pytest.mark.parametrize("unit", [1.0, 40.0, 0.03])
@pytest.mark.parametrize("n_init", [1, 2, 4, 6])
def test_the_noise_level_is_that_of_the_most_likely_fit(n_init, unit):
    """Starts that end in different places; as many as are asked for are drawn."""
    X = unit * clumps(11, n=40)
    rng, twin = np.random.default_rng(2), np.random.default_rng(2)
    found = estimate_scale(X, 5, n_init=n_init, rng=rng, max_iter=12)
    ends = [
        noise_level(X.tolist(), start_mixture(X, 5, twin).means.tolist(), 12, 1e-6) for _ in range(n_init)
    ]
    assert state(rng) == state(twin)
    assert close(found, max(ends)[1])
    assert len({round(score, 6) for score, _ in ends}) == n_init


def test_a_noise_level_needs_a_start_and_a_step():
    X, rng = clumps(10), np.random.default_rng(0)
    for n_init, max_iter in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match=f"must be at least 1, got {n_init} and {max_iter}"):
            estimate_scale(X, 2, n_init=n_init, max_iter=max_iter, rng=rng)


def test_a_noise_level_of_a_trillionth_of_the_spread_is_none():
    """Two samples at 1 and two at -delta and delta: sigma = delta / sqrt(2), and the spread is a half."""

    def level(delta):
        X = [[-delta], [delta], [1.0], [1.0]]
        return estimate_scale(X, 2, n_init=1, rng=np.random.default_rng(0))

    delta = math.sqrt(2) * 0.5e-12
    while math.sqrt(2 * (delta * delta) / 4) > 1e-12 * 0.5:
        delta = math.nextafter(delta, 0)
    while math.sqrt(2 * (delta * delta) / 4) < 1e-12 * 0.5:
        delta = math.nextafter(delta, 1)
    assert math.sqrt(2 * (delta * delta) / 4) == 1e-12 * 0.5
    with pytest.raises(ValueError, match="2 components fit the 4 samples exactly"):
        level(delta)
    while math.sqrt(2 * (delta * delta) / 4) <= 1e-12 * 0.5:
        delta = math.nextafter(delta, 1)
    assert close(level(delta), 0.5e-12)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_the_trillionth_is_of_the_spread(unit):
    for delta, exact in ((6e-13, True), (8e-13, False)):
        X = [[-delta * unit], [delta * unit], [unit], [unit]]
        if exact:
            with pytest.raises(ValueError, match="2 components fit the 4 samples exactly"):
                estimate_scale(X, 2, n_init=1, rng=np.random.default_rng(0))
        else:
            found = estimate_scale(X, 2, n_init=1, rng=np.random.default_rng(0))
            assert close(found, delta * unit / math.sqrt(2))
