"""Run cubic tensor power iteration with a transformer of plain matrices and hold it against T(I, v, v).

With no arguments it plants orthogonal components in a tensor; with --tensor FILE.npy it takes yours,
(d, d, d), symmetric or not.
"""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import tyro
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from constructions.cli import Common, check_outputs, flag, main, write_outputs
from constructions.exact import rational
from constructions.files import package_version
from constructions.plot_parts import BLUE, GREEN, ORANGE
from constructions.tensor_power import TensorPowerTransformer
from constructions.weights import Array
from gmm import power_step

PROGRAM = "constructions.tensor_demo"

_EXACT_STEPS = 4
"""Steps that are also run over rationals, whose digits double with each."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:  # noqa: D101
    __doc__ = __doc__

    tensor: Annotated[Path | None, flag("FILE.npy", "a planted tensor")] = None
    """Tensor of shape (d, d, d)."""
    start: Annotated[Path | None, flag("FILE.npy", "a random unit vector")] = None
    """Start v of shape (d,)."""
    d: int = 4
    """Dimension of the planted tensor."""
    K: int = 3
    """Number of planted components, at most d; component k has the eigenvalue pi_k^(-1/2)."""
    d0: Annotated[int | None, flag("INT", "the tensor's d")] = None
    """Largest dimension the network holds."""
    steps: int = 6
    """Power steps."""
    variant: Literal[
        "theorem", "attention_only", "one_layer", "shifted_heads", "three_heads", "normalised"
    ] = "theorem"
    """Which construction: Theorem D.8, Remark D.1, or one with fewer layers or heads, or normalised."""
    bound: float = 1e3
    """What one_layer, shifted_heads and three_heads hold."""
    pi_min: float = 0.05
    """Least weight of a component that normalised holds."""
    delta: float = 1e-3
    """Accuracy of the norm with normalised."""
    plot: Path = Path("tensor_demo.png")
    """Picture of the run."""
    common: tyro.conf.OmitArgPrefixes[Common] = dataclasses.field(default_factory=Common)


class Problem(NamedTuple):
    """A tensor, a start, and the planted components (K, d), if any."""

    T: Array
    v: Array
    components: Array | None
    source: str


class Step(NamedTuple):
    """One line: relative difference from the reference and the rounding that explains it; angle to
    the nearest planted component, degrees; norm."""

    step: int
    difference: float
    rounding: float
    angle: float
    norm: float


def problem(options: Options, rng: np.random.Generator) -> Problem:
    """What to iterate on."""
    if options.steps < 1:
        raise ValueError(f"--steps must be at least 1, got {options.steps}")
    components = None
    if options.tensor is not None:
        T, source = load_array(options.tensor, 3), str(options.tensor)
        if len(set(T.shape)) != 1:
            raise ValueError(f"{options.tensor} must be cubic, (d, d, d), got {T.shape}")
    else:
        d, K = options.d, options.K
        if not 1 <= K <= d:
            raise ValueError(f"--K must be between 1 and --d = {d}, got {K}")
        components = np.linalg.qr(rng.standard_normal((d, K)))[0].T
        weights = rng.uniform(0.2, 0.8, K)
        weights /= weights.sum()
        T = np.einsum("k,ki,kj,km->ijm", weights**-0.5, components, components, components)
        source = f"{K} orthonormal components planted in dimension {d}"
    v = rng.standard_normal(len(T))
    if options.start is not None:
        v = load_array(options.start, 1)
    elif components is not None:
        v = components.T @ (components @ v)  # within their span, where normalisation is bounded
    return Problem(T, v if options.start else v / np.linalg.norm(v), components, source)


def load_array(path: Path, ndim: int) -> Array:
    """A float64 array from a .npy file; ValueError if it is none, or holds objects."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # a malformed header raises errors of the tokenizer, among others
        raise ValueError(f"{path} is not a .npy file of numbers: {error}") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise ValueError(f"{path} is not a .npy file of numbers: {getattr(array, 'dtype', 'an archive')}")
    if array.ndim != ndim:
        raise ValueError(f"{path} must have {ndim} axes, got shape {array.shape}")
    return array.astype(np.float64)


def build(options: Options, d: int) -> TensorPowerTransformer:
    """The construction that the options ask for."""
    limits: dict[str, Any] = {}
    if options.variant == "normalised":
        limits = {"pi_min": options.pi_min, "delta": options.delta}
    elif options.variant not in ("theorem", "attention_only"):
        limits = {"bound": options.bound}
    d0 = d if options.d0 is None else options.d0
    return TensorPowerTransformer(d0, variant=options.variant, **limits)


