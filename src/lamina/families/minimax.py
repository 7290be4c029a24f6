"""MiniMax-M3: block-sparse attention, and experts of a clamped SwiGLU.

Source: the published config; the clamped SwiGLU is arXiv 2508.10925.
Differs: the reference rotates whole heads where `partial_rotary_factor` is missing, whatever `rotary_dim`
says; here a `rotary_dim` that says otherwise raises.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import GLU, Architecture, Clamp, QKNorm, RMSNorm
from lamina.published import block_sparse, vision_more
from lamina.published.common import Family, attention_of, common_keys, decoder, pick, pre_norms, rope_keys, sizes
from lamina.published.config import LATER, Config
from lamina.published.encoders import split
from lamina.published.experts import dense_of, layer_kinds, mixture, moe_of, router, router_keys, sparse_layers
from lamina.published.rules import (
    ATTENTION,
    BLOCK_SPARSE,
    CORRECTION,
    MULTIMODAL,
    PRE_NORMS,
    QK_NORMS,
    ROUTER,
    VISION,
    Layout,
    Rule,
    decoder_rules,
    later_layers,
    shared_rules,
)
from lamina.published.rules import GLU as GLU_RULES

COUNTS = "num_local_experts", "num_experts_per_tok", "routed_scaling_factor"


def read(c: Config) -> Architecture:
    c, encoders = split(c, vision_more.minimax)
    c.only("hidden_act", ("silu", "swigluoai"))
    c, ignored = Config(c.data | {"hidden_act": "silu"}, c.where), c.ignored  # the clamp below says the rest
    c.ignored = ignored
    s = sizes(c, kv_heads=4, head_dim=128, default_context=524288)
    rotary = s.rotary(c, 5_000_000.0)
    c.only("rotary_dim", rotary.dim)
    norm = RMSNorm(eps=s.eps, offset=1.0)
    for key, value in {"use_gemma_norm": True, "use_qk_norm": True, "qk_norm_type": "per_head"}.items():
        c.only(key, value)
    c.only("use_routing_bias", True)
    c.only("attention_output_gate", False)
    c.only("n_shared_experts", 1)
    c.ignore(LATER, "num_mtp_modules")
    indexer, chosen = block_sparse.indexer(c, s.layers, rotary, norm)
    full = s.attention(rotary=rotary, qk_norm=QKNorm(norm=norm))
    clamp = Clamp(limit=c.float("swiglu_limit", 7.0), shift=1.0, slope=c.float("swiglu_alpha", 1.702))
    expert = GLU(inner=s.inner, clamp=clamp)
    routed = router(c, experts=128, active=4, score="sigmoid", scale=2.0, correction=True)
    experts = mixture(c, s, routed, inner=s.inner, expert=expert)
    experts = experts.replace(shared=expert.replace(inner=c.count("shared_intermediate_size", 3072)))
    dense = expert.replace(inner=c.count("dense_intermediate_size", 12288))
    mixers = [full.replace(blocks=indexer) if picks else full for picks in chosen]
    feed_forwards = [experts if has else dense for has in sparse_layers(c, s.layers)]
    arch = decoder(c, "minimax_m3", s, pre_norms(mixers, feed_forwards, norm), norm)
    return arch.replace(encoders=encoders)


def write(arch: Architecture) -> dict[str, Any]:
    """The text decoder's."""
    moe, dense, rotary = moe_of(arch), dense_of(arch), attention_of(arch).rotary
    assert rotary
    assert moe.shared
    assert isinstance(moe.expert, GLU)
    assert moe.expert.clamp
    return {
        "model_type": "minimax_m3_vl_text",
        **common_keys(arch, "MiniMaxM3VLForCausalLM", feed_forward=moe.expert),
        **rope_keys(arch),
        **pick(router_keys(moe.router, COUNTS[0]), *COUNTS),
        **layer_kinds(arch),
        **block_sparse.keys(arch),
        "rotary_dim": rotary.dim,
        "dense_intermediate_size": dense.inner,
        "shared_intermediate_size": moe.shared.inner,
        "swiglu_limit": moe.expert.clamp.limit,
        "swiglu_alpha": moe.expert.clamp.slope,
    }


def _fused(theirs: str, ours: str, suffix: str = ".weight") -> tuple[Rule, ...]:
    """A feed-forward whose gate and up are one matrix; of experts, where there is no suffix."""
    both = (f"{ours}.{p}_proj.weight" for p in ("gate", "up"))
    down = Rule(f"{theirs}.down_proj{suffix}", f"{ours}.down_proj.weight", stacked=not suffix)
    return Rule(f"{theirs}.gate_up_proj{suffix}", *both, stacked=not suffix), down


OP = "feed_forward.op"
SAME = ATTENTION + QK_NORMS + PRE_NORMS
BLOCK = (
    *(SAME + ROUTER + CORRECTION + block_sparse.rules("indexer.")),
    *_fused("mlp", OP),
    *_fused("mlp.experts", f"{OP}.experts", ""),
    *_fused("mlp.shared_experts", f"{OP}.shared"),
)
PUBLISHED = (
    *(SAME + GLU_RULES + BLOCK_SPARSE + block_sparse.rules("index_")),
    *shared_rules("block_sparse_moe.shared_experts"),
)


def layout(arch: Architecture) -> Layout:
    """The reference's text decoder; published checkpoints name their tensors otherwise."""
    skip = {r"patch_merge_mlp\..*": "the image encoder is not part of this model"} | VISION
    skip |= later_layers(len(arch.blocks))
    return Layout(decoder_rules(BLOCK), spellings=MULTIMODAL, skip=skip, others=(decoder_rules(PUBLISHED),))


FAMILIES = (Family("minimax_m3", ("minimax_m3_vl", "minimax_m3_vl_text"), read, write, layout),)
