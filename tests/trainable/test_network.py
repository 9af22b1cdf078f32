"""The network of section 2.2: shapes, symmetries, and the parameters that Appendix B counts."""

import dataclasses

import pytest
import torch

from trainable.config import NetworkConfig, preset
from trainable.network import Network, extra_parameters

GROUPS = [(2, 3), (3, 1), (5, 2)]


def network(**changes):
    torch.manual_seed(0)
    config = NetworkConfig(3, n_layers=2, width=16, n_heads=2)
    return Network(dataclasses.replace(config, **changes)).eval()


def data(seed=0, B=6, N=20, d=3):
    return 3 * torch.randn((B, N, d), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def flat(net, X, groups=GROUPS):
    """All estimates of a batch in one vector."""
    found = net(X, groups)
    return torch.cat([part.flatten() for one in found for part in one if part is not None])


def test_shapes_and_simplex():
    found = network(anisotropic=True)(data(), GROUPS)
    for (K, b), one in zip(GROUPS, found, strict=True):
        assert one.weights.shape == (b, K)
        assert one.means.shape == one.scales.shape == (b, K, 3)
        assert torch.allclose(one.weights.sum(dim=1), torch.ones(b))
        assert (one.scales > 0).all()


@pytest.mark.parametrize("readout", ["pooling", "m-step"])
def test_estimates_do_not_depend_on_the_order_of_samples(readout):
    X, order = data(), torch.randperm(20, generator=torch.Generator().manual_seed(1))
    net = network(readout=readout)
    assert (flat(net, X) - flat(net, X[:, order])).abs().max() < 5e-6


def test_the_m_step_readout_averages_samples():
    """Its means are averages of the samples with responsibilities that add up to the weights."""
    net, X = network(readout="m-step"), data()
    *_, H = net.states(X, GROUPS)
    w = torch.softmax(net.readouts[0].logits(H[:3]), dim=2)
    (first, *_) = net(X, GROUPS)
    for b in range(3):
        for k in range(2):
            assert torch.allclose(first.weights[b, k], w[b, :, k].sum() / 20)
            mean = sum(w[b, i, k] * X[b, i] for i in range(20)) / w[b, :, k].sum()
            assert torch.allclose(first.means[b, k], mean, atol=1e-5)


@pytest.mark.parametrize("twin", [{"causal": True}, {"positions": True}])
def test_a_mask_or_positions_make_them_depend_on_it(twin):
    X, order = data(), torch.randperm(20, generator=torch.Generator().manual_seed(1))
    assert (flat(network(**twin), X) - flat(network(**twin), X[:, order])).abs().max() > 1e-3


def test_every_task_is_answered_alone():
    net, X = network(), data()
    together, first = net(X, GROUPS), 0
    for (K, b), one in zip(GROUPS, together, strict=True):
        for i in range(b):
            (alone,) = net(X[first + i : first + i + 1], [(K, 1)])
            assert torch.allclose(alone.means[0], one.means[i], atol=1e-5)
        first += b


def test_k_changes_the_estimate():
    """The readouts and the task embedding are those of the K asked for."""
    net, X = network(), data(B=1)
    two, three = (net(X, [(K, 1)])[0] for K in (2, 3))
    assert (two.means[0] - three.means[0, :2]).abs().max() > 1e-3


def test_padding_leaves_smaller_dimensions_alone():
    """With `any_dim` a smaller d is data followed by zeros, told apart by its embedding."""
    net, X = network(any_dim=True), data(d=2)
    padded = torch.nn.functional.pad(X, (0, 1))
    found = flat(net, X)
    with torch.no_grad():
        net.dimension.weight[3] = net.dimension.weight[2]
        means = [one.means[..., :2] for one in net(padded, GROUPS)]
    weights_and_means = torch.cat([m.flatten() for m in means])
    expected = torch.cat([one.means.flatten() for one in net(X, GROUPS)])
    assert torch.allclose(weights_and_means, expected)
    assert found.shape < flat(net, padded).shape


@pytest.mark.parametrize("name", ["paper-d2", "paper-d8-anisotropic", "tgmm-small-d8"])
def test_extra_parameters_are_those_of_the_corrected_count(name):
    config = preset(name).network
    net = Network(config)
    sizes = {
        "task embedding": net.task.weight.numel(),
        "readin": net.readin.weight.numel(),
        "readout": sum(p.numel() for p in net.readouts.parameters()),
    }
    assert sizes == extra_parameters(config)


def test_the_printed_count_does_not_hold():
    """Appendix B says O(s d D): it misses the readin's D^2 and the readouts' K D."""
    counts = extra_parameters(preset("paper-d2").network)
    s, d, D = 4, 2, 128
    assert sum(counts.values()) > 20 * s * d * D
    many = extra_parameters(NetworkConfig(1, n_components=(100,), width=128))
    assert many["readout"] > 100 * 1 * 128


@pytest.mark.parametrize("name", ["tgmm-d0", "paper-any", "tgmm", "gpt-d8", "tgmm-dx"])
def test_unknown_presets_are_refused(name):
    with pytest.raises(ValueError, match="no preset"):
        preset(name)


def test_impossible_networks_are_refused():
    with pytest.raises(ValueError, match="multiple of n_heads"):
        NetworkConfig(2, width=10, n_heads=4)
    with pytest.raises(ValueError, match="every K >= 2"):
        NetworkConfig(2, n_components=(1, 2))
    with pytest.raises(ValueError, match="pooling readout"):
        NetworkConfig(2, anisotropic=True, readout="m-step")
