"""gpt-oss: windows in every other layer, attention sinks, biases everywhere, experts with a clamped SwiGLU.

Source: arXiv 2508.10925.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import GLU, Architecture, Clamp, RMSNorm
from lamina.published.common import (
    Family,
    alternating,
    attention_of,
    common_keys,
    decoder,
    pick,
    pre_norms,
    rope_keys,
    sizes,
    windows,
)
from lamina.published.config import Config
from lamina.published.experts import mixture, moe_of, router, router_keys
from lamina.published.rope import LAYER_TYPES, parameters, rotary
from lamina.published.rules import ATTENTION, PRE_NORMS, Layout, Rule, decoder_rules

YARN = {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False}
"""The rotary scaling of a config that names none."""


def read(c: Config) -> Architecture:
    c.only("hidden_act", "silu")
    s = sizes(c, eps=1e-5, head_dim=64, kv_heads=8, default_context=131072)
    scaled = "rope_scaling" in c or "rope_parameters" in c
    values = parameters(c, 150_000.0)
    if not scaled:
        values |= YARN | {"original_max_position_embeddings": 4096}
    c.ignore("the rotary scaling says it", "initial_context_length")
    bias, norm = c.bool("attention_bias", True), RMSNorm(eps=s.eps)
    full = s.attention(rotary=rotary(c, values, s.head_dim, s.context), bias=bias, output_bias=bias, sinks=True)
    clamp = Clamp(limit=c.float("swiglu_limit", 7.0), shift=1.0, slope=c.float("swiglu_alpha", 1.702))
    experts = mixture(
        c,
        s,
        router(c, experts=128, active=4, bias=True),
        inner=s.inner,
        expert=GLU(inner=s.inner, bias=True, clamp=clamp),
    )
    made = {"full_attention": full, "sliding_attention": full.replace(window=c.count("sliding_window", 128))}
    mixers = [made[kind] for kind in c.layer_types(s.layers, alternating(s.layers, 2, 1), LAYER_TYPES)]
    return decoder(c, "gpt_oss", s, pre_norms(mixers, [experts] * s.layers, norm), norm)


def write(arch: Architecture) -> dict[str, Any]:
    moe, (window, kinds) = moe_of(arch), windows(arch)
    assert isinstance(moe.expert, GLU)
    assert moe.expert.clamp
    return {
        "model_type": "gpt_oss",
        **common_keys(arch, "GptOssForCausalLM", feed_forward=moe.expert),
        **rope_keys(arch),
        **pick(router_keys(moe.router, "num_local_experts"), "num_local_experts", "num_experts_per_tok"),
        "attention_bias": attention_of(arch).bias,
        "swiglu_limit": moe.expert.clamp.limit,
        "swiglu_alpha": moe.expert.clamp.slope,
        "sliding_window": window or 128,
        "layer_types": kinds,
    }


EXPERTS = "feed_forward.op.experts."
WEIGHTS, BIASES = ([f"{EXPERTS}{p}_proj.{leaf}" for p in ("gate", "up")] for leaf in ("weight", "bias"))
MIXTURE = (
    Rule("mlp.experts.gate_up_proj", *WEIGHTS, stacked=True, interleaved=True, transpose=True),
    Rule("mlp.experts.gate_up_proj_bias", *BIASES, stacked=True, interleaved=True),
    Rule("mlp.experts.down_proj", f"{EXPERTS}down_proj.weight", stacked=True, transpose=True),
    Rule("mlp.experts.down_proj_bias", f"{EXPERTS}down_proj.bias", stacked=True),
    Rule("mlp.router", "feed_forward.op.router.gate"),
)
"""The rows of gate and up in turn; matrices are stored [in, out]."""
LAYOUT = Layout(decoder_rules((*ATTENTION, *PRE_NORMS, *MIXTURE, Rule("self_attn.sinks", "mixer.op.sinks"))))

FAMILIES = (Family("gpt_oss", ("gpt_oss",), read, write, LAYOUT),)
