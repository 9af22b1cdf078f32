"""The forward pass over exact numbers: the same matrices, no rounding.

`rational` runs a ReLU network on fractions.  `symbolic` runs it on the elements of any commutative ring
that contains the fractions, polynomials in the entries of T and v for example: there relu(s) has no
sign to go by, so relu(s) = (s + |s|) / 2 is carried with |s| = |-s| an unknown, and the unknowns must
cancel.  What is left is an identity for all values of the variables, in other words a proof.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from constructions.weights import Array, Layer

Row = dict[int, Any]
"""A vector by its entries that are not zero."""

Sum = Callable[[Iterable[tuple[Any, Row]]], Row]
"""(s, value) pairs -> sum of relu(s) value."""


def rational(layers: Sequence[Layer], H: Array) -> list[list[Fraction]]:
    """The output tokens for the input tokens `H` (N, D), all exact: floats are fractions too.

    ValueError for a softmax layer, which has no exact values.
    """
    tokens = [[Fraction(float(x)) for x in token] for token in np.asarray(H, dtype=np.float64)]
    return _forward(layers, tokens, _rational_sum)


def symbolic(layers: Sequence[Layer], H: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """The output tokens for input tokens whose entries are fractions or elements of one ring.

    ValueError if the network is not a polynomial in them: absolute values do not cancel.
    """
    return _forward(layers, [list(token) for token in H], _symbolic_sum)


def _forward(layers: Sequence[Layer], tokens: list[list[Any]], relu_sum: Sum) -> list[list[Any]]:
    known: dict[int, Any] = {}
    for layer in layers:
        if layer.activation != "relu" and layer.heads:
            raise ValueError("an exact pass needs ReLU attention; softmax has no exact values")
        if id(layer) not in known:
            heads = [
                (_rows(head.Q), _rows(head.K), {head.targets[i]: row for i, row in _rows(head.V).items()})
                for head in layer.heads
            ]
            known[id(layer)] = heads, _rows(layer.W1), _columns(layer.W2)
        heads, W1, W2 = known[id(layer)]
        tokens = _attention(heads, tokens, relu_sum)
        tokens = [_add(h, relu_sum((_dot(row, h), W2[j]) for j, row in W1.items())) for h in tokens]
    return tokens


def _attention(heads: Any, tokens: list[list[Any]], relu_sum: Sum) -> list[list[Any]]:
    share = Fraction(1, len(tokens))
    keys = [[_apply(K, h) for h in tokens] for _, K, _ in heads]
    values = [[_apply(V, h, share) for h in tokens] for _, _, V in heads]
    after = []
    for h in tokens:
        queries = [_apply(Q, h) for Q, _, _ in heads]
        pairs = (
            (sum((x * k[i] for i, x in q.items() if i in k), Fraction(0)), value)
            for q, head_keys, head_values in zip(queries, keys, values, strict=True)
            for k, value in zip(head_keys, head_values, strict=True)
        )
        after.append(_add(h, relu_sum(pairs)))
    return after


def _rational_sum(pairs: Iterable[tuple[Any, Row]]) -> Row:
    total: Row = {}
    for s, value in pairs:
        if s > 0:
            _accumulate(total, s, value)
    return total


def _symbolic_sum(pairs: Iterable[tuple[Any, Row]]) -> Row:
    total: Row = {}
    absolute: dict[Any, Row] = {}
    for s, value in pairs:
        if isinstance(s, Fraction):
            _accumulate(total, max(s, Fraction(0)), value)
            continue
        _accumulate(total, s * Fraction(1, 2), value)
        key = -s if -s in absolute else s
        _accumulate(absolute.setdefault(key, {}), Fraction(1, 2), value)
    if any(x != 0 for row in absolute.values() for x in row.values()):
        raise ValueError("absolute values do not cancel: the layer is not a polynomial")
    return total


def _accumulate(total: Row, factor: Any, value: Row) -> None:
    if factor != 0:
        for i, x in value.items():
            total[i] = total.get(i, Fraction(0)) + factor * x


def _rows(matrix: Array) -> dict[int, Row]:
    """The rows that are not zero, by their entries that are not zero."""
    return {
        int(i): {int(j): Fraction(float(matrix[i, j])) for j in np.flatnonzero(matrix[i])}
        for i in np.flatnonzero(matrix.any(axis=1))
    }


def _columns(matrix: Array) -> dict[int, Row]:
    columns: dict[int, Row] = {j: {} for j in range(matrix.shape[1])}
    return columns | _rows(matrix.T)


def _dot(row: Row, h: Sequence[Any]) -> Any:
    return sum((x * h[j] for j, x in row.items() if h[j] != 0), Fraction(0))


def _apply(rows: dict[int, Row], h: Sequence[Any], factor: Fraction = Fraction(1)) -> Row:
    values = {i: factor * _dot(row, h) for i, row in rows.items()}
    return {i: x for i, x in values.items() if x != 0}


def _add(h: Sequence[Any], update: Row) -> list[Any]:
    return [x + update[i] if i in update else x for i, x in enumerate(h)]
