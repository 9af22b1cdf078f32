"""Algorithmic and statistical error
=================================

Algorithmic and statistical error apart, for five ways to fit a mixture.

::

    python docs/figures/errors_apart.py

writes its numbers and two pictures beside this file (ten minutes on one core).

The distance D of Theorem C.1 from an estimate to the truth is at most its distance to the maximum of the
sample's likelihood (the algorithm's error, which more iterations or starts remove) plus the distance of that
maximum to the truth (the sample's, which only more samples remove).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from frame import Map, in_turn, script
from matplotlib.figure import Figure

from constructions import EMTransformer
from constructions.plot_parts import BLACK, BLUE, GREEN, GREY, ORANGE, legend_below
from gmm import (
    GaussianMixture,
    TaskDistribution,
    converge,
    fit_em,
    fit_spectral,
    parameter_distance,
    run_em,
    start_mixture,
)

SEED = 0
D, K = 4, 3
SAMPLES = (100, 300, 1000, 3000, 10_000, 30_000, 100_000)
LAYERS = (100, 1000, 10_000)
ITERATIONS = 30

STYLES = {
    "transformer": ("transformer, one start", BLUE, "o-"),
    "em": ("EM, the same start", BLACK, "+--"),
    "em_best_of_10": ("EM, best of 10 starts", GREEN, "s-"),
    "spectral": ("spectral", ORANGE, "^-"),
    "labels": ("labels known", GREY, "d-"),
}


def with_labels(X: Any, labels: Any) -> GaussianMixture:
    """Shares and averages of the labelled samples."""
    counts = np.bincount(labels, minlength=K)
    return GaussianMixture(counts / len(X), np.array([X[labels == k].mean(axis=0) for k in range(K)]))


def one_task(t: int, N: int) -> dict[str, Any]:
    """D of all estimators on N samples of mixture number t, (to the truth, to the sample's maximum)."""
    # The same mixture for every N, and numbers that do not depend on which others are asked for.
    truth = TaskDistribution(D, mean_range=2.5).sample_mixture(K, np.random.default_rng([SEED, t]))
    rng = np.random.default_rng([SEED, t, N])
    X, labels = truth.sample(N, rng)
    start = start_mixture(X, K, rng)
    best, known = fit_em(X, K, n_init=10, rng=rng), with_labels(X, labels)
    # The likelihood's maximum: the best point that any of the searches ends in.
    ends = [converge(X, init) for init in (truth, best, known)]
    mle = max(ends, key=lambda end: end.log_likelihood(X))
    network = EMTransformer(D, K, eps=N**-0.5, r_max=16, pi_min=1e-3)
    with warnings.catch_warnings():
        # A run that leaves pi_min and a spectral fit that guesses are drawn all the same.
        warnings.simplefilter("ignore")
        path = network.run(X, start, ITERATIONS, mode="structured")
        spectral = fit_spectral(X, K, rng=rng, best_effort=True)

    def apart(estimate: Any) -> list[float]:
        return [float(f"{parameter_distance(estimate, goal):.3g}") for goal in (truth, mle)]

    distances: dict[str, Any] = {
        "transformer": apart(path[-1]),
        "em": apart(run_em(X, start, ITERATIONS)[-1]),
        "em_best_of_10": apart(best),
        "spectral": apart(spectral),
        "labels": apart(known),
        "maximum": apart(mle),
    }
    if N in LAYERS:
        distances["path"] = [apart(estimate) for estimate in path]
    return distances


def compute(tasks: range, sweep: Map = in_turn, samples: tuple[int, ...] = SAMPLES) -> dict[str, Any]:
    """The distances for each of the mixtures `tasks` and each N."""
    found = sweep(one_task, [(t, N) for N in samples for t in tasks])
    rows = [{"N": N, "tasks": found[i * len(tasks) : (i + 1) * len(tasks)]} for i, N in enumerate(samples)]
    return {"d": D, "K": K, "iterations": ITERATIONS, "seed": SEED, "rows": rows}


def draw(results: dict[str, Any]) -> Figure:
    """Left: to the truth; middle: to the sample's maximum; right: over the iterations."""
    figure = Figure(figsize=(15, 5), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    rows = {row["N"]: row["tasks"] for row in results["rows"]}
    for part, axes in enumerate((left, middle)):
        for name, (label, colour, shape) in STYLES.items():
            values = np.array([[task[name][part] for task in tasks] for tasks in rows.values()])
            low, median, high = np.quantile(values, (0.25, 0.5, 0.75), axis=1)
            axes.loglog(list(rows), median, shape, color=colour, label=label, fillstyle="none")
            axes.fill_between(list(rows), low, high, color=colour, alpha=0.12, linewidth=0)
        axes.plot(list(rows), [4 * N**-0.5 for N in rows], ":", color=BLACK, label="slope -1/2")
        axes.set_xlabel("samples N")
    sample_part = [np.median([task["maximum"][0] for task in tasks]) for tasks in rows.values()]
    left.plot(list(rows), sample_part, "-.", color=BLACK, label="maximum of the likelihood")
    left.set(ylabel="D to the truth", title="All of the error")
    middle.set(ylabel="D to the maximum of the sample's likelihood", title="The algorithm's part")
    for N, colour in zip(LAYERS, (ORANGE, GREEN, BLUE), strict=True):
        path = np.median([task["path"] for task in rows[N]], axis=0)
        steps = range(1, len(path) + 1)
        right.semilogy(steps, path[:, 0], "-", color=colour, label=f"N = {N}")
        right.semilogy(steps, path[:, 1], "--", color=colour)
    right.plot([], [], "-", color=BLACK, label="to the truth")
    right.plot([], [], "--", color=BLACK, label="to the maximum")
    right.set(xlabel="EM iteration (two layers each)", ylabel="D of the transformer's estimate")
    right.set_title("Over the layers")
    for axes in (left, middle, right):
        axes.grid(True, color=GREY, alpha=0.3)
        legend_below(axes)
    return figure


if __name__ == "__main__":
    script(compute, draw, tasks=40)
