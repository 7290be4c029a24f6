"""Muse Glimmer: gated attention, a norm before and after each sublayer, normalised embeddings.

Three layers of four have a window and rotary positions; the others see everything and have no positions.
Source: the published configs and the reference's code.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import GLU, Architecture, Attention, Block, Branch, QKNorm, RMSNorm
from lamina.errors import LaminaError
from lamina.published import rope, vision_more
from lamina.published.common import (
    Family,
    Sizes,
    attention_of,
    common_keys,
    decoder,
    factor,
    glu_of,
    rope_keys,
    sizes,
    windows,
)
from lamina.published.config import Config
from lamina.published.encoders import split
from lamina.published.rules import ATTENTION, SANDWICH_NORMS, Layout, Rule, decoder_rules
from lamina.published.rules import GLU as GLU_RULES


def attentions(c: Config, s: Sizes, base: float, **fields: Any) -> list[Attention]:
    """A `layer_rope_theta` of 0 means no positions; another value than the one rope_theta is not known."""
    values = rope.parameters(c, base)
    rotary, bias = rope.rotary(c, values, s.head_dim, s.context), c.bool("attention_bias", False)
    full = [(s.layers - 1 - i) % 4 == 0 for i in range(s.layers)]
    usual = ["full_attention" if here else "sliding_attention" for here in full]
    kinds = c.layer_types(s.layers, usual, rope.LAYER_TYPES)
    bases = c.list("layer_rope_theta", [0 if here else rotary.base for here in full])
    if len(bases) != s.layers or any(b not in (0, rotary.base) for b in bases):
        raise LaminaError(f"{c.where}: layer_rope_theta needs {s.layers} entries, each 0 or rope_theta ({rotary.base})")
    window = {"full_attention": None, "sliding_attention": c.count("sliding_window", 2048)}
    shared: dict[str, Any] = {"bias": bias, "output_bias": bias, "gate": "elementwise", **fields}
    shared["qk_norm"] = QKNorm(norm=RMSNorm(eps=s.eps, weight=False))
    layers = [(kind, bool(b)) for kind, b in zip(kinds, bases, strict=True)]
    made = {
        (kind, turned): s.attention(rotary=rotary if turned else None, window=window[kind], **shared)
        for kind, turned in set(layers)
    }
    return [made[layer] for layer in layers]


def around(c: Config, family: str, s: Sizes, blocks: list[Block], output_scale: float) -> Architecture:
    """What is read of the embedding table is normalised; logits are scaled, then soft-capped."""
    softcap = c.float("final_logit_softcapping", 20.0)
    arch = decoder(c, family, s, blocks, RMSNorm(eps=s.eps), scale=output_scale, softcap=softcap)
    return arch.replace(embedding=arch.embedding.replace(norm=RMSNorm(eps=s.eps, weight=False)))


def read(c: Config) -> Architecture:
    c, encoders = split(c, vision_more.muse)
    s = sizes(c, eps=1e-5, activation_key="hidden_activation", kv_heads=2, head_dim=128, default_context=131072)
    after = RMSNorm(eps=c.float("post_norm_eps", 1e-8), offset=1.0)
    norms = {"before": RMSNorm(eps=s.eps, offset=1.0), "after": after}
    mixers = attentions(c, s, 10000.0, scale=c.float("qk_scale_factor", 3.87) * s.head_dim**-0.5)
    made = {op: Block(branches=tuple(Branch(op=part, **norms) for part in (op, s.glu()))) for op in set(mixers)}
    scale = c.float("output_multiplier", 0.19611613513818404)
    return around(c, "muse_glimmer", s, [made[op] for op in mixers], scale).replace(encoders=encoders)


def keys(arch: Architecture, name: str, activation_key: str, dense: GLU) -> dict[str, Any]:
    """What both say in the same words."""
    ops, (window, kinds) = [attention_of(arch, i) for i in range(len(arch.blocks))], windows(arch)
    after = arch.blocks[0].branches[0].after
    assert after
    return {
        **common_keys(arch, name, activation_key, feed_forward=dense),
        **rope_keys(arch),
        "attention_bias": ops[0].bias,
        "layer_types": kinds,
        "sliding_window": window or 2048,
        "layer_rope_theta": [op.rotary.base if op.rotary else 0 for op in ops],
        "qk_scale_factor": factor(ops[0].scale or 0.0, ops[0].head_dim ** -0.5),
        "output_multiplier": arch.head.scale,
        "final_logit_softcapping": arch.head.softcap,
        "post_norm_eps": after.eps,
    }


def write(arch: Architecture) -> dict[str, Any]:
    written = keys(arch, "MuseGlimmerForConditionalGeneration", "hidden_activation", glu_of(arch))
    return {"model_type": "muse_glimmer_text", **written}


BLOCK = (*(ATTENTION + GLU_RULES + SANDWICH_NORMS), Rule("self_attn.gate_proj", "mixer.op.gate_proj"))


def layout(block: tuple[Rule, ...]) -> Layout:
    """Checkpoints hold the text decoder among encoders, or alone."""
    beside = r"(model\.)?(vision_adapter|vision_projection|vision_tower|audio_tower)\..*"
    skip = {beside: "the encoders are not part of this model"}
    spellings = (("model.language_model.", "model."), ("model.language_model.", ""))
    return Layout(decoder_rules(block, root="model.language_model."), spellings, skip)


FAMILIES = (Family("muse_glimmer", ("muse_glimmer", "muse_glimmer_text"), read, write, layout(BLOCK)),)
