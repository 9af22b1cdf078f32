"""The picture of a spectral run: error by layer, and the means found among the samples."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from constructions.plot_parts import BLACK, BLUE, GREEN, GREY, ORANGE, legend_below, samples_in_a_plane
from constructions.weights import Array

_FLOOR = 1e-17
"""Errors of exactly zero are drawn here."""

_STYLES = [
    (("moments", "whiten"), "moments and whitened samples", BLACK, "D"),
    (("sign", "root"), "projector and root (Newton-Schulz)", ORANGE, "o"),
    (("start", "power", "tournament"), "direction of v (power steps)", BLUE, "."),
    (("normalise", "scores", "value"), "norm of v and T(v, v, v)", GREEN, "s"),
    (("slot",), "weights and means", ORANGE, "*"),
]


def draw(steps: Sequence[Any], marks: Sequence[Any], X: Array, means: Array, truth: Array | None) -> Figure:
    """steps: stage and component of each layer; marks: layer, stage and error; X: (n, d); means: (K, d)."""
    figure = Figure(figsize=(12, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.9, 1])
    _errors(left, steps, marks)
    project = samples_in_a_plane(right, X)
    right.plot(*project(means).T, "o", color=BLUE, markersize=7, label="means found")
    if truth is not None:
        right.plot(
            *project(truth).T, "x", color=ORANGE, markersize=11, markeredgewidth=2.5, label="true means"
        )
    right.set_title("The means in the last layer")
    legend_below(right)
    return figure


def _errors(axes: Axes, steps: Sequence[Any], marks: Sequence[Any]) -> None:
    for stages, label, colour, shape in _STYLES:
        chosen = [mark for mark in marks if mark.stage in stages]
        axes.semilogy([mark.layer for mark in chosen], [max(mark.error, _FLOOR) for mark in chosen], shape,
                      color=colour, markersize=5 if shape in ".oDs" else 11, label=label)  # fmt: skip
    place = itertools.groupby(enumerate(steps, start=1), key=lambda pair: pair[1].component)
    for shaded, (component, group) in enumerate(place):
        numbers = [number for number, _ in group]
        if shaded % 2:
            axes.axvspan(numbers[0] - 0.5, numbers[-1] + 0.5, color=GREY, alpha=0.15, linewidth=0)
        if component is not None:
            axes.text((numbers[0] + numbers[-1]) / 2, 1.02, f"component {component + 1}", fontsize=8,
                      ha="center", transform=axes.get_xaxis_transform())  # fmt: skip
    axes.set(xlabel="layer", ylabel="difference / largest entry")
    axes.set_title("Distance of the residual stream from Algorithms A.2 and A.3", pad=18)
    axes.grid(True, which="major", alpha=0.3)
    legend_below(axes)
