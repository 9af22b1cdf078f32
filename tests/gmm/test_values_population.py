"""The population map with so few nodes, or draws, that its sums can be written down."""

import itertools
import math

import numpy as np
import pytest

from gmm import GaussianMixture, population_em_step
from tests.gmm.spectral_cases import jacobi

ROOT6 = math.sqrt(6)

RULES = {
    1: [(0.0, 1.0)],
    2: [(-1.0, 1 / 2), (1.0, 1 / 2)],
    3: [(-math.sqrt(3), 1 / 6), (0.0, 2 / 3), (math.sqrt(3), 1 / 6)],
    4: [
        (sign * math.sqrt(3 + side * ROOT6), (3 - side * ROOT6) / 12) for side in (-1, 1) for sign in (-1, 1)
    ],
}
"""Nodes and weights that are exact for the standard normal up to degree 2 n - 1."""


def shares(model, x):
    """Responsibilities at a point, one component after the other."""
    logs = [
        math.log(w) - sum((a - b) ** 2 for a, b in zip(x, mu, strict=True)) / 2
        for w, mu in zip(model.weights, model.means, strict=True)
    ]
    parts = [math.exp(log - max(logs)) for log in logs]
    return [part / sum(parts) for part in parts]


def axes_of(means, rank):
    """Principal axes of the differences of the means, the longest first."""
    d = len(means[0])
    gaps = [[a - b for a, b in zip(mean, means[0], strict=True)] for mean in means]
    return jacobi([[sum(gap[a] * gap[b] for gap in gaps) for b in range(d)] for a in range(d)])[1][:rank]


def averaged(weighted_points, current, d):
    """E w_k and E w_k X / E w_k over points with weights."""
    K = current.n_components
    mass, moment = [0.0] * K, [[0.0] * d for _ in range(K)]
    for weight, x in weighted_points:
        for k, share in enumerate(shares(current, x)):
            mass[k] += weight * share
            for j in range(d):
                moment[k][j] += weight * share * x[j]
    means = [[entry / mass[k] for entry in moment[k]] for k in range(K)]
    return [m / sum(mass) for m in mass], means


def by_nodes(truth, current, n_nodes, rank):
    """The rule along each axis, around the mean of each component of the truth."""
    axes = axes_of(current.means.tolist(), rank)
    points = []
    for weight, mean in zip(truth.weights.tolist(), truth.means.tolist(), strict=True):
        for nodes in itertools.product(RULES[n_nodes], repeat=rank):
            at = [
                m + sum(z * axis[j] for (z, _), axis in zip(nodes, axes, strict=True))
                for j, m in enumerate(mean)
            ]
            points.append((weight * math.prod(w for _, w in nodes), at))
    return averaged(points, current, truth.dim)


def pair(seed, d, K, spread=1.2):
    rng = np.random.default_rng(seed)
    return [
        GaussianMixture(rng.dirichlet(np.full(k, 4.0)), rng.uniform(-spread, spread, (k, d))) for k in (2, K)
    ]


# ---- quadrature


@pytest.mark.parametrize("n_nodes", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("d", "K", "rank"), [(1, 2, 1), (1, 4, 1), (3, 2, 1), (2, 3, 2), (4, 3, 2), (3, 4, 3), (5, 4, 3)]
)
def test_few_nodes_in_numbers(d, K, rank, n_nodes):
    truth, current = pair(10 * d + K, d, K)
    found = population_em_step(truth, current, n_nodes=n_nodes)
    weights, means = by_nodes(truth, current, n_nodes, rank)
    assert np.allclose(found.weights, weights, rtol=1e-9)
    assert np.allclose(found.means, means, rtol=1e-9)


LEVEL = (
    GaussianMixture([1.0], [[0.39]]),
    GaussianMixture([0.536, 0.264, 0.2], [[0.05], [0.05], [0.43]]),
)
"""Here the weights change by more than the means."""


@pytest.mark.parametrize(("n_nodes", "fewer"), [(1, 1), (2, 1), (3, 2), (4, 2)])
@pytest.mark.parametrize(("truth", "current", "weights_decide"), [(*pair(7, 1, 3), False), (*LEVEL, True)])
def test_the_error_is_the_change_from_two_thirds_of_the_nodes(truth, current, weights_decide, n_nodes, fewer):
    after, error = population_em_step(truth, current, n_nodes=n_nodes, return_error=True)
    (fine, means), (coarse, other) = (by_nodes(truth, current, n, 1) for n in (n_nodes, fewer))
    by_weight = max(abs(a - b) for a, b in zip(fine, coarse, strict=True))
    by_mean = max(abs(a[0] - b[0]) for a, b in zip(means, other, strict=True))
    if n_nodes == 3:
        assert (by_weight > by_mean) == weights_decide
    assert math.isclose(error, max(by_weight, by_mean), rel_tol=1e-9)
    assert np.allclose(after.weights, fine, rtol=1e-9)


