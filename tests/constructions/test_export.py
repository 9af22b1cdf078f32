"""The exported TransformerLens model computes the same tokens, with every activation by its name."""

import numpy as np
import pytest
import torch

from constructions import DiagonalEMTransformer, EMTransformer, TensorPowerTransformer
from constructions.export import to_transformer_lens
from gmm import GaussianMixture

STEPS = 2


@pytest.fixture(params=["unit", "diagonal"])
def case(request):
    """A construction and an encoded problem."""
    pytest.importorskip("transformer_lens")
    rng = np.random.default_rng(0)
    truth = GaussianMixture([0.4, 0.6], [[2.0, 0.0], [-2.0, 1.0]])
    X, _ = truth.sample(20, rng)
    if request.param == "unit":
        construction = EMTransformer(3, 3, eps=1e-2, r_max=16, pi_min=0.01)
        return construction, construction.encode(X, truth)
    construction = DiagonalEMTransformer(2, 2, eps=1e-1, r_max=16, pi_min=0.01, scale_min=0.2, scale_max=4)
    return construction, construction.encode(X, GaussianMixture(truth.weights, truth.means, np.ones((2, 2))))


def test_outputs_and_activations_agree(case):
    construction, H = case
    bridge = to_transformer_lens(construction, STEPS)
    logits, cache = bridge.run_with_cache(torch.tensor(H)[None])
    network = construction.transformer(STEPS)
    assert np.abs(logits[0].numpy(force=True) - network(H)).max() <= 1e-9
    names = {"attention": "hook_resid_mid", "mlp": "hook_resid_post"}
    for state in network.states(torch.tensor(H)):
        got = cache[f"blocks.{state.layer - 1}.{names[state.stage]}"][0]
        assert (got - state.tokens).abs().max() <= 1e-9


def test_a_broken_matrix_shows(case):
    construction, H = case
    bridge = to_transformer_lens(construction, STEPS)
    with torch.no_grad():
        for name, weight in bridge.original_model.named_parameters():
            if ".k." in name and name.endswith("weight"):
                weight.neg_()
    assert (
        np.abs(bridge(torch.tensor(H)[None])[0].numpy(force=True) - construction.transformer(STEPS)(H)).max()
        > 1e-3
    )


def test_relu_attention_is_refused():
    pytest.importorskip("transformer_lens")
    with pytest.raises(ValueError, match="softmax attention only"):
        to_transformer_lens(TensorPowerTransformer(2))
