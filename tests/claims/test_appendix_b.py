"""Claims 17-20: parameters of a TGMM beside its backbone, counted on networks that are built."""

import numpy as np
import pytest

from tests.claims.evidence import Found
from trainable.config import NetworkConfig
from trainable.network import Network

SIZES = [
    (1, (2,), 16),
    (2, (2, 3, 4, 5), 16),
    (8, (2, 5), 32),
    (1, (40,), 64),
    (1, (60, 64), 64),
    (4, (3,), 128),
    (2, (2, 3, 4, 5), 128),
]
"""(d, all K, D), d_task = D, with K up to D."""


def parts(d, kinds, D, **options):
    return Network(NetworkConfig(d, kinds, n_layers=1, width=D, n_heads=1, **options))


def readout_count(network):
    return sum(p.numel() for p in network.readouts.parameters())


@pytest.mark.claim(17)
def test_embedding_and_readin(claim):
    def check(readin):
        off = 0
        for d, kinds, D in SIZES:
            network = parts(d, kinds, D)
            off += network.task.weight.numel() != len(kinds) * D
            off += network.readin.weight.numel() != readin(d, D)
        return Found(off, 0, 2 * len(SIZES))

    claim.holds(check, lambda d, D: (D + d) * D)
    claim.twin("without the task's part", check, lambda d, D: d * D)


@pytest.mark.claim(18)
def test_readouts(claim):
    """Largest ratio of the count to the bound, whose constant is 3."""

    def check(bound):
        ratios = [readout_count(parts(*size)) / bound(*size) for size in SIZES]
        return Found(max(ratios), 3, len(ratios))

    claim.holds(check, lambda d, kinds, D: sum(d + K for K in kinds) * D)
    claim.printed(
        "s d D, which d = 1 and K = 64 exceed 190 times", check, lambda d, kinds, D: len(kinds) * d * D
    )


@pytest.mark.claim(18)
def test_the_readouts_count(claim):
    def check(count):
        off = [readout_count(parts(*size)) - count(*size) for size in SIZES]
        return Found(np.abs(off).max(), 0, len(off))

    claim.holds(check, lambda d, kinds, D: sum(2 * (d + K) * D + (d + K) * K for K in kinds))
    claim.twin("without the queries", check, lambda d, kinds, D: sum(2 * (d + K) * D for K in kinds))


@pytest.mark.claim(19)
def test_all_extra_parameters(claim):
    """d = 2, K = 2..5, D = 128 is the paper's own configuration."""

    def check(bound):
        ratios = []
        for d, kinds, D in SIZES:
            network = parts(d, kinds, D)
            extra = network.task.weight.numel() + network.readin.weight.numel() + readout_count(network)
            ratios.append(extra / bound(d, kinds, D))
        return Found(max(ratios), 4, len(ratios))

    claim.holds(check, lambda d, kinds, D: sum(d + K for K in kinds) * D + D * D)
    claim.printed("s d D", check, lambda d, kinds, D: len(kinds) * d * D)


@pytest.mark.claim(20)
def test_rows_of_the_anisotropic_readout(claim):
    """K weights, d coordinates of a mean and d of a scale for each; on the built network."""

    def check(rows):
        off = 0
        for d, K in ((2, 3), (8, 5), (3, 3)):
            (readout,) = parts(d, (K,), 16, anisotropic=True).readouts
            off += readout.K.weight.shape[0] != rows(d, K)
        return Found(off, 0, 3)

    claim.holds(check, lambda d, K: K + 2 * d)
    claim.printed("d + 2K", check, lambda d, K: d + 2 * K)
