"""Phi-3 and Phi-4: one matrix for q, k, v and one for gate and up, rotary on part of a head, longrope.

Source: arXiv 2404.14219, 2412.08905.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, RMSNorm
from lamina.errors import LaminaError
from lamina.published import rope
from lamina.published.common import Family, attention_of, common_keys, decoder, pre_norm, sizes
from lamina.published.config import Config
from lamina.published.rules import PRE_NORMS, Layout, Rule, decoder_rules


def read(c: Config) -> Architecture:
    s = sizes(c, eps=1e-5, default_context=4096)
    values = rope.parameters(c, 10000.0)
    if values.get("rope_type", values.get("type")) in ("longrope", "su", "yarn"):
        # in this family "yarn" and "su" are early names of longrope
        values |= {"rope_type": "longrope", "type": None}
        values["original_max_position_embeddings"] = c.count("original_max_position_embeddings", 4096)
    elif (kind := values.get("rope_type", values.get("type"))) not in (None, "default"):
        raise LaminaError(f"{c.where}: rope_type is {kind!r}; this family knows 'default' and 'longrope'")
    else:
        c.ignore("no rotary scaling asks for it", "original_max_position_embeddings")
        values.pop("original_max_position_embeddings", None)
    attention = s.attention(
        rotary=rope.rotary(c, values, s.head_dim, s.context), window=c.count("sliding_window", None)
    )
    c.only("attention_bias", False)
    c.only("mlp_bias", False)
    norm = RMSNorm(eps=s.eps)
    return decoder(c, "phi3", s, [pre_norm(attention, s.glu(), norm)] * s.layers, norm)


def write(arch: Architecture) -> dict[str, Any]:
    attention = attention_of(arch)
    keys = common_keys(arch, "Phi3ForCausalLM")
    if attention.head_dim == arch.width // attention.heads:
        del keys["head_dim"]  # the reference's config has no such key
    rotary = attention.rotary
    values = rope.written(rotary, attention.head_dim) if rotary else {}
    values.setdefault("partial_rotary_factor", 1.0)
    original = values.get("original_max_position_embeddings", arch.context)
    keys |= {"rope_parameters": values, "original_max_position_embeddings": original}
    return {"model_type": "phi3", **keys, "sliding_window": attention.window}


_BLOCK = (
    Rule("self_attn.qkv_proj", *(f"mixer.op.{p}_proj" for p in "qkv")),
    Rule("self_attn.o_proj", "mixer.op.o_proj"),
    Rule("mlp.gate_up_proj", "feed_forward.op.gate_proj", "feed_forward.op.up_proj"),
    Rule("mlp.down_proj", "feed_forward.op.down_proj"),
    *PRE_NORMS,
)
FAMILIES = (Family("phi3", ("phi3",), read, write, Layout(decoder_rules(_BLOCK))),)
