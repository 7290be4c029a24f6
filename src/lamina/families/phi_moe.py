"""Phi-3.5-MoE: LayerNorms, and two experts chosen and weighed one after the other (SparseMixer).

Source: arXiv 2404.14219; SparseMixer is arXiv 2409.12136.
Differs: the reference (transformers 5.23.0) keeps the short longrope factors beyond the original context.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, LayerNorm, LongRopeScaling, Router
from lamina.errors import LaminaError
from lamina.published import rope
from lamina.published.common import Family, Sizes, attention_of, common_keys, decoder, pre_norm, rope_keys, sizes
from lamina.published.config import Config
from lamina.published.experts import TRAINING, mixture, moe_of
from lamina.published.rules import ATTENTION, BLOCK_SPARSE, PRE_NORMS, Layout, decoder_rules


def _rotary(c: Config, s: Sizes) -> rope.Rotary:
    """Longrope here names the attention factor twice: for short and for long sequences."""
    values = rope.parameters(c, 1_000_000.0)
    short, long = values.pop("short_mscale", None), values.pop("long_mscale", None)
    if short != long:
        raise LaminaError(f"{c.where}: short_mscale ({short}) and long_mscale ({long}) must be one number")
    if short is not None:
        values["attention_factor"] = short
    return rope.rotary(c, values, s.head_dim, s.context)


def read(c: Config) -> Architecture:
    s = sizes(c, eps=1e-5, kv_heads=8, default_context=131072)
    rotary, bias, norm = _rotary(c, s), c.bool("attention_bias", False), LayerNorm(eps=s.eps)
    window = c.count("sliding_window", None)
    c.ignore("the rotary parameters say it", "original_max_position_embeddings")
    attention = s.attention(rotary=rotary, bias=bias, output_bias=bias, window=window)
    chosen = Router(
        experts=c.count("num_local_experts", 16, most=1 << 16),
        active=c.count("num_experts_per_tok", 2, most=1 << 16),
        normalise=False,
        sparse_mixer=c.float("router_jitter_noise", 0.01),
    )
    c.only("num_experts_per_tok", 2)
    c.ignore("training", "input_jitter_noise", *(key for key in TRAINING if key != "router_jitter_noise"))
    block = pre_norm(attention, mixture(c, s, chosen, inner=s.inner), norm)
    return decoder(c, "phimoe", s, [block] * s.layers, norm, bias=c.bool("lm_head_bias", False))


def write(arch: Architecture) -> dict[str, Any]:
    attention, moe = attention_of(arch), moe_of(arch)
    keys = {**common_keys(arch, "PhimoeForCausalLM", feed_forward=moe.expert), **rope_keys(arch)}
    if attention.rotary and isinstance(scaling := attention.rotary.scaling, LongRopeScaling):
        keys["rope_parameters"] |= dict.fromkeys(("short_mscale", "long_mscale"), scaling.attention_factor)
    return {
        "model_type": "phimoe",
        **keys,
        "num_local_experts": moe.router.experts,
        "num_experts_per_tok": moe.router.active,
        "router_jitter_noise": moe.router.sparse_mixer,
        "attention_bias": attention.bias,
        "lm_head_bias": arch.head.bias,
        "sliding_window": attention.window,
    }


LAYOUT = Layout(decoder_rules(ATTENTION + PRE_NORMS + BLOCK_SPARSE))

FAMILIES = (Family("phimoe", ("phimoe",), read, write, LAYOUT),)
