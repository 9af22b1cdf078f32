"""The residual stream as named subspaces, and heads and MLPs written by those names.

A construction names what its tokens hold, in order, with sizes; everything else is written as the
paper writes it:

    stream = Layout([("x", 2), ("mu", 2), ("c", 1), ("w", 3), ("one", 1), ("e", 3)])
    head(stream,
         query=[stream["x"], stream["one"]],
         key=[stream["mu"], -stream["c"] / 2],
         value={"w": stream["e"]})

is the head with Q h = [x; 1; 0], K h = [mu; -c/2; 0] and V h = [0; e; 0] (e in the place of w).
No other module holds an integer index into the stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from constructions.weights import Activation, Array, Head, Layer


class ReluSum(Protocol):
    """x -> sum_j a_j relu(w_j x + b_j)."""

    @property
    def a(self) -> Array:
        """(M,)."""

    @property
    def w(self) -> Array:
        """(M,)."""

    @property
    def b(self) -> Array:
        """(M,)."""


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear function of a token: `matrix` (rows, D) with a name for messages."""

    matrix: Array
    name: str

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(self.matrix)

    def __getitem__(self, rows: int | slice) -> Linear:
        """One component, or several."""
        picked = self.matrix[rows : rows + 1] if isinstance(rows, int) else self.matrix[rows]
        return Linear(picked, f"{self.name}[{rows}]")

    def along(self, direction: Array) -> Linear:
        """A function of one row, times a fixed vector."""
        return Linear(np.outer(direction, self._row()), f"{self.name} * vector({len(direction)})")

    def at(self, place: int, size: int) -> Linear:
        """As block `place` of `size` equal blocks, the others 0."""
        blocks = np.zeros((size, *self.matrix.shape))
        blocks[place] = self.matrix
        return Linear(blocks.reshape(-1, self.matrix.shape[1]), f"{self.name} at {place} of {size}")

    def tile(self, times: int) -> Linear:
        """All rows, and again, `times` times: l_1, l_2, ..., l_1, l_2, ..."""
        return Linear(np.tile(self.matrix, (times, 1)), f"{self.name} x {times}")

    def repeat(self, times: int) -> Linear:
        """Each row `times` times: l_1, l_1, ..., l_2, l_2, ..."""
        return Linear(np.repeat(self.matrix, times, axis=0), f"{times} x {self.name}")

    def sum(self) -> Linear:
        """The sum of the rows, one row."""
        return Linear(self.matrix.sum(axis=0, keepdims=True), f"sum of {self.name}")

    def _row(self) -> Array:
        if self.size != 1:
            raise ValueError(f"{self.name} has {self.size} rows, one is needed")
        return self.matrix[0]

    def __neg__(self) -> Linear:
        return Linear(-self.matrix, f"-{self.name}")

    def __mul__(self, factor: float) -> Linear:
        return Linear(factor * self.matrix, f"{factor:g} {self.name}")

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Linear:
        return Linear(self.matrix / divisor, f"{self.name}/{divisor:g}")

    def __add__(self, other: Linear) -> Linear:
        _same_size(self, other, "added to")
        return Linear(self.matrix + other.matrix, f"{self.name} + {other.name}")

    def __sub__(self, other: Linear) -> Linear:
        _same_size(self, other, "subtracted from")
        return Linear(self.matrix - other.matrix, f"{self.name} - {other.name}")


def _same_size(one: Linear, other: Linear, verb: str) -> None:
    if one.size != other.size:
        raise ValueError(f"{other.name} ({other.size} rows) cannot be {verb} {one.name} ({one.size} rows)")


