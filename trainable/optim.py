"""Optimisers and learning rates: Muon for the block matrices, AdamW for everything else."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from trainable.config import TrainConfig


def optimizers(network: nn.Module, config: TrainConfig) -> list[Optimizer]:
    """One for the matrices of the blocks and one for the rest, or one for all."""
    named = list(network.named_parameters())
    matrices = [p for name, p in named if name.startswith("blocks.") and p.ndim == 2]
    if config.optimizer == "adamw":
        return [AdamW([p for _, p in named], lr=config.lr, weight_decay=config.weight_decay)]
    chosen = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in chosen]
    return [
        Muon(
            matrices,
            lr=config.lr_matrices,
            weight_decay=config.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        AdamW(rest, lr=config.lr, weight_decay=config.weight_decay),
    ]


def rate(step: int, config: TrainConfig) -> float:
    """Factor of the learning rates at a step: linear warm-up, then a cosine to zero, or constant."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if not config.decay_to_zero:
        return 1.0
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.5 * (1 + math.cos(math.pi * done))


def set_rates(every: list[Optimizer], step: int, config: TrainConfig) -> None:
    """Set the learning rates of a step."""
    factor = rate(step, config)
    for optimizer in every:
        base = config.lr_matrices if isinstance(optimizer, torch.optim.Muon) else config.lr
        for group in optimizer.param_groups:
            group["lr"] = base * factor
