"""The trained network by layer
============================

The trained network read out after each layer, beside the constructed EM after each iteration.

::

    python docs/figures/trained_layers.py

writes its numbers and two pictures beside this file (three minutes on one core).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from frame import Map, in_turn, script
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from constructions import EMTransformer
from constructions.plot_parts import BLACK, BLUE, GREEN, GREY, ORANGE
from gmm import GaussianMixture, TaskDistribution, l2_error, start_mixture
from trainable.estimator import network_of

SEED, D, N = 3, 8, 128
ITERATIONS = 12
MODEL = "tgmm-d8"


def one_task(K: int, t: int) -> dict[str, list[float]]:
    """l2-errors: after each layer of the network; after each iteration of EM, from two kinds of starts and
    from the network's estimate; and of the averages over the labels."""
    rng = np.random.default_rng([SEED, K, t])
    truth = TaskDistribution(D).sample_mixture(K, rng)
    X, labels = truth.sample(N, rng)
    network = network_of(MODEL)
    data = torch.tensor(X[None], dtype=torch.float32)
    with torch.no_grad():
        found = [network.read(H, data, [(K, 1)])[0] for H in network.states(data, [(K, 1)])]
    read = [
        GaussianMixture(
            f.weights[0].double().numpy() / float(f.weights[0].double().sum()), f.means[0].numpy()
        )
        for f in found
    ]
    counts = np.bincount(labels, minlength=K)
    means = [X[labels == k].mean(axis=0) if counts[k] else np.zeros(D) for k in range(K)]
    em = EMTransformer(D, K, eps=1e-3, r_max=64, pi_min=1e-3)
    starts = {"seeded": start_mixture(X, K, rng), "normal": start_mixture(X, K, rng, "normal")}
    starts["appended"] = GaussianMixture((read[-1].weights + 0.002) / (1 + 0.002 * K), read[-1].means)
    errors = {"layers": [l2_error(mixture, truth) for mixture in read]}
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # a start that loses a component leaves pi_min; it is drawn all the same
        for name, start in starts.items():
            run = em.run(X, start, ITERATIONS, mode="structured")
            errors[name] = [l2_error(start, truth)]
            for f in run:
                mixture = GaussianMixture(f.weights / f.weights.sum(), f.means)
                errors[name].append(l2_error(mixture, truth))
    errors["oracle"] = [l2_error(GaussianMixture(counts / N, np.array(means)), truth)]
    return {name: [float(f"{x:.4g}") for x in values] for name, values in errors.items()}


def compute(tasks: range, sweep: Map = in_turn, kinds: tuple[int, ...] = (2, 3, 4, 5)) -> dict[str, Any]:
    """The errors of each task, by K."""
    found = iter(sweep(one_task, [(K, t) for K in kinds for t in tasks]))
    rows = {str(K): [next(found) for _ in tasks] for K in kinds}
    return {"model": MODEL, "d": D, "N": N, "seed": SEED, "tasks": rows}


def draw(results: dict[str, Any]) -> Figure:
    """One picture for each K."""
    kinds = list(results["tasks"])
    figure = Figure(figsize=(4.2 * len(kinds), 4.6), layout="constrained")
    every = figure.subplots(1, len(kinds), sharey=True)
    styles = (
        ("layers", "trained network, after each layer", BLUE, "o-"),
        ("appended", "then constructed EM, after each iteration", BLUE, "s:"),
        ("seeded", "constructed EM from k-means++, after each iteration", GREEN, "s-"),
        ("normal", "constructed EM from N(0, I)", ORANGE, "^-"),
    )
    for axes, K in zip(np.atleast_1d(every), kinds, strict=True):
        tasks = results["tasks"][K]
        n_layers = len(tasks[0]["layers"])
        for name, label, colour, shape in styles:
            mean = np.mean([task[name] for task in tasks], axis=0)
            first = {"layers": 1, "appended": n_layers}.get(name, 0)
            axes.semilogy(
                range(first, first + len(mean)), mean, shape, color=colour, label=label, markersize=4
            )
        floor = np.mean([task["oracle"][0] for task in tasks])
        axes.axhline(floor, color=BLACK, linestyle="--", linewidth=1, label="labels known")
        axes.set(xlabel="layer of the network, or EM iteration", title=f"K = {K}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(True, color=GREY, alpha=0.3)
    np.atleast_1d(every)[0].set_ylabel("mean l2-error")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


if __name__ == "__main__":
    script(compute, draw, tasks=100)
