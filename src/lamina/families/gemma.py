"""Gemma 2 and Gemma 3 (text): a norm before and after each sublayer, stored as a difference from one.

Source: arXiv 2408.00118 (soft-caps, alternating windows), 2503.19786 (QK-norm, two rotary bases, 5:1 windows).
"""

from __future__ import annotations

import math
from typing import Any

from lamina.arch import Architecture, Block, Branch, QKNorm, RMSNorm, Rotary
from lamina.published import common, gemma, rope, vision
from lamina.published.config import Config
from lamina.published.encoders import split
from lamina.published.rules import ATTENTION, GLU, MULTIMODAL, QK_NORMS, SANDWICH_NORMS, VISION, Layout
from lamina.published.rules import decoder_rules as rules


def _sizes(c: Config, vocab: int, context: int) -> common.Sizes:
    key = "hidden_activation" if "hidden_activation" in c else "hidden_act"
    c.ignore(
        "hidden_activation is what counts",
        "hidden_act" if key == "hidden_activation" else "hidden_activation",
    )
    usual = "gelu_pytorch_tanh"
    return common.sizes(c, 1e-6, key, usual, head_dim=256, kv_heads=4, default_context=context, vocab=vocab)


def _read(
    c: Config, family: str, s: common.Sizes, rotary: dict[str, Rotary], period: int, caps: tuple, qk_norm: bool
) -> Architecture:
    """`caps` are the family's soft-caps of scores and of logits for configs that do not name theirs."""
    norm, bias = RMSNorm(eps=s.eps, offset=1.0), c.bool("attention_bias", False)
    window = {"full_attention": None, "sliding_attention": c.count("sliding_window", 4096)}
    shared: dict[str, Any] = {"bias": bias, "output_bias": bias}
    shared["scale"] = c.float("query_pre_attn_scalar", 256.0) ** -0.5
    shared["softcap"] = c.float("attn_logit_softcapping", None if "attn_logit_softcapping" in c.data else caps[0])
    shared["qk_norm"] = QKNorm(norm=norm) if qk_norm else None
    c.only("use_bidirectional_attention", False)
    made = {
        kind: Block(
            branches=(
                Branch(op=s.attention(rotary=rotary[kind], window=seen, **shared), before=norm, after=norm),
                Branch(op=s.glu(), before=norm, after=norm),
            )
        )
        for kind, seen in window.items()
    }
    kinds = c.layer_types(s.layers, common.alternating(s.layers, period, period - 1), rope.LAYER_TYPES)
    blocks = [made[kind] for kind in kinds]
    softcap = c.float("final_logit_softcapping", None if "final_logit_softcapping" in c.data else caps[1])
    return common.decoder(c, family, s, blocks, norm, tied=True, embedding_scale=math.sqrt(s.width), softcap=softcap)


def read_gemma2(c: Config) -> Architecture:
    s = _sizes(c, 256000, 8192)
    shared = s.rotary(c)
    return _read(c, "gemma2", s, dict.fromkeys(rope.LAYER_TYPES, shared), 2, (50.0, 30.0), qk_norm=False)


def read_gemma3(c: Config) -> Architecture:
    c, encoders = split(c, vision.siglip)
    s = _sizes(c, 262208, 131072)
    rotary = {kind: rope.rotary(c, v, s.head_dim, s.context) for kind, v in gemma.two_bases(c).items()}
    c.ignore("follows from layer_types", "_sliding_window_pattern")
    arch = _read(c, "gemma3", s, rotary, c.count("sliding_window_pattern", 6), (None, None), qk_norm=True)
    return arch.replace(encoders=encoders)


def _keys(arch: Architecture, architecture: str) -> dict[str, Any]:
    attention, (window, kinds) = common.attention_of(arch), common.windows(arch)
    return {
        **common.common_keys(arch, architecture, "hidden_activation"),
        "query_pre_attn_scalar": common.rounded((attention.scale or attention.head_dim**-0.5) ** -2),
        "attention_bias": attention.bias,
        "attn_logit_softcapping": attention.softcap,
        "final_logit_softcapping": arch.head.softcap,
        "sliding_window": window or 4096,
        "layer_types": kinds,
    }


def write_gemma2(arch: Architecture) -> dict[str, Any]:
    return {"model_type": "gemma2", **_keys(arch, "Gemma2ForCausalLM"), **common.rope_keys(arch)}


def write_gemma3(arch: Architecture) -> dict[str, Any]:
    rotary = {kind: common.attention_of(arch, i).rotary for i, kind in enumerate(common.windows(arch)[1])}
    written = {kind: rope.written(r, common.attention_of(arch).head_dim) for kind, r in rotary.items() if r}
    return {"model_type": "gemma3_text", **_keys(arch, "Gemma3ForCausalLM"), "rope_parameters": written}


_BLOCK = ATTENTION + GLU + SANDWICH_NORMS
FAMILIES = (
    common.Family("gemma2", ("gemma2",), read_gemma2, write_gemma2, Layout(rules(_BLOCK))),
    common.Family(
        "gemma3",
        ("gemma3_text", "gemma3"),
        read_gemma3,
        write_gemma3,
        Layout(rules(_BLOCK + QK_NORMS), spellings=MULTIMODAL, skip=VISION),
    ),
)
