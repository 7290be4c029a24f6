"""Step 3.5 and 3.7 Flash: windows with more heads than the full layers, a gate on each head, routed experts.

The published configs name things in their own way; the reference's names are read too.
Source: arXiv 2602.10604, the published configs and the reference's code.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import GLU, Architecture, Attention, MoE, QKNorm, RMSNorm
from lamina.errors import LaminaError
from lamina.published import by_type, experts, rope
from lamina.published.common import Family, Sizes, common_keys, decoder, pick, pre_norms, rounded, sizes, text_part
from lamina.published.config import LATER, Config
from lamina.published.experts import dense_of, layer_kinds, moe_of, router_keys
from lamina.published.rules import ATTENTION, PRE_NORMS, QK_NORMS, VISION, Layout, Rule, decoder_rules, later_layers
from lamina.published.rules import GLU as GLU_RULES

ALIASES = {
    "num_key_value_heads": ("num_attention_groups",),
    "n_routed_experts": ("moe_num_experts", "num_local_experts"),
    "num_experts_per_tok": ("moe_top_k",),
    "share_expert_dim": ("share_expert_dims",),
    "routed_scaling_factor": ("moe_router_scaling_factor",),
    "norm_topk_prob": ("norm_expert_weight",),
    "scoring_func": ("moe_router_activation",),
}
PREDICTION = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_layer_types", "mtp_mlp_layer_types")
ONLY = dict.fromkeys(("gating", "use_head_wise_attn_gate", "use_moe_router_bias", "use_qk_norm", "zero_centered"), True)
ONLY |= {"use_moe": True, "att_impl_type": "GQA", "sink": False, "use_bidirectional_attention": False}
"""Keys of published configs, and the one value of each for which the model is as described here."""


def _attentions(c: Config, s: Sizes, kinds: list[str]) -> list[Attention]:
    other = c.sub("attention_other_setting") if "attention_other_setting" in c else Config({}, c.where)
    other.only("attention_type", "sliding_attention")
    other.only("num_attention_groups", s.kv_heads)
    other.only("head_dim", s.head_dim)
    heads = c.count("num_sliding_attention_heads", other.count("num_attention_heads", s.heads))
    other.finish()
    c.ignore("follows from num_sliding_attention_heads", "per_layer_config")
    bias, window = c.bool("attention_bias", False), c.count("sliding_window", None)
    if "sliding_attention" in kinds and window is None:
        raise LaminaError(f"{c.where}: layer_types has sliding layers, so sliding_window is needed")
    scale, norm = c.float("query_pre_attn_scalar", float(s.head_dim)) ** -0.5, RMSNorm(eps=s.eps, offset=1.0)
    full = s.attention(bias=bias, output_bias=bias, gate="head", qk_norm=QKNorm(norm=norm), scale=scale)
    made = {"full_attention": full, "sliding_attention": full.replace(window=window, heads=heads)}
    turned = by_type.rotaries(c, s, kinds, by_type.listed(c, kinds))
    return [made[kind].replace(rotary=turned[kind]) for kind in kinds]


def _feed_forwards(c: Config, s: Sizes) -> list[MoE | GLU]:
    c.ignore("the layers with experts are listed", "moe_every_n_layer", "moe_layer_offset")
    gate = experts.router(c, 288, 8, "sigmoid", correction=True)
    glu, routed = s.glu(c.bool("mlp_bias", False)), s.glu().replace(inner=c.count("moe_intermediate_size", 1280))
    shared = glu.replace(inner=c.count("share_expert_dim", 1280))
    clamps = (experts.limits(c, key, s.layers, after=True) for key in ("swiglu_limits", "swiglu_limits_shared"))
    made: list[MoE | GLU] = []
    for sparse, limit, held in zip(experts.sparse_layers(c, s.layers, dense=3), *clamps, strict=True):
        moe = MoE(router=gate, expert=routed.replace(clamp=limit), shared=shared.replace(clamp=held))
        made.append(moe if sparse else glu.replace(clamp=held))
    return made


def read(c: Config) -> Architecture:
    c = text_part(c, "the image encoder stands beside the text decoder, and is not read")
    experts.one_name(c, ALIASES)
    s = sizes(c, eps=1e-5, kv_heads=8, head_dim=128, default_context=128000)
    for key, value in ONLY.items():
        c.only(key, value)
    c.only("use_rope_layers", ([], [True] * s.layers))
    c.ignore("how the reference runs", "need_fp32_gate", "max_seq_len")
    c.ignore(LATER, *PREDICTION)
    kinds = c.layer_types(s.layers, ["full_attention"] * s.layers, rope.LAYER_TYPES)
    norm = RMSNorm(eps=s.eps, offset=1.0)
    return decoder(c, "step3p5", s, pre_norms(_attentions(c, s, kinds), _feed_forwards(c, s), norm), norm)


def write(arch: Architecture) -> dict[str, Any]:
    moe, ops, (routed, shared) = moe_of(arch), by_type.attentions(arch), experts.limits_of(arch)
    full = ops["full_attention"]
    assert moe.shared
    return {
        "model_type": "step3p5",
        **common_keys(arch, "Step3p5ForCausalLM", feed_forward=dense_of(arch)),
        **by_type.keys(arch, 512),
        **layer_kinds(arch),
        **pick(router_keys(moe.router, "n_routed_experts"), "n_routed_experts", "num_experts_per_tok"),
        "num_attention_heads": full.heads,
        "num_sliding_attention_heads": ops["sliding_attention"].heads,
        "query_pre_attn_scalar": rounded((full.scale or full.head_dim**-0.5) ** -2),
        "moe_router_scaling_factor": moe.router.scale,
        "moe_intermediate_size": moe.expert.inner,
        "share_expert_dim": moe.shared.inner,
        "mlp_bias": moe.shared.bias,
        "swiglu_limits": routed,
        "swiglu_limits_shared": shared,
    }


GATED = ("gate_proj", "up_proj", "down_proj")
BLOCK = (
    *(ATTENTION + QK_NORMS + PRE_NORMS + GLU_RULES),
    *(Rule(f"moe.{name}", f"feed_forward.op.experts.{name}", stacked=True) for name in GATED),
    *(Rule(f"share_expert.{name}", f"feed_forward.op.shared.{name}") for name in GATED),
    Rule("self_attn.g_proj", "mixer.op.gate_proj"),
    Rule("moe.gate", "feed_forward.op.router.gate"),
    Rule("moe.router_bias", "feed_forward.op.router.correction"),
)
SKIP = VISION | {r"vit_large_projector\..*": "the image encoder is not part of this model"}


def layout(arch: Architecture) -> Layout:
    return Layout(decoder_rules(BLOCK), skip=SKIP | later_layers(len(arch.blocks)))


FAMILIES = (Family("step3p5", ("step3p5", "step3p7"), read, write, layout),)
