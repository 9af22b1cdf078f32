"""The diagonal construction against EM: each step under its bound, whole runs, identities, laws."""

import time

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture as SklearnMixture

from constructions import Transformer
from constructions.diagonal import DiagonalEMTransformer
from constructions.diagonal_bounds import diagonal_step_bound
from constructions.diagonal_layers import diagonal_parts
from gmm import GaussianMixture, em_step, run_em
from tests.compare import assert_bound, assert_exact, slope
from tests.constructions.diagonal_checks import (
    check_steps,
    distances,
    naive_clipped_step,
    network,
    quiet_run,
)
from tests.naive import forward
from tests.problems import diagonal_case, diagonal_case_of

N_ITER = 10


def cases(count, seed, samples=(100, 2000)):
    rng = np.random.default_rng(seed)
    return [diagonal_case(rng, samples) for _ in range(count)]


def largest(estimate, mixture):
    return max(array.max() for array in distances(estimate, mixture))


MANY = cases(104, seed=31)


def run_and_check(problems, n_iter):
    """Runs of one weight set, every step under its bound; the largest share of each bound that was used."""
    em, shares, runs = network(1e-2), [], []
    for X, _, init in problems:
        runs.append(quiet_run(em, X, init, n_iter))
        shares += [step.shares for step in check_steps(em, X, init, runs[-1])]
    assert len(shares) >= 0.95 * n_iter * len(problems), "steps outside the bounds"
    print(f"share of the bound used, pi mu s: {np.max(shares, axis=0).round(2)}")
    assert (np.max(shares, axis=0) > 0.2).all(), "a bound is vacuous"
    return runs


@pytest.mark.slow
@pytest.mark.parametrize("block", range(4))
def test_104_tasks_stay_under_their_bounds(block):
    run_and_check(MANY[block::4], 3)


@pytest.mark.slow
def test_ten_iterations_stay_under_their_bounds():
    """`pytest -rP` shows the gap to EM after 1..10 iterations."""
    runs = run_and_check(MANY[:12], N_ITER)
    paths = (run_em(X, init, N_ITER)[1:] for X, _, init in MANY[:12])
    gaps = [list(map(largest, run, path)) for run, path in zip(runs, paths, strict=True)]
    for name, summary in (("median", np.median), ("largest", np.max)):
        print(f"{name} gap after 1..10 iterations:", *(f"{g:.1e}" for g in summary(gaps, axis=0)))
    assert np.median(gaps, axis=0).max() < 2e-2


def test_those_tasks_span_the_sizes():
    shapes = [(*X.shape, len(init.weights)) for X, _, init in MANY]
    assert {d for _, d, _ in shapes} == set(range(1, 9))
    assert {K for *_, K in shapes} == {2, 3, 4, 5}
    assert sum(N % K > 0 for N, _, K in shapes) >= 60
    assert min(shapes)[0] < 150 < 1500 < max(shapes)[0]


@pytest.mark.parametrize("eps", [1e-3, 1e-1])
def test_a_few_tasks_at_other_levels(eps):
    for X, _, init in cases(3, seed=32):
        check_steps(network(eps), X, init, quiet_run(network(eps), X, init, 2))


@pytest.mark.slow
def test_the_median_gap_is_proportional_to_eps():
    """One step and five, weights and means and scales."""
    levels, rng = [1e-1, 1e-2, 1e-3, 1e-4], np.random.default_rng(33)
    problems = [diagonal_case_of(2, 3, int(rng.integers(100, 800)), rng) for _ in range(16)]
    gaps = np.empty((len(levels), len(problems), 2, 3))
    for row, eps in zip(gaps, levels, strict=True):
        for place, (X, _, init) in zip(row, problems, strict=True):
            run, path = quiet_run(network(eps, 2, 3), X, init, 5), run_em(X, init, 5)
            for i, depth in enumerate((1, 5)):
                place[i] = [array.max() for array in distances(run[depth - 1], path[depth])]
    medians = np.median(gaps, axis=1)
    slopes = [[slope(levels, medians[:, i, part]) for part in range(3)] for i in range(2)]
    print(f"slopes of pi, mu, s after 1 and 5 iterations: {np.round(slopes, 3).tolist()}")
    assert np.abs(np.array(slopes) - 1).max() < 0.15


