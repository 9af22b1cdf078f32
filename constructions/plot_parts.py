"""What the pictures of the demos share: colours, samples in a plane, a legend below."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes

from constructions.weights import Array

# Okabe and Ito's palette, told apart under colour blindness and in grey.
BLUE, ORANGE, GREEN, GREY, BLACK = "#0072B2", "#D55E00", "#009E73", "#999999", "#000000"

_MAX_POINTS = 4000


def samples_in_a_plane(axes: Axes, X: Array) -> Callable[[Array], Array]:
    """Draw samples X (n, d) in the plane of their first two coordinates or principal axes.

    Returns the projection of further points, (..., d) to (..., 2), to draw among them.
    """
    d = X.shape[1]
    centre, directions, names = np.zeros(d), np.eye(d, 2), ("coordinate 1", "coordinate 2")
    if d > 2:
        centre = X.mean(axis=0)
        _, vectors = np.linalg.eigh(np.cov(X.T))
        directions, names = vectors[:, ::-1][:, :2], ("first principal axis", "second principal axis")

    def project(points: Array) -> Array:
        return np.asarray((points - centre) @ directions)

    flat = project(X[:: max(1, len(X) // _MAX_POINTS)])
    axes.scatter(flat[:, 0], flat[:, 1], s=6, color=GREY, alpha=0.5, linewidths=0, label="samples")
    axes.set(xlabel=f"{names[0]} (noise s.d.)", ylabel=f"{names[1]} (noise s.d.)" if d > 1 else "")
    axes.set_aspect("equal", adjustable="datalim")
    return project


def first(k: int, label: str) -> str | None:
    """One legend entry for curves that belong together."""
    return label if k == 0 else None


def legend_below(axes: Axes, below: Axes | None = None) -> None:
    """Below the picture, where it hides nothing; with the entries of the axes `below` too."""
    shown = [entry for part in (below, axes) if part for entry in part.get_legend_handles_labels()[0]]
    axes.legend(
        handles=shown, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, frameon=False
    )
