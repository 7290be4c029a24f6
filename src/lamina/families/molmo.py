"""Molmo 2: a Qwen3 or OLMo decoder by its config, with rows of the embedding table for tokens it never predicts.

Source: arXiv 2601.10611.
"""

from __future__ import annotations

from lamina.arch import Architecture, Block, Branch, QKNorm, RMSNorm
from lamina.errors import LaminaError
from lamina.published import rope, vision_more
from lamina.published.common import Family, decoder, sizes
from lamina.published.config import Config
from lamina.published.encoders import split
from lamina.published.experts import key_of


def read(c: Config) -> Architecture:
    c, encoders = split(c, vision_more.molmo)
    eps_key = key_of(c, "rms_norm_eps", "layer_norm_eps")
    s = sizes(c, eps_key=eps_key, kv_heads=8, head_dim=128, default_context=36864)
    c.ignore("training", "embedding_dropout", "residual_dropout")
    c.only("use_qk_norm", True)
    norm, after = RMSNorm(eps=s.eps), c.bool("norm_after", False)
    over = {"qwen3": "head", "olmo": "width"}[c.choice("qk_norm_type", ("qwen3", "olmo"), "qwen3")]
    bias = c.bool(key_of(c, "attention_bias", "qkv_bias"), False)
    scaled = rope.rotary(c, rope.parameters(c, 10000.0), s.head_dim, s.context)
    listed = c.list("rope_scaling_layers", list(range(s.layers)))
    if any(not isinstance(i, int) or not 0 <= i < s.layers for i in listed):
        raise LaminaError(f"{c.where}: rope_scaling_layers must be numbers of the {s.layers} layers")
    made = {}
    for rotary in (scaled, scaled.replace(scaling=None)):
        attention = s.attention(rotary=rotary, qk_norm=QKNorm(norm=norm, over=over), bias=bias)
        place = {"after": norm} if after else {"before": norm}
        made[rotary] = Block(branches=(Branch(op=attention, **place), Branch(op=s.glu(), **place)))
    blocks = [made[scaled if i in listed else scaled.replace(scaling=None)] for i in range(s.layers)]
    extra = c.count("additional_vocab_size", 128, least=0)
    arch = decoder(c, "molmo2", s, blocks, norm)
    return arch.replace(embedding=arch.embedding.replace(placeholders=extra), encoders=encoders)


FAMILIES = (Family("molmo2", ("molmo2", "molmo2_text"), read),)
