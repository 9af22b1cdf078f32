"""Heads as the structured evaluation sees them: what they read, sign pairs, scores that are not positive."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from constructions.tokens import reads_of

_BLOCK = 128
"""Tokens per block of rewrite 5."""


class HeadPlan(NamedTuple):
    """A head, the coordinates that Q, K and V read, and its place in a sign pair."""

    Q: Tensor
    K: Tensor
    V: Tensor
    targets: list[int]
    asks: list[int]
    keyed: list[int]
    valued: list[int]
    pair: Literal["first", "second"] | None


def head_plans(block: Any) -> list[HeadPlan]:
    """The heads of a layer; those that write nothing have no targets."""
    places: dict[int, Literal["first", "second"]] = {}
    if block.activation == "relu":
        waiting: dict[tuple[Any, ...], list[int]] = {}
        for m, (Q, K, V, targets) in enumerate(block.heads):
            twins = waiting.get((_bytes(-Q), _bytes(K), _bytes(-V), *targets))
            if twins:
                places[twins.pop()], places[m] = "first", "second"
            else:
                waiting.setdefault((_bytes(Q), _bytes(K), _bytes(V), *targets), []).append(m)
    return [
        HeadPlan(Q, K, V, targets if V.any() else [], reads_of(Q), reads_of(K), reads_of(V), places.get(m))
        for m, (Q, K, V, targets) in enumerate(block.heads)
    ]


def _bytes(matrix: Tensor) -> bytes:
    """Equal for equal matrices, the sign of zeros included."""
    return (matrix + 0.0).cpu().numpy().tobytes()


def attention_pattern(activation: str, scores: Tensor, counts: Tensor | float, N: int) -> Tensor:
    """Attention weights, keys along the first axis, each key occurring `counts` times."""
    if activation == "relu":
        return torch.relu(scores) * (counts / N)
    weight = torch.exp(scores - scores.amax(dim=0)) * counts
    return weight / weight.sum(dim=0)


def few_pairs(query: Tensor, key: Tensor, value: Tensor) -> Tensor | None:
    """Rewrite 5 for queries and keys (r, N), values (w, N); None unless it leaves out half of the blocks."""
    N = query.shape[1]
    middle_q, radius_q = _boxes(query)
    middle_k, radius_k = _boxes(key)
    reach_q, reach_k = middle_q.abs() + radius_q, middle_k.abs() + radius_k
    slack = 8 * (len(query) + 4) * torch.finfo(query.dtype).eps
    pairs: list[tuple[slice, Tensor]] = []
    total = 0
    for b in range(middle_q.shape[1]):
        highest = middle_q[:, b] @ middle_k + reach_q[:, b] @ reach_k - middle_q[:, b].abs() @ middle_k.abs()
        size = reach_q[:, b] @ reach_k
        # comparisons with nan are false: such blocks are kept
        (kept,) = torch.where(~(highest < -slack * size))
        total += len(kept)
        pairs.append((slice(b * _BLOCK, min((b + 1) * _BLOCK, N)), kept))
    if 2 * total > len(pairs) ** 2:
        return None
    result = value.new_zeros(len(value), N)
    for place, kept in pairs:
        index = (kept[:, None] * _BLOCK + torch.arange(_BLOCK, device=kept.device)).flatten()
        index = index[index < N]
        result[:, place] = value[:, index] @ torch.relu(key[:, index].T @ query[:, place]) / N
    return result


def _boxes(columns: Tensor) -> tuple[Tensor, Tensor]:
    """Middle and half width (r, blocks) of the columns (r, N) in each block."""
    N = columns.shape[1]
    index = torch.arange(-(-N // _BLOCK) * _BLOCK, device=columns.device).clamp(max=N - 1)
    blocks = columns[:, index].view(len(columns), -1, _BLOCK)
    low, high = blocks.amin(dim=2), blocks.amax(dim=2)
    return (low + high) / 2, (high - low) / 2
