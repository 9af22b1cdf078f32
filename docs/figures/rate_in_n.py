"""The rate in N
=============

D^TF against N with L = O(log N) iterations and eps = N^(-1/2) (Remark C.1).

::

    python docs/figures/rate_in_n.py

writes its numbers and two pictures beside this file, up to N = 10^6 (a quarter of
an hour on one core).  Separation C = 6, starts at distance a = 3/4, beta = 1/2, and
L = log(a sqrt(N)) / log(1 / beta).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from frame import Map, in_turn, script
from matplotlib.figure import Figure

from constructions import EMTransformer
from constructions.plot_parts import BLACK, BLUE, GREEN, GREY, ORANGE, legend_below
from gmm import GaussianMixture, parameter_distance

SEED = 0
SIZES = ((2, 2), (4, 3), (8, 5))
SAMPLES = (10**3, 10**4, 10**5, 10**6)
C, BETA, A = 6.0, 0.5, 0.75


def polygon(d: int, K: int) -> GaussianMixture:
    """Equal weights; means on a line (K = 2) or at the corners of a regular polygon, C sqrt(log K) apart."""
    distance = C * math.sqrt(math.log(K))
    means = np.zeros((K, d))
    if K == 2:
        means[:, 0] = distance * np.array([-0.5, 0.5])
    else:
        angles = 2 * np.pi * np.arange(K) / K
        means[:, :2] = distance / (2 * math.sin(math.pi / K)) * np.c_[np.cos(angles), np.sin(angles)]
    return GaussianMixture(np.full(K, 1 / K), means)


def iterations(N: int) -> int:
    """L for N."""
    return math.ceil(math.log(A * math.sqrt(N)) / math.log(1 / BETA))


def distance(d: int, K: int, N: int, rng: np.random.Generator) -> float:
    """D^TF of one task."""
    truth = polygon(d, K)
    shift = rng.standard_normal((K, d))
    start = truth.means + A * shift / np.linalg.norm(shift, axis=1, keepdims=True)
    X, _ = truth.sample(N, rng)
    em = EMTransformer(d, K, eps=N**-0.5, r_max=16, pi_min=0.02)
    last = em.run(X, GaussianMixture(truth.weights, start), iterations(N), mode="structured")[-1]
    return parameter_distance(GaussianMixture(last.weights / last.weights.sum(), last.means), truth)


def distances(d: int, K: int, samples: Any, tasks: int, rng: np.random.Generator) -> Any:
    """D^TF of `tasks` tasks for each N, (len(samples), tasks)."""
    return np.array([[distance(d, K, N, rng) for _ in range(tasks)] for N in samples])


def slope(samples: Any, found: Any) -> float:
    """Of the mean logarithm against log N."""
    return float(np.polyfit(np.log(samples), np.log(found).mean(axis=1), 1)[0])


def one_size(d: int, K: int, tasks: int) -> dict[str, Any]:
    """The distances of one (d, K), and their slope."""
    found = distances(d, K, SAMPLES, tasks, np.random.default_rng(SEED))
    return {"d": d, "K": K, "slope": slope(SAMPLES, found), "distances": found.tolist()}


def compute(tasks: range, sweep: Map = in_turn) -> dict[str, Any]:
    """The distances for each (d, K)."""
    rows = sweep(one_size, [(d, K, len(tasks)) for d, K in SIZES])
    return {"N": list(SAMPLES), "seed": SEED, "rows": rows}


def draw(results: dict[str, Any]) -> Figure:
    """Means and all tasks against N."""
    figure = Figure(figsize=(6.5, 5), layout="constrained")
    axes = figure.subplots()
    N = np.array(results["N"])
    for row, colour, shape in zip(results["rows"], (ORANGE, GREEN, BLUE), "o^s", strict=True):
        found = np.array(row["distances"])
        mean = np.exp(np.log(found).mean(axis=1))
        label = f"d = {row['d']}, K = {row['K']}: slope {row['slope']:.3f}"
        axes.loglog(N, mean, f"{shape}-", color=colour, label=label, fillstyle="none")
        axes.loglog(np.repeat(N, found.shape[1]), found.flatten(), ".", color=colour, markersize=3, alpha=0.5)
    first = np.exp(np.log(results["rows"][0]["distances"][0]).mean())
    axes.loglog(N, 0.6 * first * (N / N[0]) ** -0.5, ":", color=BLACK, label="slope -1/2")
    axes.set(xlabel="samples N", ylabel="$D^{TF}$, distance to the truth")
    axes.set_title("Mean and all tasks; $\\varepsilon = N^{-1/2}$, $L = O(\\log N)$")
    axes.grid(True, color=GREY, alpha=0.3)
    legend_below(axes)
    return figure


if __name__ == "__main__":
    script(compute, draw, tasks=10)