def report(task: Problem, iterates: list[Array], normalised: bool) -> list[Step]:
    """Each step against the reference.

    The difference is explained by rounding if it is at most 16 d 2^step u kappa, kappa the product of
    |T| |v|^2 / |T(I, v, v)| over the steps before.
    """
    size, kappa, want = np.linalg.norm(task.T.reshape(len(task.v), -1), 2), 1.0, task.v
    lines = []
    for step, got in enumerate(iterates, start=1):
        after = power_step(task.T, want)
        length = np.linalg.norm(after)
        kappa *= float(size * (want @ want) / length) if length > 0 else np.inf
        want = after / length if normalised else after
        seen = got / np.linalg.norm(got) if normalised else got
        angle = np.nan
        if task.components is not None:
            nearest = task.components[np.abs(task.components @ got).argmax()]
            along = nearest @ got
            angle = float(np.degrees(np.arctan2(np.linalg.norm(got - along * nearest), abs(along))))
        difference = float(np.linalg.norm(seen - want) / np.linalg.norm(want))
        rounding = 16 * len(want) * 2.0**step * 2.0**-53 * kappa
        lines.append(Step(step, difference, rounding, angle, float(np.linalg.norm(got))))
    return lines


def equal_in_rationals(task: Problem, network: TensorPowerTransformer, steps: int) -> bool:
    """Whether the matrices give T(I, v, v) exactly, over fractions, after each of the steps."""
    T = [[[Fraction(float(x)) for x in row] for row in block] for block in task.T]
    want = [Fraction(float(x)) for x in task.v]
    d = len(want)
    for step in range(1, steps + 1):
        want = [
            sum((T[i][j][m] * want[j] * want[m] for j in range(d) for m in range(d)), Fraction(0))
            for i in range(d)
        ]
        tokens = rational(network.layers(step), network.encode(task.T, task.v))
        name, scale = ("u", d) if "u" in network.layout.names else ("v", 1)
        places = list(network.layout.indices(name))[:d]
        if any([token[c] for c in places] != [scale * x for x in want] for token in tokens):
            return False
    return True


def run(options: Options) -> None:
    """The command."""
    check_outputs(options.plot, options.common.json, reads=(options.tensor, options.start))
    task = problem(options, np.random.default_rng(options.common.seed))
    transformer = build(options, len(task.v))
    iterates = transformer.run(task.T, task.v, options.steps)
    normalised = options.variant == "normalised"
    lines = report(task, iterates, normalised)
    sizes = transformer.sizes(options.steps)
    print(task.source)
    print(
        f"{options.variant}: {sizes.layers} layers, width D = {sizes.width}, heads M = {sizes.heads}, "
        f"hidden width D' = {sizes.hidden_width}, |||Theta||| = {sizes.norm:.4g}"
    )
    print(f"\n{'step':>4} {'relative difference':>20} {'rounding':>10} {'angle (deg)':>12} {'norm':>10}")
    for line in lines:
        angle = "" if np.isnan(line.angle) else f"{line.angle:.3e}"
        print(f"{line.step:4d} {line.difference:20.2e} {line.rounding:10.1e} {angle:>12} {line.norm:10.4g}")
    exact = None
    if not normalised:
        steps = min(options.steps, _EXACT_STEPS)
        exact = equal_in_rationals(task, transformer, steps)
        print(f"\nover rationals, {steps} steps: " + ("equal" if exact else "NOT EQUAL"))
    within = all(line.difference <= line.rounding for line in lines)
    print("differences are " + ("within rounding" if within else "BEYOND ROUNDING"))
    results = {
        "task": {"source": task.source, "d": len(task.v), "variant": options.variant},
        "sizes": sizes._asdict(),
        "steps": [line._asdict() for line in lines],
        "iterate": iterates[-1],
        "exact": exact,
        "holds": within,
        "seed": options.common.seed,
        "version": package_version(),
    }
    write_outputs((options.plot, picture(lines)), options.common.json, results)
    print(f"picture: {options.plot}")


def picture(lines: list[Step]) -> Any:
    """Angle to the nearest component, and difference from the reference, over steps."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = [line.step for line in lines]
    if not np.isnan(lines[0].angle):
        left.semilogy(steps, [line.angle for line in lines], "o-", color=BLUE, label="nearest component")
        left.set(ylabel="angle to the nearest component (degrees)")
        left.set_title("Power iteration by a transformer")
    else:
        left.semilogy(steps, [line.norm for line in lines], "o-", color=BLUE, label="|v|")
        left.set(ylabel="norm of the iterate")
        left.set_title("Power iteration by a transformer")
    right.semilogy(steps, [max(line.difference, 2.0**-60) for line in lines], "s-", color=GREEN,
                   label="transformer to T(I, v, v)")  # fmt: skip
    right.semilogy(steps, [line.rounding for line in lines], ":", color=ORANGE, label="explained by rounding")
    right.set(ylabel="relative difference")
    right.set_title("Difference from the reference, float64")
    for axes in (left, right):
        axes.set_xlabel("power step")
        axes.grid(True, alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize=8)
    return figure


if __name__ == "__main__":
    main(PROGRAM, Options, run, None)
