"""Differential attention: where the share of the second map begins, and rotary angles that change with the length."""

from __future__ import annotations

import math

import pytest
import torch

import lamina
from lamina.arch import Architecture, Block, Branch, DifferentialAttention, DynamicScaling, Embedding, RMSNorm, Rotary
from lamina.errors import LaminaError

from ..reference import randomise

OP = DifferentialAttention(heads=3, kv_heads=1, head_dim=10, rotary=Rotary(base=900.0, dim=10))


def holding(*ops: DifferentialAttention) -> Architecture:
    return Architecture(
        family="diffllama",
        embedding=Embedding(vocab=31, width=24),
        blocks=tuple(Block(branches=(Branch(op=op, before=RMSNorm()),)) for op in ops),
        norm=RMSNorm(),
        context=64,
    )


@torch.inference_mode()
def test_the_share_begins_larger_in_deeper_blocks():
    """arXiv 2410.05258, section 2.1, with layers counted from 1; a stated one is the same everywhere."""
    stated = OP.replace(initial=0.35)
    model = lamina.build(holding(OP, OP, stated, stated))
    for block in model.blocks:
        block.mixer.op.lambda_q1.zero_()
        block.mixer.op.lambda_q2.zero_()
    shares = [float(block.mixer.op._share()) for block in model.blocks]
    assert shares == pytest.approx([0.8 - 0.6 * math.exp(-0.3 * (layer - 1)) for layer in (1, 2)] + [0.35, 0.35])


@torch.inference_mode()
def test_keys_are_turned_again_where_angles_change_with_the_length():
    scaling = DynamicScaling(factor=3.0, original_context=11)
    model = lamina.build(holding(*[OP.replace(rotary=OP.rotary.replace(scaling=scaling))] * 3))
    randomise(model)
    ids = torch.arange(23)[None]
    state = model.init_state(1, 23)
    for piece in ids.split([7, 6, 10], 1):
        last = model(piece, state, last=True)
    whole = model(ids, last=True)
    assert float((last - whole).abs().max() / whole.abs().max()) < 1e-5
    plain = lamina.build(holding(OP, OP, OP))
    plain.load_state_dict(model.state_dict())
    assert float((plain(ids, last=True) - whole).abs().max()) > 1e-2


def test_what_does_not_fit_is_said():
    with pytest.raises(LaminaError, match=r"initial \(1\.5\) must be below 1"):
        OP.replace(initial=1.5)
    config = {"model_type": "diffllama", "vocab_size": 31, "hidden_size": 24, "num_hidden_layers": 2}
    config |= {"num_attention_heads": 3, "intermediate_size": 20}
    with pytest.raises(LaminaError, match="num_attention_heads is 3; an even number is needed"):
        lamina.architecture(config)
