"""Inkling 2: Inkling whose branches read means of earlier sums, with gates, sinks made from the input, and clips.

Source: the published config and the reference's code.
"""

from __future__ import annotations

import math
from typing import Any

from lamina.arch import (
    GLU,
    Architecture,
    AttentionResiduals,
    Block,
    Branch,
    LengthClip,
    MoE,
    RelativeAttention,
    RMSNorm,
    ShortFilter,
    Squash,
)
from lamina.errors import LaminaError
from lamina.published import vision_more
from lamina.published.common import Family, Sizes, decoder, sizes
from lamina.published.config import Config
from lamina.published.encoders import split
from lamina.published.experts import moe_of, one_name, router
from lamina.published.inkling import ALIASES, attentions, keys, layer_kinds, padded, published, temperature

MORE_ALIASES = ALIASES | {"moe_intermediate_size": ("intermediate_size",)}


def _mixture(c: Config, s: Sizes) -> MoE:
    squash = Squash(gate=c.float("mlp_gate_softcap", 4.0), up=c.float("mlp_up_softcap", 25.0))
    c.only("hidden_act", "silu")
    return MoE(
        router=router(c, 384, 8, "sigmoid", scale=8.0, correction=True),
        expert=s.glu().replace(inner=c.count("moe_intermediate_size", 2304), squash=squash),
    )


def read(c: Config) -> Architecture:
    c, encoders = split(c, vision_more.inkling2)
    one_name(c, MORE_ALIASES)
    s = sizes(c, kv_heads=8, head_dim=128, inner=1, default_context=1048576)
    norm, kernel = RMSNorm(eps=s.eps), c.count("conv_kernel_size", 4)
    c.ignore("not read by the reference", "number_of_conv_states")
    c.only("tie_word_embeddings", False)
    fixed = ShortFilter(kernel=kernel, scale=(kernel + 1) ** -0.5)
    made = attentions(
        c,
        s,
        (1024, 48, 8),
        filter=fixed,
        clip=LengthClip(
            limit=c.float("qk_l2_clip_threshold", 16 * math.sqrt(2)), relative=c.float("rel_l2_clip_threshold", 8.0)
        ),
        value_norm=RMSNorm(eps=s.eps, weight=False),
        gate="elementwise",
        sinks=True,
    )
    moving = ShortFilter(kernel=kernel, scale=(2 * kernel + 1) ** -0.5, heads=s.kv_heads)
    made["hybrid"] = made["hybrid"].replace(filter=moving, temperature=temperature(c, 128000))
    moe, kinds = _mixture(c, s), layer_kinds(c, s.layers)
    if kinds[0] == "hybrid":
        raise LaminaError(f"{c.where}: the first layer must have a window (layer_types[0])")
    blocks = {
        kind: Block(branches=tuple(Branch(op=part, before=norm, filter=fixed) for part in (op, moe)))
        for kind, op in made.items()
    }
    stream = AttentionResiduals(
        blocks=c.count("n_layers_per_attn_res_block", 6),
        norm=RMSNorm(weight=False),
        scaled=True,
        normed=True,
        first=False,
        separate=tuple(i for i, kind in enumerate(kinds) if kind == "hybrid"),
    )
    softcap = c.float("final_logit_softcapping", 30.0)
    c.count("unpadded_vocab_size", None)
    arch = decoder(c, "inkling2", s, [blocks[kind] for kind in kinds], norm, softcap=softcap)
    return padded(c, arch.replace(stream=stream, encoders=encoders), s.eps, 200058)


def write(arch: Architecture) -> dict[str, Any]:
    moe, stream = moe_of(arch), arch.stream
    op = next(op for op in arch.ops() if isinstance(op, RelativeAttention))
    assert isinstance(moe.expert, GLU)
    assert isinstance(stream, AttentionResiduals)
    assert op.clip
    assert moe.expert.squash
    written = keys(arch, "Inkling2ForCausalLM")
    written["moe_intermediate_size"] = written.pop("intermediate_size")
    return written | {
        "model_type": "inkling2_text",
        "n_routed_experts": moe.router.experts,
        "num_experts_per_tok": moe.router.active,
        "route_scale": moe.router.scale,
        "mlp_gate_softcap": moe.expert.squash.gate,
        "mlp_up_softcap": moe.expert.squash.up,
        "qk_l2_clip_threshold": op.clip.limit,
        "rel_l2_clip_threshold": op.clip.relative,
        "n_layers_per_attn_res_block": stream.blocks,
    }


FAMILIES = (Family("inkling2", ("inkling2_text", "inkling2"), read, write, published),)
