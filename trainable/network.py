"""The TGMM network (section 2.2): Readin of [X || embed(K)], a transformer, attentive-pooling readouts.

| paper           | here                | shape                        |
|-----------------|---------------------|------------------------------|
| X               | `X`                 | (B, N, d)                    |
| embed(K)        | `Network.task`      | (s, D)                       |
| Readin          | `Network.readin`    | D x (d + d_task), d_task = D |
| Ko, Vo, Qo      | `Readout.K, .V, .Q` | r x D, r x D, r x K          |
| O               | in `Readout`        | r x K, r = K + d (+ d scales) |

(Appendix E.1 prints d + 2K rows for the anisotropic task; scales in R^d for each component need K + 2d.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainable.backbones import foreign_blocks
from trainable.config import NetworkConfig


class Estimates(NamedTuple):
    """Estimates of a group of tasks with the same K: weights (b, K), log of weights (b, K), means (b, K, d),
    scales (b, K, d) or None."""

    weights: Tensor
    log_weights: Tensor
    means: Tensor
    scales: Tensor | None


Groups = Sequence[tuple[int, int]]
"""(K, number of tasks) of consecutive tasks in a batch."""


class Readout(nn.Module):
    """O = (Vo H) SoftMax((Ko H)^T Qo); the first K rows, averaged, give the weights, the others the means.

    The scores are divided by sqrt(r), as in other attention; the paper's Qo is `Q / sqrt(r)`.
    """

    def __init__(self, config: NetworkConfig, n_components: int) -> None:
        super().__init__()
        self.n_components, self.dim, self.scale = n_components, config.dim, config.scale
        rows = n_components + (2 if config.anisotropic else 1) * config.dim
        self.K = nn.Linear(config.width, rows, bias=False)
        self.V = nn.Linear(config.width, rows, bias=False)
        self.Q = nn.Parameter(torch.randn(rows, n_components))

    def forward(self, H: Tensor, X: Tensor) -> Estimates:
        """For hidden states (b, N, D) of samples X (b, N, d)."""
        K, dim, d = self.n_components, self.dim, X.shape[2]
        pattern = torch.softmax(self.K(H) @ self.Q * self.K.weight.shape[0] ** -0.5, dim=1)
        O = (self.V(H).mT @ pattern).float()
        log_weights = torch.log_softmax(O[:, :K].mean(dim=1), dim=1)
        means = self.scale * O[:, K : K + d].mT
        scales = None
        if O.shape[1] > K + dim:
            scales = nn.functional.softplus(O[:, K + dim : K + dim + d].mT)
        return Estimates(log_weights.exp(), log_weights, means, scales)


class MStepReadout(nn.Module):
    """Hidden states to responsibilities, and from these the weights and means of the M-step."""

    def __init__(self, config: NetworkConfig, n_components: int) -> None:
        super().__init__()
        self.logits = nn.Linear(config.width, n_components)

    def forward(self, H: Tensor, X: Tensor) -> Estimates:
        """For hidden states (b, N, D) of samples X (b, N, d)."""
        w = torch.softmax(self.logits(H).float(), dim=2)
        weights = w.mean(dim=1)
        means = w.mT @ X.float() / w.sum(dim=1).clamp(min=1e-9)[:, :, None]
        return Estimates(weights, weights.clamp(min=1e-9).log(), means, None)


class Block(nn.Module):
    """Attention and MLP, each on normalised inputs and added to the stream."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.n_heads, self.causal = config.n_heads, config.causal
        self.norm1 = nn.LayerNorm(config.width)
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.norm2 = nn.LayerNorm(config.width)
        self.up = nn.Linear(config.width, 4 * config.width)
        self.down = nn.Linear(4 * config.width, config.width)

    def forward(self, H: Tensor) -> Tensor:
        """(b, N, D) to (b, N, D)."""
        b, N, D = H.shape
        parts = self.qkv(self.norm1(H)).view(b, N, 3, self.n_heads, D // self.n_heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        H = H + self.out(mixed.transpose(1, 2).reshape(b, N, D))
        return H + self.down(nn.functional.gelu(self.up(self.norm2(H))))


class Network(nn.Module):
    """Samples to estimates, for every K in `config.n_components`."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        D = config.width
        self.task = nn.Embedding(len(config.n_components), D)
        self.dimension = nn.Embedding(config.dim + 1, D) if config.any_dim else None
        self.position = nn.Embedding(config.max_samples, D) if config.positions else None
        self.readin = nn.Linear(config.dim + D, D)
        self.blocks = blocks(config)
        self.norm = nn.LayerNorm(D)
        kind = Readout if config.readout == "pooling" else MStepReadout
        self.readouts = nn.ModuleList(kind(config, K) for K in config.n_components)
        self.own_mean = nn.Linear(D, config.dim)
        self.apply(_initialise)
        for block in self.blocks:
            if isinstance(block, Block):
                for last in (block.out, block.down):
                    nn.init.normal_(last.weight, std=0.02 / (2 * config.n_layers) ** 0.5)

    def states(self, X: Tensor, groups: Groups) -> Iterator[Tensor]:
        """Normalised hidden states (B, N, D) after each layer; `groups` as in `forward`."""
        d, config = X.shape[2], self.config
        # Slices of the table, not look-ups: an index made here would have to travel to the device.
        rows = [self.task.weight[config.n_components.index(K)].expand(n, -1) for K, n in groups]
        about = torch.cat(rows)
        if self.dimension is not None:
            about = about + self.dimension.weight[d]
        padded = nn.functional.pad(X / config.scale, (0, config.dim - d))
        H = self.readin(torch.cat([padded, about[:, None].expand(-1, X.shape[1], -1)], dim=2))
        if self.position is not None:
            H = H + self.position.weight[: X.shape[1]]
        for block in self.blocks:
            H = block(H)
            yield self.norm(H)

    def read(self, H: Tensor, X: Tensor, groups: Groups) -> list[Estimates]:
        """What the readouts make of normalised hidden states of the samples X, group by group."""
        found, first = [], 0
        for K, count in groups:
            rows = slice(first, first + count)
            found.append(self.readouts[self.config.n_components.index(K)](H[rows], X[rows]))
            first += count
        return found

    def forward(self, X: Tensor, groups: Groups) -> list[Estimates]:
        """Estimates for samples X (B, N, d): consecutive tasks in `groups` of (K, number of tasks)."""
        *_, last = self.states(X, groups)
        return self.read(last, X, groups)


def blocks(config: NetworkConfig) -> nn.ModuleList:
    """The backbone's layers, each from (B, N, D) to (B, N, D)."""
    if config.backbone != "plain":
        return foreign_blocks(config)
    return nn.ModuleList(Block(config) for _ in range(config.n_layers))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(
            module.weight, std=0.02 if isinstance(module, nn.Embedding) else module.weight.shape[1] ** -0.5
        )
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def extra_parameters(config: NetworkConfig) -> dict[str, int]:
    """Parameters beside the backbone, in the paper's count (Appendix B): without biases, d_task = D.

    The readouts have sum over K of 2 (d + K) D + (d + K) K, the readin (d_task + d) D and the embedding
    s d_task parameters: O(s (d + K) D + D^2) in all (printed: O(s d D)).
    """
    D, d = config.width, config.dim
    rows = [K + (2 if config.anisotropic else 1) * d for K in config.n_components]
    return {
        "task embedding": len(rows) * D,
        "readin": (D + d) * D,
        "readout": sum(2 * r * D + r * K for r, K in zip(rows, config.n_components, strict=True)),
    }
