"""The dense forward pass in time linear in N, where the weights and the tokens allow it.

`Evaluator` computes the same function of the same weights as `transformer.dense_attention` and
`transformer.dense_mlp`, up to rounding.  It knows no construction: it looks at which entries of the
matrices are zero and at which columns of the stream repeat, and uses five rewrites.

1. Repeated rows.  Tokens that agree in all coordinates that a query, or a hidden unit, reads get
   the same output from it: it is computed once per distinct row.
2. Repeated (key, value) pairs.  n equal pairs contribute n times what one contributes, to the
   softmax's numerator and denominator and to the ReLU sum alike: each is computed once, with its
   count.
3. Sign pairs.  Heads (Q, K, V) and (-Q, K, -V) with ReLU give relu(s) V - relu(-s) V = s V, so
   (1/N) sum_j <Q h_i, K h_j> V h_j = (1/N) (sum_j V h_j (K h_j)^T) Q h_i.
4. One-coordinate units.  Hidden units that read one coordinate (and coordinates that are equal in
   all tokens) sum to a piecewise-linear function of it: the slope and intercept between two
   neighbouring kinks are tabulated, the piece is found by binary search.
5. Scores that are not positive.  ReLU attention adds nothing where <Q h_i, K h_j> <= 0.  Queries and
   keys are boxed in blocks of neighbouring tokens; with middles m, m' and half widths r, r',
   <m, m'> + <|m|, r'> + <r, |m'|> + <r, r'> bounds all scores of a pair of blocks from above, and
   pairs with a bound below zero, rounding included, are left out.

Where no rewrite applies (queries and keys both vary over tokens; a unit reads several varying
coordinates) that head or those units are evaluated densely, and `used` says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from constructions.transformer import TILE, Stage, check_finite

SHARED, GROUPED, OWN = 0, 1, 2
"""How a coordinate varies: equal in all tokens, equal within groups of tokens, freely."""

_CHUNK = 2**15
"""Tokens per chunk of a pass over all tokens: a few columns of it fit a processor's cache."""

_BLOCK = 128
"""Tokens per block of rewrite 5."""

_Finish = Callable[[Tensor], Tensor]
_MAX_GROUPS = 256
_SAMPLE = 4096


