"""Number formats
==============

Distance of the constructions from their algorithms over the layers, for four number formats.

::

    python docs/figures/dtype_error.py

writes its numbers and two pictures beside this file (about a minute on one core).

EM: the largest difference in a weight or a mean, over all iterates so far, from EM in float64.  Tensor power
iteration: the sine of the angle to the normalised iteration in float64, the length left aside.  float16 and
bfloat16 are refused by the constructions; for bfloat16 the weights alone are rounded to it here, everything
else staying float64.  float16 ends at 65504, below the coefficients.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from frame import Map, in_turn, script
from matplotlib.figure import Figure

from constructions import EMTransformer, TensorPowerTransformer
from constructions.plot_parts import BLACK, BLUE, GREEN, GREY, ORANGE, legend_below
from gmm import GaussianMixture, TaskDistribution, power_step, run_em, start_mixture

SEED = 0
D, K = 4, 3
TASKS = 8
ITERATIONS = 12
STEPS = 14
EPS = (1e-2, 1e-4)
REACHES = (8.0, 64.0, 512.0)
SEPARATIONS = (4.0, 16.0, 64.0, 128.0)

EM_CURVES = (
    ("bfloat16", 1e-2, GREEN, "s-"),
    ("float32", 1e-2, ORANGE, "^-"),
    ("float64", 1e-2, ORANGE, "+:"),
    ("bfloat16", 1e-4, GREY, "s-"),
    ("float32", 1e-4, BLUE, "^-"),
    ("float64", 1e-4, BLUE, "+:"),
)


def apart(one: Any, other: Any) -> float:
    """Largest difference in a weight or a coordinate of a mean."""
    parts = (one.weights - other.weights, one.means - other.means)
    return max(float(np.abs(part).max()) for part in parts)


def quietly(em: EMTransformer, X: Any, start: Any, n_iter: int) -> list[Any]:
    """The iterates, without the warnings of those that leave a bound."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(em.run(X, start, n_iter, mode="structured"))


def rounded(em: EMTransformer, X: Any, start: Any, dtype: torch.dtype) -> list[Any]:
    """The iterates with weights rounded to `dtype` and evaluated in float64."""
    H, d, K = em.encode(X, start), X.shape[1], len(start.weights)
    estimates = []
    for n_iter in range(1, ITERATIONS + 1):
        network = em.transformer(n_iter).to(dtype).to(torch.float64)
        estimates.append(em.readout(network(H), d, K))
    return estimates


def em_gaps(dtype: str, eps: float, tasks: range) -> list[list[float]]:
    """For each task, the largest distance from EM up to each iteration."""
    rows = []
    em = EMTransformer(
        D, K, eps=eps, r_max=16, pi_min=1e-3, dtype="float64" if dtype == "bfloat16" else dtype
    )
    for t in tasks:
        rng = np.random.default_rng([SEED, t])
        X, _ = TaskDistribution(D, mean_range=2.5).sample_mixture(K, rng).sample(200, rng)
        start = start_mixture(X, K, rng)
        if dtype == "bfloat16":
            estimates = rounded(em, X, start, torch.bfloat16)
        else:
            estimates = quietly(em, X, start, ITERATIONS)
        pairs = zip(estimates, run_em(X, start, ITERATIONS)[1:], strict=True)
        rows.append(np.maximum.accumulate([apart(one, other) for one, other in pairs]).tolist())
    return rows


def tensor_gaps(variant: str, dtype: str, tasks: range) -> list[list[float | None]]:
    """For each task, the sine of the angle to the reference after each step; None once refused."""
    rows = []
    options = {"pi_min": 0.05, "delta": 1e-2} if variant == "normalised" else {}
    network = TensorPowerTransformer(D, variant=variant, dtype=dtype, **options)
    for t in tasks:
        rng = np.random.default_rng([SEED, t])
        vectors = np.linalg.qr(rng.standard_normal((D, D)))[0]
        weights = rng.dirichlet(np.full(D, 20.0))
        T = np.einsum("k,ik,jk,mk->ijm", weights**-0.5, vectors, vectors, vectors)
        v = rng.standard_normal(D)
        v /= np.linalg.norm(v)
        # In single steps, so that a run which ends has its first steps drawn.
        row: list[float | None] = []
        want = v
        for step in range(1, STEPS + 1):
            want = power_step(T, want)
            want /= np.linalg.norm(want)
            try:
                got = np.asarray(network.run(T, v, step)[-1])
            except OverflowError:
                row.append(None)
                continue
            got = got / np.abs(got).max()
            got /= np.linalg.norm(got)
            row.append(float(np.linalg.norm(got - want * (got @ want))))
        rows.append(row)
    return rows


