"""Theorem C.1's construction against EM: each step under its bound, and the gap over ten of them."""

import warnings
from functools import cache

import numpy as np
import pytest

from constructions import EMTransformer
from constructions.bounds import Levels, StepBound, em_step_bound, propagate
from constructions.em_layers import em_parts
from constructions.report import em_gap, em_report
from gmm import GaussianMixture, TaskDistribution, em_step, run_em, start_mixture
from tests.compare import assert_bound, assert_exact, gap, slope
from tests.constructions.twins import (
    ENCODING_MISTAKES,
    LOOP_MISTAKES,
    STEP_MISTAKES,
    broken,
    corrupt,
)
from tests.problems import Case, em_cases

N_ITER = 10


@cache
def network(eps=1e-4, **options):
    return EMTransformer(8, 5, **({"eps": eps, "r_max": 32, "pi_min": 1e-3} | options))


def quiet_run(em, case, n_iter=N_ITER, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a weight below pi_min, which the tests look at themselves
        return em.run(case.X, case.init, n_iter, **options)


def step_errors(em, case, estimates):
    """For each iteration, from the network's own state: EM's next mixture, the network's distance to
    it, (weights, means), and the bound."""
    state = case.init
    for number, estimate in enumerate(estimates):
        current = GaussianMixture(state.weights / state.weights.sum(), state.means)
        resp = current.responsibilities(case.X)
        bound = em_step_bound(case.X, resp, em.levels(case.X, first=number == 0))
        after = em_step(case.X, current)
        error = StepBound(
            np.abs(estimate.weights - after.weights), np.linalg.norm(estimate.means - after.means, axis=1)
        )
        yield after, error, bound
        state = estimate


def check_steps(em, case, estimates):
    """Every step under its bound; how many steps were decided, and the largest share of a bound."""
    decided, used = 0, 0.0
    for after, error, bound in step_errors(em, case, estimates):
        if after.weights.min() < em.pi_min:
            break
        assert_bound(error.weights, bound.weights)
        assert_bound(error.means, bound.means)
        decided, used = decided + 1, max(used, (error.means / bound.means).max())
    return decided, used


CASES = em_cases(200, seed=11)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(8))
def test_200_tasks_stay_under_their_bounds(block):
    """Structured evaluation, one weight set; the propagated bound is below 0.1 on 95% of tasks."""
    em, small, steps, tightest = network(), 0, 0, 0.0
    part = CASES[block::8]
    for case in part:
        estimates = quiet_run(em, case)
        report = em_report(em, case.X, case.init, estimates, case.truth)
        if len(case.X) >= 10 * case.init.n_components:
            decided, used = check_steps(em, case, estimates)
            steps, tightest = steps + decided, max(tightest, used)
        for row in report:
            assert row.em_gap <= row.bound
        small += report[-1].bound < 0.1
    assert small >= 0.95 * len(part) - 1
    assert steps >= 80
    assert tightest > 0.1, "the bound is vacuous"


@pytest.mark.slow
@pytest.mark.parametrize("case", em_cases(40, seed=12, max_samples=300))
def test_dense_and_structured_agree_and_stay_under_the_bound(case):
    em = network()
    dense, structured = (quiet_run(em, case, 3, mode=mode) for mode in ("dense", "structured"))
    check_steps(em, case, dense)
    for one, other in zip(dense, structured, strict=True):
        scale = np.abs(one.means).max()
        assert gap(one.means, other.means) <= 1e-9 * scale
        assert gap(one.weights, other.weights) <= 1e-9
    assert dense.used == ("dense",)
    assert "dense" not in " ".join(structured.used)


@pytest.mark.slow
def test_the_median_gap_is_proportional_to_eps():
    levels = [1e-1, 1e-2, 1e-3, 1e-4]
    cases = [case for case in em_cases(60, seed=13, max_samples=300) if len(case.X) >= 50]
    medians = []
    for eps in levels:
        gaps = []
        for case in cases:
            estimates = quiet_run(network(eps), case, 5)
            path = run_em(case.X, case.init, 5)
            gaps.append(em_gap(estimates[-1], path[-1]))
        medians.append(np.median(gaps))
    assert abs(slope(levels, medians) - 1) < 0.1


@pytest.mark.parametrize("mode", ["dense", "structured"])
def test_run_reads_the_networks_of_every_depth(mode):
    (case,) = em_cases(1, seed=14, max_samples=200)
    em = network(1e-2)
    d, K = case.X.shape[1], case.init.n_components
    H = em.encode(case.X, case.init)
    for depth, estimate in enumerate(quiet_run(em, case, 4, mode=mode), start=1):
        alone = em.readout(em.transformer(depth)(H, mode), d, K)
        assert gap(alone.means, estimate.means) <= 1e-12 * em.r_max
        assert gap(alone.weights, estimate.weights) <= 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("approximator", ["minimax", "paper"])
