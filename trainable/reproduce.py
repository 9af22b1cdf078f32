"""An experiment of the paper: fit many tasks in every way, and write table and picture.

    python -m trainable.reproduce fig2 --quick

writes fig2.json, fig2.csv, fig2.md and fig2.png into the folder of --out.  The paper's figures are means of
1280 tasks for each K; --quick takes few enough for minutes.  Every fit is kept in tasks.jsonl there as it
comes: the same command goes on where it was interrupted, and figures share what they have in common.
Networks come from the package or, where there are such, from runs/NAME/model.safetensors (--models runs); a
row whose network is not trained is listed as such, with the command that trains it, and not drawn.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import tyro
from tqdm import tqdm

from constructions.cli import Common, check_outputs, flag, main, write_outputs
from constructions.files import package_version, write_files
from gmm.tasks import Task
from trainable.checkpoint import load_network
from trainable.config import preset
from trainable.estimator import model_path, pretrained
from trainable.experiments import EXPERIMENTS, Curve, Experiment, Setting, paper_value, training_of
from trainable.fits import LABELS, NO_FIT, Passes, errors, fit_task, summarise
from trainable.kept import Kept, Row
from trainable.reproduce_output import as_csv, as_markdown, picture
from trainable.sweep import Sweep

PROGRAM = "trainable.reproduce"

QUICK = {"fig2": 48, "fig4": 16, "fig10": 48, "fig12": 16}
"""Tasks for each K in a quick run; 32 for the other figures."""

CHUNK = 8
"""Tasks that a process is given at a time."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:  # noqa: D101
    __doc__ = __doc__

    figure: tyro.conf.Positional[str]
    """fig2 to fig6 or fig10 to fig17."""
    quick: bool = False
    """Few tasks: minutes on two cores."""
    tasks: Annotated[int | None, flag("INT", "1280, fewer with --quick")] = None
    """Tasks for each K."""
    out: Path = Path("reproduced")
    """Folder of the results; it is made if there is none."""
    models: Path = Path("runs")
    """Folder with trainings, for networks that do not come with the package."""
    copies: int = 4
    """Images of the data whose likeliest estimate is refined."""
    refine: int = 5
    """EM iterations of the construction that follow it."""
    sweep: tyro.conf.OmitArgPrefixes[Sweep] = dataclasses.field(default_factory=lambda: Sweep(jobs=2))
    common: tyro.conf.OmitArgPrefixes[Common] = dataclasses.field(default_factory=lambda: Common(seed=1))


class Source(NamedTuple):
    """A trained network: its file, and what names it in the results."""

    path: str
    digest: str
    network: str
    parameters: int


def find(name: str, models: Path, *, exact: bool) -> Source | None:
    """The network of that name, or None; with `exact` only one of the size of the preset."""
    folder = models / name / "model.safetensors"
    if folder.exists():
        path = folder
    elif name in pretrained():
        path = model_path(name)
    else:
        return None
    network, about = load_network(path)
    config = network.config
    wanted = preset(name).network
    if exact and (config.n_layers, config.width) != (wanted.n_layers, wanted.width):
        return None
    size = f"{about['preset']}: {config.n_layers} layers of width {config.width}"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return Source(str(path), digest, size, sum(p.numel() for p in network.parameters()))


class Fit(NamedTuple):
    """A fit that is wanted, and by what name it is kept."""

    curve: Curve
    source: Source | None
    key: str


def wanted(
    experiment: Experiment, sources: dict[Curve, Source | None], passes: Passes
) -> dict[Setting, list[Fit]]:
    """For each law of tasks the different fits that some curve of the experiment needs."""
    found: dict[Setting, dict[str, Fit]] = {}
    for point in experiment.points:
        for curve in point.curves:
            source = sources.get(curve)
            if curve.network is not None and source is None:
                continue
            key = fit_key(curve, source, passes)
            found.setdefault(point.setting, {})[key] = Fit(curve, source, key)
    return {setting: list(fits.values()) for setting, fits in found.items()}


def fit_key(curve: Curve, source: Source | None, passes: Passes) -> str:
    """What a fit is kept under: its name and, for a trained one, the network's digest and its use."""
    if source is None:
        return curve.fit
    use = f" {passes.copies} {passes.refine}" if curve.fit == "refined" else ""
    return f"{curve.fit} {source.digest}{use}"


def place(setting: Setting, seed: int, t: int) -> str:
    """What a task is kept under."""
    return json.dumps([*setting, seed, t])


def draw_task(setting: Setting, seed: int, t: int) -> Task:
    """Task number t: a function of the law, the seed and t alone."""
    rng = np.random.default_rng([seed, setting.K, t])
    truth = setting.distribution().sample_mixture(setting.K, rng)
    return Task(*truth.sample(setting.N, rng), truth)


def judge(setting: Setting, seed: int, todo: dict[int, list[Fit]], passes: Passes) -> list[Row]:
    """What is measured of the fits `todo` by task number; in a process of its own."""
    torch.set_num_threads(1)
    found = []
    for t, fits in todo.items():
        task = draw_task(setting, seed, t)
        for fit in fits:
            # Each fit has random numbers of its own: they do not depend on which others are asked for.
            rng = np.random.default_rng([seed, setting.K, t, list(LABELS).index(fit.curve.fit)])
            network = None if fit.source is None else _network(fit.source.path)
            estimate = fit_task(fit.curve.fit, task, rng, network, passes)
            got = NO_FIT if estimate is None else errors(estimate, task)
            found.append((place(setting, seed, t), fit.key, got))
    return found