class Layout:
    """Named subspaces of R^D, side by side in the given order.

    ValueError for a repeated or empty name or a negative size; a subspace of size 0 is allowed.
    """

    def __init__(self, subspaces: Iterable[tuple[str, int]]) -> None:
        self.sizes: dict[str, int] = {}
        self._starts: dict[str, int] = {}
        start = 0
        for name, size in subspaces:
            if not name or name in self.sizes:
                raise ValueError(
                    f"subspace names must be distinct and not empty, got {name!r} twice or empty"
                )
            if size < 0:
                raise ValueError(f"subspace {name!r} has negative size {size}")
            self.sizes[name], self._starts[name] = size, start
            start += size
        self.width = start

    @property
    def names(self) -> tuple[str, ...]:
        """The subspaces in order."""
        return tuple(self.sizes)

    def slice(self, name: str) -> slice:
        """Where a subspace lies; ValueError with the names that exist for an unknown one."""
        if name not in self.sizes:
            known = ", ".join(f"{n}({s})" for n, s in self.sizes.items())
            raise ValueError(f"no subspace named {name!r}; the stream has {known}")
        return slice(self._starts[name], self._starts[name] + self.sizes[name])

    def indices(self, name: str) -> range:
        """The coordinates of a subspace."""
        place = self.slice(name)
        return range(place.start, place.stop)

    def __getitem__(self, name: str) -> Linear:
        """h -> its part in the subspace `name`."""
        return Linear(np.eye(self.width)[self.slice(name)], name)

    def put(self, rows: Array, name: str, values: Array | float) -> None:
        """Write `values` (..., n) to the first n coordinates of a subspace of `rows` (..., D)."""
        place = self.slice(name)
        count = np.shape(values)[-1] if np.ndim(values) else self.sizes[name]
        if count > self.sizes[name]:
            raise ValueError(f"{count} values do not fit {name!r} of size {self.sizes[name]}")
        rows[..., place.start : place.start + count] = values

    def read(self, H: Any, name: str) -> Any:
        """The part of tokens `H` (..., D) in a subspace, (..., size)."""
        return H[..., self.slice(name)]


def head(
    layout: Layout,
    *,
    query: Sequence[Linear],
    key: Sequence[Linear],
    value: Mapping[str, Linear],
) -> Head:
    """The attention head with Q h = [query; 0], K h = [key; 0] and V h = [value; 0], by names.

    Entry by entry, query and key must have equal sizes: the score is the sum of their products.
    Empty query and key attend uniformly.
    """
    if len(query) != len(key):
        raise ValueError(f"query has {len(query)} entries, key {len(key)}")
    for asked, answered in zip(query, key, strict=True):
        if asked.size != answered.size:
            raise ValueError(
                f"query {asked.name} ({asked.size} rows) meets key {answered.name} ({answered.size} rows)"
            )
    rows = sum(part.size for part in query)
    if rows > layout.width:
        raise ValueError(f"query has {rows} rows, more than the width D = {layout.width}")
    writes: list[int] = []
    for name, source in value.items():
        if source.size != layout.sizes.get(name, source.size):
            raise ValueError(
                f"value {source.name} ({source.size} rows) does not fit {name} ({layout.sizes[name]} rows)"
            )
        writes += layout.indices(name)
    V = _stack(layout, list(value.values()))
    used = V.any(axis=1)
    return Head(_stack(layout, query), _stack(layout, key), V[used], np.array(writes, dtype=np.int64)[used])


def _stack(layout: Layout, parts: Sequence[Linear]) -> Array:
    return np.concatenate([np.zeros((0, layout.width)), *(part.matrix for part in parts)])


class Units(NamedTuple):
    """Hidden units of an MLP: W1 (units, D), W2 (D, units)."""

    W1: Array
    W2: Array


def apply(
    layout: Layout,
    function: ReluSum,
    *,
    read: str | Linear,
    write: str | Linear,
    one: str | Linear = "one",
) -> Units:
    """Units that add function(read) to write, row by row; subspaces by name, or functions of the token.

    Where `write` has one row and `read` several, the values are summed into it.  Biases come through
    the constant `one` (the paper's MLP has none of its own).  With a function e of the token in its place,
    one row or as many as `read`, what is added is sum_j a_j relu(w_j read + b_j e).
    """
    source, target, bias = (layout[part] if isinstance(part, str) else part for part in (read, write, one))
    if target.size not in (source.size, 1):
        raise ValueError(
            f"{source.name} ({source.size}) can be written to {target.name} ({target.size}) only if "
            "their sizes agree or the latter has size 1"
        )
    if bias.size not in (source.size, 1):
        raise ValueError(f"{bias.name} ({bias.size}) does not fit {source.name} ({source.size})")
    units, rows, D = len(function.a), source.size, layout.width
    W1, W2 = np.zeros((rows, units, D)), np.zeros((D, rows, units))
    for part, weights in ((source, function.w), (bias, function.b)):
        for c in np.flatnonzero(part.matrix.any(axis=0)):
            W1[:, :, c] += np.outer(np.broadcast_to(part.matrix[:, c], rows), weights)
    for c in np.flatnonzero(target.matrix.any(axis=0)):
        W2[c] += np.outer(np.broadcast_to(target.matrix[:, c], rows), function.a)
    return Units(W1.reshape(rows * units, D), W2.reshape(D, rows * units))


