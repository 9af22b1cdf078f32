"""Weight matrices as pictures, with the names of the residual stream at their sides."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure

from constructions.construction import Construction

Names = list[tuple[str, int]]


def contents(network: Construction, layers: dict[str, int]) -> dict[str, Any]:
    """The matrices of the layers with these titles and numbers, and the names, as JSON values."""
    every = network.transformer(2).matrices()
    shown = {}
    for title, number in layers.items():
        layer = every[number]
        heads = {}
        for m, parts in enumerate(zip(layer["Q"], layer["K"], layer["V"], strict=True), start=1):
            of = f"$_{{{m}}}$" if len(layer["Q"]) > 1 else ""
            heads |= {f"{name}{of}": matrix.tolist() for name, matrix in zip("QKV", parts, strict=True)}
        if len(layer["W1"]):
            heads |= {"$W_1$": layer["W1"].tolist(), "$W_2$": layer["W2"].tolist()}
        shown[title] = heads
    return {"names": list(network.layout.sizes.items()), "layers": shown}


def draw(results: dict[str, Any], columns: int) -> Figure:
    """A line of pictures for each layer, or more where it has more than `columns` matrices."""
    cells: list[list[tuple[str, str, Any] | None]] = []
    for title, matrices in results["layers"].items():
        row = [(title, name, np.array(matrix)) for name, matrix in matrices.items()]
        for first in range(0, len(row), columns):
            part = row[first : first + columns]
            cells.append([*part, *[None] * (columns - len(part))])
    figure = Figure(figsize=(2.9 * columns, 2.9 * len(cells)), layout="constrained")
    every = figure.subplots(len(cells), columns, squeeze=False)
    largest = max(np.abs(cell[2]).max() for line in cells for cell in line if cell)
    norm = SymLogNorm(0.1, vmin=-largest, vmax=largest)
    picture = None
    for line, places in zip(cells, every, strict=True):
        for cell, axes in zip(line, places, strict=True):
            if cell is None:
                axes.axis("off")
                continue
            title, name, matrix = cell
            picture = axes.imshow(matrix, cmap="PuOr_r", norm=norm, aspect="auto", interpolation="nearest")
            axes.set_title(f"{title}: {name}" if line[0] is cell else name, fontsize=10)
            # Columns are what a matrix reads, rows of V and W_2 what it writes to; Q and K write scores, and
            # W_1 hidden units.
            if not name.startswith("$W_2"):
                _side(axes.xaxis, axes.axvline, results["names"])
            else:
                _side(axes.xaxis, axes.axvline, [("hidden units", matrix.shape[1])])
            if name.startswith(("V", "$W_2")):
                _side(axes.yaxis, axes.axhline, results["names"])
            else:
                of = "hidden units" if name.startswith("$W_1") else "scores"
                _side(axes.yaxis, axes.axhline, [(of, matrix.shape[0])])
    assert picture is not None
    bar = figure.colorbar(picture, ax=list(every[:, -1]), shrink=0.6, label="entry")
    bar.ax.tick_params(labelsize=7)
    return figure


def _side(axis: Any, rule: Any, parts: Names) -> None:
    """Names in the middle of their blocks, and thin lines between the blocks."""
    ends = np.cumsum([size for _, size in parts])
    middles = [end - size / 2 - 0.5 for end, (_, size) in zip(ends, parts, strict=True)]
    axis.set_ticks(middles, [name for name, _ in parts], fontsize=6.5)
    axis.set_tick_params(length=0)
    if (axis.axis_name == "x") == (len(parts) > 1):
        for label in axis.get_ticklabels():
            label.set(rotation=90, va="center" if axis.axis_name == "y" else "top")
    for end in ends[:-1]:
        rule(end - 0.5, color="#BBBBBB", linewidth=0.4)