@dataclass(frozen=True, eq=False)
class Tokens:
    """N tokens of width D, with repeated values stored once.

    kind: D entries, SHARED, GROUPED or OWN.
    groups: (R, D), one row per group; SHARED coordinates are equal in all rows, OWN ones void.
    index: (N,), the group of each token; counts: (R,), tokens per group.
    own: coordinate -> (N,) values, for the OWN coordinates.
    """

    kind: tuple[int, ...]
    groups: Tensor
    index: Tensor
    counts: Tensor
    own: dict[int, Tensor]

    def __len__(self) -> int:
        return len(self.index)

    @property
    def width(self) -> int:
        """D."""
        return len(self.kind)

    @classmethod
    def build(cls, groups: Tensor, index: Tensor, own: dict[int, Tensor]) -> Tokens:
        """From one row per group, the group of each token, and the freely varying columns."""
        shared = (groups == groups[0]).all(dim=0).tolist()
        kind = tuple(OWN if c in own else SHARED if shared[c] else GROUPED for c in range(len(shared)))
        counts = torch.bincount(index, minlength=len(groups)).to(groups.dtype)
        return cls(kind, groups, index, counts, own)

    @classmethod
    def compress(cls, H: Tensor) -> Tokens:
        """The tokens `H` (N, D), its repetitions found by comparing values."""
        N, D = H.shape
        limit = min(_MAX_GROUPS, max(1, N // 2))
        sample = H[:_SAMPLE]
        few = [c for c in range(D) if len(torch.unique(sample[:, c])) <= limit]
        while few:
            groups = torch.unique(sample[:, few], dim=0)
            index = _look_up(H, few, groups)
            # a column that takes values outside the sample varies freely
            stray = {c for i, c in enumerate(few) if not torch.equal(groups[index, i], H[:, c])}
            if len(groups) > limit:
                stray = {c for c in few if bool((H[:, c] != H[0, c]).any())}
            if not stray:
                break
            few = [c for c in few if c not in stray]
        if not few:
            groups, index = H[:1, few], torch.zeros(N, dtype=torch.long, device=H.device)
        rows = H.new_zeros(len(groups), D)
        rows[:, few] = groups
        columns = H.T.contiguous()
        return cls.build(rows, index, {c: columns[c] for c in range(D) if c not in few})

    def columns(self, wanted: list[int], chunk: slice) -> Tensor:
        """The given coordinates of a chunk of the tokens, (len(wanted), n)."""
        index = self.index[chunk]
        picked = [self.own[c][chunk] if self.kind[c] == OWN else self.groups[index, c] for c in wanted]
        return torch.stack(picked) if picked else self.groups.new_zeros(0, len(index))

    def project(self, matrix: Tensor, read: list[int], chunk: slice) -> Tensor:
        """`matrix` (r, D), zero outside the columns `read`, times a chunk of the tokens, (r, n)."""
        own = [c for c in read if self.kind[c] == OWN]
        rest = [c for c in read if self.kind[c] != OWN]
        known = matrix[:, rest] @ self.groups[:, rest].T
        known = known[:, self.index[chunk]] if self.level(rest) == GROUPED else known[:, :1]
        if not own:
            return known.expand(-1, len(self.index[chunk]))
        return matrix[:, own] @ self.columns(own, chunk) + known

    def dense(self) -> Tensor:
        """The tokens as a tensor (N, D)."""
        H = self.groups[self.index]
        for c, values in self.own.items():
            H[:, c] = values
        return H

    def distinct(self, wanted: list[int]) -> tuple[Tensor, Tensor]:
        """Rows (n, D) whose `wanted` coordinates, with the counts (n,), are those of all tokens."""
        level = self.level(wanted)
        if level == OWN:
            return self.dense(), torch.ones_like(self.index, dtype=self.groups.dtype)
        return (self.groups, self.counts) if level == GROUPED else (self.groups[:1], self.counts.sum()[None])

    def level(self, wanted: list[int]) -> int:
        """The freest kind among the given coordinates."""
        return max((self.kind[c] for c in wanted), default=SHARED)


def _look_up(H: Tensor, columns: list[int], groups: Tensor) -> Tensor:
    """For each token the group that its columns equal; arbitrary where none does."""
    bits = torch.int64 if H.dtype == torch.float64 else torch.int32
    factors = [(2 * i + 1) * 0x9E3779B97F4A7C15 % 2**63 for i in range(len(columns))]

    def hashed(table: Tensor, picked: Any) -> Tensor:
        total = torch.zeros(len(table), dtype=torch.int64, device=table.device)
        for factor, c in zip(factors, picked, strict=True):
            total += (table[:, c].contiguous() + 0.0).view(bits).long() * factor
        return total

    known, order = hashed(groups, range(len(columns))).sort()
    place = torch.searchsorted(known, hashed(H, columns)).clamp(max=len(known) - 1)
    return order[place]


class _Write(NamedTuple):
    """Something added to the stream: `values` (len(columns), n) with n by `kind`: 1, R or N.

    values None: what is added is minus the columns themselves.
    """

    kind: int
    columns: list[int]
    values: Tensor | None


class Evaluator:
    """Runs layers on tokens, half a layer at a time."""

    def __init__(self, tokens: Tensor | Tokens) -> None:
        self.tokens = Tokens.compress(tokens) if isinstance(tokens, Tensor) else tokens
        self.used: list[str] = []
        self._heads: dict[int, list[_Head]] = {}
        self._plans: dict[Any, _MlpPlan] = {}

    def step(self, block: Any, number: int, stage: Stage) -> None:
        """Replace the tokens by those after the given half of layer `number`."""
        writes = self._attention(block, number) if stage == "attention" else self._mlp(block, number)
        self.tokens = _apply(self.tokens, writes, number, stage)

    def _say(self, number: int, part: str, rule: str) -> None:
        self.used.append(f"layer {number} {part}: {rule}")

    def _chunks(self, size: int = _CHUNK) -> Iterator[slice]:
        for first in range(0, len(self.tokens), size):
            yield slice(first, min(first + size, len(self.tokens)))

    def _answer(self, head: _Head, to_query: Tensor, finish: _Finish) -> _Write:
        """`finish` of `to_query` (n, D) times each token; once per distinct query where they repeat."""
        tokens, level = self.tokens, self.tokens.level(head.asks)
        if level < OWN:
            queries, _ = tokens.distinct(head.asks)
            return _Write(level, head.targets, finish(to_query @ queries.T))
        result = to_query.new_empty(len(head.targets), len(tokens))
        for chunk in self._chunks():
            result[:, chunk] = finish(tokens.project(to_query, head.asks, chunk))
        return _Write(OWN, head.targets, result)

    def _attention(self, block: Any, number: int) -> list[_Write]:
        if id(block) not in self._heads:
            self._heads[id(block)] = _analyse(block)
        writes = []
        for m, head in enumerate(self._heads[id(block)], start=1):
            if not head.targets:
                continue
            if head.pair is not None:
                rule = "sign pair"
                if head.pair == "first":
                    writes.append(self._linear(head))
            elif self.tokens.level(head.keyed + head.valued) < OWN:
                rule = "repeated (key, value) pairs"
                writes.append(self._few_keys(block.activation, head))
            elif self.tokens.level(head.asks) < OWN:
                rule = "repeated queries"
                writes.append(self._few_queries(block.activation, head))
            else:
                rule, write = self._all_pairs(block.activation, head)
                writes.append(write)
            self._say(number, f"head {m}", rule)
        return writes

    def _few_keys(self, activation: str, head: _Head) -> _Write:
        """Rewrite 2: any queries against distinct keys with their counts."""
        rows, counts = self.tokens.distinct(head.keyed + head.valued)
        values, N = head.V @ rows.T, len(self.tokens)
        return self._answer(
            head,
            (rows @ head.K.T) @ head.Q,
            lambda scores: values @ _pattern(activation, scores, counts[:, None], N),
        )

    def _few_queries(self, activation: str, head: _Head) -> _Write:
        """Rewrite 1: distinct queries, one pass over all keys with a running maximum."""
        tokens, new = self.tokens, head.K.new_full
        queries, _ = tokens.distinct(head.asks)
        to_key = (queries @ head.Q.T) @ head.K
        peak, mass = new((len(queries), 1), -torch.inf), new((len(queries), 1), 0.0)
        moment = new((len(queries), len(head.valued)), 0.0)
        for chunk in self._chunks():
            scores = tokens.project(to_key, head.keyed, chunk)
            if activation == "softmax":
                higher = torch.maximum(peak, scores.amax(dim=1, keepdim=True))
                shrink, pattern = torch.exp(peak - higher), torch.exp(scores - higher)
                peak, mass, moment = higher, mass * shrink, moment * shrink
            else:
                pattern = torch.relu(scores)
            mass += pattern.sum(dim=1, keepdim=True)
            moment += pattern @ tokens.columns(head.valued, chunk).T
        divisor = mass if activation == "softmax" else len(tokens)
        values = head.V[:, head.valued] @ (moment / divisor).T
        return _Write(tokens.level(head.asks), head.targets, values)

    def _linear(self, head: _Head) -> _Write:
        """Rewrite 3: both heads of a sign pair at once."""
        tokens = self.tokens
        if tokens.level(head.keyed + head.valued) < OWN:
            rows, counts = tokens.distinct(head.keyed + head.valued)
            moment = (head.V @ (rows.T * (counts / len(tokens)))) @ (rows @ head.K.T)
        else:
            second = head.K.new_zeros(len(head.valued), len(head.keyed))
            for chunk in self._chunks():
                second += tokens.columns(head.valued, chunk) @ tokens.columns(head.keyed, chunk).T
            moment = head.V[:, head.valued] @ (second / len(tokens)) @ head.K[:, head.keyed].T
        return self._answer(head, moment @ head.Q, lambda output: output)

    def _all_pairs(self, activation: str, head: _Head) -> tuple[str, _Write]:
        """Every query against every key, in chunks of queries, but for rewrite 5 where it pays."""
        whole = slice(0, len(self.tokens))
        query = self.tokens.project(head.Q, head.asks, whole)
        key = self.tokens.project(head.K, head.keyed, whole)
        value = self.tokens.project(head.V, head.valued, whole)
        result = _few_pairs(query, key, value) if activation == "relu" else None
        if result is not None:
            return "few positive scores", _Write(OWN, head.targets, result)
        N = len(self.tokens)
        result = head.K.new_empty(len(head.targets), N)
        for chunk in self._chunks(max(1, min(N, TILE // N))):
            result[:, chunk] = value @ _pattern(activation, key.T @ query[:, chunk], 1.0, N)
        return "dense", _Write(OWN, head.targets, result)

    def _mlp(self, block: Any, number: int) -> list[_Write]:
        tokens = self.tokens
        key = (id(block), tokens.kind)
        if key not in self._plans:
            self._plans[key] = _plan(block, tokens)
        plan = self._plans[key]
        writes = []
        for kind, units in plan.repeated:
            rows = tokens.groups if kind == GROUPED else tokens.groups[:1]
            writes.append(_Write(kind, units.written, units.output(units.W1 @ rows.T)))
            self._say(number, "mlp", "repeated rows")
        for column, units in plan.single:
            table = _Table.of(units, column, tokens.groups[0])
            if units.written == [column] and table.negates:
                writes.append(_Write(OWN, [column], None))
            else:
                result = units.W1.new_empty(len(units.written), len(tokens))
                for chunk in self._chunks():
                    result[:, chunk] = table(tokens.own[column][chunk])
                writes.append(_Write(OWN, units.written, result))
            self._say(number, "mlp", "one-coordinate units")
        if plan.free is not None:
            units = plan.free
            size = max(1, TILE // len(units.W1))
            result = units.W1.new_empty(len(units.written), len(tokens))
            for chunk in self._chunks(size):
                result[:, chunk] = units.output(tokens.project(units.W1, units.read, chunk))
            writes.append(_Write(OWN, units.written, result))
            self._say(number, "mlp", "dense")
        return writes


def _pattern(activation: str, scores: Tensor, counts: Tensor | float, N: int) -> Tensor:
    """Attention weights, keys along the first axis, each key occurring `counts` times."""
    if activation == "relu":
        return torch.relu(scores) * (counts / N)
    weight = torch.exp(scores - scores.amax(dim=0)) * counts
    return weight / weight.sum(dim=0)


def _few_pairs(query: Tensor, key: Tensor, value: Tensor) -> Tensor | None:
    """Rewrite 5 for queries and keys (r, N), values (w, N); None unless it leaves out most pairs."""
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


def _reads(matrix: Tensor) -> list[int]:
    """The coordinates that a matrix reads: its columns that are not zero."""
    return list((matrix != 0).any(dim=0).nonzero().flatten().tolist())


class _Head(NamedTuple):
    """A head, the coordinates that Q, K and V read, and its place in a sign pair."""

    Q: Tensor
    K: Tensor
    V: Tensor
    targets: list[int]
    asks: list[int]
    keyed: list[int]
    valued: list[int]
    pair: Literal["first", "second"] | None


def _analyse(block: Any) -> list[_Head]:
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
        _Head(Q, K, V, targets if V.any() else [], _reads(Q), _reads(K), _reads(V), places.get(m))
        for m, (Q, K, V, targets) in enumerate(block.heads)
    ]


def _bytes(matrix: Tensor) -> bytes:
    """Equal for equal matrices, the sign of zeros included."""
    return (matrix + 0.0).cpu().numpy().tobytes()


class _Units(NamedTuple):
    """Some hidden units and the coordinates that they write."""

    W1: Tensor
    W2: Tensor
    read: list[int]
    written: list[int]

    def output(self, before: Tensor) -> Tensor:
        """What they add, (len(written), n), given what goes into their ReLUs, (units, n)."""
        return self.W2 @ torch.relu(before)


class _MlpPlan(NamedTuple):
    """Hidden units by what they read: rewrite 1, rewrite 4, and the rest."""

    repeated: list[tuple[int, _Units]]
    single: list[tuple[int, _Units]]
    free: _Units | None


def _plan(block: Any, tokens: Tokens) -> _MlpPlan:
    kind = torch.tensor(tokens.kind, device=block.W1.device)
    reads = (block.W1 != 0) & (block.W2 != 0).any(dim=0)[:, None]  # units that write nothing are off
    level = (reads * kind).amax(dim=1)
    alone = (level == OWN) & ((reads & (kind > SHARED)).sum(dim=1) == 1)

    def select(mask: Tensor) -> _Units:
        W1, W2 = (block.W1, block.W2) if bool(mask.all()) else (block.W1[mask], block.W2[:, mask])
        written = _reads(W2.T)
        return _Units(W1, W2[written], _reads(W1), written)

    repeated = [(k, select(level == k)) for k in (SHARED, GROUPED) if bool((level == k).any())]
    singles = ((c, alone & reads[:, c]) for c in tokens.own)
    single = [(c, select(mask)) for c, mask in singles if bool(mask.any())]
    rest = (level == OWN) & ~alone
    return _MlpPlan(repeated, single, select(rest) if bool(rest.any()) else None)


class _Table(NamedTuple):
    """x -> slope * x + intercept of the piece that x falls in; rows are written coordinates."""

    knots: Tensor
    slope: Tensor
    intercept: Tensor

    @classmethod
    def of(cls, units: _Units, column: int, shared: Tensor) -> _Table:
        """Units a relu(w x + b) switch at -b/w: those with w > 0 are on above it, those with
        w < 0 below.  Summing each sort in its own direction adds up terms of one sign."""
        w = units.W1[:, column]
        others = units.W1.clone()
        others[:, column] = 0
        b = others @ shared
        kinks, order = (-b / w).sort()
        rises, above = (units.W2 * w)[:, order], (w > 0)[order]
        levels = (units.W2 * b)[:, order]
        zero = torch.zeros_like(rises)
        edge = rises.new_zeros(len(rises), 1)

        def active(terms: Tensor) -> Tensor:
            started = torch.where(above, terms, zero).cumsum(dim=1)
            ending = torch.where(above, zero, terms).flip(1).cumsum(dim=1).flip(1)
            return torch.cat([edge, started], dim=1) + torch.cat([ending, edge], dim=1)

        slope, intercept = active(rises), active(levels)
        # pieces between equal kinks are empty; a kink where nothing changes is none
        last = torch.cat([kinks[1:] != kinks[:-1], above.new_ones(1)])
        pieces = torch.cat([last.new_ones(1), last])
        kinks, slope, intercept = kinks[last], slope[:, pieces], intercept[:, pieces]
        real = ((slope.diff() != 0) | (intercept.diff() != 0)).any(dim=0)
        pieces = torch.cat([real.new_ones(1), real])
        return cls(kinks[real], slope[:, pieces].contiguous(), intercept[:, pieces].contiguous())

    @property
    def negates(self) -> bool:
        """Whether this is x -> -x."""
        return len(self.knots) == 0 and bool((self.slope == -1).all() and (self.intercept == 0).all())

    def __call__(self, x: Tensor) -> Tensor:
        """(written coordinates, n) for `x` (n,)."""
        piece = torch.bucketize(x, self.knots)
        pairs = zip(self.slope, self.intercept, strict=True)
        return torch.stack([torch.addcmul(c.take(piece), s.take(piece), x) for s, c in pairs])


def _apply(tokens: Tokens, writes: list[_Write], number: int, stage: Stage) -> Tokens:
    """The tokens with everything in `writes` added.  A column that becomes zero is shared again."""
    kind, groups, own = list(tokens.kind), tokens.groups.clone(), dict(tokens.own)
    times = Counter(c for write in writes for c in write.columns)
    for write in writes:
        if write.values is None and times[write.columns[0]] == 1:  # h + (-h) = 0 exactly
            (c,) = write.columns
            kind[c] = SHARED
            groups[:, c] = 0
            del own[c]
            continue
        values = (
            torch.stack([-tokens.own[c] for c in write.columns]) if write.values is None else write.values
        )
        for c, added in zip(write.columns, values, strict=True):
            if max(kind[c], write.kind) < OWN:
                groups[:, c] += added
                kind[c] = max(kind[c], write.kind)
                continue
            if write.kind == GROUPED:
                added = added[tokens.index]
            if kind[c] == OWN:
                own[c] = own[c] + added
            else:
                own[c] = groups[tokens.index, c] + added if groups[:, c].any() else added
            kind[c] = OWN
    for c in times:
        check_finite(own[c] if kind[c] == OWN else groups[:, c], number, stage, tokens.groups)
        if kind[c] == GROUPED and not groups[:, c].any():
            kind[c] = SHARED
    return replace(tokens, kind=tuple(kind), groups=groups, own=own)
