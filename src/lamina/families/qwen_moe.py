"""Qwen1.5/Qwen2 MoE (shared expert behind a gate) and Qwen3 MoE (none, and a norm of each query and key head).

Source: arXiv 2407.10671, 2505.09388.
"""

from __future__ import annotations

from lamina.arch import Architecture, Attention, MoE, QKNorm, RMSNorm
from lamina.errors import LaminaError
from lamina.published.common import Family, Sizes, decoder, pre_norms, sizes
from lamina.published.config import Config
from lamina.published.experts import mixture, router, sparse_layers
from lamina.published.rope import LAYER_TYPES


def _window(c: Config) -> int | None:
    use, window = c.bool("use_sliding_window", False), c.count("sliding_window", 4096)
    return window if use else None


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


FAMILIES = (Family("qwen2_moe", ("qwen2_moe",), read_qwen2), Family("qwen3_moe", ("qwen3_moe",), read_qwen3))
