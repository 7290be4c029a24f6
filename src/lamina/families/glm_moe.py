"""GLM-4.5 and dots.llm1: DeepSeek-V3's routing (sigmoid, a bias that only chooses, shared experts) over plain GQA.

Source: arXiv 2508.06471 (GLM-4.5), 2506.05767 (dots.llm1).
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, QKNorm, RMSNorm
from lamina.errors import LaminaError
from lamina.published.common import (
    Family,
    attention_of,
    common_keys,
    decoder,
    pre_norms,
    rope_keys,
    sizes,
    windows,
)
from lamina.published.config import Config
from lamina.published.experts import (
    dense_of,
    mixture,
    moe_of,
    router,
    router_keys,
    shared_experts,
    sparse_blocks,
    sparse_layers,
)
from lamina.published.prediction import drafting
from lamina.published.rope import LAYER_TYPES, parameters, rotary
from lamina.published.rules import (
    ATTENTION,
    CORRECTION,
    EXPERTS,
    GLU,
    PRE_NORMS,
    QK_NORMS,
    ROUTER,
    SHARED,
    Layout,
    decoder_rules,
    later_layers,
)


def read_glm4(c: Config) -> Architecture:
    s = sizes(c, eps=1e-5, kv_heads=8, default_context=131072)
    values = parameters(c, 10_000.0)
    values.setdefault("partial_rotary_factor", 0.5)
    norm = RMSNorm(eps=s.eps)
    attention = s.attention(
        rotary=rotary(c, values, s.head_dim, s.context),
        bias=c.bool("attention_bias", False),
        qk_norm=QKNorm(norm=norm) if c.bool("use_qk_norm", False) else None,
    )
    chosen = router(c, experts=128, active=8, score="sigmoid", correction=True)
    experts = mixture(c, s, chosen, inner=1408, shared=1)
    c.ignore("says the same as num_nextn_predict_layers", "num_mtp_layers")
    feed_forwards = [experts if has else s.glu() for has in sparse_layers(c, s.layers, dense=1)]
    return decoder(c, "glm4_moe", s, pre_norms([attention] * s.layers, feed_forwards, norm), norm)


def read_dots1(c: Config) -> Architecture:
    s = sizes(c, kv_heads=32, default_context=2048)
    bias, norm = c.bool("attention_bias", False), RMSNorm(eps=s.eps)
    full = s.attention(rotary=s.rotary(c), bias=bias, output_bias=bias, qk_norm=QKNorm(norm=norm))
    # an explicit null means no window; an absent key the reference's 4096
    window = c.count("sliding_window", None if "sliding_window" in c.data else 4096)
    first = c.int("max_window_layers", 62)
    usual = ["sliding_attention" if window and i >= first else "full_attention" for i in range(s.layers)]
    kinds = c.layer_types(s.layers, usual, LAYER_TYPES)
    if "sliding_attention" in kinds and not window:
        raise LaminaError(f"{c.where}: layer_types has sliding layers, so sliding_window is needed")
    experts = mixture(c, s, router(c, score="sigmoid", normalise=False, correction=True))
    made = {"full_attention": full, "sliding_attention": full.replace(window=window)}
    feed_forwards = [experts if has else s.glu() for has in sparse_layers(c, s.layers)]
    return decoder(c, "dots1", s, pre_norms([made[kind] for kind in kinds], feed_forwards, norm), norm)


def _keys(arch: Architecture, name: str) -> dict[str, Any]:
    """What both say in the same words."""
    moe = moe_of(arch)
    return {
        **common_keys(arch, name, feed_forward=dense_of(arch)),
        **rope_keys(arch),
        **router_keys(moe.router, "n_routed_experts"),
        "attention_bias": attention_of(arch).bias,
        "moe_intermediate_size": moe.expert.inner,
        "n_shared_experts": shared_experts(moe),
        "first_k_dense_replace": sparse_blocks(arch).index(True),
    }


def write_glm4(arch: Architecture) -> dict[str, Any]:
    keys = _keys(arch, "Glm4MoeForCausalLM")
    keys["rope_parameters"].setdefault("partial_rotary_factor", 1.0)  # half, where none is said
    return {"model_type": "glm4_moe", **keys, "use_qk_norm": attention_of(arch).qk_norm is not None}


def write_dots1(arch: Architecture) -> dict[str, Any]:
    window, kinds = windows(arch)
    keys = _keys(arch, "Dots1ForCausalLM")
    return {"model_type": "dots1", **keys, "sliding_window": window, "layer_types": kinds}


BLOCK = ATTENTION + QK_NORMS + PRE_NORMS + GLU + EXPERTS + ROUTER + CORRECTION + SHARED


def layout(arch: Architecture) -> Layout:
    return Layout(decoder_rules(BLOCK), skip=later_layers(len(arch.blocks)))


FAMILIES = (
    drafting(Family("glm4_moe", ("glm4_moe",), read_glm4, write_glm4, layout), BLOCK),
    Family("dots1", ("dots1",), read_dots1, write_dots1, layout),
)
