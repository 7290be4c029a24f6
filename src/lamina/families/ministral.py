"""Ministral 3: Llama whose queries grow with their position beyond the length that was trained on first.

Source: arXiv 2601.08584; the growth of queries is that of Llama 4, counted from position 0.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, RMSNorm
from lamina.published import latent, rope
from lamina.published.common import Family, attention_of, common_keys, decoder, pre_norm, sizes
from lamina.published.config import Config
from lamina.published.rules import ATTENTION, GLU, MULTIMODAL, PRE_NORMS, VISION, Layout, decoder_rules

ROTARY = {
    "rope_type": "yarn",
    "rope_theta": 1_000_000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 16384,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}
"""What a config means that says nothing of rotary embeddings."""


def read(c: Config) -> Architecture:
    s = sizes(c, eps=1e-5, kv_heads=8, head_dim=128, default_context=262144)
    said = any(key in c for key in ("rope_parameters", "rope_scaling"))
    values = dict(rope.parameters(c, 10000.0) if said else ROTARY)
    temperature = latent.length_temperature(c, values)
    rotary = rope.rotary(c, values, s.head_dim, s.context)
    attention = s.attention(rotary=rotary, window=c.count("sliding_window", None), temperature=temperature)
    norm = RMSNorm(eps=s.eps)
    return decoder(c, "ministral3", s, [pre_norm(attention, s.glu(), norm)] * s.layers, norm)


def write(arch: Architecture) -> dict[str, Any]:
    attention = attention_of(arch)
    written = rope.written(attention.rotary, attention.head_dim) if attention.rotary else {}
    if (growth := attention.temperature) is not None:
        written |= {"llama_4_scaling_beta": growth.scale, "original_max_position_embeddings": growth.floor}
    return {
        "model_type": "ministral3",
        **common_keys(arch, "Ministral3ForCausalLM"),
        "rope_parameters": written,
        "sliding_window": attention.window,
    }


LAYOUT = Layout(decoder_rules(ATTENTION + GLU + PRE_NORMS), spellings=MULTIMODAL, skip=VISION)
FAMILIES = (Family("ministral3", ("ministral3",), read, write, LAYOUT),)
