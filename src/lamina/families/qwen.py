"""Qwen2, Qwen2.5 (biases on q, k, v) and Qwen3 dense (norm of each query and key head).

Source: arXiv 2407.10671, 2412.15115, 2505.09388.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, QKNorm, RMSNorm
from lamina.errors import LaminaError
from lamina.published.common import (
    Family,
    Sizes,
    attention_of,
    common_keys,
    decoder,
    pre_norm,
    rope_keys,
    sizes,
    windows,
)
from lamina.published.config import Config
from lamina.published.rope import LAYER_TYPES
from lamina.published.rules import ATTENTION, COMPUTED, GLU, PRE_NORMS, QK_NORMS, Layout, decoder_rules


def _layer_kinds(c: Config, s: Sizes) -> tuple[list[str], int | None]:
    """Which layers have a window: those from `max_window_layers` on, if windows are used at all."""
    use, window = c.bool("use_sliding_window", False), c.count("sliding_window", 4096)
    first = c.int("max_window_layers", 28)
    window = window if use else None
    usual = ["sliding_attention" if window and i >= first else "full_attention" for i in range(s.layers)]
    kinds = c.layer_types(s.layers, usual, LAYER_TYPES)
    if "sliding_attention" in kinds and window is None:
        raise LaminaError(f"{c.where}: layer_types has sliding layers, so use_sliding_window must be true")
    return kinds, window


def _window_keys(arch: Architecture) -> dict[str, Any]:
    window, kinds = windows(arch)
    first = kinds.index("sliding_attention") if window else len(kinds)
    out = {"use_sliding_window": window is not None, "sliding_window": window, "max_window_layers": first}
    return out | {"layer_types": kinds}


def _read(c: Config, family: str, s: Sizes, **attention: Any) -> Architecture:
    rotary, norm = s.rotary(c), RMSNorm(eps=s.eps)
    kinds, window = _layer_kinds(c, s)
    made = {
        kind: pre_norm(s.attention(rotary=rotary, window=seen, **attention), s.glu(), norm)
        for kind, seen in (("full_attention", None), ("sliding_attention", window))
    }
    return decoder(c, family, s, [made[kind] for kind in kinds], norm)


def read_qwen2(c: Config) -> Architecture:
    c.ignore("q, k and v have biases whatever it says, as in the reference", "attention_bias")
    return _read(c, "qwen2", sizes(c, kv_heads=32, default_context=32768), bias=True)


def write_qwen2(arch: Architecture) -> dict[str, Any]:
    keys = {**common_keys(arch, "Qwen2ForCausalLM"), **rope_keys(arch), **_window_keys(arch)}
    return {"model_type": "qwen2", **keys}


def read_qwen3(c: Config) -> Architecture:
    s = sizes(c, kv_heads=32, head_dim=128, default_context=32768)
    bias = c.bool("attention_bias", False)
    return _read(c, "qwen3", s, bias=bias, output_bias=bias, qk_norm=QKNorm(norm=RMSNorm(eps=s.eps)))


def write_qwen3(arch: Architecture) -> dict[str, Any]:
    keys = {**common_keys(arch, "Qwen3ForCausalLM"), **rope_keys(arch), **_window_keys(arch)}
    return {"model_type": "qwen3", **keys, "attention_bias": attention_of(arch).bias}


FAMILIES = (
    Family(
        "qwen2",
        ("qwen2",),
        read_qwen2,
        write_qwen2,
        Layout(decoder_rules(ATTENTION + GLU + PRE_NORMS), skip=COMPUTED),
    ),
    Family(
        "qwen3",
        ("qwen3",),
        read_qwen3,
        write_qwen3,
        Layout(decoder_rules(ATTENTION + QK_NORMS + GLU + PRE_NORMS), skip=COMPUTED),
    ),
)
