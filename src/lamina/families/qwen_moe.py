"""Qwen1.5/Qwen2 MoE (shared expert behind a gate) and Qwen3 MoE (none, and a norm of each query and key head).

Source: arXiv 2407.10671, 2505.09388.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import GLU, Architecture, Attention, MoE, QKNorm, RMSNorm
from lamina.errors import LaminaError
from lamina.published.common import (
    Family,
    Sizes,
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
from lamina.published.experts import mixture, moe_of, router, router_keys, sparse_blocks, sparse_layers
from lamina.published.rope import LAYER_TYPES
from lamina.published.rules import ATTENTION, EXPERTS, PRE_NORMS, QK_NORMS, ROUTER, Layout, decoder_rules
from lamina.published.rules import GLU as GLU_RULES
from lamina.published.shared_expert import GATE, SHARED


def _window(c: Config) -> int | None:
    if c.bool("use_sliding_window", False):
        return c.count("sliding_window", 4096)
    c.ignore("use_sliding_window is false", "sliding_window")
    return None


def _read(c: Config, family: str, s: Sizes, attentions: list[Attention], experts: MoE) -> Architecture:
    """`attentions` is that of each layer; layers without experts have a GLU of `intermediate_size`."""
    norm, feed_forwards = RMSNorm(eps=s.eps), [experts if has else s.glu() for has in sparse_layers(c, s.layers)]
    return decoder(c, family, s, pre_norms(attentions, feed_forwards, norm), norm)


def read_qwen2(c: Config) -> Architecture:
    s = sizes(c, kv_heads=16, default_context=32768)
    window, first = _window(c), c.int("max_window_layers", 28)
    usual = ["sliding_attention" if window and not i % 2 and i < first else "full_attention" for i in range(s.layers)]
    kinds = c.layer_types(s.layers, usual, LAYER_TYPES)
    if "sliding_attention" in kinds and window is None:
        raise LaminaError(f"{c.where}: layer_types has sliding layers, so use_sliding_window must be true")
    full = s.attention(rotary=s.rotary(c), bias=c.bool("qkv_bias", True))
    made = {"full_attention": full, "sliding_attention": full.replace(window=window)}
    shared = s.glu().replace(inner=c.count("shared_expert_intermediate_size", 5632))
    experts = mixture(c, s, router(c, experts=60, active=4, normalise=False), inner=1408)
    return _read(c, "qwen2_moe", s, [made[k] for k in kinds], experts.replace(shared=shared, shared_gate=True))


def read_qwen3(c: Config) -> Architecture:
    s = sizes(c, kv_heads=4, default_context=32768)
    bias, window = c.bool("attention_bias", False), _window(c)
    c.ignore("every layer has the window or none has, as in the reference", "max_window_layers")
    qk_norm = QKNorm(norm=RMSNorm(eps=s.eps))
    attention = s.attention(rotary=s.rotary(c), window=window, bias=bias, output_bias=bias, qk_norm=qk_norm)
    experts = mixture(c, s, router(c, experts=128, active=8, normalise=False), inner=768)
    return _read(c, "qwen3_moe", s, [attention] * s.layers, experts)


def _keys(arch: Architecture, name: str) -> dict[str, Any]:
    """What both say in the same words."""
    moe, sparse = moe_of(arch), sparse_blocks(arch)
    dense = next((op for op in arch.ops() if isinstance(op, GLU)), moe.expert)
    return {
        **common_keys(arch, name, feed_forward=dense),
        **rope_keys(arch),
        **pick(router_keys(moe.router, "num_experts"), "num_experts", "num_experts_per_tok", "norm_topk_prob"),
        "moe_intermediate_size": moe.expert.inner,
        "mlp_only_layers": [i for i, has in enumerate(sparse) if not has],
    }


def write_qwen2(arch: Architecture) -> dict[str, Any]:
    window, kinds = windows(arch)
    shared = moe_of(arch).shared
    assert shared
    return {
        "model_type": "qwen2_moe",
        **_keys(arch, "Qwen2MoeForCausalLM"),
        "qkv_bias": attention_of(arch).bias,
        "shared_expert_intermediate_size": shared.inner,
        "use_sliding_window": window is not None,
        "sliding_window": window,
        "layer_types": kinds,
    }


def write_qwen3(arch: Architecture) -> dict[str, Any]:
    attention = attention_of(arch)
    return {
        "model_type": "qwen3_moe",
        **_keys(arch, "Qwen3MoeForCausalLM"),
        "attention_bias": attention.bias,
        "use_sliding_window": attention.window is not None,
        "sliding_window": attention.window,
    }


BLOCK = ATTENTION + GLU_RULES + PRE_NORMS + EXPERTS + ROUTER

FAMILIES = (
    Family("qwen2_moe", ("qwen2_moe",), read_qwen2, write_qwen2, Layout(decoder_rules((*BLOCK, *SHARED, GATE)))),
    Family("qwen3_moe", ("qwen3_moe",), read_qwen3, write_qwen3, Layout(decoder_rules(BLOCK + QK_NORMS))),
)
