"""Diagonal covariances
====================

Distance of the diagonal construction from EM: over iterations, and against eps.

::

    python docs/figures/diagonal_accuracy.py

writes its numbers and two pictures beside this file (a minute on one core).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from frame import Map, in_turn, script
from matplotlib.figure import Figure

from constructions import DiagonalEMTransformer
from constructions.plot_parts import BLACK, BLUE, GREEN, GREY, ORANGE, legend_below
from gmm import GaussianMixture, em_step

SEED = 0
EPS = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
ITERATIONS = 10
D, K = 3, 3


def problems(count: int, rng: np.random.Generator) -> list[Any]:
    """Samples and a start near the truth, with scales between 0.3 and 3."""
    found = []
    for _ in range(count):
        scales = np.exp(rng.uniform(np.log(0.3), np.log(3), (K, D)))
        truth = GaussianMixture(rng.dirichlet(np.full(K, 5.0)), 2 * rng.standard_normal((K, D)), scales)
        X, _ = truth.sample(int(rng.integers(200, 1000)), rng)
        start = truth.means + 0.3 * scales * rng.standard_normal((K, D))
        found.append((X, GaussianMixture(truth.weights, start, 1.2 * scales)))
    return found


def gaps(eps: float, X: Any, start: GaussianMixture) -> list[list[float]]:
    """After each iteration: the largest difference from EM in a weight, a mean / s and a scale / s."""
    em = DiagonalEMTransformer(D, K, eps=eps, r_max=64, pi_min=1e-3, scale_min=0.05, scale_max=20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an iterate that leaves a bound is drawn all the same
        estimates = em.run(X, start, ITERATIONS)
    rows, want = [], start
    for got in estimates:
        want = em_step(X, want)
        off = (
            got.weights - want.weights,
            (got.means - want.means) / want.scales,
            got.scales / want.scales - 1,
        )
        rows.append([float(np.abs(part).max()) for part in off])
    return rows


def compute(tasks: range, sweep: Map = in_turn, eps: tuple[float, ...] = EPS) -> dict[str, Any]:
    """Median and largest gaps over the tasks: for each eps, an (iterations, 3) table of each."""
    data = problems(len(tasks), np.random.default_rng(SEED))
    rows = []
    for e in eps:
        all_gaps = np.array([gaps(e, X, start) for X, start in data])
        rows.append(
            {
                "eps": e,
                "median": np.median(all_gaps, axis=0).tolist(),
                "largest": all_gaps.max(axis=0).tolist(),
            }
        )
    return {"tasks": len(tasks), "rows": rows}


def draw(results: dict[str, Any]) -> Figure:
    """Left: over iterations; right: against eps."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    iterations = range(1, ITERATIONS + 1)
    for eps, colour in ((1e-1, ORANGE), (1e-2, GREEN), (1e-3, BLUE)):
        row = next(row for row in results["rows"] if row["eps"] == eps)
        median, largest = (np.array(row[name])[:, 1:].max(axis=1) for name in ("median", "largest"))
        left.semilogy(iterations, median, "o-", color=colour, label=f"eps = {eps:g}")
        left.semilogy(iterations, largest, ":", color=colour)
    left.plot([], [], ":", color=BLACK, label="largest of all tasks")
    left.set(xlabel="EM iteration (three layers each)", ylabel="distance from EM, means and scales (s)")
    left.set_title("The gap to EM over iterations, median")
    eps = [row["eps"] for row in results["rows"]]
    for part, (name, colour, shape) in enumerate(
        (("weights", GREEN, "s-"), ("means / s", BLUE, "o-"), ("scales / s", ORANGE, "^-"))
    ):
        one = [row["median"][0][part] for row in results["rows"]]
        right.loglog(eps, one, shape, color=colour, label=name)
    right.loglog(eps, eps, ":", color=BLACK, label="slope 1")
    right.set(xlabel="eps", ylabel="median distance from EM after one iteration")
    right.set_title("It falls in proportion to eps")
    for axes in (left, right):
        axes.grid(True, color=GREY, alpha=0.3)
        legend_below(axes)
    return figure


if __name__ == "__main__":
    script(compute, draw, tasks=60)
