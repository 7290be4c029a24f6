"""ERNIE 4.5: dense, or experts in a stretch of the layers (softmax scores, a learned bias that only chooses).

Source: the ERNIE 4.5 technical report (2025) and its published configs.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, MoE, RMSNorm, Router
from lamina.published.common import (
    Family,
    Sizes,
    attention_of,
    common_keys,
    decoder,
    glu_of,
    pre_norm,
    pre_norms,
    rope_keys,
    sizes,
)
from lamina.published.config import LATER, Config
from lamina.published.experts import TRAINING, dense_of, moe_of, shared_experts, sparse_blocks
from lamina.published.rules import ATTENTION, EXPERTS, GLU, PRE_NORMS, ROUTER, SHARED, Layout, Rule, decoder_rules


def _mixture(c: Config, s: Sizes, bias: bool) -> MoE:
    chosen = Router(experts=c.count("moe_num_experts", 64), active=c.count("moe_k", 6), correction=True)
    inner, shared = c.count("moe_intermediate_size", 1536), c.count("moe_num_shared_experts", 2, least=0)
    every_token = s.glu(bias).replace(inner=inner * shared) if shared else None
    return MoE(router=chosen, expert=s.glu().replace(inner=inner), shared=every_token)


def read_moe(c: Config) -> Architecture:
    s = sizes(c, eps=1e-5, kv_heads=4, default_context=131072)
    bias, norm = c.bool("use_bias", False), RMSNorm(eps=s.eps)
    rotary = s.rotary(c, 500_000.0, layout="interleaved")
    attention, experts = s.attention(rotary=rotary, bias=bias, output_bias=bias), _mixture(c, s, bias)
    c.ignore("keeps the sum of scores from zero; it is far from it", "moe_norm_min")
    c.ignore("training, or how the router is computed", "moe_capacity", *TRAINING)
    c.only("moe_gate", "topk")
    c.only("moe_use_aux_free", True)
    c.ignore(LATER, "num_nextn_predict_layers")
    first, last = c.int("moe_layer_start_index", 1), c.int("moe_layer_end_index", -1)
    step, last = c.count("moe_layer_interval", 1), s.layers - 1 if last == -1 else last
    sparse = [first <= i <= last and (i + 1) % step == 0 for i in range(s.layers)]
    feed_forwards = [experts if has else s.glu(bias) for has in sparse]
    blocks = pre_norms([attention] * s.layers, feed_forwards, norm)
    return decoder(c, "ernie4_5_moe", s, blocks, norm, tied=True, bias=bias)


def read_dense(c: Config) -> Architecture:
    s = sizes(c, eps=1e-5, kv_heads=2, head_dim=128, default_context=131072)
    bias, norm = c.bool("use_bias", False), RMSNorm(eps=s.eps)
    rotary = s.rotary(c, 500_000.0, layout="interleaved")
    block = pre_norm(s.attention(rotary=rotary, bias=bias, output_bias=bias), s.glu(bias), norm)
    return decoder(c, "ernie4_5", s, [block] * s.layers, norm, tied=True)


def write_moe(arch: Architecture) -> dict[str, Any]:
    moe, sparse = moe_of(arch), [i for i, has in enumerate(sparse_blocks(arch)) if has]
    return {
        "model_type": "ernie4_5_moe",
        **common_keys(arch, "Ernie4_5_MoeForCausalLM", feed_forward=dense_of(arch)),
        **rope_keys(arch),
        "use_bias": attention_of(arch).bias,
        "moe_num_experts": moe.router.experts,
        "moe_k": moe.router.active,
        "moe_intermediate_size": moe.expert.inner,
        "moe_num_shared_experts": shared_experts(moe),
        "moe_layer_start_index": sparse[0],
        "moe_layer_end_index": sparse[-1],
        "moe_layer_interval": sparse[1] - sparse[0] if len(sparse) > 1 else 1,
    }


def write_dense(arch: Architecture) -> dict[str, Any]:
    keys = {**common_keys(arch, "Ernie4_5ForCausalLM"), **rope_keys(arch), "use_bias": glu_of(arch).bias}
    return {"model_type": "ernie4_5", **keys}


CHOICE = Rule("mlp.moe_statics.e_score_correction_bias", "feed_forward.op.router.correction", ones=(0,))
DENSE = ATTENTION + PRE_NORMS + GLU
SPARSE = decoder_rules((*DENSE, *EXPERTS, *ROUTER, *SHARED, CHOICE))
PREDICTION = {r"(model\.)?mtp_.*": LATER}

FAMILIES = (
    Family("ernie4_5", ("ernie4_5",), read_dense, write_dense, Layout(decoder_rules(DENSE))),
    Family("ernie4_5_moe", ("ernie4_5_moe",), read_moe, write_moe, Layout(SPARSE, skip=PREDICTION)),
)
