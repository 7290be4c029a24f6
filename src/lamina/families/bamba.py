"""Bamba: Mamba-2 in most blocks, attention in a few, a GLU in all.

Source: the published configs and the reference; arXiv 2405.21060 (Mamba-2).
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, RMSNorm
from lamina.published import rope
from lamina.published.common import Family, decoder, glu_of, pre_norm, sizes
from lamina.published.config import Config
from lamina.published.hybrids import ATTENTION, MAMBA, hybrid_keys, hybrid_kinds, hybrid_mixers
from lamina.published.recurrent import mamba2
from lamina.published.rules import Layout, Rule, decoder_rules, named


def read(c: Config) -> Architecture:
    """Half of each head is rotated, whatever the config says, as in the reference."""
    s = sizes(c, eps=1e-5, kv_heads=8, default_context=262144)
    norm, bias = RMSNorm(eps=s.eps), c.bool("attention_bias", False)
    c.only("hidden_act", "silu")
    c.only("attn_rotary_emb", s.head_dim // 2)
    c.only("partial_rotary_factor", 0.5)
    c.ignore("training", "z_loss_coefficient")
    values = rope.parameters(c, 10000.0)
    values.setdefault("partial_rotary_factor", 0.5)
    rotary = rope.rotary(c, values, s.head_dim, s.context)
    glu = s.glu(c.bool("mlp_bias", False))
    made = {
        MAMBA: pre_norm(mamba2(c, s.width, s.eps), glu, norm),
        ATTENTION: pre_norm(s.attention(rotary=rotary, bias=bias, output_bias=bias), glu, norm),
    }
    attended = c.list("attn_layer_indices", [])
    blocks = [made[ATTENTION if i in attended else MAMBA] for i in range(s.layers)]
    return decoder(c, "bamba", s, blocks, norm)


def write(arch: Architecture) -> dict[str, Any]:
    glu, attended = glu_of(arch), [i for i, kind in enumerate(hybrid_kinds(arch)) if kind == ATTENTION]
    keys = hybrid_keys(arch, "BambaForCausalLM", glu)
    return {"model_type": "bamba", **keys, "mlp_bias": glu.bias, "attn_layer_indices": attended}


BLOCK = (
    *named("feed_forward.", "feed_forward.op.", "gate_proj up_proj down_proj"),
    Rule("input_layernorm", "mixer.before"),
    Rule("pre_ff_layernorm", "feed_forward.before"),
)


def layout(arch: Architecture) -> Layout:
    block = (*hybrid_mixers(arch), *BLOCK)
    return Layout((Rule("model.final_layernorm", "norm"), *decoder_rules(block)))


FAMILIES = (Family("bamba", ("bamba",), read, write, layout),)
