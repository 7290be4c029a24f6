"""The weights of the reference, and ours, as shapes and how often each is there."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import torch
import transformers

from lamina.arch import Architecture
from lamina.arch.bill import lines

Shapes = Counter[tuple[int, ...]]

SMALL: dict[str, Any] = {  # no two sizes alike
    "vocab_size": 97,
    "hidden_size": 40,
    "intermediate_size": 56,
    "num_hidden_layers": 5,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}
"""Sizes of a small model that families of the tests begin with."""


def built(name: str, data: dict[str, Any]) -> torch.nn.Module:
    """The reference's model of a config, without memory."""
    kind = getattr(transformers, name)
    values = {key: value for key, value in data.items() if key not in ("model_type", "quantization_config")}
    with torch.device("meta"):
        return kind(kind.config_class(**values))


def of_reference(model: torch.nn.Module, identities: int = 0) -> Shapes:
    """Of what a checkpoint of the reference learns: parameters and routing corrections.

    Gate and up of experts, which it packs, are taken apart, and the rows it allocates for `identities`, which have no
    weights, left out. Dimensions of one number that only spread a vector are dropped; hash tables are no weights.
    """
    found: Shapes = Counter()
    for name, tensor in model.state_dict().items():
        shape = tuple(tensor.shape)
        if name.endswith("tid2eid"):
            continue
        if name.endswith("experts.gate_up_proj"):
            found[(shape[0] - identities, shape[1] // 2, shape[2])] += 2
        elif name.endswith("A_log"):
            found[(math.prod(shape),)] += 1
        else:
            found[shape] += 1
    return found


def of_ours(arch: Architecture) -> Shapes:
    found: Shapes = Counter()
    for line in lines(arch):
        for shape in line.weights.values():
            found[shape] += line.times
    return found


def numbers(shapes: Shapes) -> int:
    """How many numbers weights of these shapes hold."""
    return sum(times * math.prod(shape) for shape, times in shapes.items())
