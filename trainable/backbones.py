"""Backbones of the transformers library in the place of our own blocks (section 3.2, RQ3; extra `hf`)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from trainable.config import NetworkConfig


class _Layer(nn.Module):
    """A layer of the library as one of ours: (B, N, D) to (B, N, D), without the caches of generation."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, H: Tensor) -> Tensor:
        """One layer."""
        found = self.layer(H)
        assert isinstance(found, Tensor)
        return found


def foreign_blocks(config: NetworkConfig) -> nn.ModuleList:
    """The layers of a GPT-2 or a Mamba2, with the parameters that both have as in the paper's comparison.

    Mamba2 reads the samples one after the other, whatever `causal` says; with three inner channels for each
    of the width's and a state of 128 its layer has about as many parameters as a transformer's (Appendix
    E.1).  ImportError's place is taken by a ValueError that says what to install.
    """
    try:
        import transformers
    except ImportError:
        raise ValueError(
            f'the {config.backbone} backbone needs the transformers library: pip install -e ".[hf]"'
        ) from None
    library: Any = transformers
    if config.backbone == "gpt2":
        about = library.GPT2Config(
            vocab_size=1, n_embd=config.width, n_layer=config.n_layers, n_head=config.n_heads,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=None, eos_token_id=None,
        )  # fmt: skip
        layers = library.GPT2Model(about).h
        for layer in layers:
            layer.attn.is_causal = config.causal
    else:
        inner = 3 * config.width
        head_dim = config.width // config.n_heads
        about = library.Mamba2Config(
            vocab_size=1, hidden_size=config.width, num_hidden_layers=config.n_layers, expand=3,
            head_dim=head_dim, num_heads=inner // head_dim, state_size=128, n_groups=1, chunk_size=64,
            bos_token_id=None, eos_token_id=None, pad_token_id=None,
        )  # fmt: skip
        layers = library.Mamba2Model(about).layers
    return nn.ModuleList(_Layer(layer) for layer in layers)