@pytest.mark.parametrize("size", [(1, 1, 1), (1, 1, 9), (8, 5, 5), (8, 5, 6), (3, 4, 1001), (8, 1, 30)])
def test_corners_of_the_allowed_sizes(size, approximator):
    d, K, N = size
    em = network(0.1, approximator=approximator, r_max=24.0)
    rng = np.random.default_rng(d + K + N)
    truth = TaskDistribution(d, max_cosine=1.0).sample_mixture(K, rng)
    X, _ = truth.sample(N, rng)
    init = GaussianMixture(truth.weights, truth.means + 0.2)
    resp = init.responsibilities(X)
    (estimate,) = quiet_run(em, Case(X, truth, init), 1)
    bound = em_step_bound(X, resp, em.levels(X, first=True))
    after = em_step(X, init)
    decided = after.weights >= em.pi_min
    assert decided.any()
    assert_bound(np.linalg.norm(estimate.means - after.means, axis=1)[decided], bound.means[decided])
    assert_bound(np.abs(estimate.weights - after.weights), bound.weights)


def test_one_weight_set_serves_every_size():
    """Padding: the layers for (8, 5) and the same layers written for (d, K) itself agree."""
    wide = network(1e-2)
    for case in em_cases(12, seed=15, max_samples=200):
        K, d = case.init.means.shape
        narrow = EMTransformer(d, K, eps=1e-2, r_max=32, pi_min=1e-3)
        narrow = narrow.with_program(em_parts(narrow.layout, *wide.approximations).program())
        for a, b in zip(quiet_run(wide, case, 3), quiet_run(narrow, case, 3), strict=True):
            assert_exact(a.means, b.means, ulps=1e6, scale=32)
            assert_exact(a.weights, b.weights, ulps=1e6)


# ---- identities


def test_the_first_e_step_is_exact():
    """Claim 28: the attention of the E-layer gives the responsibilities themselves."""
    for case in em_cases(12, seed=16, max_samples=400):
        em = network(1e-2)
        trace = quiet_run(em, case, 1, trace=True).trace
        w = trace.at(1, "w", "attention")
        K = case.init.n_components
        size = np.abs(case.X).max() * 32 + 600
        assert_exact(w[:, :K], case.init.responsibilities(case.X), ulps=64, scale=size)
        assert (w[:, K:] == 0).all()


def test_cleaned_slots_are_exactly_zero():
    (case,) = em_cases(1, seed=17, max_samples=400)
    for mode in ("dense", "structured"):
        trace = quiet_run(network(1e-2), case, 2, trace=True, mode=mode).trace
        for name in ("log_pi", "mu", "c"):
            assert (trace[1, name] == 0).all()
            assert (trace[3, name] == 0).all()
        for name in ("w", "log_w", "pi"):
            assert (trace[2, name] == 0).all()
        assert (trace[4, "w"] == 0).all()
        assert trace[4, "pi"].max() > 0


def test_the_trace_names_every_activation():
    (case,) = em_cases(1, seed=18, max_samples=100)
    run = quiet_run(network(1e-2), case, 2, trace=True)
    K, d = case.init.means.shape
    assert run.trace.n_layers == 4
    assert gap(run.trace[0, "x"][:, :d], case.X) == 0
    assert gap(run.trace[4, "mu"][:K, :d], run[1].means) <= 1e-12
    assert gap(run.trace.at(2, "pi", "attention")[0, :K], run[0].weights) <= 1e-12
    assert run.trace.state(3).shape == (len(case.X), network(1e-2).layout.width)
    with pytest.raises(ValueError, match=r"no state after the mlp of layer 5; the trace has layers 0"):
        run.trace[5, "x"]


def test_with_exact_logs_the_m_layer_is_the_m_step():
    """Claim 35: as eps falls, one step converges to EM's, at slope 1."""
    (case,) = em_cases(1, seed=19, max_samples=60)
    errors, levels = [], [1e-2, 1e-4, 1e-6]
    for eps in levels:
        em = EMTransformer(8, 5, eps=eps, r_max=32, pi_min=0.1, max_bytes=2**34)
        (estimate,) = em.run(case.X, case.init, 1)
        errors.append(em_gap(estimate, em_step(case.X, case.init)))
    assert errors[-1] < 1e-5
    assert abs(slope(levels, errors) - 1) < 0.3


