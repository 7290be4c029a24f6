"""Llama 3.2 Vision: cross-attention blocks, gated by tanh, among Llama's.

Source: arXiv 2407.21783, section 7.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, Block, Branch, CrossAttention, QKNorm, RMSNorm
from lamina.errors import LaminaError
from lamina.published import vision
from lamina.published.common import Family, common_keys, decoder, pre_norm, rope_keys, sizes
from lamina.published.config import Config
from lamina.published.encoders import split
from lamina.published.rules import ATTENTION, GLU, MULTIMODAL, PRE_NORMS, VISION, Layout, Rule, decoder_rules


def read(c: Config) -> Architecture:
    c, encoders = split(c, vision.mllama)
    s = sizes(c, eps=1e-5, kv_heads=8, default_context=131072)
    norm = RMSNorm(eps=s.eps)
    plain = pre_norm(s.attention(rotary=s.rotary(c, 500_000.0)), s.glu(), norm)
    cross = CrossAttention(
        heads=s.heads,
        kv_heads=s.kv_heads,
        head_dim=s.head_dim,
        memory_width=s.width,
        qk_norm=QKNorm(norm=norm),
    )
    gated = Block(
        branches=(
            Branch(op=cross, before=norm, gate="tanh"),
            Branch(op=s.glu(), before=norm, gate="tanh", attended_only=True),
        )
    )
    layers = c.list("cross_attention_layers", [3, 8, 13, 18, 23, 28, 33, 38])
    for layer in layers:
        if not isinstance(layer, int) or not 0 <= layer < s.layers:
            raise LaminaError(f"{c.where}: cross_attention_layers holds {layer!r}; layers are 0 to {s.layers - 1}")
    arch = decoder(c, "mllama", s, [gated if i in layers else plain for i in range(s.layers)], norm)
    return arch.replace(embedding=arch.embedding.replace(placeholders=8), encoders=encoders)


def write(arch: Architecture) -> dict[str, Any]:
    crossed = [i for i, block in enumerate(arch.blocks) if "cross_attention" in block.named_branches()]
    keys = {**common_keys(arch, "MllamaForCausalLM"), **rope_keys(arch)}
    return {"model_type": "mllama_text_model", **keys, "cross_attention_layers": crossed}


_CROSS = (
    *(Rule(f"cross_attn.{p}", f"cross_attention.op.{p}") for p in ("q_proj", "k_proj", "v_proj", "o_proj")),
    *(Rule(f"cross_attn.{p}", f"cross_attention.op.{p}") for p in ("q_norm", "k_norm")),
    Rule("input_layernorm", "cross_attention.before"),
    Rule("cross_attn_attn_gate", "cross_attention.gate"),
    Rule("cross_attn_mlp_gate", "feed_forward.gate"),
)
LAYOUT = Layout(
    decoder_rules(ATTENTION + GLU + PRE_NORMS + _CROSS),
    spellings=MULTIMODAL,
    skip=VISION,
)
FAMILIES = (Family("mllama", ("mllama_text_model", "mllama"), read, write, LAYOUT),)
