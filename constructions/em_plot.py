"""The picture of an EM run: the data with the path of the means, and errors over iterations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from constructions.weights import Array

# Okabe and Ito's palette, told apart under colour blindness and in grey.
BLUE, ORANGE, GREEN, GREY, BLACK = "#0072B2", "#D55E00", "#009E73", "#999999", "#000000"

PATH = "means, layer by layer"

_MAX_POINTS = 4000


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
    centre, directions, names = np.zeros(X.shape[1]), np.eye(X.shape[1]), ("coordinate 1", "coordinate 2")
    if X.shape[1] > 2:
        centre = X.mean(axis=0)
        _, vectors = np.linalg.eigh(np.cov(X.T))
        directions, names = vectors[:, ::-1], ("first principal axis", "second principal axis")
    flat = (X[:: max(1, len(X) // _MAX_POINTS)] - centre) @ directions[:, :2]
    axes.scatter(flat[:, 0], flat[:, 1], s=6, color=GREY, alpha=0.5, linewidths=0, label="samples")
    path = (paths - centre) @ directions[:, :2]
    for k in range(path.shape[1]):
        axes.plot(*path[:, k].T, "o-", color=BLUE, markersize=4, linewidth=1.2, label=_first(k, PATH))
    axes.plot(*path[0].T, "s", color="white", markeredgecolor=BLUE, markersize=7, label="start")
    if truth is not None:
        axes.plot(*((truth - centre) @ directions[:, :2]).T, "x", color=ORANGE, markersize=10,
                  markeredgewidth=2.5, label="true means")  # fmt: skip
    axes.set(xlabel=f"{names[0]} (noise s.d.)", ylabel=f"{names[1]} (noise s.d.)")
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_title("A transformer of plain matrices doing EM")
    _legend(axes)


def _line(axes: Axes, x: Array, paths: Array, truth: Array | None) -> None:
    iterations = range(len(paths))
    axes.hist(x, bins="auto", color=GREY, alpha=0.5, density=True, label="samples")
    axes.set(xlabel="coordinate 1 (noise s.d.)", ylabel="density of samples")
    over = axes.twinx()
    for k, path in enumerate(paths.T):
        over.plot(path, iterations, "o-", color=BLUE, markersize=4, linewidth=1.2, label=_first(k, PATH))
    for k, mean in enumerate([] if truth is None else truth[:, 0]):
        over.axvline(mean, color=ORANGE, linestyle="--", label=_first(k, "true means"))
    over.set_ylabel("EM iteration")
    axes.set_title("A transformer of plain matrices doing EM")
    _legend(over, axes)


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
    _legend(axes)


def _first(k: int, label: str) -> str | None:
    """One legend entry for curves that belong together."""
    return label if k == 0 else None


def _legend(axes: Axes, below: Axes | None = None) -> None:
    """Below the picture, where it hides nothing; with the entries of the axes `below` too."""
    shown = [entry for part in (below, axes) if part for entry in part.get_legend_handles_labels()[0]]
    axes.legend(
        handles=shown, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, frameon=False
    )
