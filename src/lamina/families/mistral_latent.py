"""Mistral with latent attention: Large 3 and Small 4.

Source: the published configs and reference.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture
from lamina.families.deepseek import blocks_around
from lamina.published import latent, vision
from lamina.published.common import Family
from lamina.published.config import Config
from lamina.published.encoders import split
from lamina.published.experts import mixture, router, sparse_layers
from lamina.published.rules import GLU, PRE_NORMS, ROUTER, SHARED, Layout, Rule

ROTARY = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 128.0,
    "original_max_position_embeddings": 8192,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}
"""What configs mean that say nothing of rotary embeddings."""


def read(c: Config) -> Architecture:
    c, encoders = split(c, vision.pixtral)
    s = latent.sizes(c, default_context=1048576)
    op = latent.attention(c, s, query_latent=1024, latent=256, plain=64)
    values = latent.rotary_or(c, ROTARY)
    values.setdefault("partial_rotary_factor", op.rotary_dim / op.head_dim)
    op = op.replace(temperature=latent.length_temperature(c, values))
    op = latent.rotated(c, s, op, values, latent.layout(c), dim=op.head_dim)
    moe = mixture(c, s, router(c, 128, 4), 2048, shared=1)
    arch = blocks_around(c, "mistral4", s, [op] * s.layers, moe, sparse_layers(c, s.layers))
    return arch.replace(encoders=encoders)


def write(arch: Architecture) -> dict[str, Any]:
    op = latent.attention_of(arch)
    said = latent.keys(arch, "Mistral4ForCausalLM") | {"rope_interleave": latent.interleaved(arch)}
    return {"model_type": "mistral4", **said, "rope_parameters": latent.rotary_keys(op, op.head_dim)}


_EXPERTS = "feed_forward.op.experts."
STACKED = (
    Rule("mlp.experts.gate_up_proj", _EXPERTS + "gate_proj.weight", _EXPERTS + "up_proj.weight", stacked=True),
    Rule("mlp.experts.down_proj", _EXPERTS + "down_proj.weight", stacked=True),
)
"""Experts as one tensor for all of them."""
_BLOCK = latent.attention_rules() + GLU + PRE_NORMS + ROUTER + SHARED + STACKED


def layout(arch: Architecture) -> Layout:
    return latent.layout_of(arch, _BLOCK)


FAMILIES = (Family("mistral4", ("mistral4",), read, write, layout),)
