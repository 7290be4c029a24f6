"""Cohere (Command R) and Cohere2 (Command R7B, Tiny Aya): attention and feed-forward side by side behind one norm.

The LayerNorm has no bias, rotary pairs are interleaved. In Cohere2 three layers of four have a window and rotary
positions; the fourth sees everything and has no positions. Source: arXiv 2504.00698.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, Block, Branch, LayerNorm, Parallel, QKNorm
from lamina.published.common import (
    Family,
    alternating,
    attention_of,
    common_keys,
    decoder,
    rope_keys,
    sizes,
    windows,
)
from lamina.published.config import Config
from lamina.published.rope import LAYER_TYPES
from lamina.published.rules import ATTENTION, GLU, Layout, Rule, decoder_rules


def read(c: Config) -> Architecture:
    s = sizes(c, eps=1e-5, eps_key="layer_norm_eps", default_context=8192)
    rotary, window = s.rotary(c, layout="interleaved"), c.count("sliding_window", 4096)
    norm, bias = LayerNorm(eps=s.eps, bias=False), c.bool("attention_bias", False)
    shared = {"bias": bias, "output_bias": bias}
    c.only("use_qk_norm", False)
    c.only("use_parallel_block", True)
    c.only("use_embedding_sharing", True)
    c.only("use_gated_activation", True)
    c.only("position_embedding_type", "rope_gptj")
    c.ignore(
        "follows from layer_types",
        "layer_switch",
        "order_of_interleaved_layers",
        "rotary_pct",
        "_sliding_window_pattern",
    )
    made = {
        kind: Block(branches=(Branch(op=Parallel(ops=(attention, s.glu())), before=norm),))
        for kind, attention in (
            ("full_attention", s.attention(**shared)),
            ("sliding_attention", s.attention(rotary=rotary, window=window, **shared)),
        )
    }
    period = c.count("sliding_window_pattern", 4)
    kinds = c.layer_types(s.layers, alternating(s.layers, period, period - 1), LAYER_TYPES)
    blocks = [made[kind] for kind in kinds]
    return decoder(c, "cohere2", s, blocks, norm, tied=True, scale=c.float("logit_scale", 0.0625))


def read_cohere(c: Config) -> Architecture:
    """Every layer sees everything; the norm of queries and keys, if any, has weights for each head."""
    s = sizes(c, eps=1e-5, eps_key="layer_norm_eps", default_context=8192)
    norm, bias = LayerNorm(eps=s.eps, bias=False), c.bool("attention_bias", False)
    qk_norm = QKNorm(norm=norm, own=True) if c.bool("use_qk_norm", False) else None
    rotary = s.rotary(c, 500_000.0, "interleaved")
    attention = s.attention(rotary=rotary, qk_norm=qk_norm, bias=bias, output_bias=bias)
    block = Block(branches=(Branch(op=Parallel(ops=(attention, s.glu())), before=norm),))
    return decoder(c, "cohere", s, [block] * s.layers, norm, tied=True, scale=c.float("logit_scale", 0.0625))


def write(arch: Architecture) -> dict[str, Any]:
    window, kinds = windows(arch)
    keys = common_keys(arch, "Cohere2ForCausalLM")
    keys["layer_norm_eps"] = keys.pop("rms_norm_eps")
    return {
        "model_type": "cohere2",
        **keys,
        **rope_keys(arch),
        "attention_bias": attention_of(arch).bias,
        "logit_scale": arch.head.scale,
        "sliding_window": window or 4096,
        "layer_types": kinds,
    }


def write_cohere(arch: Architecture) -> dict[str, Any]:
    attention, keys = attention_of(arch), common_keys(arch, "CohereForCausalLM")
    keys["layer_norm_eps"] = keys.pop("rms_norm_eps")
    return keys | {
        "model_type": "cohere",
        **rope_keys(arch),
        "attention_bias": attention.bias,
        "use_qk_norm": attention.qk_norm is not None,
        "logit_scale": arch.head.scale,
    }


def layout_cohere(arch: Architecture) -> Layout:
    """Norms of queries and keys are published as a row for each head."""
    attention = attention_of(arch)
    rows = {"q": attention.heads, "k": attention.kv_heads}
    norms = (Rule(f"self_attn.{p}_norm", f"parallel.op.mixer.{p}_norm", folded=count) for p, count in rows.items())
    return Layout(decoder_rules((*_BLOCK, *norms)))


_BLOCK = (
    Rule("input_layernorm", "parallel.before"),
    *(Rule(rule.theirs, "parallel.op." + rule.ours[0].replace(".op", "")) for rule in ATTENTION + GLU),
)
FAMILIES = (
    Family("cohere", ("cohere",), read_cohere, write_cohere, layout_cohere),
    Family("cohere2", ("cohere2",), read, write, Layout(decoder_rules(_BLOCK))),
)