# ---- samples that K does not divide


def test_counts_make_uneven_groups_exact():
    for N in (7, 10, 31, 61, 100):
        rng = np.random.default_rng(N)
        truth = TaskDistribution(2, max_cosine=1.0, mean_range=2).sample_mixture(4, rng)
        X, _ = truth.sample(N, rng)
        em = network(1e-2)
        trace = em.run(X, truth, 1, trace=True).trace
        assert_exact(trace.at(1, "w", "attention")[:, :4], truth.responsibilities(X), ulps=1e4)


def test_dropping_is_em_on_fewer_samples():
    rng = np.random.default_rng(0)
    truth = TaskDistribution(3, mean_range=2).sample_mixture(4, rng)
    X, _ = truth.sample(103, rng)
    drop = network(1e-2, remainder="drop", pooling_kind="linear")
    assert drop.layout.width == network(1e-2).layout.width - 1
    assert len(drop.encode(X, truth)) == 100
    kept = network(1e-2).run(X[:100], truth, 3)
    for one, other in zip(drop.run(X, truth, 3), kept, strict=True):
        assert_exact(one.means, other.means, ulps=1e6, scale=32)
        assert_exact(one.weights, other.weights, ulps=1e6)


def test_linear_pooling_needs_k_to_divide_n():
    (case,) = em_cases(1, seed=20, max_samples=100)
    case = case._replace(X=np.concatenate([case.X] * 5)[: 5 * case.init.n_components + 1])
    em = network(1e-2, pooling_kind="linear")
    with pytest.raises(ValueError, match="linear pooling needs K to divide N"):
        quiet_run(em, case, 1)
    even = case._replace(X=case.X[:-1])
    linear, soft = quiet_run(em, even, 2), quiet_run(network(1e-2), even, 2)
    assert_exact(linear[-1].means, soft[-1].means, ulps=1e6, scale=32)


def test_linear_pooling_of_uneven_groups_is_wrong():
    """Claim 38: what the refusal above prevents."""
    em = network(1e-2)
    rng = np.random.default_rng(0)
    truth = TaskDistribution(2).sample_mixture(3, rng)
    X, _ = truth.sample(61, rng)
    H = em.transformer(1)(em.encode(X, truth))
    pooling = network(1e-2, pooling_kind="linear").pooling(2, 3, 60)
    O = (pooling.Vo @ H.T) @ ((pooling.Ko @ H.T).T @ pooling.Qo) / 61
    assert gap(O[3:].T, em.readout(H, 2, 3).means) > 1e-2


# ---- broken twins


def uneven(case):
    """Unequal weights to start with, and a number of samples that K does not divide."""
    n = len(case.X) - (len(case.X) % case.init.n_components == 0)
    return Case(case.X[:n], case.truth, GaussianMixture(case.truth.weights, case.init.means))


EASY = [uneven(case) for case in em_cases(24, seed=21, max_samples=300) if len(case.X) >= 60]


def excess(em, H_of=lambda em, case: em.encode(case.X, case.init), depth=1):
    """How often the bound on iteration `depth` is exceeded, and by what largest factor."""
    factors = []
    for case in EASY:
        d, K = case.X.shape[1], case.init.n_components
        H = H_of(em, case)
        states = [em.readout(em.transformer(l)(H, "structured"), d, K) for l in range(1, depth + 1)]
        *_, (after, error, bound) = step_errors(em, case, states)
        if after.weights.min() >= em.pi_min:
            factors.append(max((error.means / bound.means).max(), (error.weights / bound.weights).max()))
    return max(factors)


@pytest.mark.slow
@pytest.mark.parametrize("mistake", STEP_MISTAKES)
def test_twins_that_break_the_first_step(mistake):
    assert len(EASY) >= 5
    assert excess(network(1e-3)) <= 1
    assert excess(broken(network(1e-3), mistake)) > 100


@pytest.mark.slow
@pytest.mark.parametrize("mistake", LOOP_MISTAKES)
def test_twins_that_break_the_loop(mistake):
    assert excess(network(1e-3), depth=2) <= 1
    assert excess(broken(network(1e-3), mistake), depth=2) > 100


@pytest.mark.parametrize("mistake", ENCODING_MISTAKES)
def test_twins_that_break_the_encoding(mistake):
    def spoilt(em, case):
        return corrupt(em, mistake, em.encode(case.X, case.init), case.init.n_components)

    assert excess(network(1e-3), spoilt) > 100