# ---- other references


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_three_references_agree():
    """gmm.em_step, loops, and one iteration of scikit-learn."""
    rng = np.random.default_rng(34)
    for _ in range(4):
        X, _, init = diagonal_case_of(2, 3, 61, rng)
        after = em_step(X, init)
        naive = GaussianMixture(*naive_clipped_step(X, *_parts(init), 1e-9, 1e9))
        for array in distances(after, naive):
            assert_exact(array, np.zeros_like(array), ulps=1e4, scale=np.abs(X).max() ** 2)
        other = _sklearn(X, init, 1)
        for array in distances(after, other):
            assert_exact(array, np.zeros_like(array), ulps=1e5, scale=np.abs(X).max() ** 2)


def _parts(mixture):
    return mixture.weights, mixture.means, mixture.scales


def _sklearn(X, init, n_iter):
    model = SklearnMixture(
        len(init.weights),
        covariance_type="diag",
        reg_covar=0.0,
        tol=0.0,
        max_iter=n_iter,
        weights_init=init.weights,
        means_init=init.means,
        precisions_init=1 / init.scales**2,
    )
    model.fit(X)
    return GaussianMixture(model.weights_, model.means_, np.sqrt(model.covariances_))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_whole_runs_against_scikit_learn():
    """25 iterations of each: the gap falls with eps at slope 1."""
    rng, levels = np.random.default_rng(35), [1e-1, 1e-2, 1e-3]
    gaps = []
    for _ in range(5):
        X, _, init = diagonal_case_of(2, 3, int(rng.integers(150, 500)), rng)
        end = _sklearn(X, init, 25)
        gaps.append([largest(quiet_run(network(eps, 2, 3), X, init, 25)[-1], end) for eps in levels])
    medians = np.median(gaps, axis=0)
    print("median gap to scikit-learn after 25 iterations:", *(f"{g:.1e}" for g in medians))
    assert abs(slope(levels, medians) - 1) < 0.25
    assert medians[-1] < 10 * levels[-1]


def test_definitions_by_loops_give_the_same():
    """`matrices()` run by the loops of `tests.naive`, at several sizes, K not dividing N."""
    em = network(0.3, 2, 2, r_max=8.0, scale_min=0.3, scale_max=4.0, log_A=20.0)
    rng = np.random.default_rng(36)
    for d, K, N in ((1, 1, 3), (2, 2, 7), (1, 2, 2), (2, 1, 5)):
        X = rng.standard_normal((N, d))
        init = GaussianMixture(np.full(K, 1 / K), X[:K] + 0.1, np.full((K, d), 0.8))
        run = quiet_run(em, X, init, 2)
        looped = forward(em.transformer(2).matrices(), em.encode(X, init))
        for one, other in zip(em.readout(looped, d, K), run[-1], strict=True):
            assert_exact(one, other, ulps=1e5, scale=4)


# ---- one network, however it is run


@pytest.mark.parametrize("mode", ["dense", "structured"])
def test_run_reads_the_networks_of_every_depth(mode):
    rng = np.random.default_rng(37)
    X, _, init = diagonal_case_of(3, 4, 102, rng)
    em = network(0.1)
    H = em.encode(X, init)
    for depth, estimate in enumerate(quiet_run(em, X, init, 3, mode=mode), start=1):
        alone = em.readout(em.transformer(depth)(H, mode), 3, 4)
        assert largest(alone, estimate) <= 1e-13 * np.abs(X).max()


def test_dense_and_structured_agree():
    for X, _, init in cases(4, seed=38, samples=(20, 200)):
        dense, structured = (quiet_run(network(0.1), X, init, 3, mode=m) for m in ("dense", "structured"))
        for pair in zip(dense, structured, strict=True):
            assert largest(*pair) <= 1e-10 * np.abs(X).max()
        assert dense.used == ("dense",)
        assert "dense" not in " ".join(structured.used)


