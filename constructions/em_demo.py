"""Run EM with a transformer of plain matrices and hold it against EM itself.

With no arguments it draws a synthetic mixture; with --data FILE.csv it takes your numbers (rows are
samples).  The model has unit variance: --scale divides the data by their noise level first.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import tyro

from constructions.cli import Common, check_outputs, flag, main, read_csv, write_outputs
from constructions.construction import LARGEST, Estimate, Run
from constructions.em import EMTransformer
from constructions.em_plot import draw
from constructions.files import load, package_version
from constructions.report import Iteration, em_report, statistical_floor
from constructions.weights import Array
from gmm import GaussianMixture, TaskDistribution, estimate_scale, start_mixture

PROGRAM = "constructions.em_demo"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:  # noqa: D101
    __doc__ = __doc__

    data: Annotated[Path | None, flag("FILE", "synthetic data")] = None
    """CSV file with your samples, one per row, with or without a header."""
    K: int = 3
    """Number of components."""
    d: int = 2
    """Dimension of the synthetic data."""
    n: int = 600
    """Number of synthetic samples."""
    spread: float = 2.5
    """The synthetic means are uniform on [-spread, spread]^d; the noise has unit variance."""
    depth: int = 15
    """EM iterations; the network has two layers for each."""
    start: str = "kmeans++"
    """Where EM starts: kmeans++ (the most likely of ten seedings), normal (means from N(0, I)), or a
    CSV file with one mean per row."""
    scale: Annotated[str, flag("FLOAT|auto")] = "1"
    """Noise level that the data are divided by; auto estimates it by maximum likelihood."""
    d0: Annotated[int | None, flag("INT", "4, or d if larger")] = None
    """Largest dimension the network holds."""
    K0: Annotated[int | None, flag("INT", "5, or K if larger")] = None
    """Largest number of components it holds."""
    eps: Annotated[float | None, flag("FLOAT", "0.001")] = None
    """Sup error of each log and half squared norm in the network."""
    r_max: Annotated[float | None, flag("FLOAT", "the data's range, rounded up to a power of 2")] = None
    """Bound on the norm of the means."""
    pi_min: Annotated[float | None, flag("FLOAT", "1/(16 K), rounded down to a power of 2")] = None
    """Bound below on the weights."""
    approximator: Annotated[Literal["minimax", "paper"] | None, flag("NAME", "minimax")] = None
    """Fewest hidden units, or the widths of Lemmas C.4 and C.5."""
    dtype: Annotated[str | None, flag("NAME", "float64")] = None
    """float64 or float32."""
    mode: Literal["auto", "dense", "structured"] = "auto"
    """How the forward pass is evaluated: the definitions as they stand, or in linear time."""
    weights: Annotated[Path | None, flag("FILE", "a network built from the bounds")] = None
    """Use the network in this file (constructions.save)."""
    plot: Path = Path("em_demo.png")
    """Picture of the run."""
    common: tyro.conf.OmitArgPrefixes[Common] = dataclasses.field(default_factory=Common)


class Problem(NamedTuple):
    """Data in units of the noise, and the mixture they came from, if that is known."""

    X: Array
    scale: float
    truth: GaussianMixture | None
    source: str


def problem(options: Options, rng: np.random.Generator) -> Problem:
    """The data to run on."""
    if not (math.isfinite(options.spread) and options.spread >= 0.01):
        raise ValueError(f"--spread must be a number of at least 0.01, got {options.spread:g}")
    for name, low in (("K", 1), ("d", 1), ("n", 1), ("depth", 1)):
        if getattr(options, name) < low:
            raise ValueError(f"--{name} must be at least {low}, got {getattr(options, name)}")
    if options.data is None:
        if options.n < options.K:
            raise ValueError(f"--n must be at least --K = {options.K}, got {options.n}")
        tasks = TaskDistribution(
            options.d, mean_range=options.spread, max_cosine=0.8 if options.d > 1 else 1.0
        )
        truth: GaussianMixture | None = tasks.sample_mixture(options.K, rng)
        assert truth is not None
        X, _ = truth.sample(options.n, rng)
        source = f"synthetic: {options.n} samples, d = {options.d}, K = {options.K}"
    else:
        X, truth = read_csv(options.data), None
        source = f"{options.data}: {X.shape[0]} samples, d = {X.shape[1]}, K = {options.K}"
        if len(X) < options.K:
            raise ValueError(f"{options.data} has {len(X)} samples, fewer than --K = {options.K}")
    scale = _scale(options, X, rng)
    if np.abs(X).max() / scale > LARGEST:
        raise ValueError(f"the data reach {np.abs(X).max():.3g}: too large for --scale {scale:g}")
    if truth is not None:
        truth = GaussianMixture(truth.weights, truth.means / scale)
    return Problem(X / scale, scale, truth, source)


def _scale(options: Options, X: Array, rng: np.random.Generator) -> float:
    if options.scale == "auto":
        return estimate_scale(X, options.K, rng=rng)
    try:
        scale = float(options.scale)
    except ValueError:
        scale = math.nan
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"--scale must be a positive number or auto, got {options.scale}")
    return scale


def start(options: Options, task: Problem, rng: np.random.Generator) -> GaussianMixture:
    """Where EM starts, in units of the noise."""
    if options.start == "normal":
        return start_mixture(task.X, options.K, rng, "normal")
    if options.start == "kmeans++":
        seedings = [start_mixture(task.X, options.K, rng) for _ in range(10)]
        return max(seedings, key=lambda seeding: seeding.log_likelihood(task.X))
    means = read_csv(Path(options.start)) / task.scale
    if means.shape != (options.K, task.X.shape[1]):
        raise ValueError(
            f"--start {options.start} must hold {options.K} rows of {task.X.shape[1]} numbers, got "
            f"{means.shape[0]} of {means.shape[1]}"
        )
    return GaussianMixture(np.full(options.K, 1 / options.K), means)


def network(options: Options, X: Array, init: GaussianMixture) -> EMTransformer:
    """The construction: from a file, or built from bounds that fit the data's range."""
    names = ("d0", "K0", "eps", "r_max", "pi_min", "approximator", "dtype")
    if options.weights is not None:
        for name in names:
            if getattr(options, name) is not None:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} cannot be combined with --weights, which fixes it")
        loaded = load(options.weights)
        if not isinstance(loaded, EMTransformer):
            raise ValueError(f"{options.weights} holds a {type(loaded).__name__}, not an EMTransformer")
        return loaded
    reach = float(np.linalg.norm(np.concatenate([X, init.means]), axis=1).max())
    derived = {
        "d0": max(4, X.shape[1]),
        "K0": max(5, options.K),
        "eps": 1e-3,
        "r_max": 2.0 ** math.ceil(math.log2(max(reach, 1.0))),
        "pi_min": 2.0 ** -math.ceil(math.log2(16 * options.K)),
    }
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return EMTransformer(**(derived | given))


