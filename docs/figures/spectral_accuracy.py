"""Depth of the spectral construction
==================================

Accuracy of the spectral construction against its depth: Newton-Schulz layers and teeth.

::

    python docs/figures/spectral_accuracy.py

writes its numbers and two pictures beside this file (one minute on one core).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from frame import Map, in_turn, script
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from constructions import SpectralTransformer
from constructions.plot_parts import BLACK, BLUE, GREY, ORANGE, legend_below
from gmm import GaussianMixture, spectral_from_data

SEED = 0
EPS = tuple(10.0**-k for k in (1, 2, 3, 4, 5, 6, 8, 10, 12, 14))
TEETH = (8, 10, 12, 14, 16, 18, 20, 22, 24)
C = 128.0
D, K, N = 5, 2, 1000


def network(starts: Any, **options: Any) -> SpectralTransformer:
    """One network of this figure."""
    return SpectralTransformer(D, K, starts=starts, tau=0.7, gap=0.4, sigma_min=1.1, sigma_max=32.0, c_max=C,
                               pi_min=0.1, n_power=10, **options)  # fmt: skip


def problems(count: int, rng: np.random.Generator) -> list[Any]:
    """Samples of mixtures whose second moment has the eigenvalues 4 and 2."""
    found = []
    for _ in range(count):
        weights = rng.dirichlet([8.0] * K)
        frame, _ = np.linalg.qr(rng.standard_normal((D, K)))
        mix, _ = np.linalg.qr(rng.standard_normal((K, K)))
        means = ((frame * np.sqrt([4.0, 2.0])) @ mix).T / np.sqrt(weights)[:, None]
        found.append(GaussianMixture(weights, means).sample(N, rng)[0])
    return found


def error(net: SpectralTransformer, X: Any) -> float:
    """Largest difference of a weight or an entry of a mean from Algorithms A.2 and A.3; nan if a run left
    the assumptions so far that it gives no numbers."""
    want = spectral_from_data(X, K, starts=net.starts, n_iter=net.limits.n_power, n_polish=0).mixture()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tokens = net.transformer()(net.as_tokens(net.encode(X)), "structured")
        except OverflowError:
            return float("nan")
        got = net.readout(tokens, D, K)
    return float(max(np.abs(got.weights - want.weights).max(), np.abs(got.means - want.means).max()))


def compute(
    tasks: range, sweep: Map = in_turn, eps: tuple[float, ...] = EPS, teeth: tuple[int, ...] = TEETH
) -> dict[str, Any]:
    """The figure's numbers: the largest error over the data sets for each network."""
    rng = np.random.default_rng(SEED)
    starts, data = rng.standard_normal((K, 1, D)), problems(len(tasks), rng)
    rows: dict[str, Any] = {"problems": len(tasks), "newton_schulz": [], "float32": [], "teeth": []}
    for dtype, name in (("float64", "newton_schulz"), ("float32", "float32")):
        for e in eps:
            net = network(starts, eps=e, dtype=dtype)
            layers = sum(net.schedule[stage] for stage in ("sign", "root", "normalise", "reciprocal"))
            rows[name].append({"eps": e, "layers": layers, "error": max(error(net, X) for X in data)})
    for m in teeth:
        net = network(starts, square="teeth", n_teeth=m)
        worst = max(error(net, X) for X in data)
        rows["teeth"].append({"teeth": m, "square": C**2 / 4 ** (m + 1), "error": worst})
    return rows


def draw(rows: dict[str, Any]) -> Figure:
    """Left: Newton-Schulz layers; right: teeth."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, label, style in (("newton_schulz", "float64", "o-"), ("float32", "float32", "s--")):
        colour = BLUE if name == "newton_schulz" else ORANGE
        left.semilogy([row["layers"] for row in rows[name]], [row["error"] for row in rows[name]], style,
                      color=colour, label=label)  # fmt: skip
    left.semilogy(*zip(*((row["layers"], row["eps"]) for row in rows["newton_schulz"]), strict=True), ":",
                  color=BLACK, label="eps of the schedules")  # fmt: skip
    left.set(xlabel="layers of Newton and Newton-Schulz iterations, all stages")
    left.set_title("A few layers more square the error")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.semilogy([row["teeth"] for row in rows["teeth"]], [row["error"] for row in rows["teeth"]], "o-",
                   color=BLUE, label="transformer")  # fmt: skip
    right.semilogy([row["teeth"] for row in rows["teeth"]], [row["square"] for row in rows["teeth"]], ":",
                   color=BLACK, label="one square: $C^2\\,4^{-(m+1)}$")  # fmt: skip
    right.set(xlabel="teeth m of the square")
    right.set_title("Each further tooth divides it by four")
    for axes in (left, right):
        axes.set_ylabel("largest difference from Algorithms A.2, A.3")
        axes.grid(True, color=GREY, alpha=0.3)
        legend_below(axes)
    return figure


if __name__ == "__main__":
    script(compute, draw, tasks=6)