def test_one_weight_set_serves_every_size():
    """Padding: the layers for (8, 5) and the same layers written for (d, K) itself agree."""
    wide = network(1e-2)
    for X, _, init in cases(4, seed=39, samples=(20, 300)):
        K, d = init.means.shape
        narrow = DiagonalEMTransformer(d, K, eps=1e-2, r_max=60, pi_min=1e-3, scale_min=0.05, scale_max=20)
        parts = diagonal_parts(narrow.layout, *wide.approximations, wide.silence)
        for pair in zip(
            quiet_run(wide, X, init, 3),
            quiet_run(narrow.with_program(parts.program()), X, init, 3),
            strict=True,
        ):
            assert largest(*pair) <= 1e-12 * np.abs(X).max()


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 1, 9), (8, 5, 5), (8, 5, 6), (3, 4, 1001), (8, 1, 30)])
def test_corners_of_the_allowed_sizes(size):
    """With hardly more samples than components some get no sample at all: no bound for those."""
    d, K, N = size
    X, _, init = diagonal_case_of(d, K, N, np.random.default_rng(d + K + N))
    em = network(1e-2)
    (estimate,) = quiet_run(em, X, init, 1)
    want = naive_clipped_step(X, *_parts(init), em.scale_min, em.scale_max)
    bound = diagonal_step_bound(X, init, em.levels(X))
    assert np.isfinite(bound.weights).all()
    for found, wanted, limit in zip(estimate, want, bound, strict=True):
        decided = np.isfinite(limit)
        assert decided.any()
        assert_bound(np.abs(found - wanted)[decided], limit[decided])
    if K == 1:
        assert_exact(estimate.weights, [1.0], ulps=8)
        assert_exact(estimate.means, want[1], ulps=64, scale=np.abs(X).max())


# ---- identities


def test_responsibilities_are_exact_given_the_residuals():
    """E adds no error of its own: softmax of log_pi + g - sum te r2 / 2, as the network holds them."""
    X, _, init = diagonal_case_of(3, 4, 103, np.random.default_rng(40))
    trace = quiet_run(network(0.1), X, init, 2, trace=True).trace
    for number in (2, 5):
        at = {name: trace.at(number - 1, name, "mlp") for name in ("r2", "te", "g", "log_pi", "e")}
        assert (at["e"][:4, :4] == np.eye(4)).all()
        assert (at["e"][4:] == 0).all()
        assert (at["te"][4:] == 0).all()
        assert (at["g"][4:] == 0).all()
        score = at["log_pi"][:, :4] + at["g"][:4, 0] - at["r2"] @ at["te"][:4].T / 2
        w = np.exp(score - score.max(axis=1, keepdims=True))
        w /= w.sum(axis=1, keepdims=True)
        found = trace.at(number, "w", "attention")
        assert_exact(found[:, :4], w, ulps=1e3, scale=np.abs(score).max())
        assert (found[:, 4:] == 0).all()


def test_cleaned_slots_are_exactly_zero():
    X, _, init = diagonal_case_of(3, 4, 103, np.random.default_rng(41))
    for mode in ("dense", "structured"):
        trace = quiet_run(network(0.1), X, init, 2, trace=True, mode=mode).trace
        for layer, names in ((2, ("log_pi", "pi", "mu", "r2", "v", "te", "g")), (3, ("w",)), (4, ("log_w",))):
            for name in names:
                assert (trace[layer, name] == 0).all(), (mode, layer, name)
        for name in ("pi", "mu", "v", "te"):
            assert np.abs(trace[7, name]).max() > 0


