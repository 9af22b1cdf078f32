"""What the explorer's page holds, computed for any construction, and the page itself.

| in the page | what                                                                                     |
|-------------|------------------------------------------------------------------------------------------|
| `stream`    | float32 (S, T, D): the shown tokens in the input and after each half of each layer        |
| `patterns`  | for each layer and shown head uint8 (T, T), shares of the row's largest entry, a query a row |
| `blocks`    | for each distinct layer, log of the largest |entry| of Q^T K, V, |W2||W1| between subspaces |
"""

from __future__ import annotations

import base64
import json
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from constructions.construction import Construction
from constructions.tokens import Tokens
from constructions.transformer import Transformer
from constructions.weights import Array, Layer

Indices = NDArray[np.intp]

_TOKENS = 300
_HEADS = 8
_STREAM = 1_200_000
"""Most numbers of the stream that a page holds (float32); with more, it shows fewer tokens."""
_PATTERNS = 4_000_000
"""Most entries of attention patterns that a page holds (bytes); with more, it shows fewer heads."""

_DECADES = 6
"""Smaller entries of the weights are drawn like 10^-6 of the largest."""


class Subject(NamedTuple):
    """What a page is about.

    H: (N, D) encoded input.  points: (n, d), `drawn` in words.  estimates: what is read out after a layer,
    (K, d).  errors: by layer, one figure, `measure` in words.  stages: names of the layers, if they have any.
    """

    title: str
    construction: Construction
    layers: list[Layer]
    H: Array
    points: Array
    estimates: dict[int, Array]
    errors: dict[int, float]
    measure: str
    drawn: str = "samples"
    stages: tuple[str, ...] = ()


def page(subject: Subject) -> tuple[str, dict[str, Any]]:
    """The page as one HTML text, and how much of the run it shows."""
    data = contents(subject)
    text = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    template = files("constructions").joinpath("explore.html").read_text("utf-8")
    shown = {
        "layers": len(subject.layers),
        "tokens": len(subject.H),
        "tokens_shown": len(data["shown"]),
        "heads": sum(len(layer.heads) for layer in subject.layers),
        "heads_shown": sum(len(layer["patterns"]) for layer in data["layers"]),
    }
    return template.replace("/*DATA*/null", text), shown


def contents(subject: Subject) -> dict[str, Any]:
    """Everything that the page holds, as JSON values."""
    layers, H = subject.layers, subject.H
    n_states = 2 * len(layers) + 1
    shown = _spread(len(H), max(8, min(_TOKENS, _STREAM // (n_states * H.shape[1]))))
    n_heads = _heads_shown(layers, len(shown))
    names = [(name, size) for name, size in subject.construction.layout.sizes.items() if size]
    edges = np.cumsum([0] + [size for _, size in names])[:-1]
    unique = {id(layer): layer for layer in layers}
    place = {key: i for i, key in enumerate(unique)}
    stream, rows = [H[shown]], []
    before = torch.as_tensor(H)
    states = Transformer(layers).states(before, "structured")
    for state in tqdm(states, total=n_states - 1, desc="layers", unit="state", disable=None):
        dense = state.tokens.dense() if isinstance(state.tokens, Tokens) else state.tokens
        if state.stage == "attention":
            layer = layers[state.layer - 1]
            rows.append(
                {
                    "block": place[id(layer)],
                    "activation": layer.activation,
                    "heads": len(layer.heads),
                    "stage": subject.stages[state.layer - 1] if subject.stages else "",
                    "patterns": _patterns(layer, before.numpy(), shown, n_heads),
                }
            )
        before = dense
        stream.append(dense.numpy()[shown])
    project, axes = _plane(subject.points)
    return {
        "title": subject.title,
        "construction": type(subject.construction).__name__,
        "readout": subject.construction.readout_text,
        "names": names,
        "tokens": len(H),
        "shown": [int(i) for i in shown],
        "stream": _packed(np.array(stream), np.float32),
        "layers": rows,
        "blocks": [_blocks(layer, edges, n_heads) for layer in unique.values()],
        "points": np.round(project(subject.points[_spread(len(subject.points), 1000)]), 4).tolist(),
        "axes": axes,
        "drawn": subject.drawn,
        "estimates": [[layer, project(means).tolist()] for layer, means in subject.estimates.items()],
        "errors": [[layer, float(error)] for layer, error in subject.errors.items()],
        "measure": subject.measure,
    }


def _spread(n: int, most: int) -> Indices:
    """Up to `most` of n indices: the first ones, where key tokens are, then evenly to the end."""
    if n <= most:
        return np.arange(n)
    first = most // 2
    return np.concatenate([np.arange(first), np.linspace(first, n - 1, most - first).round().astype(int)])


def _heads_shown(layers: list[Layer], n_tokens: int) -> int:
    """How many heads of a layer are shown at most."""
    for most in range(_HEADS, 1, -1):
        if n_tokens**2 * sum(min(most, len(layer.heads)) for layer in layers) <= _PATTERNS:
            return most
    return 1


def _patterns(layer: Layer, H: Array, shown: Indices, n_heads: int) -> list[dict[str, str]]:
    """The attention of Definitions 1 and 4 between the shown tokens, head by head."""
    found = []
    for head in layer.heads[:n_heads]:
        scores = (H[shown] @ head.Q.T) @ (H @ head.K.T).T
        if layer.activation == "softmax":
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            weights /= weights.sum(axis=1, keepdims=True)
        else:
            weights = np.maximum(scores, 0) / len(H)
        weights = weights[:, shown]
        largest = weights.max(axis=1)
        shares = weights / np.where(largest > 0, largest, 1)[:, None]
        found.append(
            {"largest": _packed(largest, np.float32), "shares": _packed((255 * shares).round(), np.uint8)}
        )
    return found


def _blocks(layer: Layer, edges: Indices, n_heads: int) -> dict[str, Any]:
    """The weights of a layer, subspace by subspace."""

    def largest(matrix: Array) -> str:
        rows = np.maximum.reduceat(np.abs(matrix), edges, axis=0)
        blocks = np.maximum.reduceat(rows, edges, axis=1)
        shares = np.divide(blocks, blocks.max(), out=np.zeros_like(blocks), where=blocks > 0)
        steps = np.log10(shares, out=np.full_like(shares, -np.inf), where=shares > 0) / _DECADES
        return _packed(np.where(shares > 0, 1 + (254 * np.maximum(1 + steps, 0)).round(), 0), np.uint8)

    heads = []
    for head in layer.heads[:n_heads]:
        V = np.zeros((layer.width, layer.width))
        V[head.targets] = head.V
        heads.append({"QK": largest(head.Q.T @ head.K), "V": largest(V)})
    return {
        "heads": heads,
        "MLP": largest(np.abs(layer.W2) @ np.abs(layer.W1)),
        "hidden": len(layer.W1),
    }


def _plane(points: Array) -> tuple[Any, list[str]]:
    """A projection to two coordinates or principal axes, and their names."""
    d = points.shape[1]
    if d <= 2:
        return lambda rows: np.pad(rows, ((0, 0), (0, 2 - d))), [
            "coordinate 1",
            "coordinate 2"[: 12 * (d - 1)],
        ]
    centre = points.mean(axis=0)
    directions = np.linalg.eigh((points - centre).T @ (points - centre))[1].T[:-3:-1]
    return lambda rows: (rows - centre) @ directions.T, ["first principal axis", "second principal axis"]


def _packed(values: Array, dtype: Any) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype=dtype).tobytes()).decode()
