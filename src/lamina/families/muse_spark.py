"""Muse Spark: Muse Glimmer with experts in a narrower latent, gated residuals and a norm of each head's output.

Source: the published config and the reference's code.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, Block, Branch, GatedResidual, MoE, RMSNorm
from lamina.families import muse
from lamina.families.muse import around, attentions, keys, layout
from lamina.published import audio, vision_more
from lamina.published.common import Family, pick, sizes
from lamina.published.config import Config
from lamina.published.encoders import split
from lamina.published.experts import dense_of, layer_kinds, moe_of, router, router_keys, sparse_layers
from lamina.published.rules import CORRECTION, ROUTER, Rule


def read(c: Config) -> Architecture:
    c, encoders = split(c, vision_more.muse, audio.muse)
    s = sizes(c, eps=1e-5, kv_heads=16, head_dim=64, default_context=1048576)
    scale, post = c.float("output_multiplier", 0.1767766952966369), c.float("post_norm_eps", 1e-8)
    before, plain = RMSNorm(eps=s.eps, offset=1.0), RMSNorm(eps=post, weight=False)
    weighed = RMSNorm(eps=post, offset=1.0, weight_first=True)
    gated = GatedResidual(temperature=c.float("residual_gate_temperature", 0.3))
    mixers = attentions(
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
    layers = list(zip(mixers, sparse_layers(c, s.layers), strict=True))
    made = {
        (op, sparse): Block(
            branches=(
                Branch(op=op, before=before, after=plain, residual=gated),
                Branch(op=moe if sparse else s.glu(), before=before, after=weighed, residual=gated),
            )
        )
        for op, sparse in set(layers)
    }
    return around(c, "muse_spark", s, [made[layer] for layer in layers], scale).replace(encoders=encoders)


def write(arch: Architecture) -> dict[str, Any]:
    moe, residual = moe_of(arch), arch.blocks[0].branches[0].residual
    assert isinstance(residual, GatedResidual)
    counts = "num_local_experts", "num_experts_per_tok", "routed_scaling_factor"
    return {
        "model_type": "muse_spark_text",
        **keys(arch, "MuseSparkForConditionalGeneration", "hidden_act", dense_of(arch)),
        **layer_kinds(arch),
        **pick(router_keys(moe.router, "num_local_experts"), *counts),
        "moe_intermediate_size": moe.expert.inner,
        "moe_hidden_size": moe.latent,
        "residual_gate_temperature": residual.temperature,
    }


EXPERTS = "feed_forward.op.experts."
BLOCK = (
    *(muse.BLOCK + ROUTER + CORRECTION),
    Rule("mlp.experts.gate_up_proj", EXPERTS + "gate_proj.weight", EXPERTS + "up_proj.weight", stacked=True),
    Rule("mlp.experts.down_proj", EXPERTS + "down_proj.weight", stacked=True),
    Rule("mlp.experts.post_expert_norm", "feed_forward.op.given_norm"),
    Rule("mlp.pre_expert_norm", "feed_forward.op.expert_norm"),
    Rule("mlp.pre_expert_proj", "feed_forward.op.latent_down"),
    Rule("mlp.post_expert_proj", "feed_forward.op.latent_up"),
    Rule("post_attention_residual_gate.gate", "mixer.residual.gate"),
    Rule("post_feedforward_residual_gate.gate", "feed_forward.residual.gate"),
)
FAMILIES = (Family("muse_spark", ("muse_spark", "muse_spark_text"), read, write, layout(BLOCK)),)
