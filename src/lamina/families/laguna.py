"""Laguna: windows with more heads than the full layers, a softplus gate on each head, and routed experts.

Source: the published Laguna-XS.2 config and the reference's code.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, Attention, MoE, QKNorm, RMSNorm
from lamina.errors import LaminaError
from lamina.published import by_type, rope
from lamina.published.common import Family, Sizes, attention_of, common_keys, decoder, pre_norms, sizes
from lamina.published.config import Config
from lamina.published.experts import dense_of, layer_kinds, moe_of, router, sparse_layers
from lamina.published.rules import (
    ATTENTION,
    EXPERTS,
    GLU,
    PRE_NORMS,
    QK_NORMS,
    ROUTER,
    Layout,
    Rule,
    decoder_rules,
    shared_rules,
)

ROTARY = {
    "full_attention": {"rope_theta": 500_000.0, "partial_rotary_factor": 0.5},
    "sliding_attention": {"rope_theta": 10_000.0},
}
"""What a config means that says nothing of rotary embeddings."""


def _gate(c: Config) -> str:
    """`gating` is true or the name of how finely; `gating_types` says the same of each layer."""
    said = c.str("gating") if isinstance(c.data.get("gating"), str) else "per-head"
    if said == "per-head":
        c.only("gating", (True, "per-head"))
    if said not in ("per-head", "per-element"):
        raise LaminaError(f"{c.where}: gating is {said!r}; known: true, 'per-head', 'per-element'")
    if set(c.list("gating_types", [said])) - {said, said.replace("-", "_")}:
        raise LaminaError(f"{c.where}: gating_types says otherwise than gating ({said!r})")
    return {"per-head": "head", "per-element": "elementwise"}[said]


def _attentions(c: Config, s: Sizes) -> list[Attention]:
    bias = c.bool("attention_bias", False)
    c.only("qkv_bias", bias)
    shared: dict[str, Any] = {"qk_norm": QKNorm(norm=RMSNorm(eps=s.eps)), "bias": bias, "output_bias": bias}
    shared |= {"gate": _gate(c), "gate_activation": "softplus"}
    window, said = c.count("sliding_window", 512), rope.by_layer_type(c) or ROTARY
    kinds = c.layer_types(s.layers, ["full_attention"] * s.layers, rope.LAYER_TYPES)
    heads = c.list("num_attention_heads_per_layer", [s.heads] * s.layers)
    if len(heads) != s.layers or any(not isinstance(h, int) or h < 1 for h in heads):
        raise LaminaError(f"{c.where}: num_attention_heads_per_layer needs {s.layers} whole numbers")
    rotary = by_type.rotaries(c, s, kinds, said)
    own = {"full_attention": {}, "sliding_attention": {"window": window}}
    return [
        s.attention(rotary=rotary[kind], **own[kind], **shared).replace(heads=h)
        for kind, h in zip(kinds, heads, strict=True)
    ]


def read(c: Config) -> Architecture:
    s = sizes(c, kv_heads=8, head_dim=128, default_context=131072)
    norm, glu = RMSNorm(eps=s.eps), s.glu()
    c.only("moe_apply_router_weight_on_input", False)
    c.only("norm_topk_prob", True)
    softcap = c.float("moe_router_logit_softcapping", 0.0) or None
    inner, shared = c.count("moe_intermediate_size", 512), c.count("shared_expert_intermediate_size", 512)
    gate = router(c, 256, 8, "sigmoid", correction=True, softcap=softcap)
    moe = MoE(router=gate, expert=glu.replace(inner=inner), shared=glu.replace(inner=shared))
    feed_forwards = [moe if sparse else glu for sparse in sparse_layers(c, s.layers, 1)]
    return decoder(c, "laguna", s, pre_norms(_attentions(c, s), feed_forwards, norm), norm)


def write(arch: Architecture) -> dict[str, Any]:
    moe = moe_of(arch)
    assert moe.shared
    return {
        "model_type": "laguna",
        **common_keys(arch, "LagunaForCausalLM", feed_forward=dense_of(arch)),
        **by_type.keys(arch, 512),
        **layer_kinds(arch),
        "gating": {"head": "per-head", "elementwise": "per-element"}[attention_of(arch).gate or ""],
        "num_attention_heads_per_layer": [attention_of(arch, i).heads for i in range(len(arch.blocks))],
        "num_experts": moe.router.experts,
        "num_experts_per_tok": moe.router.active,
        "moe_routed_scaling_factor": moe.router.scale,
        "moe_router_logit_softcapping": moe.router.softcap or 0.0,
        "moe_intermediate_size": moe.expert.inner,
        "shared_expert_intermediate_size": moe.shared.inner,
    }


BLOCK = (
    *(ATTENTION + QK_NORMS + PRE_NORMS + GLU + EXPERTS + ROUTER + shared_rules("mlp.shared_expert")),
    Rule("self_attn.g_proj", "mixer.op.gate_proj"),
    Rule("mlp.experts.e_score_correction_bias", "feed_forward.op.router.correction"),
)
FAMILIES = (Family("laguna", ("laguna",), read, write, Layout(decoder_rules(BLOCK))),)
