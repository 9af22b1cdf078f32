"""Width against eps
=================

Widths against eps, for the paper's approximators and the smallest ones, and the errors they leave.

::

    python docs/figures/width_eps.py

writes its numbers and two pictures beside this file (about two minutes on one core).
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from frame import Map, in_turn, script
from matplotlib.figure import Figure

from constructions import EMTransformer
from constructions.piecewise import Width, log_approximation, log_pieces, square_approximation, square_pieces
from constructions.plot_parts import BLACK, BLUE, GREEN, GREY, ORANGE, legend_below
from constructions.report import em_report
from gmm import TaskDistribution, start_mixture

SEED = 0
DELTAS = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
EPS = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3)
LOG_A, SQUARE_A = 20.0, 8.0
D, K, SAMPLES, ITERATIONS = 2, 3, 400, 12
WIDTHS: tuple[Width, ...] = ("paper", "minimax")


def log_error(f: Any, upper: float, per_piece: int = 5) -> float:
    """Sup of |f - log| over [1/A, upper], on points within every piece."""
    x = np.exp(np.linspace(-LOG_A, math.log(upper), per_piece * f.units + 1))
    return float(np.abs(f(x) + f.dropped - np.log(x)).max())


def one_width(delta: float) -> dict[str, Any]:
    """Units of both lemmas and of the smallest sums, the bound below, and measured errors."""
    row: dict[str, Any] = {"delta": delta}
    for width in WIDTHS:
        # On the lemmas' domains, [1/A, A] and [-A, A], with a unit for the constant.
        log = log_approximation(math.exp(LOG_A), delta, width=width)
        square = square_approximation(SQUARE_A, delta, width=width)
        row[width] = {"log": log.units, "square": square.units}
        if delta >= 1e-2:
            row[width]["log_error"] = log_error(log, math.exp(LOG_A))
            x = np.linspace(-SQUARE_A, SQUARE_A, 5 * square.units + 1)
            row[width]["square_error"] = float(np.abs(square(x) + square.dropped - x**2).max())
    # A sum of M units has at most M + 1 pieces.
    row["below"] = {
        "log": log_pieces(2 * LOG_A, delta) - 1,
        "square": square_pieces(SQUARE_A, delta) - 1,
    }
    return row


def one_task(t: int, eps: float, width: Width) -> list[list[float]]:
    """After each iteration: the distance from EM and the bound on it."""
    rng = np.random.default_rng([SEED, t])
    X, _ = TaskDistribution(D, mean_range=2.5).sample_mixture(K, rng).sample(SAMPLES, rng)
    start = start_mixture(X, K, rng)
    em = EMTransformer(D, K, eps=eps, r_max=8, pi_min=1e-2, approximator=width)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = em_report(em, X, start, em.run(X, start, ITERATIONS, mode="structured"))
    return [[line.em_gap, line.bound] for line in report]


def compute(tasks: range, sweep: Map = in_turn) -> dict[str, Any]:
    """Widths for all deltas; for each eps and width one (iterations, 2) table per task."""
    widths = sweep(one_width, [(delta,) for delta in DELTAS])
    found = iter(sweep(one_task, [(t, e, width) for e in EPS for width in WIDTHS for t in tasks]))
    return {
        "log_A": LOG_A,
        "square_A": SQUARE_A,
        "widths": widths,
        "rows": [
            {
                "eps": e,
                "width": width,
                "hidden": max(
                    EMTransformer(D, K, eps=e, r_max=8, pi_min=1e-2, approximator=width).hidden_widths()
                ),
                "tasks": [next(found) for _ in tasks],
            }
            for e in EPS
            for width in WIDTHS
        ],
    }


def draw(results: dict[str, Any]) -> Figure:
    """Left: units; middle: distance from EM over iterations; right: against eps."""
    figure = Figure(figsize=(15, 5), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    delta = [row["delta"] for row in results["widths"]]
    for target, name, colour in (
        ("log", "log", BLUE),
        ("square", "x²", ORANGE),
    ):
        for part, shape, label in (("paper", "s-", "lemma"), ("minimax", "o-", "smallest")):
            units = [row[part][target] for row in results["widths"]]
            left.loglog(delta, units, shape, color=colour, label=f"{name}, {label}", fillstyle="none")
        below = [row["below"][target] for row in results["widths"]]
        left.loglog(delta, below, "--", color=colour, label=f"{name}, lower bound")
    left.set(
        xlabel="error δ",
        ylabel="units M",
        title=f"log for log A = {results['log_A']:g}, x² for A = {results['square_A']:g}",
    )
    rows = {(row["eps"], row["width"]): np.array(row["tasks"]) for row in results["rows"]}
    shown = [eps for eps in (1e-1, 1e-2, 1e-3) if (eps, "paper") in rows]
    styles = {"paper": ("s", "lemma"), "minimax": ("o", "smallest")}
    for eps, colour in zip(shown, (ORANGE, GREEN, BLUE), strict=False):
        for width, (mark, label) in styles.items():
            gap, bound = np.median(rows[eps, width], axis=0).T
            steps = range(1, len(gap) + 1)
            middle.semilogy(
                steps, gap, f"{mark}-", color=colour, label=f"ε = {eps:g}, {label}", fillstyle="none"
            )
        middle.semilogy(steps, bound, ":", color=colour)
    middle.plot([], [], ":", color=BLACK, label="bound, smallest")
    middle.set_xticks(range(2, ITERATIONS + 1, 2))
    middle.set(xlabel="EM iteration (two layers each)", ylabel="distance from EM (noise s.d.)")
    middle.set_title("Over the layers, median")
    eps_all = sorted({eps for eps, _ in rows})
    for width, (mark, label) in styles.items():
        colour = ORANGE if width == "paper" else BLUE
        largest = [np.median(rows[eps, width][:, :, 0].max(axis=1)) for eps in eps_all]
        right.loglog(eps_all, largest, f"{mark}-", color=colour, label=label, fillstyle="none")
        bounds = [np.median(rows[eps, width][:, :, 1].max(axis=1)) for eps in eps_all]
        right.loglog(eps_all, bounds, ":", color=colour, label=f"bound, {label}")
    right.loglog(eps_all, eps_all, "--", color=GREY, label="slope 1")
    right.set(xlabel="ε", ylabel="largest distance from EM (noise s.d.)")
    right.set_title(f"Largest of {ITERATIONS} iterations, median")
    for axes in (left, middle, right):
        axes.grid(True, color=GREY, alpha=0.3)
        legend_below(axes)
    return figure


if __name__ == "__main__":
    script(compute, draw, tasks=12)
