"""Networks and training states in files: safetensors, with a digest, written whole or not at all.

A model file holds the network's parameters by name and, as JSON in its metadata, its configuration and what
is known of its training.  A training state holds the optimisers' tensors too, as `optimizer.{o}.{p}.{name}`,
and the step; batches are drawn from the seed and the step, so that there is no generator to keep.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor
from torch.optim import AdamW, Muon, Optimizer

from constructions.files import write_files
from trainable.config import NetworkConfig
from trainable.network import Network

FORMAT = 1

_MOMENTS: dict[type[Optimizer], frozenset[str]] = {
    AdamW: frozenset({"step", "exp_avg", "exp_avg_sq"}),
    Muon: frozenset({"momentum_buffer"}),
}
"""What an optimiser keeps for each parameter."""


def save_network(path: str | os.PathLike[str], network: Network, about: Mapping[str, Any]) -> None:
    """Write a network; `about` is kept as JSON.  OSError on failure; an existing file is then unchanged."""
    _write(Path(path), _parameters(network), network.config, about)


def load_network(path: str | os.PathLike[str]) -> tuple[Network, dict[str, Any]]:
    """The network in a file and what the file says about it.

    Runs no code from the file.  FileNotFoundError; ValueError if the file is not such a file, is damaged, or
    its tensors do not fit its configuration.
    """
    tensors, config, about = _read(Path(path))
    if config.n_layers + len(config.n_components) > len(tensors):
        raise ValueError(f"{path} does not fit its configuration: it has only {len(tensors)} tensors")
    try:
        with torch.device("meta"):  # no memory is taken before the shapes are known to be those of the file
            network = Network(config)
    except (RuntimeError, OverflowError, TypeError) as error:
        raise ValueError(f"{path} does not hold a usable TGMM: {str(error).splitlines()[0]}") from None
    _fill(network, tensors, Path(path))
    return network, about


def save_state(path: Path, network: Network, every: list[Optimizer], about: Mapping[str, Any]) -> None:
    """Write everything that training needs to go on."""
    tensors = _parameters(network)
    for o, optimizer in enumerate(every):
        for p, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{o}.{p}.{name}": value for name, value in state.items()}
    _write(path, tensors, network.config, about)


def load_state(path: Path, network: Network, every: list[Optimizer]) -> dict[str, Any]:
    """Put a training state into a network and its optimisers; returns what was kept about it.

    FileNotFoundError; ValueError for what `load_network` refuses, a state of another network, or one that
    does not fit the optimisers.
    """
    tensors, config, about = _read(path)
    if config != network.config:
        raise ValueError(f"{path} is of another network: {config}, not {network.config}")
    if type(about.get("step")) is not int:
        raise ValueError(f"{path} holds a network but no training state to go on from")
    kept = {name: value for name, value in tensors.items() if name.startswith("optimizer.")}
    states = _moments(kept, every, path)
    _fill(network, {name: value for name, value in tensors.items() if name not in kept}, path)
    for optimizer, state in zip(every, states, strict=True):
        optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    return about


def _moments(
    tensors: Mapping[str, Tensor], every: list[Optimizer], path: Path
) -> list[dict[int, dict[str, Tensor]]]:
    """The optimisers' tensors by optimiser, parameter and name, all of them known and of the right shape."""
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in every]
    shapes = {}
    for o, optimizer in enumerate(every):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for p, parameter in enumerate(parameters):
            for part in _MOMENTS[type(optimizer)]:
                shape = torch.Size() if part == "step" else parameter.shape
                shapes[f"optimizer.{o}.{p}.{part}"] = (o, p, part, shape)
    for name, value in tensors.items():
        if name not in shapes or value.shape != shapes[name][3] or not torch.isfinite(value).all():
            raise ValueError(f"{path} does not fit its optimisers: {name} of shape {tuple(value.shape)}")
        o, p, part, _ = shapes[name]
        states[o].setdefault(p, {})[part] = value
    for optimizer, state in zip(every, states, strict=True):
        if any(found.keys() != _MOMENTS[type(optimizer)] for found in state.values()):
            raise ValueError(f"{path} does not fit its optimisers: a parameter's state is incomplete")
    return states


def _parameters(network: Network) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in network.state_dict().items()}


def _fill(network: Network, tensors: Mapping[str, Tensor], path: Path) -> None:
    wanted = network.state_dict()
    if tensors.keys() != wanted.keys():
        odd = sorted(tensors.keys() ^ wanted.keys())
        raise ValueError(f"{path} does not fit its configuration: {odd[0]} is missing or too much")
    for name, value in tensors.items():
        if value.shape != wanted[name].shape:
            raise ValueError(
                f"{path}: {name} has shape {tuple(value.shape)}, its configuration wants "
                f"{tuple(wanted[name].shape)}"
            )
        if not torch.isfinite(value).all():
            raise ValueError(f"{path}: {name} holds values that are not finite")
    loaded = {name: value.float() for name, value in tensors.items()}
    network.load_state_dict(loaded, assign=network.readin.weight.is_meta)


def _write(
    path: Path, tensors: Mapping[str, Tensor], config: NetworkConfig, about: Mapping[str, Any]
) -> None:
    plain = {name: value.cpu().contiguous() for name, value in tensors.items()}
    odd = [name for name, value in plain.items() if not torch.isfinite(value).all()]
    if odd:
        raise ValueError(f"{path} is not written: {odd[0]} holds values that are not finite")
    text = json.dumps(
        {"format": FORMAT, "network": dataclasses.asdict(config), "about": about}, sort_keys=True
    )
    write_files({path: to_bytes(plain, {"tgmm": text, "sha256": _digest(text, plain)})})


def _read(path: Path) -> tuple[dict[str, Tensor], NetworkConfig, dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, TypeError, OverflowError, AttributeError) as error:
        raise ValueError(f"{path} is not a readable checkpoint: {error}") from None
    if not {"tgmm", "sha256"} <= set(metadata):
        raise ValueError(f"{path} holds no TGMM (its metadata lack it)")
    if _digest(metadata["tgmm"], tensors) != metadata["sha256"]:
        raise ValueError(f"{path} is damaged: its checksum does not match its contents")
    try:
        kept = json.loads(metadata["tgmm"])
        if kept["format"] != FORMAT:
            raise ValueError(f"format {kept['format']!r}, this version reads {FORMAT}")
        network = kept["network"]
        config = NetworkConfig(**network | {"n_components": tuple(network["n_components"])})
        return tensors, config, dict(kept["about"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} does not hold a usable TGMM: {error}") from None


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        values = tensors[name].contiguous()
        digest.update(f"\0{name}\0{values.dtype}\0{tuple(values.shape)}\0".encode())
        digest.update(values.view(torch.uint8).numpy().tobytes() if values.ndim else values.numpy().tobytes())
    return digest.hexdigest()
