"""What a network is and how it is trained: frozen values with named presets.

| preset          | network                                       | training                            |
|-----------------|-----------------------------------------------|-------------------------------------|
| `paper-dD`      | 12 layers of width 128, causal, with positions | the paper's: sorted labels, AdamW,  |
|                 |                                               | 64 tasks a step, 10^6 steps         |
| `tgmm-dD`       | 12 layers of width 128                        | matched loss, a loss for each layer |
|                 |                                               | and each sample, Muon               |
| `tgmm-small-dD` | 6 layers of width 64                          | the same, an hour on one CPU core   |
| `tgmm-any`      | 12 layers of width 128, all d up to 32        | the same as `tgmm-dD`               |

D is any dimension; the paper has 2, 8, 32 and 128.  A name may go on with any of `-anisotropic`, `-nN` (N
from N/2 to N in training), `-lL` (layers), `-wW` (width), `-mamba2` and `-gpt2` (backbones), in this order.
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any, Literal, NamedTuple


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """The network of section 2.2.

    dim: largest d; with `any_dim` smaller ones are padded with zeros and told by an embedding.
    n_components: the K it has readouts for.  scale: inputs are divided by it, means multiplied.
    readout: `pooling` is the paper's; `m-step` turns hidden states into responsibilities and averages the
    samples with them.  backbone: `gpt2` and `mamba2` are those of the transformers library (extra hf).
    """

    dim: int
    n_components: tuple[int, ...] = (2, 3, 4, 5)
    n_layers: int = 12
    width: int = 128
    n_heads: int = 4
    causal: bool = False
    positions: bool = False
    max_samples: int = 128
    scale: float = 5.0
    any_dim: bool = False
    anisotropic: bool = False
    backbone: Literal["plain", "gpt2", "mamba2"] = "plain"
    readout: Literal["pooling", "m-step"] = "pooling"

    def __post_init__(self) -> None:
        # Configurations come out of files too: types are checked as well as values.
        for name in ("dim", "n_layers", "width", "n_heads", "max_samples"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        kinds = self.n_components
        if not kinds or any(type(K) is not int or K < 2 for K in kinds) or len(set(kinds)) < len(kinds):
            raise ValueError(f"n_components must be different whole numbers, every K >= 2, got {kinds!r}")
        for name in ("causal", "positions", "any_dim", "anisotropic"):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}")
        if type(self.scale) not in (int, float) or not 0 < self.scale < math.inf:
            raise ValueError(f"scale must be a positive number, got {self.scale!r}")
        if self.readout not in ("pooling", "m-step"):
            raise ValueError(f"readout must be pooling or m-step, got {self.readout!r}")
        if self.backbone not in ("plain", "gpt2", "mamba2"):
            raise ValueError(f"backbone must be plain, gpt2 or mamba2, got {self.backbone!r}")
        if self.anisotropic and self.readout != "pooling":
            raise ValueError("the anisotropic task needs the pooling readout")
        if self.width % self.n_heads:
            raise ValueError(f"width {self.width} must be a multiple of n_heads = {self.n_heads}")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How it is trained.

    dims: dimensions of the tasks, one drawn for each step.  batch: tasks a step, the same number of every K.
    min_samples, max_samples: N is uniform on the multiples of 8 between them, one for each step.
    labels: `matched` takes the best permutation of the components, `sorted` orders them by weight.
    deep, dense: weights of the loss after every layer, and of each sample's prediction of its own mean.
    """

    dims: tuple[int, ...]
    steps: int
    batch: int = 64
    min_samples: int = 64
    max_samples: int = 128
    labels: Literal["matched", "sorted"] = "matched"
    deep: float = 1.0
    dense: float = 1.0
    optimizer: Literal["muon", "adamw"] = "muon"
    lr_matrices: float = 2e-3
    lr: float = 1e-3
    weight_decay: float = 1e-4
    warmup: int = 200
    decay_to_zero: bool = True
    clip: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise ValueError(f"need steps >= 1 and batch >= 1, got {self.steps} and {self.batch}")
        if not 8 <= self.min_samples <= self.max_samples or self.min_samples % 8 or self.max_samples % 8:
            raise ValueError(
                "min_samples and max_samples must be multiples of 8, at least 8 and in order, got "
                f"{self.min_samples} and {self.max_samples}"
            )


class Preset(NamedTuple):
    """A network and its training."""

    network: NetworkConfig
    training: TrainConfig


_NAME = re.compile(
    r"(?P<kind>paper|tgmm|tgmm-small)-(?:any|d(?P<d>[1-9]\d*))(?P<anisotropic>-anisotropic)?"
    r"(?:-n(?P<samples>\d+))?(?:-l(?P<layers>\d+))?(?:-w(?P<width>\d+))?(?:-(?P<backbone>mamba2|gpt2))?"
)


def preset(name: str) -> Preset:
    """The preset of that name; ValueError with the names there are for another."""
    match = _NAME.fullmatch(name)
    if match is None or (match["d"] is None and match["kind"] == "paper"):
        raise ValueError(
            f"no preset {name!r}; there are paper-dD, tgmm-dD, tgmm-small-dD (D a dimension), tgmm-any and "
            "tgmm-small-any, and each with -anisotropic, -nN, -lL, -wW, -mamba2 or -gpt2, in this order"
        )
    kind, dim = match["kind"], int(match["d"] or 32)
    network: dict[str, Any] = {"any_dim": match["d"] is None, "anisotropic": match["anisotropic"] is not None}
    training: dict[str, Any] = {"steps": 300_000, "batch": 256, "warmup": 1000}
    if kind == "paper":
        network |= {"causal": True, "positions": match["backbone"] != "mamba2", "scale": 1.0}
        training = {
            **{"steps": 1_000_000, "labels": "sorted", "deep": 0.0, "dense": 0.0, "optimizer": "adamw"},
            **{"lr": 1e-4, "warmup": 0, "decay_to_zero": False, "clip": 1e9},
        }
    elif kind == "tgmm-small":
        network |= {"n_layers": 6, "width": 64}
        training = {"steps": 10_000, "lr_matrices": 5e-3, "lr": 3e-3}
    chosen = {"n_layers": match["layers"], "width": match["width"]}
    network |= {key: int(value) for key, value in chosen.items() if value is not None}
    network["backbone"] = match["backbone"] or "plain"
    if match["samples"] is not None:
        largest = int(match["samples"])
        training |= {"min_samples": largest // 2, "max_samples": largest}
        network["max_samples"] = max(128, largest)
    dims = tuple(range(2, dim + 1)) if match["d"] is None else (dim,)
    return Preset(NetworkConfig(dim, **network), TrainConfig(dims, **training))
