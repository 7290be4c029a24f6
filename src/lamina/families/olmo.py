"""OLMo 2 and OLMo 3: a norm after each sublayer, inside the residual, and QK-norm over the full width.

Source: arXiv 2501.00656; OLMo 3 adds windows on three layers of four, and scales the angles of the others only.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, Attention, Block, Branch, QKNorm, RMSNorm, Rotary
from lamina.published import rope
from lamina.published.common import (
    Family,
    Sizes,
    alternating,
    attention_of,
    common_keys,
    decoder,
    rope_keys,
    sizes,
    windows,
)
from lamina.published.config import Config
from lamina.published.rules import AFTER_NORMS, ATTENTION, GLU, QK_NORMS, Layout, decoder_rules


def _block(s: Sizes, attention: Attention) -> Block:
    norm = RMSNorm(eps=s.eps)
    return Block(branches=(Branch(op=attention, after=norm), Branch(op=s.glu(), after=norm)))


def _shared(c: Config, s: Sizes) -> dict[str, Any]:
    bias = c.bool("attention_bias", False)
    return {"bias": bias, "output_bias": bias, "qk_norm": QKNorm(norm=RMSNorm(eps=s.eps), over="width")}


def read_olmo2(c: Config) -> Architecture:
    s = sizes(c, eps=1e-5)
    block = _block(s, s.attention(rotary=s.rotary(c), **_shared(c, s)))
    return decoder(c, "olmo2", s, [block] * s.layers, RMSNorm(eps=s.eps))


def read_olmo3(c: Config) -> Architecture:
    s, window = sizes(c, eps=1e-5), c.count("sliding_window", 4096)
    rotary, shared = _rotary(c, s), _shared(c, s)
    made = {
        kind: _block(s, s.attention(rotary=rotary[kind], window=seen, **shared))
        for kind, seen in (("full_attention", None), ("sliding_attention", window))
    }
    kinds = c.layer_types(s.layers, alternating(s.layers, 4, 3), rope.LAYER_TYPES)
    return decoder(c, "olmo3", s, [made[kind] for kind in kinds], RMSNorm(eps=s.eps))


def _rotary(c: Config, s: Sizes) -> dict[str, Rotary]:
    """One base; a `rope_scaling` concerns the full layers only."""
    new = c.dict("rope_parameters", None) or {}
    nested = any(kind in new for kind in rope.LAYER_TYPES)
    new = rope.by_layer_type(c) if nested else new
    scaling, base = c.dict("rope_scaling", None) or {}, c.float("rope_theta", 500_000.0)
    made = {}
    for kind in rope.LAYER_TYPES:
        values = dict((new.get(kind) if nested else new) or {})
        values |= scaling if kind == "full_attention" else {}
        made[kind] = rope.rotary(c, {"rope_theta": base} | values, s.head_dim, s.context)
    return made


def _write(arch: Architecture, model_type: str, architecture: str) -> dict[str, Any]:
    keys = common_keys(arch, architecture)
    return {"model_type": model_type, **keys, **rope_keys(arch), "attention_bias": attention_of(arch).bias}


def write_olmo2(arch: Architecture) -> dict[str, Any]:
    return _write(arch, "olmo2", "Olmo2ForCausalLM")


def write_olmo3(arch: Architecture) -> dict[str, Any]:
    window, kinds = windows(arch)
    rotary = {kind: attention_of(arch, i).rotary for i, kind in enumerate(kinds)}
    written = {kind: rope.written(r, attention_of(arch).head_dim) for kind, r in rotary.items() if r}
    keys = {"rope_parameters": written, "sliding_window": window or 4096, "layer_types": kinds}
    return _write(arch, "olmo3", "Olmo3ForCausalLM") | keys


LAYOUT = Layout(decoder_rules(ATTENTION + QK_NORMS + GLU + AFTER_NORMS))
FAMILIES = (
    Family("olmo2", ("olmo2",), read_olmo2, write_olmo2, LAYOUT),
    Family("olmo3", ("olmo3",), read_olmo3, write_olmo3, LAYOUT),
)
