"""Errors of a trained TGMM on tasks it has not seen, beside the oracle that knows the labels.

    python -m trainable.evaluate tgmm-d8 --em

prints the mean l2-error for each K of the network's own estimate (raw), of the likeliest of four passes over
images of the data after EM layers (refined; with --copies 1 of a single pass, network and layers then being
one transformer), of the averages over the true labels (oracle) and, with --em, of EM from the best of ten
k-means++ starts.
The tasks come from `gmm.TaskDistribution`, not from the sampler of the training.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import tyro
from tqdm import tqdm

from constructions.cli import Common, check_outputs, flag, main, write_outputs
from constructions.files import package_version
from gmm import TaskDistribution
from gmm.tasks import Task
from trainable.estimator import network_of
from trainable.fits import Errors, Passes, errors, fit_task, summarise
from trainable.network import Network

PROGRAM = "trainable.evaluate"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:  # noqa: D101
    __doc__ = __doc__

    model: tyro.conf.Positional[str]
    """Name of a network of the package, or a file's path."""
    tasks: int = 1280
    """Tasks for each K."""
    n: int = 128
    """Samples of each task."""
    d: Annotated[int | None, flag("INT", "the network's")] = None
    """Dimension of the tasks."""
    copies: int = 4
    """Images of the data under signed permutations of the coordinates; the likeliest estimate is refined."""
    refine: int = 5
    """EM iterations of the refined estimate."""
    em: bool = False
    """Also EM from the best of ten k-means++ starts (takes minutes)."""
    common: tyro.conf.OmitArgPrefixes[Common] = dataclasses.field(default_factory=lambda: Common(seed=1))


class Summary(NamedTuple):
    """Mean of an error over tasks, half the width of its 95% interval, and the share of tasks in which some
    mean is off by more than one noise level in each coordinate (in the root mean square)."""

    mean: float
    half_width: float
    missed: float


FITS = {"raw": "raw", "refined": "refined", "oracle": "oracle", "em": "em_best"}
"""Columns of the table, and their names in `trainable.fits`."""


def evaluate(network: Network, options: Options) -> dict[str, dict[str, Summary]]:
    """A summary for each K and estimate.  The tasks depend on the seed, K and their number alone."""
    d = options.d or network.config.dim
    names = [name for name in FITS if name != "em" or options.em]
    table = {}
    for K in network.config.n_components:
        found: dict[str, list[Errors]] = {name: [] for name in names}
        for t in tqdm(range(options.tasks), desc=f"K = {K}", unit="task", disable=None):
            rng = np.random.default_rng([options.common.seed, K, t])
            truth = TaskDistribution(d).sample_mixture(K, rng)
            task = Task(*truth.sample(options.n, rng), truth)
            for name in names:
                fit = fit_task(FITS[name], task, rng, network, Passes(options.copies, options.refine))
                assert fit is not None
                found[name].append(errors(fit, task))
        table[str(K)] = {name: _summary(every) for name, every in found.items()}
    return table


def _summary(every: list[Errors]) -> Summary:
    return Summary(*summarise([e.l2 for e in every]), float(np.mean([e.missed for e in every])))


def run(options: Options) -> None:
    """The command."""
    check_outputs(None, options.common.json)
    for name, least in (("tasks", 2), ("n", 5), ("copies", 1), ("refine", 0)):
        if getattr(options, name) < least:
            raise ValueError(f"--{name} must be at least {least}, got {getattr(options, name)}")
    torch.set_num_threads(1)
    network = network_of(options.model)
    if options.d is not None and not 1 <= options.d <= network.config.dim:
        raise ValueError(f"--d must be between 1 and the network's {network.config.dim}, got {options.d}")
    table = evaluate(network, options)
    print(f"{options.model}: mean l2-error over {options.tasks} tasks of {options.n} samples, 95% intervals")
    for K, row in table.items():
        parts = [f"{name} {s.mean:.4f} +- {s.half_width:.4f}" for name, s in row.items()]
        ratios = [f"{name}/oracle {row[name].mean / row['oracle'].mean:.2f}" for name in ("raw", "refined")]
        print(f"K = {K}: " + ", ".join(parts) + "; " + ", ".join(ratios))
    if options.common.json is not None:
        results: dict[str, Any] = {
            "model": Path(options.model).name,
            "tasks": options.tasks,
            "n": options.n,
            "copies": options.copies,
            "refine": options.refine,
            "errors": {K: {name: s._asdict() for name, s in row.items()} for K, row in table.items()},
            "seed": options.common.seed,
            "version": package_version(),
        }
        write_outputs(None, options.common.json, results)


if __name__ == "__main__":
    main(PROGRAM, Options, run, None)
