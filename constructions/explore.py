"""Write one HTML file in which a construction can be walked through, layer by layer.

The page shows the residual stream with its named subspaces, the attention pattern and the weights of each
layer, the data with the current estimate, and the error.  It needs no network.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from constructions import em_demo, spectral_demo, tensor_demo
from constructions.cli import Common, check_outputs, flag, main, write_outputs
from constructions.explore_page import Subject, page
from constructions.files import check_writable, package_version, write_files
from constructions.report import SpectralReference, em_report
from constructions.tensor_power import TensorPowerTransformer
from gmm import power_step

PROGRAM = "constructions.explore"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:  # noqa: D101
    __doc__ = __doc__

    construction: Literal["em", "tensor", "spectral"] = "em"
    """EM (Theorem C.1), tensor power iteration (Theorem D.8), or the whole spectral algorithm."""
    data: Annotated[Path | None, flag("FILE", "synthetic data")] = None
    """CSV file with your samples, one per row, for em and spectral."""
    K: Annotated[int | None, flag("INT", "3, for spectral 2")] = None
    """Number of components."""
    d: Annotated[int | None, flag("INT", "2, for tensor and spectral 3")] = None
    """Dimension."""
    n: int = 300
    """Number of synthetic samples."""
    depth: Annotated[int | None, flag("INT", "12 EM iterations, 6 power steps")] = None
    """EM iterations or power steps."""
    scale: Annotated[str, flag("FLOAT|auto")] = "1"
    """Noise level that the data are divided by, for em; auto estimates it."""
    out: Annotated[Path, flag("FILE.html")] = Path("explorer.html")
    """The page."""
    common: tyro.conf.OmitArgPrefixes[Common] = dataclasses.field(default_factory=Common)


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def em_subject(options: Options, rng: np.random.Generator) -> Subject:
    """EM on samples; the error is the distance to the truth, or without one to EM."""
    asked = em_demo.Options(data=options.data, K=_or(options.K, 3), d=_or(options.d, 2), n=options.n,
                            depth=_or(options.depth, 12), scale=options.scale)  # fmt: skip
    task = em_demo.problem(asked, rng)
    init = em_demo.start(asked, task, rng)
    em = em_demo.network(dataclasses.replace(asked, d0=task.X.shape[1], K0=asked.K), task.X, init)
    run = em.run(task.X, init, asked.depth)
    report = em_report(em, task.X, init, run, task.truth)
    known = task.truth is not None
    return Subject(
        title=f"EM by a transformer: {task.source}",
        construction=em,
        layers=em.layers(asked.depth),
        H=em.encode(task.X, init),
        points=task.X,
        estimates={0: init.means, **{2 * l: found.means for l, found in enumerate(run, start=1)}},
        errors={2 * row.iteration: row.error if known else row.em_gap for row in report},
        measure="distance D to the truth" if known else "distance from EM",
    )


def tensor_subject(options: Options, rng: np.random.Generator) -> Subject:
    """Power iteration on a planted tensor; the error is the difference from T(I, v, v)."""
    if options.data is not None:
        raise ValueError("--data is for em and spectral; a tensor has no samples")
    asked = tensor_demo.Options(K=_or(options.K, 3), d=_or(options.d, 3), steps=_or(options.depth, 6))
    task = tensor_demo.problem(asked, rng)
    assert task.components is not None
    net = TensorPowerTransformer(len(task.T))
    iterates = [task.v, *net.run(task.T, task.v, asked.steps)]
    differences, want = {}, task.v
    for step, v in enumerate(iterates[1:], start=1):
        want = power_step(task.T, want)
        differences[2 * step] = float(np.linalg.norm(v - want) / np.linalg.norm(want))
    return Subject(
        title=f"Tensor power iteration by a transformer: {task.source}",
        construction=net,
        layers=net.layers(asked.steps),
        H=net.encode(task.T, task.v),
        points=task.components,
        estimates={2 * step: v[None] / np.linalg.norm(v) for step, v in enumerate(iterates)},
        errors=differences,
        measure="relative difference from T(I, v, v)",
        drawn="planted components; the iterate divided by its norm",
    )


def spectral_subject(options: Options, rng: np.random.Generator) -> Subject:
    """The spectral algorithm; the error is the difference from Algorithms A.2 and A.3."""
    asked = spectral_demo.Options(data=options.data, K=_or(options.K, 2), d=_or(options.d, 3), n=options.n,
                                  n_power=_or(options.depth, 12))  # fmt: skip
    task = spectral_demo.problem(asked, rng)
    net = spectral_demo.network(asked, task.X, rng)
    reference = SpectralReference(net, task.X, asked.K)
    errors = {}
    for _, state in net.states(task.X, asked.K):
        if state.stage == "mlp":
            marks = reference.marks(state.layer, state.tokens)
            if marks:
                errors[state.layer] = max(mark.error for mark in marks)
    found = net.readout(state.tokens, task.X.shape[1], asked.K)
    return Subject(
        title=f"The spectral algorithm by a transformer: {task.source}",
        construction=net,
        layers=net.layers(),
        H=net.encode(task.X),
        points=task.X,
        estimates={len(net.steps): found.means},
        errors=errors,
        measure="difference from Algorithms A.2 and A.3",
        stages=tuple(step.stage for step in net.steps),
    )


SUBJECTS = {"em": em_subject, "tensor": tensor_subject, "spectral": spectral_subject}


def run(options: Options) -> None:
    """The command."""
    check_outputs(None, options.common.json, reads=(options.data,))
    check_writable(options.out)
    subject = SUBJECTS[options.construction](options, np.random.default_rng(options.common.seed))
    html, shown = page(subject)
    write_files({options.out: html.encode()})
    if options.common.json is not None:
        write_outputs(None, options.common.json, shown | {"seed": options.common.seed,
                                                          "version": package_version()})  # fmt: skip
    print(subject.title)
    print(
        f"{shown['layers']} layers, {shown['tokens_shown']} of {shown['tokens']} tokens, "
        f"{shown['heads_shown']} of {shown['heads']} heads"
    )
    print(f"page: {options.out} ({len(html) / 1e6:.1f} MB); open it in any browser")


if __name__ == "__main__":
    main(PROGRAM, Options, run, None)
