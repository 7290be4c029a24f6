"""Llama 4: rotated layers see their own chunk, every fourth has no positions and sees everything.

Experts are sigmoid-weighed on what they read; queries and keys of rotated layers are normalised after rotation;
queries of the others are sharpened with length (arXiv 2501.19399). Source: the published configs.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import GLU, Architecture, LengthTemperature, QKNorm, RMSNorm
from lamina.errors import LaminaError
from lamina.published import vision
from lamina.published.common import (
    Family,
    attention_of,
    common_keys,
    decoder,
    pick,
    pre_norms,
    rope_keys,
    sizes,
)
from lamina.published.config import Config
from lamina.published.encoders import split
from lamina.published.experts import layer_numbers, mixture, moe_of, router, router_keys, sparse_blocks
from lamina.published.rules import ATTENTION, COMPUTED, MULTIMODAL, PRE_NORMS, VISION, Layout, Rule, decoder_rules

KINDS = ("full_attention", "chunked_attention")


def _rotated(c: Config, layers: int) -> list[bool]:
    """Which layers have positions."""
    interval = c.count("no_rope_layer_interval", 4)
    listed = c.list("no_rope_layers", None) or [int((i + 1) % interval != 0) for i in range(layers)]
    if len(listed) < layers or any(turned not in (0, 1) for turned in listed):
        raise LaminaError(f"{c.where}: no_rope_layers needs {layers} entries of 0 or 1 (1: the layer is rotated)")
    return [bool(turned) for turned in listed[:layers]]


def read(c: Config) -> Architecture:
    c, encoders = split(c, vision.llama4, always="text_config" in c)
    s = sizes(c, eps=1e-5, kv_heads=8, head_dim=128, default_context=131072)
    rotary, bias = s.rotary(c, 500_000.0, layout="interleaved"), c.bool("attention_bias", False)
    qk_norm = QKNorm(norm=RMSNorm(eps=s.eps, weight=False), after_rotary=True) if c.bool("use_qk_norm", True) else None
    temperature = LengthTemperature(floor=c.count("floor_scale", 8192), scale=c.float("attn_scale", 0.1))
    by_position = {
        True: s.attention(rotary=rotary, qk_norm=qk_norm, bias=bias, output_bias=bias),
        False: s.attention(
            temperature=temperature if c.bool("attn_temperature_tuning", True) else None, bias=bias, output_bias=bias
        ),
    }
    turned = _rotated(c, s.layers)
    usual = ["chunked_attention" if t else "full_attention" for t in turned]
    chunk = c.count("attention_chunk_size", None if "attention_chunk_size" in c.data else 8192)
    kinds = c.layer_types(s.layers, usual, KINDS)
    if "chunked_attention" in kinds and not chunk:
        raise LaminaError(f"{c.where}: layer_types has chunked layers, so attention_chunk_size is needed")
    chosen = router(c, experts=16, active=1, score="sigmoid", normalise=False)
    experts = mixture(c, s, chosen, inner=s.inner, shared=1, scaled="input")
    dense = s.glu().replace(inner=c.count("intermediate_size_mlp", 16384))
    step, norm = c.count("interleave_moe_layer_step", 1), RMSNorm(eps=s.eps)
    sparse = layer_numbers(c, "moe_layers", list(range(step - 1, s.layers, step)), s.layers)
    seen = {"full_attention": None, "chunked_attention": chunk}
    mixers = [by_position[t].replace(chunk=seen[kind]) for t, kind in zip(turned, kinds, strict=True)]
    feed_forwards = [experts if i in sparse else dense for i in range(s.layers)]
    arch = decoder(c, "llama4", s, pre_norms(mixers, feed_forwards, norm), norm)
    return arch.replace(encoders=encoders)


def write(arch: Architecture) -> dict[str, Any]:
    """A text config; a layer without experts and one without positions say what the others do not."""
    moe, attentions = moe_of(arch), [attention_of(arch, i) for i in range(len(arch.blocks))]
    dense = next((op.inner for op in arch.ops() if isinstance(op, GLU)), 16384)
    normalised = any(a.qk_norm for a in attentions) or not any(a.rotary for a in attentions)
    plain = [a.temperature for a in attentions if not a.rotary]
    temperature = next((t for t in plain if t), LengthTemperature(floor=8192, scale=0.1))
    return {
        "model_type": "llama4_text",
        **common_keys(arch, "Llama4ForCausalLM", feed_forward=moe.expert),
        **rope_keys(arch),
        **pick(router_keys(moe.router, "num_local_experts"), "num_local_experts", "num_experts_per_tok"),
        "intermediate_size_mlp": dense,
        "moe_layers": [i for i, has in enumerate(sparse_blocks(arch)) if has],
        "attention_bias": attentions[0].bias,
        "attention_chunk_size": next((a.chunk for a in attentions if a.chunk), None),
        "layer_types": ["chunked_attention" if a.chunk else "full_attention" for a in attentions],
        "no_rope_layers": [int(a.rotary is not None) for a in attentions],
        "use_qk_norm": normalised,
        "attn_temperature_tuning": None not in plain,
        "floor_scale": temperature.floor,
        "attn_scale": temperature.scale,
    }


PARTS = ("gate", "up", "down")
MIXTURE = (
    Rule("experts.gate_up_proj", "experts.gate_proj.weight", "experts.up_proj.weight", stacked=True, transpose=True),
    Rule("experts.down_proj", "experts.down_proj.weight", stacked=True, transpose=True),
    Rule("router", "router.gate"),
    *(Rule(f"shared_expert.{p}_proj", f"shared.{p}_proj") for p in PARTS),
    *(Rule(f"{p}_proj", f"{p}_proj") for p in PARTS),
)
FEED_FORWARD = tuple(rule.within("feed_forward.", "feed_forward.op.") for rule in MIXTURE)
LAYOUT = Layout(
    decoder_rules(ATTENTION + PRE_NORMS + FEED_FORWARD),
    spellings=MULTIMODAL,
    skip=COMPUTED | VISION,
)

FAMILIES = (Family("llama4", ("llama4", "llama4_text"), read, write, LAYOUT),)
