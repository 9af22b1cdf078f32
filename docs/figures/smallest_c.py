"""The separation that EM needs
============================

The smallest separation C at which the conclusions of Theorems C.2 and C.3 hold for population EM.

::

    python docs/figures/smallest_c.py

writes its numbers and two pictures beside this file (a quarter of an hour on one core).

For each (d, K) an adversary looks for the worst start at each C: R_min = C sqrt(log(rho K)), the means on the
boundary of the ball that the theorem allows, the weights in its box.  It knows a few starts, goes on from the
worst one of the C before, and climbs from the worst of these by random moves.  Where it breaks a conclusion
the theorem is false at that C (the start is written down, and the tests evaluate it anew); where it does not,
a better adversary may.  So the figure's C are lower bounds.

The means and a start's moves span at most 2 K - 1 dimensions around the centre: nothing changes from
d = 2 K - 1 on, and higher dimensions are computed there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from frame import Map, in_turn, script
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from constructions.plot_parts import BLACK, BLUE, GREEN, GREY, ORANGE, legend_below
from gmm import GaussianMixture, em_step, population_em_step

SEED = 0
DIMENSIONS, COMPONENTS = (1, 2, 8, 32), (2, 3, 5, 8)
GRID = tuple(float(f"{2 ** (k / 6):.4g}") for k in range(25))  # 1 to 16, by 12%
A = 0.9  # the largest D of Theorem C.3
MOVES = 40
SAMPLES = 10_000  # where the means span more than two dimensions; twenty times that for what is reported
# What a conclusion is about, and the largest D+ (Theorem C.2) or D+ / D (Theorem C.3) that it allows.
CONCLUSIONS = {
    "D+ <= 1/2": ("warm-up", 0.5),
    "beta < 1": ("contraction", 1.0),
    "beta <= 1/2": ("contraction", 0.5),
    "beta <= 1/10": ("contraction", 0.1),
}


Step = Callable[[GaussianMixture], GaussianMixture]


class Moves(NamedTuple):
    """A start, free of scales: where each mean moves, (K, d) of norm 1, and each weight, (K,) in [-1, 1]."""

    means: Any
    weights: Any


def truths(d: int, K: int, C: float) -> list[tuple[str, GaussianMixture]]:
    """Means on a line, and on a ring or at the corners of a simplex where d allows; rho = 1 and 4."""
    line, places = np.zeros((K, d)), {}
    line[:, 0] = np.arange(K)
    places["line"] = line
    if K > 2 and d >= K - 1:
        corners = np.eye(K) - 1 / K
        basis = np.linalg.svd(corners)[2][: K - 1]
        places["simplex"] = np.pad(corners @ basis.T / np.sqrt(2), ((0, 0), (0, d - K + 1)))
    elif K > 2 and d >= 2:
        angles = 2 * np.pi * np.arange(K) / K
        ring = np.c_[np.cos(angles), np.sin(angles)] / (2 * np.sin(np.pi / K))
        places["ring"] = np.pad(ring, ((0, 0), (0, d - 2)))
    found = []
    for (name, means), rho in itertools.product(places.items(), (1, 4)):
        weights = float(rho) ** np.linspace(0, 1, K)
        r_min = C * np.sqrt(np.log(rho * K))
        mixture = GaussianMixture(weights / weights.sum(), r_min * (means - means.mean(axis=0)))
        found.append((f"{name}, rho = {rho}", mixture))
    return found


def start(truth: GaussianMixture, moves: Moves, mean_step: float, weight_step: float) -> GaussianMixture:
    """`moves` from the truth: |d mu_k| = mean_step, |d pi_k| <= weight_step pi_k, and weights of sum 1."""
    factor = moves.weights - truth.weights @ moves.weights
    factor = weight_step * factor / max(1.0, np.abs(factor).max())
    return GaussianMixture(truth.weights * (1 + factor), truth.means + mean_step * moves.means)


def known(truth: GaussianMixture, rng: np.random.Generator) -> list[Moves]:
    """To the centre, outwards, to the next mean, all alike, at random; weights up and down in turn."""
    mu, K = truth.means, truth.n_components
    ways = [
        -mu,
        mu,
        np.roll(mu, 1, axis=0) - mu,
        np.tile(mu[0] - mu[1], (K, 1)),
        rng.standard_normal(mu.shape),
    ]
    return [
        Moves(_unit(way), weights)
        for way in ways
        for weights in (np.where(np.arange(K) % 2, -1.0, 1.0), np.where(np.arange(K) % 2, 1.0, -1.0))
    ]


def _unit(way: Any) -> Any:
    """Rows of norm 1; a mean in the centre moves along the first axis."""
    norms = np.linalg.norm(way, axis=1, keepdims=True)
    way = np.where(norms > 1e-9, way, np.eye(1, way.shape[1]))
    return way / np.linalg.norm(way, axis=1, keepdims=True)


def distance(after: GaussianMixture, truth: GaussianMixture) -> float:
    """D of Appendix C.3.1, component by component."""
    means = np.linalg.norm(after.means - truth.means, axis=1)
    return float(max(means.max(), np.abs(after.weights / truth.weights - 1).max()))


def steps(task: str, truth: GaussianMixture, C: float) -> list[tuple[float, float, float]]:
    """What a task allows: size of the means' moves, of the weights', and the D that D+ is divided by."""
    if task == "warm-up":  # (A1)
        K = truth.n_components
        rho = truth.weights.max() / truth.weights.min()
        return [(C * np.sqrt(np.log(rho * K)) / 16, 0.5, 1.0)]
    return [(D, D, D) for D in (A, A / 3)]


def population(truth: GaussianMixture, *, fine: bool) -> Step:
    """The population step: by quadrature where the means span at most two dimensions.

    Elsewhere by one sample, less what the same sample makes of the truth (which is the step's fixed
    point): what is left falls with the distance of the two.
    """
    rank = min(truth.dim, truth.n_components - 1)
    if rank <= 2:
        return lambda at: population_em_step(truth, at, n_nodes=None if fine or rank == 1 else 64)
    # Other draws for the report than those that the climb has learnt.
    X, _ = truth.sample(20 * SAMPLES if fine else SAMPLES, np.random.default_rng([SEED, fine]))
    fixed = em_step(X, truth)

    def step(at: GaussianMixture) -> GaussianMixture:
        got = em_step(X, at)
        return GaussianMixture(
            got.weights - fixed.weights + truth.weights, got.means - fixed.means + truth.means
        )

    return step


def search(
    task: str, truth: GaussianMixture, C: float, before: Moves | None, rng: np.random.Generator
) -> tuple[float, Moves, GaussianMixture]:
    """Worst D+ or D+ / D that the adversary finds, its moves, and its start."""
    worst: tuple[float, Moves, GaussianMixture] | None = None
    rough, fine = population(truth, fine=False), population(truth, fine=True)
    for mean_step, weight_step, D in steps(task, truth, C):

        def value(moves: Moves, sizes: Any = (mean_step, weight_step), D: float = D) -> float:
            at = start(truth, moves, *sizes)
            return distance(rough(at), truth) / D

        best = max([*known(truth, rng), *([before] if before else [])], key=value)
        height = value(best)
        for move in range(MOVES):
            size = 0.6 * 0.93**move
            near = Moves(
                _unit(best.means + size * rng.standard_normal(truth.means.shape) / np.sqrt(truth.dim)),
                np.clip(best.weights + size * rng.standard_normal(len(best.weights)), -1, 1),
            )
            if (higher := value(near)) > height:
                best, height = near, higher
        at = start(truth, best, mean_step, weight_step)
        height = distance(fine(at), truth) / D
        if worst is None or height > worst[0]:
            worst = height, best, at
    assert worst is not None
    return worst


def curves(d: int, K: int, grid: tuple[float, ...] = GRID) -> dict[str, Any]:
    """Worst D+ and D+ / D over the grid of C, and for each conclusion the start that breaks it last."""
    flat = min(d, 2 * K - 1)
    rng = np.random.default_rng([SEED, flat, K])
    worst: dict[str, list[float]] = {"warm-up": [], "contraction": []}
    broken: dict[str, Any] = dict.fromkeys(CONCLUSIONS)
    before: dict[tuple[str, str], Moves] = {}
    for C in grid:
        for task, values in worst.items():
            found = []
            for name, truth in truths(flat, K, C):
                height, moves, at = search(task, truth, C, before.get((task, name)), rng)
                before[task, name] = moves
                found.append((height, name, at))
            height, name, at = max(found, key=lambda one: one[0])
            values.append(height)
            for conclusion, (about, limit) in CONCLUSIONS.items():
                if about == task and not (height < limit if conclusion == "beta < 1" else height <= limit):
                    broken[conclusion] = {
                        "C": C,
                        "truth": name,
                        "weights": at.weights.tolist(),
                        "means": at.means.tolist(),
                        "worst": height,
                    }
        if max(values[-1] for values in worst.values()) < 0.05:
            break
    return {"d": d, "K": K, "C": list(grid[: len(worst["warm-up"])]), "worst": worst, "broken": broken}


def smallest(rows: list[dict[str, Any]], d: int, K: int, conclusion: str) -> float:
    """The grid's first C from which on the conclusion is not broken; its first one if none is.

    A start that breaks it in fewer dimensions breaks it in d too.
    """
    found = []
    for row in rows:
        if row["K"] == K and row["d"] <= d:
            last = row["broken"][conclusion]
            found.append(row["C"][0 if last is None else row["C"].index(last["C"]) + 1])
    return float(max(found))


def draw(results: dict[str, Any]) -> Figure:
    """Left: the smallest C for each (d, K); right: the worst D+ / D against C."""
    figure = Figure(figsize=(12, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    rows = results["rows"]
    colours = dict(zip(DIMENSIONS, (BLACK, ORANGE, GREEN, BLUE), strict=True))
    styles = {"D+ <= 1/2": ("s", "--"), "beta < 1": ("o", "-"), "beta <= 1/10": ("^", ":")}
    for (conclusion, (marker, line)), (d, colour) in itertools.product(styles.items(), colours.items()):
        mine = [row for row in rows if row["d"] == d]
        shift = 1.03 ** (DIMENSIONS.index(d) - 1.5)  # dimensions beside, not on top of, each other
        left.plot(
            [row["K"] * shift for row in mine],
            [smallest(rows, d, row["K"], conclusion) for row in mine],
            marker + line,
            color=colour,
            fillstyle="none",
        )
    names = {"D+ <= 1/2": "Theorem C.2: D+ at most 1/2", "beta < 1": "Theorem C.3: D+ < D"}
    for conclusion, (marker, line) in styles.items():
        label = names.get(conclusion, "Theorem C.3 with D+ at most D / 10")
        left.plot([], [], marker + line, color=GREY, fillstyle="none", label=label)
    for d, colour in colours.items():
        left.plot([], [], "-", color=colour, linewidth=3, label=f"d = {d}")
    for C, text in ((64, "C = 64, assumed in Theorem C.2"), (128, "C = 128, assumed in Theorem C.3")):
        left.axhline(C, color=GREY, linewidth=1)
        left.text(2, C * 0.97, text, fontsize=8, color=GREY, va="top")
    left.set(xscale="log", yscale="log", xlabel="number of components K", ylim=(0.8, 170))
    left.set_ylabel("smallest separation C\n(nearest means C sqrt(log(rho K)) noise s.d. apart)")
    left.text(2, 0.97, "C = 1: not broken at any C looked at", fontsize=8, color=GREY, va="top")
    left.set_title("The separation that population EM needs, and the one assumed")
    left.set_xticks(COMPONENTS, [str(K) for K in COMPONENTS])
    left.set_yticks([1, 2, 4, 8, 16, 32, 64, 128], ["1", "2", "4", "8", "16", "32", "64", "128"])
    for axis in (left.xaxis, left.yaxis):
        axis.set_minor_locator(NullLocator())
    marks = dict(zip(COMPONENTS, "o^sv", strict=True))
    for row in rows:
        if row["d"] == 8:
            K = row["K"]
            shape, colour = marks[K] + "-", (BLACK, ORANGE, GREEN, BLUE)[COMPONENTS.index(K)]
            right.loglog(row["C"], row["worst"]["contraction"], shape, color=colour, label=f"K = {K}")
    right.axhline(1, color=BLACK, linestyle=":", label="no contraction above")
    right.set(
        xlabel="separation C (nearest means C sqrt(log(rho K)) noise s.d. apart)",
        ylabel=f"worst D+ / D found, over D up to {A}",
    )
    right.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"])
    right.xaxis.set_minor_locator(NullLocator())
    right.set_title("One population step at d = 8 contracts more the larger C is")
    for axes in (left, right):
        axes.grid(True, color=GREY, alpha=0.3)
        legend_below(axes)
    return figure


def compute(tasks: range, sweep: Map = in_turn) -> dict[str, Any]:
    """The curves of each (d, K); those beyond d = 2 K - 1 are the same as there."""
    pairs = list(itertools.product(DIMENSIONS, COMPONENTS))
    flat = sorted({(min(d, 2 * K - 1), K) for d, K in pairs})
    found = dict(zip(flat, sweep(curves, flat), strict=True))
    rows = [found[min(d, 2 * K - 1), K] | {"d": d} for K in COMPONENTS for d in DIMENSIONS]
    return {"seed": SEED, "a": A, "rows": rows}


if __name__ == "__main__":
    script(compute, draw, tasks=None)
