"""The figure of the smallest separations: its starts evaluated anew, its worst cases recomputed in part."""

import numpy as np
import pytest

from gmm import GaussianMixture, parameter_distance, population_em_step
from tests.claims.separated import smallest_distance
from tests.test_figures import figure


@pytest.fixture(scope="module")
def script():
    return figure("smallest_c")


def problem(module, row, broken, C):
    """The mixture that a committed start breaks a conclusion for, at separation C, and the start."""
    flat = min(row["d"], 2 * row["K"] - 1)
    there, here = (dict(module.truths(flat, row["K"], c))[broken["truth"]] for c in (broken["C"], C))
    moves = np.array(broken["means"]) - there.means
    return here, GaussianMixture(broken["weights"], here.means + moves)


def largest(truth, start):
    """D+ by `gmm`'s own step (Monte Carlo where the means span many dimensions) and distance."""
    rng = np.random.default_rng(0)
    return parameter_distance(population_em_step(truth, start, n_samples=100_000, rng=rng), truth)


@pytest.mark.slow
def test_the_starts_break_the_conclusions(script):
    """Each start is one that its theorem allows, and breaks the conclusion; four times as far apart it is
    mapped next to the truth."""
    module, committed = script
    for row in committed["rows"]:
        for conclusion, (about, limit) in module.CONCLUSIONS.items():
            broken = row["broken"][conclusion]
            if broken is None or (conclusion == "beta <= 1/10" and row["K"] > 3):
                continue  # nothing to see, or too small for Monte Carlo
            truth, start = problem(module, row, broken, broken["C"])
            rho = truth.weights.max() / truth.weights.min()
            r_min = smallest_distance(truth)
            assert np.isclose(r_min, broken["C"] * np.sqrt(np.log(rho * row["K"])))
            D = 1.0
            if about == "contraction":
                D = parameter_distance(start, truth)
                assert D - committed["a"] < 1e-9
            else:
                assert np.linalg.norm(start.means - truth.means, axis=1).max() < r_min / 16 + 1e-9
                assert np.abs(start.weights / truth.weights - 1).max() < 1 / 2 + 1e-9
            found = largest(truth, start) / D
            assert found > 0.97 * limit
            assert found == pytest.approx(broken["worst"], rel=0.05)
            assert largest(*problem(module, row, broken, 4 * broken["C"])) / D < 0.1 * limit


@pytest.mark.slow
def test_worst_cases_again(script):
    module, committed = script
    row = next(row for row in committed["rows"] if (row["d"], row["K"]) == (1, 2))
    again = module.curves(1, 2, module.GRID[:2])
    for task, values in again["worst"].items():
        assert np.allclose(values, row["worst"][task][:2], rtol=0.02)


def test_all_are_far_below_what_the_theorems_assume(script):
    """At least 16 and 12 times, for all (d, K); and from there on the worst D+ / D falls with C."""
    module, committed = script
    pairs = {(row["d"], row["K"]) for row in committed["rows"]}
    assert pairs == {(d, K) for d in module.DIMENSIONS for K in module.COMPONENTS}
    for row in committed["rows"]:
        halves, contracts = (
            module.smallest(committed["rows"], row["d"], row["K"], conclusion)
            for conclusion in ("D+ <= 1/2", "beta < 1")
        )
        assert halves <= 64 / 16
        assert contracts <= 128 / 12
        worst = row["worst"]["contraction"][row["C"].index(contracts) :]
        assert (np.diff(worst) < 0).all()
        assert worst[-1] < 0.1
