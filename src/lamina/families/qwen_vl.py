"""Qwen2-VL: the decoder of Qwen2 whose rotary embedding turns by time, height and width of an image patch.

Source: arXiv 2409.12191, section 2.1.
"""

from __future__ import annotations

from lamina.arch import Architecture, RMSNorm
from lamina.errors import LaminaError
from lamina.published import rope, vision
from lamina.published.common import Family, Sizes, decoder, pre_norm, sizes
from lamina.published.config import Config
from lamina.published.encoders import split


def _rotary(c: Config, s: Sizes):
    """`mrope_section` says how many pairs turn by each of the three; `mrope` is an old name of the default."""
    values = rope.parameters(c, 1_000_000.0)
    if values.get("rope_type", values.get("type")) == "mrope":
        values |= {"rope_type": "default", "type": None}
    sections = values.pop("mrope_section", None) or [16, 24, 24]
    return rope.rotary(c, values, s.head_dim, s.context).replace(sections=tuple(sections))


def read(c: Config) -> Architecture:
    c, encoders = split(c, vision.qwen2)
    s = sizes(c, eps=1e-5, kv_heads=8, default_context=32768)
    if s.head_dim * s.heads != s.width:
        raise LaminaError(f"{c.where}: head_dim ({s.head_dim}) must be hidden_size / num_attention_heads")
    rotary, norm = _rotary(c, s), RMSNorm(eps=s.eps)
    window = c.count("sliding_window", 4096) if c.bool("use_sliding_window", False) else None
    c.ignore("windows are not used", "sliding_window")
    first = c.int("max_window_layers", 80)
    usual = ["sliding_attention" if window and i >= first else "full_attention" for i in range(s.layers)]
    kinds = c.layer_types(s.layers, usual, rope.LAYER_TYPES)
    if "sliding_attention" in kinds and window is None:
        raise LaminaError(f"{c.where}: layer_types has sliding layers, so use_sliding_window must be true")
    made = {
        kind: pre_norm(s.attention(rotary=rotary, window=seen, bias=True), s.glu(), norm)
        for kind, seen in (("full_attention", None), ("sliding_attention", window))
    }
    return decoder(c, "qwen2_vl", s, [made[kind] for kind in kinds], norm).replace(encoders=encoders)


FAMILIES = (Family("qwen2_vl", ("qwen2_vl", "qwen2_vl_text"), read),)
