"""The experiments of section 3.2 and Appendix E: what is drawn against what, on which tasks, with which fits.

| figure     | question                                  | across        | panels |
|------------|-------------------------------------------|---------------|--------|
| 2, 10      | against EM and the spectral algorithm     | K             | d      |
| 3, 11      | trained on other N than tested on         | K             | d      |
| 4, 12      | means from another distribution, d = 8    | sigma_p       | K      |
| 5, 13      | Mamba2 in the place of the transformer    | K             | d      |
| 6, 14      | scales for each component and coordinate  | K             | d      |
| 15         | trained and tested on N0 = 32, 64, 128    | K             | d      |
| 16, 17     | depth and width                           | K             | d      |

The figures of section 3.2 show the l2-error; those of Appendix E the accuracy and the log-likelihood too.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

from gmm import TaskDistribution
from trainable.config import preset
from trainable.network import Network

Metric = Literal["l2", "accuracy", "log_likelihood"]

METRICS: dict[Metric, str] = {
    "l2": "mean l2-error",
    "accuracy": "share of samples in the right cluster",
    "log_likelihood": "mean log-density per sample (nats)",
}

KINDS = (2, 3, 4, 5)
DIMENSIONS = (2, 8, 32, 128)
_FLOORS = ("oracle", "em_normal", "em_one", "em_best", "spectral")


class Setting(NamedTuple):
    """The law of the tasks."""

    d: int
    K: int
    N: int = 128
    sigma_p: float = 0.0
    anisotropic: bool = False

    def distribution(self) -> TaskDistribution:
        """It, as a task distribution."""
        return TaskDistribution(self.d, mean_perturbation=self.sigma_p, anisotropic=self.anisotropic)


class Curve(NamedTuple):
    """One row of fits: a name of `trainable.fits.LABELS` and, for trained ones, the network's name, what sets
    it apart, and whether only a network of exactly that preset's size will do."""

    fit: str
    network: str | None = None
    what: str = ""
    exact: bool = False


class Point(NamedTuple):
    """A panel's title, the place on the x-axis, the tasks, and what is fitted to them."""

    panel: str
    x: float
    setting: Setting
    curves: tuple[Curve, ...]


class Experiment(NamedTuple):
    """A figure of the paper."""

    title: str
    x_label: str
    metrics: tuple[Metric, ...]
    points: tuple[Point, ...]


def _both(network: str, what: str = "", *, exact: bool = False) -> tuple[Curve, ...]:
    return Curve("raw", network, what, exact), Curve("refined", network, what, exact)


def _floors(*names: str) -> tuple[Curve, ...]:
    return tuple(Curve(name) for name in names)


def _comparison() -> list[Point]:
    return [
        Point(f"d = {d}", K, Setting(d, K), (*_floors(*_FLOORS), *_both(f"tgmm-d{d}")))
        for d in DIMENSIONS
        for K in KINDS
    ]


def _sample_sizes(*, tested_on_128: bool) -> list[Point]:
    """Figures 3 (always tested on N = 128) and 15 (on the largest N of the training)."""
    points = []
    for d in DIMENSIONS:
        for K in KINDS:
            for N in (32, 64, 128):
                name = f"tgmm-d{d}" + (f"-n{N}" if N < 128 else "")
                test = 128 if tested_on_128 else N
                curves = _both(name, f"N0 = {N}, tested on {test}")
                if not tested_on_128 or N == 128:
                    curves = (Curve("oracle", None, f"N = {test}"), *curves)
                points.append(Point(f"d = {d}", K, Setting(d, K, test), curves))
    return points


def _shifted_means() -> list[Point]:
    curves = (*_floors(*_FLOORS), *_both("tgmm-d8"))
    return [
        Point(f"K = {K}", sigma, Setting(8, K, sigma_p=float(sigma)), curves)
        for K in KINDS
        for sigma in range(11)
    ]


def _backbones() -> list[Point]:
    return [
        Point(
            f"d = {d}",
            K,
            Setting(d, K),
            (
                *_floors("oracle", "em_best"),
                *_both(f"tgmm-d{d}", "transformer"),
                *_both(f"tgmm-d{d}-mamba2", "Mamba2"),
            ),
        )
        for d in DIMENSIONS
        for K in KINDS
    ]


