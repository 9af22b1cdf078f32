"""The transformer of Definitions 1-5: weights as data, one forward pass, its norm and its class.

    attention   h_i + sum_m sum_j SoftMax_j(<Q_m h_i, K_m h_j>) V_m h_j        (Definition 1)
                h_i + (1/N) sum_m sum_j relu(<Q_m h_i, K_m h_j>) V_m h_j       (Definition 4)
    MLP         h_i + W2 relu(W1 h_i)                                          (Definition 2)

A layer is attention followed by an MLP, a transformer a sequence of layers (Definitions 3, 5).
Nothing here knows what the weights are for.

| paper          | here                 | shape                                              |
|----------------|----------------------|----------------------------------------------------|
| H              | `H`                  | (..., N, D): tokens are rows, the paper's columns  |
| Q_m, K_m, V_m  | `Head.Q, .K, .V`     | (D, D), acting on columns, zero rows left out      |
| W1, W2         | `Layer.W1, .W2`      | (D', D), (D, D')                                   |
| |||Theta|||    | `Sizes.norm`         | max_l {max_m {|Q|,|K|,|V|} + |W1| + |W2|}, spectral |
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast, overload

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from constructions.weights import Activation, Array, Layer, Pooling, Sizes

Mode = Literal["auto", "dense", "structured"]
Stage = Literal["attention", "mlp"]

STAGES: tuple[Stage, Stage] = ("attention", "mlp")

TILE = 2**23
"""Most entries of one temporary of the dense pass; a few are alive at once, far below 1 GiB."""

_LONG_WORK = 2e12
"""Floating-point operations above which the dense pass shows its progress (about a minute)."""

_LONG_WALK = 5e7
"""Tokens times layers above which the structured pass does (about ten seconds)."""


class State(NamedTuple):
    """The tokens after one half of one layer; layers count from 1."""

    layer: int
    stage: Stage
    tokens: Any
    """A tensor (..., N, D), or a `structured.Tokens`."""


class _Block(nn.Module):
    """One layer's weights as tensors, shapes as in `weights`.  `targets`: what each V writes to."""

    W1: Tensor
    W2: Tensor

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.activation: Activation = layer.activation
        self.Q = nn.ParameterList([_parameter(head.Q) for head in layer.heads])
        self.K = nn.ParameterList([_parameter(head.K) for head in layer.heads])
        self.V = nn.ParameterList([_parameter(head.V) for head in layer.heads])
        self.targets = [head.targets for head in layer.heads]
        self.W1, self.W2 = _parameter(layer.W1), _parameter(layer.W2)

    @property
    def heads(self) -> list[tuple[Tensor, Tensor, Tensor, list[int]]]:
        """(Q, K, V, targets) of each head."""
        return list(zip(self.Q, self.K, self.V, self.targets, strict=True))


def _parameter(values: Array) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values), requires_grad=False)


