"""Run the whole spectral algorithm with a transformer of plain matrices, layer by layer, and hold what is in
its residual stream against Algorithms A.2 and A.3.

With no arguments it draws samples from a mixture; with --data FILE.csv it takes yours, in units of the
noise.  Bounds that are not given are derived from the data and printed.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import tyro
from tqdm import tqdm

from constructions.cli import Common, check_outputs, flag, main, read_csv, write_outputs
from constructions.files import load, package_version
from constructions.report import Mark, SpectralReference
from constructions.spectral import SpectralTransformer
from constructions.spectral_plot import draw
from constructions.weights import Array
from gmm import GaussianMixture, TaskDistribution, l2_error, match_components

PROGRAM = "constructions.spectral_demo"

_BOUNDS = ("tau", "gap", "sigma_min", "sigma_max", "c_max", "pi_min")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:  # noqa: D101
    __doc__ = __doc__

    data: Annotated[Path | None, flag("FILE.csv", "samples of a random mixture")] = None
    """Samples, one a row, in units of the noise."""
    K: int = 3
    """Number of components, at most the dimension."""
    d: int = 4
    """Dimension of the samples drawn."""
    n: int = 2000
    """Number of samples drawn."""
    exact: bool = False
    """Instead of samples take points whose first three moments are exactly those of a mixture."""
    d0: Annotated[int | None, flag("INT", "the data's d")] = None
    """Largest dimension the network holds."""
    K0: Annotated[int | None, flag("INT", "K")] = None
    """Largest number of components the network holds."""
    tau: Annotated[float | None, flag("FLOAT", "from the data")] = None
    """Threshold that tells the K large eigenvalues of the second moment from the others."""
    gap: Annotated[float | None, flag("FLOAT", "from the data")] = None
    """No eigenvalue is nearer to tau."""
    sigma_min: Annotated[float | None, flag("FLOAT", "from the data")] = None
    """Bound below on the K large eigenvalues."""
    sigma_max: Annotated[float | None, flag("FLOAT", "from the data")] = None
    """Bound above on the eigenvalues."""
    c_max: Annotated[float | None, flag("FLOAT", "from the data")] = None
    """Bound on |<v, W X_i>|."""
    pi_min: Annotated[float | None, flag("FLOAT", "1/(8 K), rounded down to a power of 2")] = None
    """Bound below on the weights."""
    n_power: int = 12
    """Power steps for each start."""
    n_restarts: int = 1
    """Starts for each component."""
    n_polish: int = 0
    """Power steps after the best start was chosen."""
    teeth: int = 0
    """Square by this many teeth instead of by selection: no code, no N, but 4^-teeth of error."""
    eps: float = 1e-14
    """What the Newton-Schulz iterations leave."""
    dtype: str = "float64"
    """float64 or float32."""
    mode: Literal["auto", "dense", "structured"] = "auto"
    """How the forward pass is evaluated: the definitions as they stand, or in linear time."""
    weights: Annotated[Path | None, flag("FILE", "a network built from the bounds")] = None
    """Use the network in this file (constructions.save)."""
    plot: Path = Path("spectral_demo.png")
    """Picture of the run."""
    common: tyro.conf.OmitArgPrefixes[Common] = dataclasses.field(default_factory=Common)


class Problem(NamedTuple):
    """Samples, the mixture that they came from, if that is known, and a description."""

    X: Array
    truth: GaussianMixture | None
    source: str


def problem(options: Options, rng: np.random.Generator) -> Problem:
    """The data to run on."""
    for name in ("K", "d", "n"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(options, name)}")
    if options.data is not None:
        if options.exact:
            raise ValueError("--exact cannot be combined with --data")
        X = read_csv(options.data)
        return Problem(X, None, f"{options.data}: {X.shape[0]} samples, d = {X.shape[1]}, K = {options.K}")
    if options.d < options.K:
        raise ValueError(f"--d must be at least --K = {options.K}, got {options.d}: A1 wants as many means")
    tasks = TaskDistribution(options.d, mean_range=3.0, max_cosine=0.5 if options.d > 1 else 1.0)
    truth = tasks.sample_mixture(options.K, rng)
    if not options.exact:
        X, _ = truth.sample(options.n, rng)
        return Problem(X, truth, f"{options.n} samples of a mixture, d = {options.d}, K = {options.K}")
    X, truth = exact_points(truth, rng)
    return Problem(X, truth, f"{len(X)} points with a mixture's moments, d = {options.d}, K = {options.K}")


def exact_points(mixture: GaussianMixture, rng: np.random.Generator) -> tuple[Array, GaussianMixture]:
    """Points mu_k +- sqrt(d) e_j, some copies for each k: their first three moments are exactly those of the
    mixture of N(mu_k, I) weighted by the copies, which is returned too."""
    d, copies = mixture.dim, rng.integers(2, 6, mixture.n_components)
    offsets = math.sqrt(d) * np.concatenate([np.eye(d), -np.eye(d)])
    points = (mixture.means[:, None, :] + offsets).repeat(copies, axis=0).reshape(-1, d)
    return points, GaussianMixture(copies / copies.sum(), mixture.means)


def network(options: Options, X: Array, rng: np.random.Generator) -> SpectralTransformer:
    """The construction: from a file, or built from bounds that fit the data."""
    if options.weights is not None:
        for name in ("d0", "K0", *_BOUNDS):
            if getattr(options, name) is not None:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} cannot be combined with --weights, which fixes it")
        loaded = load(options.weights)
        if not isinstance(loaded, SpectralTransformer):
            raise ValueError(f"{options.weights} holds a {type(loaded).__name__}, not a SpectralTransformer")
        return loaded
    given = {name: getattr(options, name) for name in _BOUNDS if getattr(options, name) is not None}
    if options.teeth:
        given |= {"square": "teeth", "n_teeth": options.teeth}
    return SpectralTransformer(
        options.d0 or X.shape[1],
        options.K0 or options.K,
        **(fitting_bounds(X, options.K, given.get("pi_min")) | given),
        n_power=options.n_power,
        n_restarts=options.n_restarts,
        n_polish=options.n_polish,
        n_max=2 ** math.ceil(math.log2(max(2, len(X)))),
        eps=options.eps,
        dtype=options.dtype,
        rng=rng,
    )


def fitting_bounds(X: Array, K: int, pi_min: float | None = None) -> dict[str, float]:
    """Bounds that samples X (n, d) satisfy, with room to spare."""
    if X.shape[1] < K:
        raise ValueError(f"{K} means in dimension {X.shape[1]} are not independent, as A1 wants")
    values, U = np.linalg.eigh(X.T @ X / len(X) - np.eye(X.shape[1]))
    values, U = values[::-1], U[:, ::-1]
    least, edge = float(values[K - 1]), max([0.0, *values[K : K + 1]])
    if least <= 1.2 * edge or least <= 0:
        shown = ", ".join(f"{x:.4g}" for x in values[: K + 2])
        raise ValueError(
            f"A1 cannot be met: the largest eigenvalues of the second moment are {shown}, and no tau "
            f"separates {K} of them from the rest; are the means independent, and the noise of unit variance?"
        )
    pi_min = 2.0 ** -math.ceil(math.log2(8 * K)) if pi_min is None else pi_min
    reach = np.linalg.norm(X @ U[:, :K] / np.sqrt(values[:K]), axis=1).max()
    return {
        "tau": (least + edge) / 2,
        "gap": 0.8 * (least - edge) / 2,
        "sigma_min": 0.9 * least,
        "sigma_max": 2.0 ** math.ceil(math.log2(max(1.25 * values[0], 2.0))),
        # |v| stays below 1.125 y_max, y_max = 1.5 pi_min^(-1/2)
        "c_max": 2.0 ** math.ceil(math.log2(1.7 * pi_min**-0.5 * reach)),
        "pi_min": pi_min,
    }


def run(options: Options) -> None:
    """The command."""
    check_outputs(options.plot, options.common.json, reads=(options.data, options.weights))
    rng = np.random.default_rng(options.common.seed)
    task = problem(options, rng)
    net = network(options, task.X, rng)
    print(task.source)
    print_sizes(net)
    reference = SpectralReference(net, task.X, options.K)
    marks: list[Mark] = []
    began = time.perf_counter()
    with tqdm(total=len(net.steps), desc="layers", disable=len(task.X) < 10_000) as progress:
        for _, state in net.states(task.X, options.K, mode=options.mode):
            if state.stage == "mlp":
                marks += reference.marks(state.layer, state.tokens)
                progress.update()
    found = net.readout(state.tokens, task.X.shape[1], options.K)
    seconds = time.perf_counter() - began
    print_marks(net, marks)
    gap = max(mark.error for mark in marks if mark.layer == len(net.steps))
    order, error = np.arange(options.K), None
    if task.truth is not None:
        mixture = GaussianMixture(found.weights, found.means)
        order, error = match_components(mixture, task.truth), l2_error(mixture, task.truth)
    print("\nestimate")
    for weight, mean in zip(found.weights[order], found.means[order], strict=True):
        print(f"  weight {weight:.4f}  mean " + " ".join(f"{x:9.4f}" for x in mean))
    print(f"forward pass of {len(net.steps)} layers on {len(task.X)} tokens: {seconds:.2f} s")
    print(f"largest difference from Algorithms A.2 and A.3: {gap:.2e} of the largest entry")
    if error is not None:
        print(f"l2 error to the true mixture: {error:.3g}")
    results = {
        "task": {"source": "synthetic" if options.data is None else str(options.data),
                 "exact": options.exact, "n": len(task.X), "d": task.X.shape[1], "K": options.K},
        "bounds": net.limits.config,
        "sizes": net.sizes()._asdict(),
        "schedule": net.schedule,
        "layers": [mark._asdict() for mark in marks],
        "estimate": {"weights": found.weights[order], "means": found.means[order]},
        "gap": gap,
        "error": error,
        "mode": options.mode,
        "seed": options.common.seed,
        "version": package_version(),
    }  # fmt: skip
    figure = draw(net.steps, marks, task.X, found.means, None if task.truth is None else task.truth.means)
    write_outputs((options.plot, figure), options.common.json, results)
    print(f"picture: {options.plot}" + (f", results: {options.common.json}" if options.common.json else ""))


def print_sizes(net: SpectralTransformer) -> None:
    """Sizes, schedule and bounds."""
    sizes, b = net.sizes(), net.limits
    print(
        f"one ReLU transformer: {sizes.layers} layers, width D = {sizes.width}, heads M <= {sizes.heads}, "
        f"hidden width D' <= {sizes.hidden_width}, |||Theta||| = {sizes.norm:.3g}"
    )
    print("layers by stage: " + ", ".join(f"{stage} {n}" for stage, n in net.schedule.items()))
    print(
        f"bounds: d <= {net.d0}, K <= {net.K0}, tau = {b.tau:.4g}, gap = {b.gap:.4g}, sigma in "
        f"[{b.sigma_min:.4g}, {b.sigma_max:.4g}], c_max = {b.c_max:g}, pi >= {b.pi_min:g}"
    )


def print_marks(net: SpectralTransformer, marks: list[Mark]) -> None:
    """A line for each stage and subspace, with the largest error in it."""
    print(f"\n{'layers':>9}  {'stage':<22} {'what the stream holds':<34} {'error':>8}")
    for _, group in itertools.groupby(enumerate(net.steps, start=1), key=lambda pair: pair[1][:2]):
        numbers = [number for number, _ in group]
        stage, k, _ = net.steps[numbers[0] - 1]
        label = stage if k is None else f"{stage}, component {k + 1}"
        layers = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"
        here = [mark for mark in marks if numbers[0] <= mark.layer <= numbers[-1]]
        ends = stage in ("sign", "root", "normalise")  # there the way is not that of the algorithms
        shown = {mark.what: mark.error for mark in here if not ends or mark.layer == numbers[-1]}
        for what in shown:
            if not ends:
                shown[what] = max(mark.error for mark in here if mark.what == what)
            print(f"{layers:>9}  {label:<22} {what:<34} {shown[what]:8.1e}")


if __name__ == "__main__":
    main(PROGRAM, Options, run, None)