def _own_scales() -> list[Point]:
    return [
        Point(
            f"d = {d}",
            K,
            Setting(d, K, anisotropic=True),
            (*_floors("oracle", "em_normal", "em_one", "em_best"), Curve("raw", f"tgmm-d{d}-anisotropic")),
        )
        for d in DIMENSIONS
        for K in KINDS
    ]


def _sizes(letter: str, values: tuple[int, ...], usual: int, what: str) -> list[Point]:
    return [
        Point(
            f"d = {d}",
            K,
            Setting(d, K),
            (
                Curve("oracle"),
                *(
                    curve
                    for value in values
                    for curve in _both(
                        f"tgmm-d{d}" + (f"-{letter}{value}" if value != usual else ""),
                        f"{what} {value}",
                        exact=True,
                    )
                ),
            ),
        )
        for d in DIMENSIONS
        for K in KINDS
    ]


def _experiment(title: str, points: list[Point], *metrics: Metric, x_label: str = "K") -> Experiment:
    return Experiment(title, x_label, metrics or ("l2",), tuple(points))


_ALL: tuple[Metric, ...] = ("l2", "accuracy", "log_likelihood")

EXPERIMENTS = {
    "fig2": _experiment("TGMM against EM and the spectral algorithm", _comparison()),
    "fig3": _experiment("Other N in training than in the test", _sample_sizes(tested_on_128=True)),
    "fig4": _experiment("Means from another distribution", _shifted_means(), x_label="sigma_p"),
    "fig5": _experiment("Transformer and Mamba2", _backbones()),
    "fig6": _experiment("Scales for each component and coordinate", _own_scales()),
    "fig10": _experiment("TGMM against EM and the spectral algorithm", _comparison(), *_ALL),
    "fig11": _experiment("Other N in training than in the test", _sample_sizes(tested_on_128=True), *_ALL),
    "fig12": _experiment("Means from another distribution", _shifted_means(), *_ALL, x_label="sigma_p"),
    "fig13": _experiment("Transformer and Mamba2", _backbones(), *_ALL),
    "fig14": _experiment("Scales for each component and coordinate", _own_scales(), *_ALL),
    "fig15": _experiment("Trained and tested on the same N", _sample_sizes(tested_on_128=False), *_ALL),
    "fig16": _experiment("Depth", _sizes("l", (3, 6, 12), 12, "layers:"), *_ALL),
    "fig17": _experiment("Width", _sizes("w", (128, 256, 512), 128, "width:"), *_ALL),
}

PAPER = {
    "em_normal": {
        2: (0.5, 7.0, 10.5, 7.0),
        8: (0.5, 7.0, 9.5, 10.5),
        32: (0.5, 6.5, 8.5, 10.5),
        128: (0.5, 6.5, 9.0, 10.0),
    },
    "spectral": {
        2: (0.5, 2.5, 3.0, 6.0),
        8: (0.5, 1.5, 2.5, 5.5),
        32: (0.5, 1.0, 2.5, 5.0),
        128: (0.5, 1.0, 2.0, 4.5),
    },
    "raw": {
        2: (0.5, 2.5, 3.0, 5.5),
        8: (1.0, 2.0, 2.5, 5.0),
        32: (1.5, 1.5, 2.0, 5.0),
        128: (1.5, 1.5, 2.0, 4.5),
    },
}
"""l2-errors at K = 2 to 5 by fit and d, read off the paper's Figure 2 by eye, to about half a unit.  Its EM
starts from N(0, I)."""


def paper_value(name: str, point: Point, fit: str) -> float | None:
    """What the paper shows there, where its figure can be read."""
    if name not in ("fig2", "fig10") or fit not in PAPER:
        return None
    return PAPER[fit][point.setting.d][KINDS.index(point.setting.K)]


class Training(NamedTuple):
    """How the network of a name is trained, on how many tasks, and with how many operations: six for each
    parameter, sample and task (forward and backward); None for a backbone of another library."""

    command: str
    tasks: int
    operations: float | None


def training_of(name: str) -> Training:
    """The training of a preset; ValueError if there is none."""
    network, training = preset(name)
    tasks = training.steps * training.batch
    operations = None
    if network.backbone == "plain":
        with torch.device("meta"):
            parameters = sum(p.numel() for p in Network(network).parameters())
        operations = 6 * parameters * tasks * (training.min_samples + training.max_samples) / 2
    return Training(f"python -m trainable.train {name} --out runs/{name}", tasks, operations)
