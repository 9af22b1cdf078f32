"""Constructions as TransformerLens models.

(For programs without this package and without TransformerLens, the files of `constructions.save` can be
read with torch alone: docs/export.md.)
"""

from __future__ import annotations

import math
from typing import Any

import torch

from constructions.construction import Construction
from constructions.weights import Array


def to_transformer_lens(construction: Construction, n_iter: int = 1, *, n_ctx: int = 1024) -> Any:
    """The network for `n_iter` iterations as a TransformerLens `TransformerBridge`, in float64.

    `bridge(H[None])` takes encoded tokens (1, N, D) with N <= `n_ctx` in place of embeddings and returns the
    output tokens as logits (the unembedding is the identity); `bridge.run_with_cache(H[None])` names every
    activation: block l is layer l + 1, `blocks.0.attn.hook_pattern` its attention.  Layers with fewer heads
    or units than the largest are filled up with zeros.

    ImportError without the extra `lens`; ValueError for a construction with ReLU attention, which the
    library does not have.
    """
    try:
        from transformer_lens.config import TransformerBridgeConfig
        from transformer_lens.model_bridge.sources.native import boot
    except ImportError:
        raise ImportError(
            'this export needs TransformerLens 4.1 or newer: pip install -e ".[lens]"'
        ) from None
    layers = construction.layers(n_iter)
    if any(layer.heads and layer.activation != "softmax" for layer in layers):
        raise ValueError(
            f"{type(construction).__name__} has ReLU attention; TransformerLens has softmax attention only"
        )
    heads = [head for layer in layers for head in layer.heads]
    D = construction.layout.width
    d_head = max(1, *(max(len(head.Q), len(head.V)) for head in heads))
    config = TransformerBridgeConfig(
        d_model=D,
        d_head=d_head,
        n_heads=max(1, *(len(layer.heads) for layer in layers)),
        n_layers=len(layers),
        d_mlp=max(1, *(len(layer.W1) for layer in layers)),
        n_ctx=n_ctx,
        d_vocab=1,
        d_vocab_out=D,
        act_fn="relu",
        normalization_type=None,
        attention_dir="bidirectional",
        init_weights=False,
    )
    bridge = boot(config, dtype=torch.float64, model_name=type(construction).__name__)
    model = bridge.original_model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        _inner(model.head).weight.copy_(torch.eye(D))
        for block, layer in zip(model.layers, layers, strict=True):
            attention, mlp = _inner(_inner(block).attn), _inner(_inner(block).mlp)
            for m, head in enumerate(layer.heads):
                # Scores are divided by sqrt(d_head), which the query takes back.
                _fill(_inner(attention.q).weight, m * d_head, math.sqrt(d_head) * head.Q)
                _fill(_inner(attention.k).weight, m * d_head, head.K)
                _fill(_inner(attention.v).weight, m * d_head, head.V)
                columns = m * d_head + torch.arange(len(head.V))
                _inner(attention.o).weight[torch.tensor(head.targets), columns] = 1.0
            _inner(mlp.fc_in).weight[: len(layer.W1)] = torch.tensor(layer.W1)
            _inner(mlp.fc_out).weight[:, : len(layer.W1)] = torch.tensor(layer.W2)
    return bridge


def _inner(module: Any) -> Any:
    """The module that a bridge wraps."""
    return getattr(module, "original_component", module)


def _fill(weight: Any, first: int, rows: Array) -> None:
    weight[first : first + len(rows)] = torch.tensor(rows)
