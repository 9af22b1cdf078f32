"""The loss of a batch as a module, and the batch of a step."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn

from trainable.config import NetworkConfig, TrainConfig
from trainable.loss import estimate_loss, own_mean_loss
from trainable.network import Network
from trainable.sampler import Group, sample_group


class Objective(nn.Module):
    """The matched (or sorted) loss of the last layer, plus `deep` times its mean over all layers, plus
    `dense` times the error of each sample's own mean."""

    def __init__(self, network: Network, config: TrainConfig) -> None:
        super().__init__()
        self.network, self.config = network, config

    def forward(self, batch: list[Group]) -> Tensor:
        """Mean over the tasks, the same number of each K."""
        config, network = self.config, self.network
        groups = [(g.weights.shape[1], len(g.X)) for g in batch]
        X = torch.cat([g.X for g in batch])
        states = list(network.states(X, groups))
        d = X.shape[2]

        def readout_loss(H: Tensor) -> Tensor:
            found = network.read(H, X, groups)
            losses = [estimate_loss(f, g, config.labels) for f, g in zip(found, batch, strict=True)]
            return torch.stack(losses).mean()

        last = readout_loss(states[-1])
        loss = last
        if config.deep:
            every = [readout_loss(H) for H in states[:-1]] + [last]
            loss = loss + config.deep * torch.stack(every).mean()
        if config.dense:
            predicted = (network.own_mean(states[-1]) * network.config.scale).float()[..., :d]
            own = [
                own_mean_loss(part, g)
                for part, g in zip(predicted.split([n for _, n in groups]), batch, strict=True)
            ]
            loss = loss + config.dense * torch.stack(own).mean()
        return loss


def draw(
    step: int, seed: int, network: NetworkConfig, config: TrainConfig, device: torch.device
) -> list[Group]:
    """The batch of a step: a function of the seed and the step alone, so that a run can go on anywhere."""
    chance = random.Random(f"{seed}-{step}")
    N = 8 * chance.randint(config.min_samples // 8, config.max_samples // 8)
    d = chance.choice(config.dims)
    generator = torch.Generator(device).manual_seed(chance.getrandbits(62))
    each = config.batch // len(network.n_components)
    return [
        sample_group(each, N, d, K, generator, anisotropic=network.anisotropic) for K in network.n_components
    ]


def share(batch: list[Group], rank: int, world: int) -> list[Group]:
    """One process's part of every group."""
    mine = slice(rank, None, world)
    return [
        Group(
            g.X[mine],
            g.labels[mine],
            g.weights[mine],
            g.means[mine],
            None if g.scales is None else g.scales[mine],
        )
        for g in batch
    ]