class Transformer(nn.Module):
    """L layers run one after the other.

    layers: `Layer` values, or mappings in the form that `matrices` returns.  A layer object that
    occurs several times is one set of parameters used several times (a looped transformer).
    Weights are float64; `.to(torch.float32)` and `.to(device)` work as for any module.  After a
    pass, `used` says how it was evaluated.
    """

    def __init__(self, layers: Sequence[Layer | Mapping[str, Any]]) -> None:
        super().__init__()
        if not layers:
            raise ValueError("a transformer needs at least one layer")
        order: dict[int, int] = {}
        blocks: list[_Block] = []
        self._order: list[int] = []
        widths = set()
        for layer in layers:
            if id(layer) not in order:
                order[id(layer)] = len(blocks)
                value = layer if isinstance(layer, Layer) else Layer.from_matrices(layer)
                widths.add(value.width)
                blocks.append(_Block(value))
            self._order.append(order[id(layer)])
        if len(widths) != 1:
            raise ValueError(f"layers must share one width D, got {sorted(widths)}")
        self.width = widths.pop()
        self._blocks = nn.ModuleList(blocks)
        self.used: tuple[str, ...] = ()

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and so of the pass."""
        return self.blocks[0].W1.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.blocks[0].W1.device

    @property
    def blocks(self) -> list[_Block]:
        """The layers in the order in which they run; tied layers are one object."""
        return [cast(_Block, self._blocks[i]) for i in self._order]

    @overload
    def forward(self, H: Tensor, mode: Mode = ...) -> Tensor: ...
    @overload
    def forward(self, H: Array, mode: Mode = ...) -> Array: ...

    @torch.no_grad()
    def forward(self, H: Tensor | Array, mode: Mode = "dense") -> Tensor | Array:
        """The output tokens for input tokens `H` (..., N, D); numpy in, numpy out.

        mode: "dense" evaluates the definitions as they stand; "structured" is the same function
        in time linear in N where the weights allow it (see `structured`); "auto" picks
        "structured".

        ValueError for a wrong width or values that are not finite, TypeError for a tensor of
        another dtype or device than the weights, OverflowError when values leave the dtype.
        """
        tokens = self._tensor(H)
        flat = tokens.reshape(-1, *tokens.shape[-2:])
        if mode == "dense":
            for state in self.states(flat, "dense"):
                flat = state.tokens
        else:
            results, used = [], []
            for sequence in flat:
                for state in self.states(sequence, mode):
                    last = state.tokens
                results.append(last.dense())
                used += [rule for rule in self.used if rule not in used]
            self.used = tuple(used)
            flat = torch.stack(results) if results else flat
        out = flat.reshape(tokens.shape)
        return out if isinstance(H, Tensor) else out.double().cpu().numpy()

    def _tensor(self, H: Tensor | Array) -> Tensor:
        if self.dtype not in (torch.float32, torch.float64):
            raise TypeError(
                f"{self.dtype} is not supported: its rounding exceeds what the constructions "
                "approximate; use torch.float64 or torch.float32"
            )
        if isinstance(H, Tensor):
            if H.dtype != self.dtype or H.device != self.device:
                raise TypeError(
                    f"H is {H.dtype} on {H.device}, the weights are {self.dtype} on "
                    f"{self.device}; convert one with .to(...)"
                )
            tokens = H
        else:
            tokens = torch.as_tensor(H, dtype=self.dtype, device=self.device)
        if tokens.ndim < 2 or tokens.shape[-1] != self.width:
            raise ValueError(f"H must be (..., N, {self.width}), got {tuple(tokens.shape)}")
        if tokens.shape[-2] == 0:
            raise ValueError("H needs at least one token, got N = 0")
        if not torch.isfinite(tokens).all():
            raise ValueError("H must be finite")
        return tokens

    @torch.no_grad()
    def states(self, tokens: Any, mode: Mode = "dense") -> Iterator[State]:
        """Every activation: after the attention and after the MLP of each layer.

        tokens: a tensor (..., N, D), or, for the structured evaluation, a tensor (N, D) or a
        `structured.Tokens`.
        """
        if mode not in ("auto", "dense", "structured"):
            raise ValueError(f'mode must be "auto", "dense" or "structured", got {mode!r}')
        if mode == "dense":
            yield from self._dense_states(tokens)
            return
        from constructions.structured import Evaluator  # it imports this module

        evaluator = Evaluator(tokens)
        long = len(tokens) * len(self.blocks) > _LONG_WALK
        bar = tqdm(self.blocks, desc="structured forward pass", unit="layer", disable=None if long else True)
        for number, block in enumerate(bar, start=1):
            for stage in STAGES:
                evaluator.step(block, number, stage)
                yield State(number, stage, evaluator.tokens)
        self.used = tuple(evaluator.used)

    def _dense_states(self, H: Tensor) -> Iterator[State]:
        work = sum(_work(block, H) for block in self.blocks)
        with tqdm(total=work, desc="dense forward pass", unit="flop", unit_scale=True,
                  disable=None if work > _LONG_WORK else True, leave=False) as progress:  # fmt: skip
            for number, block in enumerate(self.blocks, start=1):
                for stage, half in zip(STAGES, (dense_attention, dense_mlp), strict=True):
                    before, H = H, half(block, H, progress)
                    check_finite(H, number, stage, before)
                    yield State(number, stage, H)
        self.used = ("dense",)

    def matrices(self) -> list[dict[str, Any]]:
        """Per layer {"activation", "Q": [(D, D), ...], "K", "V", "W1": (D', D), "W2": (D, D')}.

        Float64 arrays in the paper's shapes, acting on columns.  Tied layers give the same array
        objects.
        """
        unique = []
        for module in self._blocks:
            block = cast(_Block, module)
            entry: dict[str, Any] = {"activation": block.activation, "Q": [], "K": [], "V": []}
            for Q, K, V, targets in block.heads:
                rows = list(range(len(Q)))
                for name, matrix, places in (("Q", Q, rows), ("K", K, rows), ("V", V, targets)):
                    square = np.zeros((self.width, self.width))
                    square[places] = matrix.double().cpu().numpy()
                    entry[name].append(square)
            for name in ("W1", "W2"):
                entry[name] = getattr(block, name).detach().clone().double().cpu().numpy()
            unique.append(entry)
        return [dict(unique[i]) for i in self._order]

    def sizes(self) -> Sizes:
        """Layers, heads, width D, hidden width D' and |||Theta||| of this network."""
        norms = []
        for module in self._blocks:
            block = cast(_Block, module)
            norms.append(
                max((spectral_norm(m) for head in block.heads for m in head[:3]), default=0.0)
                + spectral_norm(block.W1)
                + spectral_norm(block.W2)
            )
        heads = tuple(len(block.Q) for block in self.blocks)
        hidden = tuple(len(block.W1) for block in self.blocks)
        return Sizes(len(heads), max(heads), self.width, max(hidden), max(norms), heads, hidden)