def print_sizes(em: EMTransformer, depth: int) -> None:
    """The network's sizes beside those of Theorem C.1."""
    sizes = em.sizes(depth)
    d0, K0, R = em.d0, em.K0, em.r_max
    range_term = K0 * R * (R + d0)
    rows = [
        ("layers", f"{sizes.layers}", "2L"),
        ("heads M", "1 and 2", "O(1)"),
        ("width D", f"{sizes.width}", f"O(d0 + K0), d0 + K0 = {d0 + K0}"),
        ("hidden width D'", f"{sizes.hidden_width}", f"O~(K0 R (R + d0) / eps), {range_term / em.eps:.2g}"),
        ("log |||Theta|||", f"{math.log(sizes.norm):.1f}", f"O~(K0 R (R + d0)), {range_term:.2g}"),
    ]
    print(f"{'':17}{'this network':>14}   Theorem C.1, R = r_max")
    for name, ours, theirs in rows:
        print(f"{name:17}{ours:>14}   {theirs}")
    print(
        f"bounds: d <= {d0}, K <= {K0}, |mu| <= {R:g}, pi >= {em.pi_min:g}, eps = {em.eps:g}, "
        f"log A = {em.range_log:.1f}"
    )


def print_iterations(report: Sequence[Iteration], floor: float | None) -> None:
    """One line per iteration."""
    known = floor is not None
    print(
        f"\n{'iteration':>9} {'|TF - EM|':>11} {'bound':>11}"
        + " {:>10}".format("error") * known
        + f" {'log-lik.':>10}"
    )
    for row in report:
        error = f" {row.error:10.4f}" if known else ""
        print(f"{row.iteration:9d} {row.em_gap:11.2e} {row.bound:11.2e}{error} {row.log_likelihood:10.4f}")
    if known:
        print(f"statistical floor (distance of the sample's own optimum to the truth): {floor:.4f}")