def test_means_and_variances_are_weighted_averages():
    """M1 and M2 are exact given log w: softmax over the samples, of X and of the network's squares."""
    X, _, init = diagonal_case_of(3, 4, 103, np.random.default_rng(42))
    trace = quiet_run(network(0.1), X, init, 1, trace=True).trace
    log_w, r2 = trace[2, "log_w"][:, :4], trace[3, "r2"]
    p = np.exp(log_w - log_w.max(axis=0))
    p /= p.sum(axis=0)
    mu, v = trace[3, "mu"].reshape(-1, 5, 8), trace.at(4, "v", "attention").reshape(-1, 5, 8)
    assert_exact(mu[0, :4, :3], p.T @ X, ulps=1e3, scale=np.abs(X).max())
    assert_exact(mu, np.broadcast_to(mu[0], mu.shape), ulps=8, scale=np.abs(X).max())
    squares = r2.reshape(-1, 5, 8)
    want = np.einsum("ik,ikj->kj", p, squares[:, :4])
    assert_exact(v[range(4), range(4)], want, ulps=1e3, scale=squares.max())


# ---- laws


@pytest.mark.slow
def test_laws():
    """Order of components, order of samples, a repeated sample, a shift: nothing changes."""
    rng = np.random.default_rng(43)
    for X, _, init in cases(2, seed=44, samples=(50, 300)):
        order, shift = rng.permutation(len(init.weights)), rng.uniform(-20, 20, X.shape[1])
        straight = quiet_run(network(1e-2), X, init, 3)[-1]
        expected = GaussianMixture(straight.weights / straight.weights.sum(), *straight[1:])
        moved = GaussianMixture(init.weights, init.means + shift, init.scales)
        for data, start, back, wanted in (
            (X, init.permuted(order), 0.0, expected.permuted(order)),
            (rng.permutation(X), init, 0.0, expected),
            (np.concatenate([X, X]), init, 0.0, expected),
            (X + shift, moved, shift, expected),
        ):
            found = quiet_run(network(1e-2), data, start, 3)[-1]
            found = found._replace(means=found.means - back)
            assert largest(found, wanted) <= 1e-9 * np.abs(X).max()


# ---- float32 and size


@pytest.mark.slow
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_float32(offset):
    """At eps = 1e-4: every step under its bound, which counts rounding, and near float64."""
    double, single = (network(1e-4, 3, 3, dtype=dtype) for dtype in ("float64", "float32"))
    rng, worst = np.random.default_rng(45), 0.0
    for _ in range(8):
        X, _, init = diagonal_case_of(3, 3, 300, rng)
        X, init = X + offset, GaussianMixture(init.weights, init.means + offset, init.scales)
        runs = [quiet_run(em, X, init, 4) for em in (double, single)]
        check_steps(single, X, init, runs[1])
        worst = max(worst, *(largest(*pair) for pair in zip(*runs, strict=True)))
    print(f"largest difference of float32 and float64 in 4 iterations: {worst:.1e}")
    assert 1e-8 < worst < 5e-4


def test_rounding_falls_by_orders():
    """float64 instead of float32: what is left of the difference between two evaluations."""
    X, _, init = diagonal_case_of(3, 3, 300, np.random.default_rng(46))
    found = []
    for dtype in ("float32", "float64"):
        em = network(1e-2, 3, 3, dtype=dtype)
        dense, structured = (quiet_run(em, X, init, 2, mode=mode)[-1] for mode in ("dense", "structured"))
        found.append(largest(dense, structured))
    assert found[1] < 1e-6 * found[0]


@pytest.mark.slow
def test_a_hundred_thousand_samples_take_seconds():
    X, _, init = diagonal_case_of(8, 5, 100_001, np.random.default_rng(47))
    em = network(1e-2)
    start = time.perf_counter()
    run = quiet_run(em, X, init, 2)
    print(f"2 iterations at N = 100001: {time.perf_counter() - start:.1f} s")
    check_steps(em, X, init, run)
    assert "dense" not in " ".join(run.used)


def test_the_transformer_is_one_like_any_other():
    """encode, forward, readout by hand; a plain array in, layers as mappings."""
    X, _, init = diagonal_case_of(2, 3, 50, np.random.default_rng(48))
    em = network(0.1)
    again = Transformer(em.transformer(2).matrices())
    found = em.readout(again(em.encode(X, init), "structured"), 2, 3)
    assert largest(found, quiet_run(em, X, init, 2)[-1]) <= 1e-12 * np.abs(X).max()
