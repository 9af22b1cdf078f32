"""Errors of a trained TGMM on tasks it has not seen, beside the oracle that knows the labels.

    python -m trainable.evaluate tgmm-d8 --em

prints the mean l2-error for each K of the network's own estimate (raw), of the same after EM layers
(refined), of the averages over the true labels (oracle) and, with --em, of EM from the best of ten k-means++
starts.
The tasks come from `gmm.TaskDistribution`, not from the sampler of the training.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import tyro
from tqdm import tqdm

from constructions.cli import Common, check_outputs, flag, main, write_outputs
from constructions.files import package_version
from gmm import GaussianMixture, TaskDistribution, fit_em, l2_error, match_components
from trainable.estimator import network_of, raw_estimate
from trainable.network import Network
from trainable.refine import refined

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


def one_task(
    network: Network, K: int, options: Options, d: int, rng: np.random.Generator
) -> dict[str, tuple[float, bool]]:
    """(l2-error, whether a component is missed) of each estimate on one task."""
    truth = TaskDistribution(d).sample_mixture(K, rng)
    X, labels = truth.sample(options.n, rng)
    counts = np.bincount(labels, minlength=K)
    means = [X[labels == k].mean(axis=0) if counts[k] else np.zeros(d) for k in range(K)]
    raw = raw_estimate(network, X, K, rng)
    found = {
        "raw": raw,
        "refined": refined(X, raw, options.refine),
        "oracle": GaussianMixture(counts / options.n, np.array(means)),
    }
    if options.em:
        found["em"] = fit_em(X, K, n_init=10, rng=rng)
    return {name: (l2_error(mixture, truth), _missed(mixture, truth)) for name, mixture in found.items()}


def _missed(mixture: GaussianMixture, truth: GaussianMixture) -> bool:
    difference = mixture.means[match_components(mixture, truth)] - truth.means
    return bool((difference**2).mean(axis=1).max() > 1)


def evaluate(network: Network, options: Options) -> dict[str, dict[str, Summary]]:
    """A summary for each K and estimate.  The tasks depend on the seed, K and their number alone."""
    d = options.d or network.config.dim
    table = {}
    for K in network.config.n_components:
        rows = [
            one_task(network, K, options, d, np.random.default_rng([options.common.seed, K, t]))
            for t in tqdm(range(options.tasks), desc=f"K = {K}", unit="task", disable=None)
        ]
        table[str(K)] = {name: _summary([row[name] for row in rows]) for name in rows[0]}
    return table


def _summary(values: list[tuple[float, bool]]) -> Summary:
    errors = np.array([error for error, _ in values])
    half = 1.96 * errors.std(ddof=1) / math.sqrt(len(errors))
    return Summary(float(errors.mean()), float(half), float(np.mean([missed for _, missed in values])))


def run(options: Options) -> None:
    """The command."""
    check_outputs(None, options.common.json)
    for name, least in (("tasks", 2), ("n", 5), ("refine", 0)):
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
            "refine": options.refine,
            "errors": {K: {name: s._asdict() for name, s in row.items()} for K, row in table.items()},
            "seed": options.common.seed,
            "version": package_version(),
        }
        write_outputs(None, options.common.json, results)


if __name__ == "__main__":
    main(PROGRAM, Options, run, None)