def spectral_norm(matrix: Tensor) -> float:
    """|A|_2, from the Gram matrix of the shorter side, scaled so that nothing overflows."""
    if 0 in matrix.shape:
        return 0.0
    scale = float(matrix.abs().max())
    if scale == 0:
        return 0.0
    scaled = matrix.double() / scale
    gram = scaled.T @ scaled if scaled.shape[0] > scaled.shape[1] else scaled @ scaled.T
    return scale * math.sqrt(max(0.0, float(torch.linalg.eigvalsh(gram)[-1])))


def check_finite(H: Tensor, layer: int, stage: str, before: Tensor) -> None:
    """OverflowError naming the step, and the largest entry before it, if H is not finite."""
    if not torch.isfinite(H.sum()) and not torch.isfinite(H).all():
        largest = float(before.abs().max()) if before.numel() else 0.0
        raise OverflowError(
            f"values leave {H.dtype} in the {stage} of layer {layer}; the largest entry before "
            f"it was {largest:.3g}"
        )


def dense_attention(block: _Block, H: Tensor, progress: tqdm[Any] | None = None) -> Tensor:
    """The attention of Definitions 1 and 4, residual included, for H (..., N, D).

    Heads are added one after the other, so that a first head that removes what a token holds does so
    before anything small is added.
    """
    out = H.clone()
    flat, into = H.reshape(-1, *H.shape[-2:]), out.view(-1, *H.shape[-2:])
    N = H.shape[-2]
    sequences = max(1, min(len(flat), TILE // (N * N)))
    queries = max(1, min(N, TILE // N))
    for Q, K, V, written in block.heads:
        for start in range(0, len(flat), sequences):
            tokens = flat[start : start + sequences]
            keys, values = tokens @ K.T, tokens @ V.T
            for first in range(0, N, queries):
                rows = slice(first, first + queries)
                scores = (tokens[:, rows] @ Q.T) @ keys.mT
                if block.activation == "softmax":
                    update = torch.softmax(scores, dim=-1) @ values
                else:
                    update = torch.relu(scores) @ values / N
                into[start : start + sequences, rows, written] += update
                if progress is not None:
                    progress.update(4 * scores.numel() * H.shape[-1])
    return out


def dense_mlp(block: _Block, H: Tensor, progress: tqdm[Any] | None = None) -> Tensor:
    """The MLP of Definition 2, residual included, for H (..., N, D)."""
    flat = H.reshape(-1, H.shape[-1])
    update = torch.zeros_like(flat)
    units = min(len(block.W1), max(1, TILE // 64))
    for first in range(0, len(block.W1), max(units, 1)):
        W1, W2 = block.W1[first : first + units], block.W2[:, first : first + units]
        rows = TILE // len(W1)
        for start in range(0, len(flat), rows):
            hidden = torch.relu(flat[start : start + rows] @ W1.T)
            update[start : start + rows] += hidden @ W2.T
            if progress is not None:
                progress.update(4 * hidden.numel() * H.shape[-1])
    return H + update.reshape(H.shape)


def _work(block: _Block, H: Tensor) -> int:
    """Rough number of floating-point operations of one layer of the dense pass."""
    N, D = H.shape[-2:]
    return 4 * D * H[..., 0].numel() * (len(block.Q) * N + len(block.W1))


def pool(pooling: Pooling, rows: Tensor, counts: Tensor | None = None) -> Array:
    """O of `pooling`, (s, K), for the tokens `rows` (n, D), each occurring `counts` times."""
    Qo, Ko, Vo = (
        torch.as_tensor(m, dtype=rows.dtype, device=rows.device) for m in (pooling.Qo, pooling.Ko, pooling.Vo)
    )
    times = torch.ones_like(rows[:, 0]) if counts is None else counts.to(rows.dtype)
    scores = (rows @ Ko.T) @ Qo
    if pooling.activation == "softmax":
        pattern = torch.exp(scores - scores.max(dim=0).values) * times[:, None]
        pattern = pattern / pattern.sum(dim=0)
    else:
        pattern = scores * times[:, None] / times.sum()
    return ((rows @ Vo.T).T @ pattern).double().cpu().numpy()
