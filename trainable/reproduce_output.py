"""Table and picture of an experiment's results."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from constructions.plot_parts import BLACK, BLUE, GREEN, GREY, ORANGE
from trainable.experiments import METRICS

SKY, PINK = "#56B4E9", "#CC79A7"

STYLES = {
    "oracle": (BLACK, "--", ""),
    "em_normal": (ORANGE, "-", "^"),
    "em_one": (PINK, "-", "v"),
    "em_best": (GREEN, "-", "s"),
    "spectral": (GREY, "-", "D"),
    "raw": (BLUE, "-", "o"),
    "refined": (SKY, "-", "P"),
}
"""Colour, line and mark of each fit.  The colours are Okabe and Ito's."""

SHADES = ("-", "--", ":")
"""Lines of curves with the same fit, in the order in which they come."""


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.4g}"


def _columns(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    names = ["d", "K", "N"]
    if results["x"] not in names:
        names.append(results["x"])
    with_paper = any(row["paper"] is not None for row in results["rows"])
    head = [*names, "fit"]
    for metric in results["metrics"]:
        head += [metric, "+-"]
    head += ["missed", *(["paper, about"] if with_paper else [])]
    lines = []
    for row in results["rows"]:
        cells = [f"{row[name]:g}" for name in names] + [row["label"]]
        for metric in results["metrics"]:
            cells += [_number(row[metric]["mean"]), _number(row[metric]["half_width"])]
        cells += [f"{100 * row['missed']:.1f}%", *([_number(row["paper"])] if with_paper else [])]
        lines.append(cells)
    return head, lines


def as_csv(results: dict[str, Any]) -> str:
    """One line for each place on each curve."""
    buffer = io.StringIO()
    head, lines = _columns(results)
    csv.writer(buffer, lineterminator="\n").writerows([head, *lines])
    return buffer.getvalue()


def as_markdown(results: dict[str, Any]) -> str:
    """The table with what it rests on: tasks, networks, and what is not trained."""
    head, lines = _columns(results)
    parts = [
        f"{results['title']} ({results['figure']}): means over {results['tasks']} tasks, +- half of a 95% "
        "interval; missed: tasks with a mean off by more than a noise level; no figures where a method gives "
        f"no fit. `{results['command']}`",
        "",
        *("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *lines)),
    ]
    if results["networks"]:
        parts += ["", "Networks:"]
    for name, found in results["networks"].items():
        parts.append(f"- {name}: {found['network']}, {found['parameters']} parameters")
    if results["not trained"]:
        parts += ["", "Not trained yet, and not drawn:"]
    for name, how in results["not trained"].items():
        work = "operations not counted"
        if how["operations"] is not None:
            work = f"{how['operations']:.0e} operations"
        cost = f"{how['tasks'] / 1e6:.0f} million tasks, {work}"
        parts.append(f"- {name}: `{how['command']}` ({cost})")
    return "\n".join(parts) + "\n"


def picture(results: dict[str, Any]) -> Figure:
    """A column for each panel, a line of pictures for each metric."""
    rows, metrics = results["rows"], results["metrics"]
    panels = list(dict.fromkeys(row["panel"] for row in rows))
    figure = Figure(figsize=(3.6 * len(panels), 3.1 * len(metrics) + 1.3), layout="constrained")
    every = figure.subplots(len(metrics), len(panels), squeeze=False, sharex="col")
    labels = list(dict.fromkeys(row["label"] for row in rows))
    for line, metric in zip(every, metrics, strict=True):
        for axes, panel in zip(line, panels, strict=True):
            if axes is not line[0] and metric != "log_likelihood":  # densities depend on the dimension
                axes.sharey(line[0])
                axes.tick_params(labelleft=False)
            for label in labels:
                _curve(
                    axes,
                    [row for row in rows if (row["panel"], row["label"]) == (panel, label)],
                    results,
                    metric,
                )
            if metric == "l2":
                _paper(axes, [row for row in results["paper"] if row["panel"] == panel], results["x"])
                axes.set_yscale("log")
            axes.grid(True, color=GREY, alpha=0.3)
        line[0].set_ylabel(METRICS[metric])
    for axes, panel in zip(every[0], panels, strict=True):
        axes.set_title(panel)
    x_label = {"K": "components K", "sigma_p": "perturbation of the means $\\sigma_p$ (noise s.d.)"}[
        results["x"]
    ]
    for axes in every[-1]:
        axes.set_xlabel(x_label)
        if results["x"] == "K":
            axes.set_xticks(sorted({row["K"] for row in rows}))
    shown: dict[str, Any] = {}
    for axes in every.flat:
        handles, names = axes.get_legend_handles_labels()
        shown = {**dict(zip(names, handles, strict=True)), **shown}
    figure.legend(
        shown.values(), shown.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=9
    )
    return figure


def _curve(axes: Any, rows: list[dict[str, Any]], results: dict[str, Any], metric: str) -> None:
    known = [row for row in rows if not math.isnan(row[metric]["mean"])]
    if not known:
        return
    fit, label = known[0]["fit"], known[0]["label"]
    same = list(dict.fromkeys(row["label"] for row in results["rows"] if row["fit"] == fit))
    colour, line, mark = STYLES[fit]
    number = same.index(label)
    x = [row[results["x"]] for row in known]
    mean, half = (np.array([row[metric][part] for row in known]) for part in ("mean", "half_width"))
    style = {"color": colour, "marker": mark, "markersize": 4, "fillstyle": "none" if number else "full"}
    axes.plot(x, mean, line if len(same) == 1 else SHADES[number % len(SHADES)], label=label, **style)
    low = np.maximum(mean - half, mean / 10) if metric == "l2" else mean - half
    axes.fill_between(x, low, mean + half, color=colour, alpha=0.15, linewidth=0)


PAPERS = {"em_normal": "the paper's EM", "raw": "the paper's TGMM", "spectral": "the paper's spectral"}


def _paper(axes: Any, rows: list[dict[str, Any]], x: str) -> None:
    for fit, label in PAPERS.items():
        shown = [row for row in rows if row["fit"] == fit]
        if shown:
            colour, _, mark = STYLES[fit]
            style = {"color": colour, "marker": mark, "markersize": 6, "fillstyle": "none", "linewidth": 0.8}
            axes.plot([row[x] for row in shown], [row["l2"] for row in shown], ":", label=label, **style)