def reach_table(reaches: tuple[float, ...] = REACHES, count: int = 6) -> list[dict[str, float]]:
    """Two clusters 2 apart, at a distance from the origin: float32 against float64 after 5 iterations."""
    rows = []
    for reach in reaches:
        worst = 0.0
        for t in range(count):
            rng = np.random.default_rng([SEED, t])
            direction = rng.standard_normal(D)
            direction /= np.linalg.norm(direction)
            truth = GaussianMixture([0.4, 0.6], np.outer([reach - 2, reach], direction))
            X, _ = truth.sample(300, rng)
            start = GaussianMixture([0.5, 0.5], 0.99 * truth.means)
            runs = [
                quietly(
                    EMTransformer(D, 2, eps=1e-2, r_max=1.25 * reach, pi_min=1e-3, dtype=name), X, start, 5
                )
                for name in ("float64", "float32")
            ]
            worst = max(worst, *(apart(one, other) for one, other in zip(*runs, strict=True)))
        rows.append({"reach": reach, "gap": worst, "ratio": worst / (2.0**-24 * reach**2)})
    return rows


def separation_table(separations: tuple[float, ...] = SEPARATIONS) -> list[dict[str, Any]]:
    """Two clusters C apart: zero responsibilities of EM, and the distances from EM after 5 iterations."""
    rows = []
    for C in separations:
        rng = np.random.default_rng(SEED)
        truth = GaussianMixture([0.3, 0.7], np.outer([-C / 2, C / 2], np.eye(D)[0]))
        X, _ = truth.sample(400, rng)
        start = GaussianMixture([0.5, 0.5], 0.95 * truth.means)
        want = run_em(X, start, 5)[1:]
        row: dict[str, Any] = {"C": C, "zeros": float((truth.responsibilities(X) == 0).mean())}
        for name in ("float64", "float32"):
            em = EMTransformer(D, 2, eps=1e-2, r_max=0.75 * C, pi_min=1e-2, dtype=name)
            got = quietly(em, X, start, 5)
            row[name] = max(apart(one, other) for one, other in zip(got, want, strict=True))
        rows.append(row)
    return rows


def compute(tasks: range, sweep: Map = in_turn) -> dict[str, Any]:
    """Everything that is drawn or tabled."""
    return {
        "tasks": len(tasks),
        "em": [
            {"dtype": dtype, "eps": eps, "gaps": em_gaps(dtype, eps, tasks)} for dtype, eps, *_ in EM_CURVES
        ],
        "tensor": [
            {"variant": variant, "dtype": dtype, "gaps": tensor_gaps(variant, dtype, tasks)}
            for variant in ("theorem", "normalised")
            for dtype in ("float32", "float64")
        ],
        "reach": reach_table(),
        "separation": separation_table(),
    }


def draw(results: dict[str, Any]) -> Figure:
    """Left: EM; right: tensor power iteration; medians, and the largest of all tasks dotted."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for row, (dtype, eps, colour, shape) in zip(results["em"], EM_CURVES, strict=True):
        name = "bfloat16 weights" if dtype == "bfloat16" else dtype
        gaps = np.median(row["gaps"], axis=0)
        left.semilogy(
            range(1, ITERATIONS + 1),
            gaps,
            shape,
            color=colour,
            label=f"{name}, eps = {eps:g}",
            fillstyle="none",
        )
    left.set(xlabel="EM iteration (two layers each)", ylabel="largest distance from EM so far (noise s.d.)")
    left.set_title("EM: eps decides, not float32")
    for row in results["tensor"]:
        colour = BLUE if row["dtype"] == "float64" else ORANGE
        shape = "o-" if row["variant"] == "normalised" else "x:"
        # Drawn as far as no task is refused; angles of zero at the rounding of float64.
        table = np.array(row["gaps"], dtype=float)
        alive = int(np.isfinite(table).all(axis=0).sum())
        median = np.maximum(np.median(table[:, :alive], axis=0), 1e-17)
        label = f"{row['dtype']}, {'normalised' if row['variant'] == 'normalised' else 'Theorem D.8'}"
        right.semilogy(range(1, alive + 1), median, shape, color=colour, label=label, fillstyle="none")
    for bits, name in ((24, "float32"), (53, "float64")):
        right.axhline(2.0**-bits, color=GREY, linestyle="--", linewidth=1)
        right.text(STEPS, 2.0**-bits * 1.5, f"u of {name}", color=BLACK, fontsize=8, ha="right", va="bottom")
    right.set(xlabel="power step", ylabel="sine of the angle to the power iteration")
    right.set_title("Tensor power iteration: range decides")
    for axes in (left, right):
        axes.grid(True, color=GREY, alpha=0.3)
        legend_below(axes)
    return figure


if __name__ == "__main__":
    script(compute, draw, tasks=TASKS)
