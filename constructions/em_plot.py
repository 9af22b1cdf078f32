"""The picture of an EM run: the data with the path of the means, and errors over iterations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from constructions.plot_parts import BLACK, BLUE, GREEN, GREY, ORANGE, first, legend_below, samples_in_a_plane
from constructions.weights import Array

PATH = "means, layer by layer"


def draw(X: Array, paths: Array, truth: Array | None, report: Sequence[Any], floor: float | None) -> Figure:
    """X: (n, d); paths: (L + 1, K, d), means from the start on; truth: (K, d); report: L rows with
    iteration, em_gap, bound, error, em_error."""
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    if X.shape[1] == 1:
        _line(left, X[:, 0], paths[:, :, 0], truth)
    else:
        _plane(left, X, paths, truth)
    _errors(right, report, floor)
    return figure


def _plane(axes: Axes, X: Array, paths: Array, truth: Array | None) -> None:
    project = samples_in_a_plane(axes, X)
    path = project(paths)
    for k in range(path.shape[1]):
        axes.plot(*path[:, k].T, "o-", color=BLUE, markersize=4, linewidth=1.2, label=first(k, PATH))
    axes.plot(*path[0].T, "s", color="white", markeredgecolor=BLUE, markersize=7, label="start")
    if truth is not None:
        axes.plot(*project(truth).T, "x", color=ORANGE, markersize=10,
                  markeredgewidth=2.5, label="true means")  # fmt: skip
    axes.set_title("A transformer of plain matrices doing EM")
    legend_below(axes)


def _line(axes: Axes, x: Array, paths: Array, truth: Array | None) -> None:
    iterations = range(len(paths))
    axes.hist(x, bins="auto", color=GREY, alpha=0.5, density=True, label="samples")
    axes.set(xlabel="coordinate 1 (noise s.d.)", ylabel="density of samples")
    over = axes.twinx()
    for k, path in enumerate(paths.T):
        over.plot(path, iterations, "o-", color=BLUE, markersize=4, linewidth=1.2, label=first(k, PATH))
    for k, mean in enumerate([] if truth is None else truth[:, 0]):
        over.axvline(mean, color=ORANGE, linestyle="--", label=first(k, "true means"))
    over.set_ylabel("EM iteration")
    axes.set_title("A transformer of plain matrices doing EM")
    legend_below(over, axes)


def _errors(axes: Axes, report: Sequence[Any], floor: float | None) -> None:
    L = [row.iteration for row in report]
    if floor is not None:
        axes.semilogy(L, [row.em_error for row in report], "-", color=BLACK, linewidth=3, alpha=0.35,
                      label="EM to truth")  # fmt: skip
        axes.semilogy(L, [row.error for row in report], "o", color=BLUE, markersize=5,
                      label="transformer to truth")  # fmt: skip
        axes.axhline(floor, color=ORANGE, linestyle="--", label="statistical floor")
    axes.semilogy(L, [row.em_gap for row in report], "s-", color=GREEN, markersize=4,
                  label="transformer to EM")  # fmt: skip
    bounds = [row.bound if np.isfinite(row.bound) else np.nan for row in report]
    axes.semilogy(L, bounds, ":", color=GREEN, label="bound on transformer to EM")
    axes.set(xlabel="EM iteration (two layers each)", ylabel="distance (means: noise s.d.)")
    axes.set_title("Error versus depth")
    axes.grid(True, which="major", alpha=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(axes)
