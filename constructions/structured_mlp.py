"""Hidden units as the structured evaluation sees them: by what they read, and as piecewise-linear tables."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from constructions.tokens import GROUPED, OWN, SHARED, Tokens, reads_of


class HiddenUnits(NamedTuple):
    """Some hidden units and the coordinates that they write."""

    W1: Tensor
    W2: Tensor
    read: list[int]
    written: list[int]

    def output(self, before: Tensor) -> Tensor:
        """What they add, (len(written), n), given what goes into their ReLUs, (units, n)."""
        return self.W2 @ torch.relu(before)


class MlpPlan(NamedTuple):
    """Hidden units by what they read: rewrite 1, rewrite 4, and the rest."""

    repeated: list[tuple[int, HiddenUnits]]
    single: list[tuple[int, HiddenUnits]]
    free: HiddenUnits | None


def mlp_plan(block: Any, tokens: Tokens) -> MlpPlan:
    """How to evaluate a layer's MLP on tokens of this kind."""
    kind = torch.tensor(tokens.kind, device=block.W1.device)
    reads = (block.W1 != 0) & (block.W2 != 0).any(dim=0)[:, None]  # units that write nothing are off
    level = (reads * kind).amax(dim=1)
    alone = (level == OWN) & ((reads & (kind > SHARED)).sum(dim=1) == 1)

    def select(mask: Tensor) -> HiddenUnits:
        W1, W2 = (block.W1, block.W2) if bool(mask.all()) else (block.W1[mask], block.W2[:, mask])
        written = reads_of(W2.T)
        return HiddenUnits(W1, W2[written], reads_of(W1), written)

    repeated = [(k, select(level == k)) for k in (SHARED, GROUPED) if bool((level == k).any())]
    singles = ((c, alone & reads[:, c]) for c in tokens.own)
    single = [(c, select(mask)) for c, mask in singles if bool(mask.any())]
    rest = (level == OWN) & ~alone
    return MlpPlan(repeated, single, select(rest) if bool(rest.any()) else None)


class Table(NamedTuple):
    """x -> slope * x + intercept of the piece that x falls in; rows are written coordinates."""

    knots: Tensor
    slope: Tensor
    intercept: Tensor

    @classmethod
    def of(cls, units: HiddenUnits, column: int, shared: Tensor) -> Table:
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
