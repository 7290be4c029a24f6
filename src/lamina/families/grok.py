"""Grok 2: experts beside a feed-forward that all tokens use, norms before and after, soft-caps everywhere.

The published config calls itself `git`. Source: that config, and public code that serves it.
Differs: the reference library has no such model, so a forward pass written by hand in the tests is what ours is
compared with; that the published weights give sensible text was not seen. Published files hold an eighth of each
expert, for as many devices; they are read once joined.
"""

from __future__ import annotations

import math
from typing import Any

from lamina.arch import Architecture, Block, Branch, LengthTemperature, MoE, RMSNorm, Rotary
from lamina.published.common import Family, attention_of, common_keys, decoder, sizes
from lamina.published.config import Config
from lamina.published.experts import moe_of, router
from lamina.published.rules import ATTENTION, BLOCK_SPARSE, Layout, Rule, decoder_rules, shared_rules

SCALING = ("original_max_position_embeddings", "scaling_factor", "extrapolation_factor", "attn_factor")


def read(c: Config) -> Architecture:
    s = sizes(c, eps=1e-5, activation="gelu_pytorch_tanh", head_dim=128, kv_heads=8, default_context=8192)
    c.only("sliding_window_size", -1)
    c.only("global_attn_every_n", 1)
    c.only("rope_type", "original")
    c.ignore("rope_type 'original' scales nothing", *SCALING, "beta_fast", "beta_slow")
    length = c.count("attn_temperature_len", None, least=2)
    warmer = None
    if length:  # ln(p) / ln(length), for p beyond it
        warmer = LengthTemperature(floor=length, scale=1 / math.log(length), first=0, steps=False, of="scores")
    attention = s.attention(
        rotary=Rotary(base=c.float("rope_theta", 10000.0), dim=s.head_dim),
        softcap=c.float("attn_logit_softcapping", 30.0),
        temperature=warmer,
    )
    both = c.bool("residual_moe", False)
    gate = router(c, 8, 2, normalise=False, softcap=c.float("router_logit_softcapping", 30.0))
    moe = MoE(
        router=gate,
        expert=s.glu().replace(inner=c.count("moe_intermediate_size", s.inner)),
        shared=s.glu() if both else None,
        scale=math.sqrt(0.5) if both else 1.0,
    )
    norm = RMSNorm(eps=s.eps)
    block = Block(branches=tuple(Branch(op=op, before=norm, after=norm) for op in (attention, moe)))
    return decoder(
        c,
        "grok",
        s,
        [block] * s.layers,
        norm,
        embedding_scale=c.float("embedding_multiplier_scale", 1.0),
        scale=c.float("output_multiplier_scale", 1.0),
        softcap=c.float("final_logit_softcapping", None),
    )


def write(arch: Architecture) -> dict[str, Any]:
    attention, moe = attention_of(arch), moe_of(arch)
    assert attention.rotary
    return {
        "model_type": "git",
        **common_keys(arch, "Grok1ForCausalLM", feed_forward=moe.shared or moe.expert),
        "moe_intermediate_size": moe.expert.inner,
        "num_local_experts": moe.router.experts,
        "num_experts_per_tok": moe.router.active,
        "residual_moe": moe.shared is not None,
        "rope_theta": attention.rotary.base,
        "rope_type": "original",
        "attn_temperature_len": attention.temperature.floor if attention.temperature else None,
        "attn_logit_softcapping": attention.softcap,
        "router_logit_softcapping": moe.router.softcap,
        "final_logit_softcapping": arch.head.softcap,
        "embedding_multiplier_scale": arch.embedding.scale,
        "output_multiplier_scale": arch.head.scale,
    }


BLOCK = (
    *(ATTENTION + BLOCK_SPARSE + shared_rules("mlp")),
    Rule("pre_attn_norm", "mixer.before"),
    Rule("post_attn_norm", "mixer.after"),
    Rule("pre_moe_norm", "feed_forward.before"),
    Rule("post_moe_norm", "feed_forward.after"),
)

FAMILIES = (Family("grok", ("git",), read, write, Layout(decoder_rules(BLOCK)), signature="residual_moe"),)
