"""Granite 4 hybrids: Mamba-2 in most blocks, attention in a few, experts, and multipliers.

Source: the published configs; arXiv 2405.21060 (Mamba-2), 2203.03466 (the multipliers).
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, Attention, MoE, RMSNorm
from lamina.arch.base import Op
from lamina.published.common import Family, Sizes, decoder, glu_of, inverse, pre_norm, sizes
from lamina.published.config import Config
from lamina.published.experts import joined_rules, router, router_keys
from lamina.published.hybrids import ATTENTION, MAMBA, hybrid_keys, hybrid_kinds, hybrid_mixers
from lamina.published.recurrent import kinds, mamba2
from lamina.published.rules import PRE_NORMS, Layout, Rule, decoder_rules

KINDS = {"mamba": MAMBA, MAMBA: MAMBA, "attention": ATTENTION, ATTENTION: ATTENTION}


def _feed_forward(c: Config, s: Sizes) -> Op:
    """Experts of the stated inner width beside one that all tokens share, or that one alone."""
    shared = s.glu().replace(inner=c.count("shared_intermediate_size", 1024))
    if c.int("num_local_experts", 8) == 0:
        c.ignore("there are no routed experts", "num_experts_per_tok", "output_router_logits", "router_aux_loss_coef")
        return shared
    return MoE(router=router(c, experts=8, active=2), expert=s.glu(), shared=shared)


def read(c: Config) -> Architecture:
    s = sizes(c)
    norm, bias = RMSNorm(eps=s.eps), c.bool("attention_bias", False)
    c.only("hidden_act", "silu")  # the reference takes it for the short convolution too
    c.only("normalization_function", "rmsnorm")
    c.ignore("initialisation", "init_method")
    rotary = None
    if c.choice("position_embedding_type", ("rope", "nope"), "nope") == "rope":
        rotary = s.rotary(c)
    c.ignore("attention has no positions", "rope_theta", "rope_scaling", "rope_parameters")
    attention = s.attention(rotary=rotary, bias=bias, output_bias=bias, scale=c.float("attention_multiplier", 1.0))
    feed_forward, residual = _feed_forward(c, s), c.float("residual_multiplier", 1.0)
    mixers: dict[str, Op] = {MAMBA: mamba2(c, s.width, s.eps), ATTENTION: attention}
    made = {kind: pre_norm(op, feed_forward, norm, residual) for kind, op in mixers.items()}
    key = "layer_types" if "layer_types" in c else "layers_block_type"
    found = kinds(c, key, c.list(key, [MAMBA] * s.layers), s.layers, KINDS)
    scale, logits = c.float("embedding_multiplier", 1.0), 1 / c.float("logits_scaling", 1.0)
    return decoder(c, "granitemoehybrid", s, [made[kind] for kind in found], norm, embedding_scale=scale, scale=logits)


def write(arch: Architecture) -> dict[str, Any]:
    moe = next((op for op in arch.ops() if isinstance(op, MoE)), None)
    shared = glu_of(arch) if moe is None else moe.shared
    attention = next((op for op in arch.ops() if isinstance(op, Attention)), None)
    assert shared is not None
    routed = router_keys(moe.router, "num_local_experts") if moe else {"num_local_experts": 0, "num_experts_per_tok": 0}
    return {
        "model_type": "granitemoehybrid",
        **hybrid_keys(arch, "GraniteMoeHybridForCausalLM", moe.expert if moe else shared),
        **{key: routed[key] for key in ("num_local_experts", "num_experts_per_tok")},
        "shared_intermediate_size": shared.inner,
        "layer_types": hybrid_kinds(arch),
        "position_embedding_type": "rope" if attention and attention.rotary else "nope",
        "attention_multiplier": attention.scale if attention else 1.0,
        "residual_multiplier": arch.blocks[0].branches[0].multiplier,
        "embedding_multiplier": arch.embedding.scale,
        "logits_scaling": inverse(arch.head.scale),
    }


BLOCK = (
    *PRE_NORMS,
    *joined_rules("block_sparse_moe", "feed_forward.op.experts", stacked=True),
    *joined_rules("shared_mlp", "feed_forward.op.shared"),
    *joined_rules("shared_mlp", "feed_forward.op"),  # where there are no experts
    Rule("block_sparse_moe.router.layer", "feed_forward.op.router.gate"),
)


def layout(arch: Architecture) -> Layout:
    return Layout(decoder_rules((*hybrid_mixers(arch), *BLOCK)))


FAMILIES = (Family("granitemoehybrid", ("granitemoehybrid",), read, write, layout),)