def share(*parts: Units) -> Units:
    """One set of hidden units that does what each of the parts does, whose hidden units are the same."""
    first, *others = parts
    if not all(np.array_equal(first.W1, other.W1) for other in others):
        raise ValueError("parts can share hidden units only if these are the same, in the same order")
    return Units(first.W1, np.sum([part.W2 for part in parts], axis=0))


def clean(layout: Layout, *names: str) -> Units:
    """Units that set subspaces to zero exactly: -relu(x) + relu(-x) = -x, two per coordinate."""
    return add(layout, **{name: -layout[name] for name in names})


def add(layout: Layout, **changes: Linear) -> Units:
    """Units that add linear functions to subspaces exactly: relu(l) - relu(-l) = l, two per coordinate."""
    for name, change in changes.items():
        if change.size != len(layout.indices(name)):
            raise ValueError(
                f"{change.name} ({change.size} rows) cannot be added to {name} ({layout.sizes[name]} rows)"
            )
    rows = _stack(layout, list(changes.values()))
    places = np.eye(layout.width)[[c for name in changes for c in layout.indices(name)]]
    return Units(np.concatenate([rows, -rows]), np.concatenate([places, -places]).T.copy())


def gate(layout: Layout, *, read: str, by: str, write: str, bound: float, one: str = "one") -> Units:
    """Units that write the products read_m e_a for a one-hot `by` = e, exact where |read_m| <= bound.

    relu(x - bound (1 - e)) - relu(-x - bound (1 - e)) is x for e = 1 and 0 for e = 0.  A `write` of
    size 1 gets the component that e picks; one of size (read x by) gets all products, those of
    read_m at m times the size of `by` onwards.
    """
    values, flags, targets = layout.indices(read), layout.indices(by), layout.indices(write)
    if len(targets) == 1 and len(values) == len(flags):
        triples = [(x, e, targets[0]) for x, e in zip(values, flags, strict=True)]
    elif len(targets) == len(values) * len(flags):
        pairs = ((x, e) for x in values for e in flags)
        triples = [(x, e, t) for (x, e), t in zip(pairs, targets, strict=True)]
    else:
        raise ValueError(
            f"{read} ({len(values)}) gated by {by} ({len(flags)}) does not fit {write} ({len(targets)})"
        )
    (constant,) = layout.indices(one)
    W1, W2 = np.zeros((2 * len(triples), layout.width)), np.zeros((layout.width, 2 * len(triples)))
    for unit, (x, e, target) in enumerate(triples):
        for row, sign in ((2 * unit, 1.0), (2 * unit + 1, -1.0)):
            W1[row, x] += sign
            W1[row, e] += bound
            W1[row, constant] -= bound
            W2[target, row] = sign
    return Units(W1, W2)


def sign_pair(attention: Head) -> list[Head]:
    """Two ReLU heads that add up to the head without its ReLU: relu(s) V - relu(-s) V = s V."""
    return [attention, attention._replace(Q=-attention.Q, V=-attention.V)]


def layer(activation: Activation, heads: Sequence[Head], *units: Units, width: int | None = None) -> Layer:
    """One layer: the heads side by side, then an MLP of all the given units."""
    if width is None:
        width = heads[0].Q.shape[1] if heads else units[0].W1.shape[1]
    W1 = np.concatenate([np.zeros((0, width)), *(part.W1 for part in units)])
    W2 = np.concatenate([np.zeros((width, 0)), *(part.W2 for part in units)], axis=1)
    return Layer(activation, tuple(heads), W1, W2)