def run(options: Options) -> None:
    """The command."""
    start_file = None if options.start in ("kmeans++", "normal") else Path(options.start)
    reads = (options.data, options.weights, start_file)
    check_outputs(options.plot, options.common.json, reads=reads)
    rng = np.random.default_rng(options.common.seed)
    task = problem(options, rng)
    init = start(options, task, rng)
    em = network(options, task.X, init)
    print(f"{task.source}" + (f", divided by {task.scale:.6g}" if task.scale != 1 else ""))
    print_sizes(em, options.depth)
    began = time.perf_counter()
    estimates = em.run(task.X, init, options.depth, mode=options.mode)
    seconds = time.perf_counter() - began
    report = em_report(em, task.X, init, estimates, task.truth)
    floor = None
    if task.truth is not None:
        floor = statistical_floor(task.X, task.truth)
    print_iterations(report, floor)
    mode = "dense" if estimates.used == ("dense",) else "structured"
    last = report[-1]
    holds = all(row.em_gap <= row.bound for row in report) if math.isfinite(last.bound) else None
    means = estimates[-1].means * task.scale
    print("\nestimate" + " (in the data's units)" * (task.scale != 1))
    for weight, mean in zip(estimates[-1].weights, means, strict=True):
        print(f"  weight {weight:.4f}  mean " + " ".join(f"{x:9.4f}" for x in mean))
    print(f"forward pass ({mode}): {seconds:.2f} s for {options.depth} iterations")
    print(
        f"|TF - EM| = {last.em_gap:.2e} after {last.iteration} iterations, bound {last.bound:.2e}: "
        + {True: "holds", False: "VIOLATED", None: "a bound was left, nothing is claimed"}[holds]
    )
    results = {
        "task": {
            "source": "synthetic" if options.data is None else str(options.data),
            "n": len(task.X), "d": task.X.shape[1], "K": options.K,
            "scale": task.scale, "start": options.start, "floor": floor,
        },
        "sizes": em.sizes(options.depth)._asdict(),
        "iterations": [row._asdict() for row in report],
        "estimate": {"weights": estimates[-1].weights, "means": means},
        "bound": last.bound,
        "holds": holds,
        "mode": mode,
        "seed": options.common.seed,
        "version": package_version(),
    }  # fmt: skip
    write_outputs((options.plot, picture(task, init, estimates, report, floor)), options.common.json, results)
    print(f"picture: {options.plot}" + (f", results: {options.common.json}" if options.common.json else ""))


def picture(
    task: Problem,
    init: GaussianMixture,
    estimates: Run[Estimate],
    report: list[Iteration],
    floor: float | None,
) -> Any:
    """The figure of a run."""
    paths = np.stack([init.means, *(estimate.means for estimate in estimates)])
    truth = None if task.truth is None else task.truth.means
    return draw(task.X, paths, truth, report, floor)


if __name__ == "__main__":
    main(PROGRAM, Options, run, None)
