"""SmolLM3: every fourth layer has no positions (NoPE). Source: its published config; NoPE is arXiv 2501.18795."""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, RMSNorm
from lamina.errors import LaminaError
from lamina.published.common import (
    Family,
    attention_of,
    common_keys,
    decoder,
    glu_of,
    pre_norm,
    rope_keys,
    sizes,
    windows,
)
from lamina.published.config import Config
from lamina.published.rope import LAYER_TYPES
from lamina.published.rules import ATTENTION, GLU, PRE_NORMS, Layout, decoder_rules


def read(c: Config) -> Architecture:
    s = sizes(c, kv_heads=4, default_context=32768)
    rotary, norm, bias = s.rotary(c, 2_000_000.0), RMSNorm(eps=s.eps), c.bool("attention_bias", False)
    glu = s.glu(c.bool("mlp_bias", False))
    interval = c.count("no_rope_layer_interval", 4)
    turned = c.list("no_rope_layers", [int((i + 1) % interval != 0) for i in range(s.layers)])
    if len(turned) != s.layers or any(t not in (0, 1) for t in turned):
        raise LaminaError(f"{c.where}: no_rope_layers needs {s.layers} entries of 0 or 1 (1: the layer is rotated)")
    use, window = c.bool("use_sliding_window", False), c.count("sliding_window", None)
    usual = ["sliding_attention" if use and window and not t else "full_attention" for t in turned]
    kinds = c.layer_types(s.layers, usual, LAYER_TYPES)
    if "sliding_attention" in kinds and not window:
        raise LaminaError(f"{c.where}: layer_types has sliding layers, so sliding_window is needed")
    made = {
        (kind, turn): pre_norm(
            s.attention(
                rotary=rotary if turn else None,
                window=window if kind == "sliding_attention" else None,
                bias=bias,
                output_bias=bias,
            ),
            glu,
            norm,
        )
        for kind, turn in set(zip(kinds, turned, strict=True))
    }
    blocks = [made[key] for key in zip(kinds, turned, strict=True)]
    return decoder(c, "smollm3", s, blocks, norm, tied=True)


def write(arch: Architecture) -> dict[str, Any]:
    window, kinds = windows(arch)
    return {
        "model_type": "smollm3",
        **common_keys(arch, "SmolLM3ForCausalLM"),
        **rope_keys(arch),
        "attention_bias": attention_of(arch).bias,
        "mlp_bias": glu_of(arch).bias,
        "no_rope_layers": [int(attention_of(arch, i).rotary is not None) for i in range(len(arch.blocks))],
        "use_sliding_window": window is not None,
        "sliding_window": window,
        "layer_types": kinds,
    }


FAMILIES = (Family("smollm3", ("smollm3",), read, write, Layout(decoder_rules(ATTENTION + GLU + PRE_NORMS))),)