def test_the_printed_index_roles_of_the_m_step():
    """Erratum A2: [SoftMax_j((Q h_i)^T (K h_j))]_j V h_i, summed over i, is not the M-step."""
    for case in EASY[:5]:
        em = network(1e-3)
        K, d = case.init.means.shape
        trace = quiet_run(em, case, 1, trace=True).trace
        log_w, x = trace[1, "log_w"][:, :K], trace[1, "x"][:, :d]
        index = np.arange(len(x)) % K
        scores = log_w.T[index]  # (i, j): query e_{i % K}, key log w_j
        pattern = np.exp(scores - scores.max(axis=1, keepdims=True))
        pattern /= pattern.sum(axis=1, keepdims=True)
        printed = (pattern.T @ x)[:K]  # token j collects [.]_j V h_i over i
        right = pattern @ x
        after, _, bound = next(step_errors(em, case, em.run(case.X, case.init, 1)))
        assert_bound(np.linalg.norm(right[:K] - after.means, axis=1), bound.means)
        assert np.linalg.norm(printed - after.means, axis=1).max() > 100 * bound.means.max()


# ---- laws


def test_components_may_come_in_any_order():
    rng = np.random.default_rng(0)
    for case in em_cases(8, seed=22, max_samples=300):
        order = rng.permutation(case.init.n_components)
        straight = quiet_run(network(1e-3), case, 3)
        turned = quiet_run(network(1e-3), case._replace(init=case.init.permuted(order)), 3)
        assert_exact(turned[-1].means, straight[-1].means[order], ulps=1e7, scale=32)
        assert_exact(turned[-1].weights, straight[-1].weights[order], ulps=1e7)


def test_samples_may_come_in_any_order():
    rng = np.random.default_rng(0)
    for case in em_cases(8, seed=23, max_samples=300):
        shuffled = case._replace(X=rng.permutation(case.X))
        one, other = quiet_run(network(1e-3), case, 3), quiet_run(network(1e-3), shuffled, 3)
        assert_exact(one[-1].means, other[-1].means, ulps=1e7, scale=32)


def test_repeating_the_sample_changes_nothing():
    for case in em_cases(8, seed=24, max_samples=200):
        twice = case._replace(X=np.concatenate([case.X, case.X]))
        one, other = quiet_run(network(1e-3), case, 3), quiet_run(network(1e-3), twice, 3)
        assert_exact(one[-1].means, other[-1].means, ulps=1e7, scale=32)


# ---- bounds


def test_step_bound_by_hand():
    """Two samples, one component: p = 1/2 each, s = 1, m = 1."""
    X, resp = np.array([[-1.0], [1.0]]), np.ones((2, 1))
    bound = em_step_bound(X, resp, Levels(eta=0.0, eps=0.1, log_A=50.0, average=0.0))
    assert bound.weights[0] == 0
    assert_exact(bound.means[0], np.exp(0.1) * np.expm1(0.1), ulps=16)
    bound = em_step_bound(X, resp, Levels(eta=0.05, eps=0.0, log_A=50.0, average=0.0))
    assert_exact(bound.weights[0], np.expm1(0.1), ulps=16)
    A = 20.0
    bound = em_step_bound(X, resp, Levels(0.0, 0.0, np.log(A), 0.0))
    assert_exact(bound.means[0], (1 / A) / (1 - 1 / A), ulps=64)
    assert np.isinf(em_step_bound(X, resp, Levels(0.0, 0.0, 0.0, 0.0)).means[0])


def test_step_bound_holds_for_adversarial_perturbations():
    """The proposition without a network: the worst signs of every logit and log, found by search."""
    rng = np.random.default_rng(0)
    shares = []
    for case in em_cases(20, seed=25, max_samples=60):
        eta, eps = 0.05, 0.03
        resp = case.init.responsibilities(case.X)
        bound = em_step_bound(case.X, resp, Levels(eta, eps, 700.0, 1e-15))
        after = em_step(case.X, case.init)
        worst_means, worst_weights = np.zeros(len(after.weights)), np.zeros(len(after.weights))
        for trial in range(200):
            k, direction = trial % resp.shape[1], rng.standard_normal(case.X.shape[1])
            side = np.sign((case.X - after.means[k]) @ direction)[:, None] if trial % 3 else 1.0
            signs = np.where(np.arange(resp.shape[1]) == k, side, -side)
            moved = resp * np.exp(eta * signs)
            moved /= moved.sum(axis=1, keepdims=True)
            v = moved * np.exp(eps * side)
            means = v.T @ case.X / v.sum(axis=0)[:, None]
            worst_means = np.maximum(worst_means, np.linalg.norm(means - after.means, axis=1))
            worst_weights = np.maximum(worst_weights, np.abs(moved.mean(axis=0) - after.weights))
        assert_bound(worst_means, bound.means)
        assert_bound(worst_weights, bound.weights)
        shares.append((worst_means / bound.means).max())
    assert max(shares) > 0.5


