"""Apertus: Llama with a norm of queries and keys, and an MLP without a gate behind the learned activation xIELU.

Source: arXiv 2509.14233; xIELU: 2411.13010.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import MLP, Architecture, QKNorm, RMSNorm
from lamina.published import rope
from lamina.published.common import Family, attention_of, common_keys, decoder, pre_norm, rope_keys, sizes
from lamina.published.config import Config
from lamina.published.rules import ATTENTION, QK_NORMS, Layout, Rule, decoder_rules

ROTARY = {
    "rope_type": "llama3",
    "rope_theta": 12_000_000.0,
    "factor": 8.0,
    "original_max_position_embeddings": 8192,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}
"""What a config means that says nothing of rotary embeddings."""


def read(c: Config) -> Architecture:
    s = sizes(c, eps=1e-5, activation="xielu", default_context=65536)
    said = any(key in c for key in ("rope_parameters", "rope_scaling"))
    values = rope.parameters(c, 12_000_000.0)
    rotary = rope.rotary(c, values if said else ROTARY | values, s.head_dim, s.context)
    norm, bias = RMSNorm(eps=s.eps), c.bool("attention_bias", False)
    c.only("mlp_bias", False)
    c.only("post_norm", False)
    c.only("qk_norm", True)
    attention = s.attention(rotary=rotary, qk_norm=QKNorm(norm=norm), bias=bias, output_bias=bias)
    block = pre_norm(attention, MLP(inner=s.inner, activation=s.activation), norm)
    return decoder(c, "apertus", s, [block] * s.layers, norm)


def write(arch: Architecture) -> dict[str, Any]:
    mlp = next(op for op in arch.ops() if isinstance(op, MLP))
    keys = common_keys(arch, "ApertusForCausalLM", feed_forward=mlp) | rope_keys(arch)
    return {"model_type": "apertus", **keys, "attention_bias": attention_of(arch).bias}


BLOCK = (
    *ATTENTION,
    *QK_NORMS,
    *(Rule(f"mlp.{p}_proj", f"feed_forward.op.{p}_proj") for p in ("up", "down")),
    *(Rule(f"mlp.act_fn.alpha_{p[0]}", f"feed_forward.op.activation.{p}") for p in ("positive", "negative")),
    Rule("attention_layernorm", "mixer.before"),
    Rule("feedforward_layernorm", "feed_forward.before"),
)
CONSTANTS = {"model.layers.{i}.mlp.act_fn.beta": 0.5, "model.layers.{i}.mlp.act_fn.eps": -1e-6}
FAMILIES = (Family("apertus", ("apertus",), read, write, Layout(decoder_rules(BLOCK), constants=CONSTANTS)),)
