"""Ling 3.0: delta rules with a decay for every channel, and latent attention whose heads are gated.

Source: the publisher's report on Ling 3.0; arXiv 2510.26692 (the delta rule), 2405.04434 (latent attention).
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, Clamp, KimiDeltaAttention, LatentAttention, MoE, RMSNorm
from lamina.errors import LaminaError
from lamina.published import kimi_delta, latent, rope
from lamina.published.common import Family, Sizes, decoder, pre_norm
from lamina.published.config import LATER, Config, shown
from lamina.published.experts import limits_of, mixture, respelt, router, sparse_layers
from lamina.published.rules import EXPERTS, GLU, PRE_NORMS, ROUTER, SHARED, Layout, Rule, decoder_rules, later_layers

ONLY = {
    "rope_interleave": True,
    "no_kda_lora": True,
    "linear_silu": True,
    "use_qk_norm": True,
    "moe_router_enable_expert_bias": True,
    "score_function": "sigmoid",
    "gated_attention_proj_granularity_type": "head_wise",
    "group_norm_size": 1,
    "num_kv_heads_for_linear_attn": 0,
    **dict.fromkeys(("use_kda_lora", "use_bias", "use_qkv_bias", "use_mla_nope", "use_nGPT"), False),
    **dict.fromkeys(("scale_router_input", "up_proj_norm", "value_norm"), False),
}
"""Keys of published configs, and the one value of each for which the model is as described here."""


def read(c: Config) -> Architecture:
    for key, value in ONLY.items():
        c.only(key, value)
    c.ignore("training", "embedding_dropout", "output_dropout", "mtp_loss_scaling_factor", "router_dtype")
    c.ignore(LATER, "mtp_use_kda")
    c.ignore("no layer has a window", "max_window_layers")
    respelt(c, "max_position_embeddings", "model_max_length")
    dim = c.count("linear_head_dim", c.count("head_dim", 128))
    s = latent.sizes(c, default_context=262144)
    group = c.count("layer_group_size", 6)
    usual = ["full_attention" if (i + 1) % group == 0 else "linear_attention" for i in range(s.layers)]
    kinds = c.layer_types(s.layers, usual, ("full_attention", "linear_attention"))
    mixers = {"linear_attention": _linear(c, s, dim), "full_attention": _full(c, s, dim)}
    sparse, moes, norm = sparse_layers(c, s.layers, 2), _mixtures(c, s), RMSNorm(eps=s.eps)
    ops = [moe if is_sparse else s.glu() for moe, is_sparse in zip(moes, sparse, strict=True)]
    made = {key: pre_norm(mixers[key[0]], key[1], norm) for key in set(zip(kinds, ops, strict=True))}
    return decoder(c, "bailing_hybrid", s, [made[key] for key in zip(kinds, ops, strict=True)], norm)


def _linear(c: Config, s: Sizes, dim: int) -> KimiDeltaAttention:
    floor, safe = c.float("kda_lower_bound", -5.0), c.bool("kda_safe_gate", True)
    respelt(c, "short_conv_kernel_size", "linear_conv_kernel_dim")
    sizes = {"heads": c.count("linear_num_heads", s.heads), "convolution": c.count("short_conv_kernel_size", 4)}
    return kimi_delta.sized(dim, s.eps, None, None, floor if safe else None, **sizes)


def _full(c: Config, s: Sizes, dim: int) -> LatentAttention:
    """A published partial_rotary_factor is the rotated part's share of a linear head, and says nothing new."""
    op, values = latent.attention(c, s, query_latent=None, gate="head"), rope.parameters(c, 6000000.0)
    share = values.pop("partial_rotary_factor", None)
    c.only("rotary_dim", op.rotary_dim)
    if share is not None and share * dim != op.rotary_dim:
        raise LaminaError(
            f"{c.where}: partial_rotary_factor is {shown(share)}; qk_rope_head_dim says {op.rotary_dim} of {dim}"
        )
    return latent.rotated(c, s, op, values)


def _mixtures(c: Config, s: Sizes) -> list[MoE]:
    """Those of each layer: some limit what their experts' gates give, by a number a layer (zero for none)."""
    gate = router(c, 512, 8, "sigmoid", scale=2.5, groups=8, active_groups=4, correction=True)
    moe = mixture(c, s, gate, 768, shared=1)
    c.only("moe_shared_expert_intermediate_size", moe.expert.inner)
    routed = c.list("expert_swiglu_limit_list", [0] * s.layers)
    shared = c.list("share_expert_swiglu_limit_list", [0] * s.layers)
    if min(len(routed), len(shared)) < s.layers:
        raise LaminaError(f"{c.where}: lists of swiglu limits need a number for each of {s.layers} layers")
    made = {limits: _limited(moe, *limits) for limits in zip(routed, shared, strict=False)}
    return [made[limits] for limits in zip(routed[: s.layers], shared, strict=False)]


def _limited(moe: MoE, routed: float, shared: float) -> MoE:
    limited = {"expert": (moe.expert, routed), "shared": (moe.shared, shared)}
    parts = {name: op.replace(clamp=Clamp(limit=limit)) for name, (op, limit) in limited.items() if op and limit}
    return moe.replace(**parts) if parts else moe


def write(arch: Architecture) -> dict[str, Any]:
    op, (routed, shared) = kimi_delta.of(arch), limits_of(arch)
    said = kimi_delta.decoder_keys(arch, "BailingHybridForCausalLM") | {
        "model_type": "bailing_hybrid",
        "head_dim": op.key_dim,
        "short_conv_kernel_size": op.convolution,
        "layer_types": kimi_delta.kinds_of(arch),
        "kda_safe_gate": op.decay_floor is not None,
    }
    said |= {"kda_lower_bound": op.decay_floor} if op.decay_floor else {}
    limited = {"expert_swiglu_limit_list": routed, "share_expert_swiglu_limit_list": shared}
    return said | (limited if any(routed + shared) else {})


BLOCK = (
    *kimi_delta.rules("attention.", "dense"),
    *latent.attention_rules("attention."),
    *PRE_NORMS + GLU + EXPERTS + ROUTER + SHARED,
    Rule("mlp.gate.expert_bias", "feed_forward.op.router.correction"),
)


def layout(arch: Architecture) -> Layout:
    table = Rule("model.word_embeddings.weight", "embedding.table")
    return Layout((table, *decoder_rules(BLOCK)), skip=later_layers(len(arch.blocks)))


FAMILIES = (Family("bailing_hybrid", ("bailing_hybrid",), read, write, layout),)
