"""Hunyuan dense (0.5B to 7B, Hunyuan-MT) and Hunyuan-A13B: norms of query and key heads after they are rotated.

In A13B a feed-forward that all tokens use stands beside experts of its own width.
Source: the published Hunyuan-7B and Hunyuan-A13B configs and the reference's code.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, Attention, MoE, QKNorm, RMSNorm, Router
from lamina.errors import LaminaError
from lamina.published import rope
from lamina.published.common import (
    Family,
    Sizes,
    attention_of,
    common_keys,
    decoder,
    pre_norm,
    rope_keys,
    sizes,
)
from lamina.published.config import Config, shown
from lamina.published.experts import TRAINING, moe_of
from lamina.published.rules import ATTENTION, COMPUTED, EXPERTS, GLU, PRE_NORMS, Layout, Rule, decoder_rules

TOKENS = ("eod_token_id", "im_start_id", "im_end_id", "im_newline_id", "mask_init_id", "pad_id")
TOKENS += ("text_start_id", "text_end_id", "org_vocab_size")
UNUSED = ("beta_fast", "beta_slow", "factor", "mscale", "mscale_all_dim")


def _rotary(c: Config, s: Sizes) -> rope.Rotary:
    """What is called dynamic here is a base that is stretched once: base * alpha^(dim / (dim - 2))."""
    values = rope.parameters(c, 10_000.0)
    kind, alpha = values.get("rope_type") or values.get("type"), values.get("alpha")
    if kind == "dynamic" and alpha:
        held = Config(values, f"{c.where}: rope_scaling")
        base = held.float("rope_theta") * held.float("alpha") ** (s.head_dim / (s.head_dim - 2))
        values = {key: value for key, value in values.items() if key not in ("alpha", "type", *UNUSED)}
        values |= {"rope_type": "default", "rope_theta": base}
    return rope.rotary(c, values, s.head_dim, s.context)


def _attention(c: Config, s: Sizes, norm: RMSNorm) -> Attention:
    """And what every config of these models says alike."""
    for key, usual in (("use_qk_norm", True), ("use_cla", False), ("use_rotary_pos_emb", True), ("mlp_bias", False)):
        c.only(key, usual)
    c.only("attention_head_dim", s.head_dim)
    c.only("norm_type", ("rms", "hf_rms"))
    c.only("add_classification_head", False)
    c.ignore("there is no classification head", "class_num", "dense_list", "pool_type")
    c.ignore("no layer shares keys and values with another", "cla_share_factor")
    c.ignore("which tokens have a meaning of their own", *TOKENS)
    bias = c.bool("attention_bias", False)
    qk_norm = QKNorm(norm=norm, after_rotary=True)
    return s.attention(rotary=_rotary(c, s), qk_norm=qk_norm, bias=bias, output_bias=bias)


def _of_all_layers(c: Config, *keys: str) -> None:
    """Puts one number where a config has one for each layer. Raises: LaminaError, naming the key, where they differ."""
    for key in keys:
        if isinstance(listed := c.data.get(key), list):
            if not listed or any(number != listed[0] for number in listed):
                raise LaminaError(f"{c.where}: {key!r} is {shown(listed)}; only one number for all layers is known")
            c.data = c.data | {key: listed[0]}


def read_dense(c: Config) -> Architecture:
    s = sizes(c, eps=1e-5)
    norm = RMSNorm(eps=s.eps)
    block = pre_norm(_attention(c, s, norm), s.glu(), norm)
    return decoder(c, "hunyuan_v1_dense", s, [block] * s.layers, norm)


def read_moe(c: Config) -> Architecture:
    s = sizes(c, eps=1e-5)
    norm = RMSNorm(eps=s.eps)
    _of_all_layers(c, "moe_intermediate_size", "num_shared_expert", "moe_topk")
    for key, usual in (("moe_intermediate_size", s.inner), ("num_shared_expert", 1), ("use_mixed_mlp_moe", True)):
        c.only(key, usual)
    c.only("moe_layer_num_skipped", 0)
    c.only("norm_topk_prob", True)
    c.ignore("training, or how the router is computed", "moe_drop_tokens", "capacity_factor", *TRAINING)
    c.ignore("training, or how the router is computed", "moe_random_routing_dropped_token")
    chosen = Router(experts=c.count("num_experts", 1, most=1 << 16), active=c.count("moe_topk", 1, most=1 << 16))
    block = pre_norm(_attention(c, s, norm), MoE(router=chosen, expert=s.glu(), shared=s.glu()), norm)
    return decoder(c, "hunyuan_v1_moe", s, [block] * s.layers, norm)


def write_dense(arch: Architecture) -> dict[str, Any]:
    keys = {**common_keys(arch, "HunYuanDenseV1ForCausalLM"), **rope_keys(arch)}
    return {"model_type": "hunyuan_v1_dense", **keys, "attention_bias": attention_of(arch).bias}


def write_moe(arch: Architecture) -> dict[str, Any]:
    moe = moe_of(arch)
    return {
        "model_type": "hunyuan_v1_moe",
        **common_keys(arch, "HunYuanMoEV1ForCausalLM", feed_forward=moe.expert),
        **rope_keys(arch),
        "attention_bias": attention_of(arch).bias,
        "num_experts": moe.router.experts,
        "moe_topk": moe.router.active,
    }


NORMS = tuple(
    Rule(f"self_attn.{theirs}_layernorm", f"mixer.op.{p}_norm") for p, theirs in (("q", "query"), ("k", "key"))
)
SHARED = tuple(Rule(f"mlp.shared_mlp.{p}_proj", f"feed_forward.op.shared.{p}_proj") for p in ("gate", "up", "down"))
BLOCK = (*(ATTENTION + NORMS + PRE_NORMS + GLU + EXPERTS + SHARED), Rule("mlp.gate.wg", "feed_forward.op.router.gate"))
LAYOUT = Layout(decoder_rules(BLOCK), skip=COMPUTED)

FAMILIES = (
    Family("hunyuan_v1_dense", ("hunyuan_v1_dense",), read_dense, write_dense, LAYOUT),
    Family("hunyuan_v1_moe", ("hunyuan_v1_moe",), read_moe, write_moe, LAYOUT),
)
