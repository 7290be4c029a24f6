"""Kimi Linear and Kimi K3 (text): delta rules with a decay for every channel, and latent attention without positions.

Source: arXiv 2510.26692, 2607.24653.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

from lamina.arch import Architecture, AttentionResiduals, LatentAttention, RMSNorm, Squash
from lamina.published import kimi_delta, latent
from lamina.published.common import Family, Sizes, decoder, pre_norm, text_part
from lamina.published.config import Config
from lamina.published.experts import dense_of, mixture, moe_of, respelt, router, sparse_layers
from lamina.published.rules import (
    BLOCK_SPARSE,
    MULTIMODAL,
    PRE_NORMS,
    Layout,
    Rule,
    decoder_rules,
    later_layers,
    named,
    shared_rules,
)
from lamina.published.rules import GLU as GLU_RULES


def read(c: Config) -> Architecture:
    c = text_part(c, "the image encoder stands beside the text decoder, and is not read: its connector is not public")
    respelt(c, "max_position_embeddings", "model_max_length")
    squash = _squash(c)
    s = latent.sizes(c, eps=1e-5, default_context=1048576)
    dense = s.glu().replace(squash=squash)
    gate = router(c, 256, 8, "sigmoid", scale=2.446, correction=True)
    c.only("use_grouped_topk", True)
    moe = mixture(c, s, gate, 1024, shared=1, expert=dense, **_latent_experts(c, s))
    linear, kinds = kimi_delta.read(c, s)
    mixers = {"linear_attention": linear, "full_attention": _full(c, s)}
    layers = list(zip(kinds, sparse_layers(c, s.layers, 1), strict=True))
    norm = RMSNorm(eps=s.eps)
    made = {key: pre_norm(mixers[key[0]], moe if key[1] else dense, norm) for key in set(layers)}
    run = c.count("attn_res_block_size", None)
    arch = decoder(c, "kimi_linear", s, [made[key] for key in layers], norm)
    return arch.replace(stream=AttentionResiduals(blocks=run, norm=norm)) if run else arch


def _squash(c: Config) -> Squash | None:
    """Kimi K3's activation; what is left to be read is the SiLU that it bends."""
    gate, up = c.float("activation_situ_beta", None), c.float("activation_situ_linear_beta", None)
    if c.data.get("hidden_act") != "situ":
        return None
    c.data = c.data | {"hidden_act": "silu"}
    return Squash(gate=gate or 1.0, up=up or None)


def _latent_experts(c: Config, s: Sizes) -> dict[str, Any]:
    """The width that routed experts work at, and the norm of their sum."""
    width, normed = c.count("routed_expert_hidden_size", None), c.bool("latent_moe_use_norm", False)
    return {"latent": width, "latent_norm": RMSNorm(eps=s.eps) if width and normed else None}


def _full(c: Config, s: Sizes) -> LatentAttention:
    c.only("mla_use_nope", True)
    c.ignore("no layer rotates", "rope_theta", "rope_scaling", "rope_parameters")
    gate = "elementwise" if c.bool("mla_use_output_gate", False) else None
    return latent.attention(c, s, query_latent=None, gate=gate)


def write(arch: Architecture) -> dict[str, Any]:
    op, moe, squash = latent.attention_of(arch), moe_of(arch), dense_of(arch).squash
    said = kimi_delta.decoder_keys(arch, "KimiLinearForCausalLM")
    del said["rope_parameters"]
    said |= {"model_type": "kimi_linear", "mla_use_nope": True, "mla_use_output_gate": op.gate is not None}
    said |= {"linear_attn_config": kimi_delta.own_keys(arch)}
    if squash:
        said |= {"hidden_act": "situ", "activation_situ_beta": squash.gate, "activation_situ_linear_beta": squash.up}
    if moe.latent:
        said |= {"routed_expert_hidden_size": moe.latent, "latent_moe_use_norm": moe.latent_norm is not None}
    stream = arch.stream
    return said | ({"attn_res_block_size": stream.blocks} if isinstance(stream, AttentionResiduals) else {})


RESIDUALS = (("self_attention_res_", "mixer.stream."), ("mlp_res_", "feed_forward.stream."))
LATENT = named(
    "block_sparse_moe.routed_expert_", "feed_forward.op.", "down_proj:latent_down up_proj:latent_up norm:latent_norm"
)
CORRECTION = Rule("block_sparse_moe.gate.e_score_correction_bias", "feed_forward.op.router.correction")
EXPERTS = (CORRECTION, *BLOCK_SPARSE, *shared_rules("block_sparse_moe.shared_experts"), *LATENT)


def layout(arch: Architecture) -> Layout:
    """Kimi K3's rates are a vector; the reference writes dense layers under the name of those with experts."""
    delta = kimi_delta.rules(ones=() if kimi_delta.of(arch).decay_floor else (0, 1, 3))
    scores = (named(theirs, ours, "norm proj:score") for theirs, ours in RESIDUALS)
    block = (*delta, *latent.attention_rules(), *PRE_NORMS, *EXPERTS, *chain(*scores))
    last = named("model.output_attn_res_", "joining.", "norm proj:score")
    dense, other = (
        GLU_RULES,
        tuple(Rule(rule.theirs.replace("mlp", "block_sparse_moe"), *rule.ours) for rule in GLU_RULES),
    )
    usual, others = ((*decoder_rules(block + glu), *last) for glu in (dense, other))
    skip = later_layers(len(arch.blocks)) | {r"(vision_tower|mm_projector)\..*": "the image encoder is not read"}
    return Layout(usual, spellings=MULTIMODAL, skip=skip, others=(others,))


FAMILIES = (Family("kimi_linear", ("kimi_linear", "kimi_k3"), read, write, layout),)