_NETWORKS: dict[str, Any] = {}


def _network(path: str) -> Any:
    if path not in _NETWORKS:
        _NETWORKS[path] = load_network(path)[0].eval()
    return _NETWORKS[path]


def compute(fits: dict[Setting, list[Fit]], tasks: int, options: Options, kept: Kept) -> None:
    """Fill `kept` with what is missing."""
    seed = options.common.seed
    passes = Passes(options.copies, options.refine)
    chunks: list[tuple[Setting, dict[int, list[Fit]]]] = []
    total = done = 0
    for setting, every in fits.items():
        for first in range(0, tasks, CHUNK):
            todo = {}
            for t in range(first, min(first + CHUNK, tasks)):
                missing = [fit for fit in every if (place(setting, seed, t), fit.key) not in kept.known]
                total, done = total + len(every), done + len(every) - len(missing)
                if missing:
                    todo[t] = missing
            if todo:
                chunks.append((setting, todo))
    cases = [(setting, seed, todo, passes) for setting, todo in chunks]
    with tqdm(total=total, initial=done, desc=options.figure, unit="fit", disable=None) as bar:
        for _, rows in options.sweep.unordered(judge, cases):
            kept.add(rows)
            bar.update(len(rows))


def rows_of(
    experiment: Experiment, sources: dict[Curve, Source | None], tasks: int, options: Options, kept: Kept
) -> Iterator[dict[str, Any]]:
    """A row for each place on each curve."""
    passes = Passes(options.copies, options.refine)
    for point in experiment.points:
        for curve in point.curves:
            source = sources.get(curve)
            if curve.network is not None and source is None:
                continue
            key = fit_key(curve, source, passes)
            seed = options.common.seed
            values = [kept.known[place(point.setting, seed, t), key] for t in range(tasks)]
            yield {
                "panel": point.panel,
                experiment.x_label: point.x,
                **point.setting._asdict(),
                "fit": curve.fit,
                "label": f"{LABELS[curve.fit]} ({curve.what})" if curve.what else LABELS[curve.fit],
                "network": None if source is None else source.network,
                "tasks": tasks,
                **{
                    metric: summarise([getattr(v, metric) for v in values])._asdict()
                    for metric in experiment.metrics
                },
                "missed": float(np.mean([v.missed for v in values])),
                "paper": paper_value(options.figure, point, curve.fit),
            }


def paper_rows(experiment: Experiment, figure: str) -> Iterator[dict[str, Any]]:
    """What the paper's figure shows, whether or not we have a row there."""
    for point in experiment.points:
        for curve in point.curves:
            value = paper_value(figure, point, curve.fit)
            if value is not None:
                yield {"panel": point.panel, experiment.x_label: point.x, "fit": curve.fit, "l2": value}


def run(options: Options) -> None:
    """The command."""
    experiment = EXPERIMENTS.get(options.figure)
    if experiment is None:
        raise ValueError(f"no figure {options.figure!r}; there are {', '.join(EXPERIMENTS)}")
    tasks = options.tasks or (QUICK.get(options.figure, 32) if options.quick else 1280)
    asked = {"tasks": tasks, "copies": options.copies, "refine": options.refine}
    for (name, value), least in zip(asked.items(), (2, 1, 0), strict=True):
        if value < least:
            raise ValueError(f"--{name} must be at least {least}, got {value}")
    options.sweep.check()
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"--out {options.out} is not a folder")
    options.out.mkdir(parents=True, exist_ok=True)
    check_outputs(None, options.common.json)
    curves = {curve for point in experiment.points for curve in point.curves if curve.network}
    sources = {
        curve: find(str(curve.network), options.models, exact=curve.exact)
        for curve in sorted(curves, key=lambda curve: (str(curve.network), curve.fit))
    }
    kept = Kept(options.out / "tasks.jsonl")
    fits = wanted(experiment, sources, Passes(options.copies, options.refine))
    compute(fits, tasks, options, kept)
    missing = sorted({str(curve.network) for curve, source in sources.items() if source is None})
    results = {
        "figure": options.figure,
        "title": experiment.title,
        "x": experiment.x_label,
        "metrics": list(experiment.metrics),
        "tasks": tasks,
        "seed": options.common.seed,
        "copies": options.copies,
        "refine": options.refine,
        "command": f"python -m {PROGRAM} {options.figure} --tasks {tasks} --seed {options.common.seed}",
        "version": package_version(),
        "rows": list(rows_of(experiment, sources, tasks, options, kept)),
        "paper": list(paper_rows(experiment, options.figure)),
        "networks": {
            str(curve.network): source._asdict() | {"path": Path(source.path).name}
            for curve, source in sources.items()
            if source is not None
        },
        "not trained": {name: training_of(name)._asdict() for name in missing},
    }
    place_of = options.out / options.figure
    table = as_markdown(results)
    write_files(
        {place_of.with_suffix(".csv"): as_csv(results).encode(), place_of.with_suffix(".md"): table.encode()}
    )
    write_outputs((place_of.with_suffix(".png"), picture(results)), place_of.with_suffix(".json"), results)
    if options.common.json is not None:
        write_outputs(None, options.common.json, results)
    print(table)
    print(f"{place_of}.json, .csv, .md and .png")


if __name__ == "__main__":
    main(PROGRAM, Options, run, None)
