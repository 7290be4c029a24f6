"""Persimmon, and Fuyu, which reads image patches with the same decoder: biases everywhere, squared ReLU, LayerNorm.

Source: the published Persimmon 8B and Fuyu 8B and the reference's code.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import MLP, Architecture, LayerNorm, QKNorm
from lamina.published import rope, vision_more
from lamina.published.common import Family, attention_of, common_keys, decoder, pre_norm, sizes
from lamina.published.config import Config
from lamina.published.encoders import split
from lamina.published.rules import MULTIMODAL, PRE_NORMS, Layout, Rule, decoder_rules, named


def read(c: Config) -> Architecture:
    fuyu = c.data.get("model_type") == "fuyu"
    text, encoders = split(c, *[vision_more.fuyu] * fuyu, always=fuyu)
    s = sizes(text, eps=1e-5, activation="relu2", eps_key="layer_norm_eps", default_context=16384)
    values = rope.parameters(text, 25000.0 if text is c and fuyu else 10000.0)
    values.setdefault("partial_rotary_factor", 0.5)
    norm = LayerNorm(eps=s.eps)
    text.only("num_key_value_heads", s.heads)
    attention = s.attention(
        rotary=rope.rotary(text, values, s.head_dim, s.context),
        qk_norm=QKNorm(norm=norm) if text.bool("qk_layernorm", True) else None,
        bias=True,
        output_bias=True,
    )
    block = pre_norm(attention, MLP(inner=s.inner, activation=s.activation, bias=True), norm)
    return decoder(text, "persimmon", s, [block] * s.layers, norm).replace(encoders=encoders)


def write(arch: Architecture) -> dict[str, Any]:
    mlp, attention = next(op for op in arch.ops() if isinstance(op, MLP)), attention_of(arch)
    keys = common_keys(arch, "PersimmonForCausalLM", feed_forward=mlp)
    keys["layer_norm_eps"] = keys.pop("rms_norm_eps")
    turned = rope.written(attention.rotary, attention.head_dim) if attention.rotary else {}
    return keys | {
        "model_type": "persimmon",
        "qk_layernorm": attention.qk_norm is not None,
        "rope_parameters": {"partial_rotary_factor": 1.0} | turned,
    }


SKIP = {r"(model\.)?vision_embed_tokens\..*": "the image encoder is not part of this model"}


def layout(arch: Architecture) -> Layout:
    """Each head's rows of queries, keys and values lie side by side."""
    fused = (f"mixer.op.{p}_proj" for p in "qkv")
    block = (
        Rule("self_attn.query_key_value", *fused, turns=attention_of(arch).heads),
        *named("self_attn.", "mixer.op.", "dense:o_proj q_layernorm:q_norm k_layernorm:k_norm"),
        *named("mlp.dense_", "feed_forward.op.", "h_to_4h:up_proj 4h_to_h:down_proj"),
        *PRE_NORMS,
    )
    rules = (Rule("model.final_layernorm", "norm"), *decoder_rules(block))
    return Layout(rules, spellings=MULTIMODAL, skip=SKIP)


FAMILIES = (Family("persimmon", ("persimmon", "fuyu"), read, write, layout),)