def test_six_nodes_are_held_against_four():
    truth, current = pair(3, 2, 3)
    after, error = population_em_step(truth, current, n_nodes=6, return_error=True)
    weights, means = by_nodes(truth, current, 4, 2)
    changes = [*np.abs(after.weights - weights), *np.abs(after.means - means).ravel()]
    assert math.isclose(error, max(changes), rel_tol=1e-9)


def test_weights_that_nearly_sum_to_one():
    """Those of the truth may be off by a millionth, those after the step are divided by their sum."""
    _, current = pair(4, 2, 3)
    even = GaussianMixture([0.25, 0.75], [[1.0, 0.5], [-0.5, 0.2]])
    for off in (9e-7, -9e-7):
        truth = GaussianMixture([0.25, 0.75 + off], even.means)
        after = population_em_step(truth, current, n_nodes=3)
        assert abs(after.weights.sum() - 1) < 1e-12
        weights, _ = by_nodes(truth, current, 3, 2)
        assert np.allclose(after.weights, weights, rtol=1e-9)


# ---- the span of the means


def test_equal_means_learn_nothing():
    """Every component keeps its weight and moves to the mean of the truth."""
    truth, _ = pair(5, 3, 2)
    current = GaussianMixture([0.2, 0.5, 0.3], [[1.5, -2.0, 0.3]] * 3)
    after = population_em_step(truth, current)
    assert after.weights.tolist() == current.weights.tolist()
    for j in range(3):
        want = sum(w * m for w, m in zip(truth.weights, truth.means[:, j], strict=True))
        assert np.allclose(after.means[:, j], want, rtol=1e-12)


@pytest.mark.parametrize(("far", "resolution"), [(0.25, 1e-12), (1000.0, 1e-9)])
def test_means_that_are_apart_by_less_than_a_trillionth_are_equal(far, resolution):
    """Of their largest coordinate, or of one.  For a gap g of two means w_2 - pi_2 is pi_1 pi_2 g times the
    distance of X from their middle, which for the truth below is 3 on average."""
    for part, equal in ((0.1, True), (0.8, True), (1.5, False), (50.0, False)):
        gap = far + part * resolution - far  # as it is after rounding
        current = GaussianMixture([0.3, 0.7], [[0.0, far], [0.0, far + gap]])
        after = population_em_step(GaussianMixture([1.0], [[0.4, far + 3]]), current)
        if equal:
            assert after.weights.tolist() == [0.3, 0.7]
        else:
            assert math.isclose(after.weights[1] - 0.7, 0.3 * 0.7 * gap * 3, rel_tol=0.02)


def test_means_apart_by_a_trillionth_exactly_are_equal():
    truth = GaussianMixture([1.0], [[3.0]])
    for gap, equal in ((1e-12, True), (math.nextafter(1e-12, 1), False)):
        after = population_em_step(truth, GaussianMixture([0.3, 0.7], [[0.0], [gap]]))
        assert (after.weights.tolist() == [0.3, 0.7]) == equal


def test_many_means_in_three_dimensions_need_no_generator():
    """Five means in R^5 whose differences lie in three dimensions, or in one."""
    rng = np.random.default_rng(2)
    for rank in (1, 3):
        means = 0.3 + rng.uniform(-1, 1, (5, rank)) @ rng.uniform(-1, 1, (rank, 5))
        current = GaussianMixture(rng.dirichlet(np.full(5, 4.0)), means)
        truth, _ = pair(6, 5, 2)
        found = population_em_step(truth, current, n_nodes=3)
        weights, means = by_nodes(truth, current, 3, rank)
        assert np.allclose(found.weights, weights, rtol=1e-9)
        assert np.allclose(found.means, means, rtol=1e-9)


# ---- Monte Carlo


