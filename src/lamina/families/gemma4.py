"""Gemma 4: keys that are the values too, heads that are larger where there is no window, experts beside a GLU.

The E models have per-layer inputs, and their last layers read the keys and values of earlier ones.

Source: the published configs and the reference.
"""

from __future__ import annotations

import math
from typing import Any

from lamina.arch import (
    GLU,
    Architecture,
    Block,
    Branch,
    MoE,
    Parallel,
    PerLayerInput,
    RMSNorm,
    Router,
)
from lamina.published import audio, gemma, rope, vision
from lamina.published.common import Family, Sizes, alternating, decoder, glu_of, sizes
from lamina.published.config import Config
from lamina.published.encoders import split
from lamina.published.rules import ATTENTION, QK_NORMS, SANDWICH_NORMS, Layout, Rule
from lamina.published.rules import GLU as GLU_RULES


def _experts(c: Config, s: Sizes) -> MoE | None:
    """Experts beside the GLU: the router reads the stream under a norm of its own, the experts under another."""
    if not c.bool("enable_moe_block", False):
        c.ignore("there are no experts", "num_experts", "top_k_experts", "moe_intermediate_size")
        return None
    router = Router(
        experts=c.count("num_experts", most=1 << 16),
        active=c.count("top_k_experts", most=1 << 16),
        norm=RMSNorm(eps=s.eps),
        logit_scale=s.width**-0.5,
        expert_scale=True,
    )
    expert = s.glu().replace(inner=c.count("moe_intermediate_size"))
    return MoE(router=router, expert=expert, expert_norm=RMSNorm(eps=s.eps))


def _feed_forward(glu: GLU, experts: MoE | None, norm: RMSNorm) -> Branch:
    if experts is None:
        return Branch(op=glu, before=norm, after=norm)
    return Branch(op=Parallel(ops=(glu, experts), before=(norm, None), after=(norm, norm)), after=norm)


def read(c: Config) -> Architecture:
    c, encoders = split(c, vision.gemma4, audio.gemma4)
    s = sizes(
        c, 1e-6, "hidden_activation", gemma.ACTIVATION, head_dim=256, kv_heads=4, default_context=131072, vocab=262144
    )
    c.only("use_bidirectional_attention", "vision")  # of image tokens; those of text look back
    c.ignore("an older name of moe_intermediate_size, which is what counts", "expert_intermediate_size")
    kinds = c.layer_types(s.layers, alternating(s.layers, 6, 5), rope.LAYER_TYPES)
    kinds[-1] = gemma.FULL  # whatever the list says, as in the reference
    sources = gemma.kv_sources(c, kinds, c.count("num_kv_shared_layers", 0, least=0))
    norm, attention, experts = RMSNorm(eps=s.eps), gemma.attentions(c, s, kinds), _experts(c, s)
    wide, width = c.bool("use_double_wide_mlp", False), c.count("hidden_size_per_layer_input", 256, least=0)
    inputs = gemma.per_layer_inputs(c, s.layers, norm, width) if width else None
    c.ignore("there are no per-layer inputs", "vocab_size_per_layer_input")

    def block(kind: str, source: int | None) -> Block:
        mixing = Branch(op=attention[kind].replace(kv_from=source), before=norm, after=norm)
        glu = s.glu().replace(inner=s.inner * (2 if wide and source is not None else 1))
        branches = (mixing, _feed_forward(glu, experts, norm))
        if inputs:
            branches += (Branch(op=PerLayerInput(inner=width, activation=glu.activation), after=norm),)
        return Block(branches=branches, scaled=True)

    layers = list(zip(kinds, sources, strict=True))
    made = {layer: block(*layer) for layer in set(layers)}
    blocks = [made[layer] for layer in layers]
    softcap, scale = c.float("final_logit_softcapping", None), math.sqrt(s.width)
    arch = decoder(c, "gemma4", s, blocks, norm, tied=True, embedding_scale=scale, softcap=softcap)
    return arch.replace(embedding=arch.embedding.replace(per_layer=inputs), encoders=encoders)


def write(arch: Architecture) -> dict[str, Any]:
    found, moe = gemma.by_kind(arch), next((op for op in arch.ops() if isinstance(op, MoE)), None)
    large = found[gemma.FULL]
    inners = {op.inner for op in arch.ops() if isinstance(op, GLU)}
    return {
        "model_type": "gemma4_text",
        **gemma.keys(arch, "Gemma4ForCausalLM"),
        **gemma.shared_keys(arch),
        "global_head_dim": large.head_dim,
        "num_global_key_value_heads": large.kv_heads,
        "attention_k_eq_v": large.keys_as_values,
        "use_double_wide_mlp": inners > {glu_of(arch).inner},
        "enable_moe_block": moe is not None,
        "num_experts": moe and moe.router.experts,
        "top_k_experts": moe and moe.router.active,
        "moe_intermediate_size": moe and moe.expert.inner,
    }


BLOCK = (*ATTENTION, *QK_NORMS, *GLU_RULES, *SANDWICH_NORMS, *gemma.PER_LAYER, Rule("layer_scalar", "scale"))


def layout(arch: Architecture) -> Layout:
    return gemma.layout(arch, BLOCK + gemma.BESIDE, gemma.PER_LAYER_INPUTS)


FAMILIES = (Family("gemma4", ("gemma4_text", "gemma4"), read, write, layout),)
