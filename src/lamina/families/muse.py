"""Muse Glimmer (dense) and Muse Spark (experts in a narrower latent, gated residuals): gated attention, four norms.

Three layers of four have a window and rotary positions; the others see everything and have no positions.
Source: the published configs and the reference's code.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, Attention, Block, Branch, GatedResidual, MoE, QKNorm, RMSNorm
from lamina.errors import LaminaError
from lamina.published import audio, rope, vision_more
from lamina.published.common import Family, Sizes, decoder, sizes
from lamina.published.config import Config
from lamina.published.encoders import split
from lamina.published.experts import router, sparse_layers


def _attentions(c: Config, s: Sizes, base: float, **fields: Any) -> list[Attention]:
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


def _decoder(c: Config, family: str, s: Sizes, blocks: list[Block], output_scale: float) -> Architecture:
    """What is read of the embedding table is normalised; logits are scaled, then soft-capped."""
    softcap = c.float("final_logit_softcapping", 20.0)
    arch = decoder(c, family, s, blocks, RMSNorm(eps=s.eps), scale=output_scale, softcap=softcap)
    return arch.replace(embedding=arch.embedding.replace(norm=RMSNorm(eps=s.eps, weight=False)))


def read_glimmer(c: Config) -> Architecture:
    c, encoders = split(c, vision_more.muse)
    s = sizes(c, eps=1e-5, activation_key="hidden_activation", kv_heads=2, head_dim=128, default_context=131072)
    after = RMSNorm(eps=c.float("post_norm_eps", 1e-8), offset=1.0)
    around = {"before": RMSNorm(eps=s.eps, offset=1.0), "after": after}
    attentions = _attentions(c, s, 10000.0, scale=c.float("qk_scale_factor", 3.87) * s.head_dim**-0.5)
    made = {op: Block(branches=tuple(Branch(op=part, **around) for part in (op, s.glu()))) for op in set(attentions)}
    scale = c.float("output_multiplier", 0.19611613513818404)
    return _decoder(c, "muse_glimmer", s, [made[op] for op in attentions], scale).replace(encoders=encoders)


def read_spark(c: Config) -> Architecture:
    c, encoders = split(c, vision_more.muse, audio.muse)
    s = sizes(c, eps=1e-5, kv_heads=16, head_dim=64, default_context=1048576)
    scale, post = c.float("output_multiplier", 0.1767766952966369), c.float("post_norm_eps", 1e-8)
    before, plain = RMSNorm(eps=s.eps, offset=1.0), RMSNorm(eps=post, weight=False)
    weighed = RMSNorm(eps=post, offset=1.0, weight_first=True)
    gated = GatedResidual(temperature=c.float("residual_gate_temperature", 0.3))
    attentions = _attentions(
        c,
        s,
        500_000.0,
        scale=c.float("qk_scale_factor", 5.4730064863875) * s.head_dim**-0.5,
        output_norm=RMSNorm(eps=s.eps, weight=False),
    )
    moe = MoE(
        router=router(c, 256, 8, "sigmoid", correction=True, logit_scale=scale),
        expert=s.glu().replace(inner=c.count("moe_intermediate_size", 4096)),
        latent=c.count("moe_hidden_size", 4096),
        expert_norm=before,
        given_norm=weighed,
    )
    layers = list(zip(attentions, sparse_layers(c, s.layers), strict=True))
    made = {
        (op, sparse): Block(
            branches=(
                Branch(op=op, before=before, after=plain, residual=gated),
                Branch(op=moe if sparse else s.glu(), before=before, after=weighed, residual=gated),
            )
        )
        for op, sparse in set(layers)
    }
    return _decoder(c, "muse_spark", s, [made[layer] for layer in layers], scale).replace(encoders=encoders)


FAMILIES = (
    Family("muse_glimmer", ("muse_glimmer", "muse_glimmer_text"), read_glimmer),
    Family("muse_spark", ("muse_spark", "muse_spark_text"), read_spark),
)