def test_propagation_by_hand():
    """One component in one dimension: coordinates (pi, mu)."""
    J = np.array([[0.5, 0.0], [2.0, 3.0]])
    first, second = StepBound(np.array([1.0]), np.array([10.0])), StepBound(np.array([0.1]), np.array([0.2]))
    one, two = propagate([J, J], [first, second])
    assert (one.weights[0], one.means[0]) == (1.0, 10.0)
    assert_exact([two.weights[0], two.means[0]], [0.5 + 0.1, 2 + 30 + 0.2], ulps=16, scale=32)
    unbounded = StepBound(np.array([0.1]), np.array([np.inf]))
    assert [b.largest for b in propagate([J, J, J], [first, unbounded, second])] == [10.0, np.inf, np.inf]


# ---- leaving the bounds


def test_leaving_a_bound_warns_once_and_goes_on():
    X = np.concatenate([np.full((96, 1), 0.0), np.full((4, 1), 9.0)]) + np.linspace(-0.5, 0.5, 100)[:, None]
    init = GaussianMixture([0.5, 0.5], [[0.0], [7.0]])
    em = EMTransformer(1, 2, eps=1e-3, r_max=8, pi_min=0.1)
    with pytest.warns(UserWarning, match="leaves the bound") as caught:
        estimates = em.run(X, init, 4)
    norm = np.abs(estimates[0].means).max()
    end = "; the error bound no longer holds from here"
    assert sorted(str(w.message) for w in caught) == [
        f"iteration 1: a mean of norm {norm:.6g} leaves the bound r_max = 8" + end,
        "iteration 1: a weight 0.04 leaves the bound pi_min = 0.1" + end,
    ]
    assert len(estimates) == 4
    assert all(np.isfinite(e.means).all() for e in estimates)


def test_far_clusters_underflow_and_still_work():
    """R = 120: responsibilities are exactly 0 in float64, their log is the network's floor."""
    rng = np.random.default_rng(0)
    truth = GaussianMixture([0.3, 0.3, 0.4], [[-120.0, 0.0], [120.0, 0.0], [0.0, 120.0]])
    X, _ = truth.sample(500, rng)
    em = EMTransformer(2, 3, eps=1e-3, r_max=128, pi_min=0.05)
    init = GaussianMixture([1 / 3] * 3, truth.means + rng.uniform(-4, 4, (3, 2)))
    run = em.run(X, init, 3, trace=True)
    assert (run.trace.at(1, "w", "attention") == 0).any()
    path = run_em(X, init, 3)
    report = em_report(em, X, init, run, truth)
    assert all(row.em_gap <= row.bound < 0.1 for row in report)
    # hard responsibilities are approximated exactly; what is left is the floor, 1/A
    wide = EMTransformer(2, 3, eps=1e-3, r_max=128, pi_min=0.05, log_A=60)
    for estimate, mixture in zip(wide.run(X, init, 3), path[1:], strict=True):
        assert_exact(estimate.means, mixture.means, ulps=1e4, scale=120)


def test_kmeans_start_is_encoded_as_it_is():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((11, 2))
    init = start_mixture(X, 3, rng)
    em = network(1e-2)
    H = em.encode(X, init)
    s = em.layout
    assert isinstance(H, np.ndarray)
    assert H.shape == (11, s.width)
    assert gap(s.read(H, "x")[:, :2], X) == 0
    assert (s.read(H, "x")[:, 2:] == 0).all()
    index = np.arange(11) % 3
    assert gap(s.read(H, "mu")[:, :2], init.means[index]) == 0
    assert gap(s.read(H, "e")[:, :3], np.eye(3)[index]) == 0
    assert gap(s.read(H, "log_pi")[:, :3], np.tile(np.log(init.weights), (11, 1))) == 0
    assert_exact(s.read(H, "c")[:, 0], (init.means[index] ** 2).sum(axis=1), ulps=8, scale=10)
    assert_exact(s.read(H, "log_n")[:, 0], np.log([4, 4, 3])[index], ulps=4)
    assert (s.read(H, "one") == 1).all()
    for name in ("w", "log_w", "pi"):
        assert (s.read(H, name) == 0).all()