class Given:
    """In place of a generator: every pattern of signs of four numbers, for each component."""

    def __init__(self, sizes, components):
        signs = list(itertools.product((1, -1), repeat=4))
        self.normals = np.array(
            [[s * z for s, z in zip(row, sizes, strict=True)] for row in signs * components]
        )
        self.labels = np.repeat(np.arange(components), 16)

    def choice(self, n, size, p):
        assert size == len(self.labels)
        assert len(p) == n
        assert math.isclose(sum(p), 1.0, rel_tol=1e-12)
        return self.labels

    def standard_normal(self, size):
        assert size == self.normals.shape
        return self.normals


@pytest.mark.parametrize(
    ("sizes", "lengths", "truth_means", "weights_decide"),
    [
        (
            (0.9, 1.2, 0.7, 1.1),
            (2.5, 2.0, 1.5, 1.0),
            [[1.0, 0.5, -0.4, 0.8, 2.0], [0.1, 1.3, 0.6, -0.2, 5.0]],
            False,
        ),
        ((0.02, 0.03, 0.01, 0.04), (30.0, 29.0, 27.0, 14.0), [[15.01, 14.48, 13.52, 6.95, 2.0]], True),
    ],
)
def test_draws_in_numbers(sizes, lengths, truth_means, weights_decide):
    """Current means at c and c + s_k e_k for the first four axes: the draws are noise along these.  The
    error is four standard errors, of a weight or of a mean coordinate, sd(w (X - mu)) / E w."""
    corner = np.array([0.0, 0.0, 0.0, 0.0, 0.7])
    means = [corner] + [corner + length * np.eye(5)[k] for k, length in enumerate(lengths)]
    current = GaussianMixture([0.25, 0.15, 0.3, 0.12, 0.18], means)
    components = len(truth_means)
    truth = GaussianMixture(np.full(components, 1 / components), truth_means)
    rng = Given(sizes, components)
    points = [
        [m + (z[j] if j < 4 else 0.0) for j, m in enumerate(truth_means[label])]
        for z, label in zip(rng.normals.tolist(), rng.labels, strict=True)
    ]
    n = len(points)
    after, error = population_em_step(truth, current, n_samples=n, rng=rng, return_error=True)
    weights, want = averaged([(1 / n, x) for x in points], current, 5)
    assert np.allclose(after.weights, weights, rtol=1e-9)
    assert np.allclose(after.means, want, rtol=1e-9)

    def deviation(numbers):
        middle = sum(numbers) / n
        return math.sqrt(sum((x - middle) ** 2 for x in numbers) / n)

    of_weights, of_means = [], []
    table = [shares(current, x) for x in points]
    for k in range(5):
        of_weights.append(deviation([row[k] for row in table]))
        for j in range(5):
            terms = [row[k] * (x[j] - want[k][j]) for row, x in zip(table, points, strict=True)]
            of_means.append(deviation(terms) / weights[k])
    assert (max(of_weights) > max(of_means)) == weights_decide
    assert math.isclose(error, 4 * max(of_weights + of_means) / math.sqrt(n), rel_tol=1e-9)


def test_draws_from_weights_that_nearly_sum_to_one():
    """Generators want a sum of one to 1e-8, mixtures to 1e-6."""
    rng = np.random.default_rng(0)
    current = GaussianMixture(np.full(6, 1 / 6), rng.uniform(-1, 1, (6, 5)))
    for off in (9e-7, -9e-7):
        truth = GaussianMixture([0.25, 0.75 + off], rng.uniform(-1, 1, (2, 5)))
        after = population_em_step(truth, current, n_samples=50, rng=rng)
        assert abs(after.weights.sum() - 1) < 1e-12


@pytest.mark.parametrize("dim", [2, 5])
def test_a_component_that_no_draw_reaches_keeps_its_mean(dim):
    """And the error is that of the others.  By quadrature for d = 2, by draws for d = 5."""
    rng = np.random.default_rng(1)
    near = rng.uniform(-1, 1, (dim, dim))
    truth = GaussianMixture([0.4, 0.6], rng.uniform(-1, 1, (2, dim)))
    current = GaussianMixture(np.full(dim + 1, 1 / (dim + 1)), [*near, np.full(dim, 1e3)])
    options = {"n_nodes": 5} if dim == 2 else {"n_samples": 40, "rng": rng}
    after, error = population_em_step(truth, current, return_error=True, **options)
    assert after.weights[-1] == 0.0
    assert after.means[-1].tolist() == [1e3] * dim
    assert np.abs(after.means[:-1]).max() < 10
    assert 0 < error < 10
