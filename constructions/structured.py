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
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from constructions.structured_heads import HeadPlan, attention_pattern, few_pairs, head_plans
from constructions.structured_mlp import MlpPlan, Table, mlp_plan
from constructions.tokens import GROUPED, OWN, SHARED, Tokens
from constructions.transformer import TILE, Stage, check_finite

_CHUNK = 2**15
"""Tokens per chunk of a pass over all tokens: a few columns of it fit a processor's cache."""

_Finish = Callable[[Tensor], Tensor]


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
        self._heads: dict[int, list[HeadPlan]] = {}
        self._plans: dict[Any, MlpPlan] = {}

    def step(self, block: Any, number: int, stage: Stage) -> None:
        """Replace the tokens by those after the given half of layer `number`."""
        writes = self._attention(block, number) if stage == "attention" else self._mlp(block, number)
        self.tokens = _apply(self.tokens, writes, number, stage)

    def _say(self, number: int, part: str, rule: str) -> None:
        self.used.append(f"layer {number} {part}: {rule}")

    def _chunks(self, size: int = _CHUNK) -> Iterator[slice]:
        for first in range(0, len(self.tokens), size):
            yield slice(first, min(first + size, len(self.tokens)))

    def _answer(self, head: HeadPlan, to_query: Tensor, finish: _Finish) -> _Write:
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
            self._heads[id(block)] = head_plans(block)
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

    def _few_keys(self, activation: str, head: HeadPlan) -> _Write:
        """Rewrite 2: any queries against distinct keys with their counts."""
        rows, counts = self.tokens.distinct(head.keyed + head.valued)
        values, N = head.V @ rows.T, len(self.tokens)
        return self._answer(
            head,
            (rows @ head.K.T) @ head.Q,
            lambda scores: values @ attention_pattern(activation, scores, counts[:, None], N),
        )

    def _few_queries(self, activation: str, head: HeadPlan) -> _Write:
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

    def _linear(self, head: HeadPlan) -> _Write:
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

    def _all_pairs(self, activation: str, head: HeadPlan) -> tuple[str, _Write]:
        """Every query against every key, in chunks of queries, but for rewrite 5 where it pays."""
        whole = slice(0, len(self.tokens))
        query = self.tokens.project(head.Q, head.asks, whole)
        key = self.tokens.project(head.K, head.keyed, whole)
        value = self.tokens.project(head.V, head.valued, whole)
        result = few_pairs(query, key, value) if activation == "relu" else None
        if result is not None:
            return "few positive scores", _Write(OWN, head.targets, result)
        N = len(self.tokens)
        result = head.K.new_empty(len(head.targets), N)
        for chunk in self._chunks(max(1, min(N, TILE // N))):
            result[:, chunk] = value @ attention_pattern(activation, key.T @ query[:, chunk], 1.0, N)
        return "dense", _Write(OWN, head.targets, result)

    def _mlp(self, block: Any, number: int) -> list[_Write]:
        tokens = self.tokens
        key = (id(block), tokens.kind)
        if key not in self._plans:
            self._plans[key] = mlp_plan(block, tokens)
        plan = self._plans[key]
        writes = []
        for kind, units in plan.repeated:
            rows = tokens.groups if kind == GROUPED else tokens.groups[:1]
            writes.append(_Write(kind, units.written, units.output(units.W1 @ rows.T)))
            self._say(number, "mlp", "repeated rows")
        for column, units in plan.single:
            table = Table.of(units, column, tokens.groups[0])
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
