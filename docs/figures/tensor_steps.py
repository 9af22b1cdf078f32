"""Power iteration by step
=======================

Tensor power iteration by a transformer, step by step, against exact arithmetic.

::

    python docs/figures/tensor_steps.py

writes its numbers and two pictures beside this file (a minute on one core).

Left: the relative difference from the iteration T(I, v, v) over fractions, of which the inputs' floats are
some: of the same matrices over fractions, in float64 and in float32.  Right: the angle to the nearest
component of an orthogonal tensor, for a construction that normalises and for the iteration in numpy.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from frame import Map, in_turn, script
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from constructions import TensorPowerTransformer
from constructions.exact import rational
from constructions.plot_parts import BLACK, BLUE, GREEN, GREY, ORANGE, legend_below
from gmm import power_step

SEED = 0
D, STEPS = 3, 6
LONG = 9
STYLES = {
    "theorem": ("o-", "Theorem D.8"),
    "attention_only": ("s--", "attention only"),
    "one_layer": ("^-.", "one layer a step"),
    "three_heads": ("d:", "three heads"),
}


def exact_step(T: Any, v: list[Fraction]) -> list[Fraction]:
    """T(I, v, v) by three loops over fractions."""
    d = len(v)
    return [
        sum((Fraction(float(T[i, j, m])) * v[j] * v[m] for j in range(d) for m in range(d)), Fraction(0))
        for i in range(d)
    ]


def distance(got: Any, want: list[Fraction]) -> float:
    """Largest difference of an entry, as a share of the largest entry; exactly 0 if there is none."""
    off = max(abs(Fraction(g) - w) for g, w in zip(got, want, strict=True))
    return float(off / max(abs(w) for w in want))


def over_fractions(network: TensorPowerTransformer, T: Any, v: Any, steps: int) -> list[Fraction]:
    """The readout after `steps` steps with the matrices evaluated over fractions."""
    tokens = rational(network.design.layers * steps, network.encode(T, v))
    stored = "u" if "u" in network.layout.names else "v"
    first = network.layout.indices(stored)[:D]
    return [tokens[0][j] / (D if stored == "u" else 1) for j in first]


def one_variant(variant: str, tasks: int) -> dict[str, list[list[float]]]:
    """Relative differences after each step, for each task, of a general tensor and start."""
    options = {} if variant in ("theorem", "attention_only") else {"bound": 64.0}
    found: dict[str, list[list[float]]] = {"fractions": [], "float64": [], "float32": []}
    for t in range(tasks):
        rng = np.random.default_rng([SEED, t])
        first = rng.standard_normal(D)
        T = np.einsum("i,j,m->ijm", first, first, first) + rng.uniform(-0.3, 0.3, (D, D, D))
        T = T.astype(np.float32).astype(float)
        # Of a length that neither grows nor shrinks much: the fixed point's, nearly.
        v = first
        for _ in range(30):
            v = power_step(T, v)
            v /= np.linalg.norm(v)
        v = (
            (v / np.linalg.norm(power_step(T, v)) + 2e-3 * rng.standard_normal(D))
            .astype(np.float32)
            .astype(float)
        )
        want, path = [Fraction(x) for x in v.tolist()], []
        for _ in range(STEPS):
            want = exact_step(T, want)
            path.append(want)
        network = TensorPowerTransformer(D, variant=variant, **options)
        found["fractions"].append(
            [distance(over_fractions(network, T, v, step + 1), w) for step, w in enumerate(path)]
        )
        for dtype in ("float64", "float32"):
            run = TensorPowerTransformer(D, variant=variant, dtype=dtype, **options).run(T, v, STEPS)
            found[dtype].append([distance(state.tolist(), w) for state, w in zip(run, path, strict=True)])
    return found


def angles(tasks: int) -> dict[str, list[list[float]]]:
    """Sine of the angle to the nearest component after each step, of an orthogonal tensor."""
    found: dict[str, list[list[float]]] = {"transformer": [], "numpy": []}
    network = TensorPowerTransformer(D, variant="normalised", pi_min=0.05, delta=1e-2)
    for t in range(tasks):
        rng = np.random.default_rng([SEED, 1, t])
        q = np.linalg.qr(rng.standard_normal((D, D)))[0]
        T = np.einsum("k,ik,jk,mk->ijm", rng.dirichlet(np.full(D, 20.0)) ** -0.5, q, q, q)
        v = rng.standard_normal(D)
        v /= np.linalg.norm(v)
        paths: dict[str, list[Any]] = {"transformer": [v, *network.run(T, v, LONG)], "numpy": [v]}
        for _ in range(LONG):
            after = power_step(T, paths["numpy"][-1])
            paths["numpy"].append(after / np.linalg.norm(after))
        last = paths["numpy"][-1]
        nearest = q[:, np.abs(q.T @ last).argmax()]
        for name, path in paths.items():
            sines = [np.linalg.norm(x - nearest * (nearest @ x)) / np.linalg.norm(x) for x in path]
            found[name].append([float(s) for s in sines])
    return found


def compute(tasks: range, sweep: Map = in_turn) -> dict[str, Any]:
    """Both pictures' numbers."""
    rows = sweep(one_variant, [(variant, len(tasks)) for variant in STYLES])
    (turned,) = sweep(angles, [(len(tasks),)])
    return {"d": D, "seed": SEED, "variants": dict(zip(STYLES, rows, strict=True)), "angles": turned}


def draw(results: dict[str, Any]) -> Figure:
    """Left: differences, zero on the axis; right: angles."""
    figure = Figure(figsize=(12, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    floor = 1e-18
    for variant, found in results["variants"].items():
        for dtype, colour in (("float32", ORANGE), ("float64", BLUE), ("fractions", BLACK)):
            largest = np.max(found[dtype], axis=0)
            left.semilogy(
                range(1, STEPS + 1), np.where(largest == 0, floor, largest), STYLES[variant][0], color=colour,
                fillstyle="none", markersize=5,
            )  # fmt: skip
    for shape, label in STYLES.values():
        left.plot([], [], shape, color=GREY, fillstyle="none", label=label)
    for dtype, colour in (("float32", ORANGE), ("float64", BLUE), ("fractions: exactly 0", BLACK)):
        left.plot([], [], "-", color=colour, linewidth=3, label=dtype)
    ticks = [10.0**-k for k in (16, 13, 10, 7, 4)]
    left.set_yticks([floor, *ticks], ["0", *(f"$10^{{{round(np.log10(t))}}}$" for t in ticks)])
    left.set(xlabel="power step", ylabel="largest difference / largest entry", ylim=(floor / 4, 1e-3))
    left.set_title("Against the iteration over fractions, the worst task")
    for name, colour, shape in (("numpy", BLACK, "+-"), ("transformer", GREEN, "o:")):
        found = np.array(results["angles"][name])
        label = "normalised construction" if name == "transformer" else "power iteration in numpy"
        low, median, high = np.quantile(np.maximum(found, 1e-17), (0, 0.5, 1), axis=0)
        right.semilogy(
            range(len(median)), median, shape, color=colour, label=label, fillstyle="none", markersize=8
        )
        right.fill_between(range(len(median)), low, high, color=colour, alpha=0.12, linewidth=0)
    right.axhline(2.0**-53, color=GREY, linestyle="--", linewidth=1, label="u of float64")
    right.set(xlabel="power step", ylabel="sine of the angle to the component found")
    right.set_title("Median and all tasks: doubling digits with each step")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(True, color=GREY, alpha=0.3)
        legend_below(axes)
    return figure


if __name__ == "__main__":
    script(compute, draw, tasks=8)
