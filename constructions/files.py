"""Saving and loading constructions, and writing files whole or not at all.

A weights file is in the safetensors format: matrices and strings, no code.  It holds every distinct
layer: `layer0.W1` (D', D), `layer0.W2` (D, D'), and for each head `layer0.head0.Q` and `.K` (r, D), `.V`
(w, D) and `.writes` (w,), the matrices without their zero rows (`weights.Head`).  As JSON in its metadata
it has the construction's name and arguments, its layout, the order of its layers, sizes, bounds and
readout, and a SHA-256 digest of all of this.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _installed_version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from constructions.construction import Construction, Program
from constructions.diagonal import DiagonalEMTransformer
from constructions.em import EMTransformer
from constructions.spectral import SpectralTransformer
from constructions.tensor_power import TensorPowerTransformer
from constructions.weights import Array, Head, Layer

FORMAT = 1

_KINDS: dict[str, Callable[..., Construction]] = {
    kind.__name__: kind
    for kind in (DiagonalEMTransformer, EMTransformer, SpectralTransformer, TensorPowerTransformer)
}


def package_version() -> str:
    """The installed version of this package."""
    try:
        return _installed_version("constructive-transformers")
    except PackageNotFoundError:
        return "unknown"


def save(construction: Construction, path: str | os.PathLike[str]) -> None:
    """Write a construction's weights and everything needed to run them.

    OSError if the file cannot be written; an existing file is then left as it was.
    """
    program = construction.program
    layers = program.unique()
    place = {id(layer): i for i, layer in enumerate(layers)}
    tensors: dict[str, Any] = {}
    for i, layer in enumerate(layers):
        tensors[f"layer{i}.W1"], tensors[f"layer{i}.W2"] = layer.W1, layer.W2
        for m, head in enumerate(layer.heads):
            for name, values in zip(("Q", "K", "V"), head[:3], strict=True):
                tensors[f"layer{i}.head{m}.{name}"] = values
            tensors[f"layer{i}.head{m}.writes"] = np.array(head.targets, dtype=np.int64)
    tensors = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
    about = {
        "format": FORMAT,
        "version": package_version(),
        "construction": type(construction).__name__,
        "config": construction.config,
        "layout": list(construction.layout.sizes.items()),
        "layers": [{"activation": layer.activation, "heads": len(layer.heads)} for layer in layers],
        "program": {
            part: [place[id(layer)] for layer in getattr(program, part)]
            for part in ("prologue", "body", "final")
        },
        "sizes": construction.sizes()._asdict(),
        "bounds": construction.bounds,
        "readout": construction.readout_text,
    }
    text = json.dumps(about, sort_keys=True)
    metadata = {"construction": text, "sha256": _digest(text, tensors)}
    write_files({Path(path): to_bytes(tensors, metadata)})


def load(path: str | os.PathLike[str], *, device: str = "cpu") -> Construction:
    """The construction in a file written by `save`, with the weights of the file, on `device`.

    Runs no code from the file.  ValueError if it is not such a file, is damaged, or its parts do
    not fit together; OSError if it cannot be read.
    """
    where = Path(path)
    if not where.is_file():
        raise FileNotFoundError(f"{where}: no such weights file")
    try:
        with safe_open(where, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, TypeError, OverflowError, AttributeError) as error:
        raise ValueError(f"{where} is not a readable weights file: {error}") from None
    if not {"construction", "sha256"} <= set(metadata):
        raise ValueError(f"{where} holds no construction (its metadata lack it)")
    text = metadata["construction"]
    if _digest(text, tensors) != metadata["sha256"]:
        raise ValueError(f"{where} is damaged: its checksum does not match its contents")
    try:
        return _assemble(json.loads(text), tensors, device)
    except (KeyError, TypeError, ValueError, IndexError, RecursionError, OverflowError) as error:
        raise ValueError(f"{where} does not hold a usable construction: {error}") from None


def _assemble(about: Any, tensors: Mapping[str, Any], device: str) -> Construction:
    if about["format"] != FORMAT:
        raise ValueError(f"format {about['format']!r}, this version reads {FORMAT}")
    kind = about["construction"]
    if kind not in _KINDS:
        raise ValueError(f"unknown construction {kind!r}; known: {', '.join(_KINDS)}")
    construction = _KINDS[kind](**about["config"], device=device)
    if list(construction.layout.sizes.items()) != [tuple(entry) for entry in about["layout"]]:
        raise ValueError("its layout is not the one that its arguments give")
    layers = []
    for i, kind in enumerate(about["layers"]):
        heads = []
        for m in range(int(kind["heads"])):
            Q, K, V, writes = (tensors[f"layer{i}.head{m}.{name}"] for name in ("Q", "K", "V", "writes"))
            heads.append(Head(_floats(Q), _floats(K), _floats(V), writes))
        W1, W2 = (_floats(tensors[f"layer{i}.{name}"]) for name in ("W1", "W2"))
        layers.append(Layer(kind["activation"], tuple(heads), W1, W2))
    parts = (tuple(layers[i] for i in about["program"][part]) for part in ("prologue", "body", "final"))
    return construction.with_program(Program(*parts))


def _floats(matrix: Any) -> Array:
    if matrix.dtype != np.float64:
        raise ValueError(f"a matrix is in {matrix.dtype}, not float64")
    return matrix


def _digest(text: str, tensors: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        values = np.ascontiguousarray(tensors[name])
        digest.update(f"\0{name}\0{values.dtype}\0{values.shape}\0".encode())
        digest.update(values.data if values.size else b"")
    return digest.hexdigest()


def check_writable(*paths: Path) -> None:
    """OSError unless a file could be written at each path now."""
    for path in paths:
        folder = path.resolve().parent
        if path.exists() and not path.is_file():
            raise OSError(f"cannot write {path}: it is not a regular file")
        if not folder.is_dir():
            raise OSError(f"cannot write {path}: no folder {folder}")
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise OSError(f"cannot write {path}: {error.strerror}") from None


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write all files or none: each goes to a temporary file beside its place first.

    OSError on failure; existing files are then as they were.
    """
    check_writable(*contents)
    ready: list[tuple[str, Path]] = []
    try:
        for path, data in contents.items():
            place = path.resolve()
            handle, name = tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent)
            ready.append((name, place))
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, place.stat().st_mode & 0o777 if place.exists() else 0o666 & ~_umask())
        while ready:
            name, place = ready.pop(0)
            os.replace(name, place)
    finally:
        for name, _ in ready:
            os.unlink(name)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
