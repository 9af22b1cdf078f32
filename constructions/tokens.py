"""N tokens with their repeated values stored once, and what may be computed from that alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SHARED, GROUPED, OWN = 0, 1, 2
"""How a coordinate varies: equal in all tokens, equal within groups of tokens, freely."""

_MAX_GROUPS = 256
_MIX = 0x1E3779B97F4A7C15  # odd, with bits all over
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

    def hashed(table: Tensor, picked: Any) -> Tensor:
        total = torch.zeros(len(table), dtype=torch.int64, device=table.device)
        for c in picked:
            # whole numbers have their bits at the top, where a product would lose them
            entry = (table[:, c].contiguous() + 0.0).view(bits).long()
            total = (total ^ entry ^ (entry >> 32)) * _MIX
            total = total ^ (total >> 29)
        return total

    known, order = hashed(groups, range(len(columns))).sort()
    place = torch.searchsorted(known, hashed(H, columns)).clamp(max=len(known) - 1)
    return order[place]


def reads_of(matrix: Tensor) -> list[int]:
    """The coordinates that a matrix reads: its columns that are not zero."""
    return list((matrix != 0).any(dim=0).nonzero().flatten().tolist())
