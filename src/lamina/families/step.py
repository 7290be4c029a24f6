"""Step 3.5 and 3.7 Flash: windows with more heads than the full layers, a gate on each head, routed experts.

The published configs name things in their own way; the reference's names are read too.
Source: arXiv 2602.10604, the published configs and the reference's code.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, Attention, Clamp, MoE, QKNorm, RMSNorm, Rotary
from lamina.arch.base import Op
from lamina.errors import LaminaError
from lamina.published import rope
from lamina.published.common import Family, Sizes, decoder, pre_norms, sizes, text_part
from lamina.published.config import Config, shown
from lamina.published.experts import one_name, router

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
TRUE = ("gating", "use_head_wise_attn_gate", "use_moe_router_bias", "use_qk_norm", "zero_centered", "use_moe")


def _of_kind(c: Config, key: str, kinds: list[str], usual: float) -> dict[str, float]:
    """A number for all layers, or a list with one for each, by kind of layer."""
    values = c.list(key) if isinstance(c.data.get(key), list) else [c.float(key, usual)] * len(kinds)
    found = {kind: {v for v, k in zip(values, kinds, strict=False) if k == kind} for kind in set(kinds)}
    if len(values) < len(kinds) or any(len(v) != 1 for v in found.values()):
        raise LaminaError(f"{c.where}: {key!r} is {shown(values)}; one number is needed for each kind of layer")
    return {kind: v.pop() for kind, v in found.items()}


def _rotaries(c: Config, s: Sizes, kinds: list[str]) -> dict[str, Rotary]:
    """Each kind of layer has its own; only full layers are scaled."""
    theta, partial = _of_kind(c, "rope_theta", kinds, 10000.0), _of_kind(c, "partial_rotary_factors", kinds, 1.0)
    c.only("yarn_only_types", ["full_attention"])
    c.only("use_rope_layers", ([], [True] * s.layers))
    values = {kind: {"rope_theta": theta[kind], "partial_rotary_factor": partial[kind]} for kind in theta}
    values.get("full_attention", {}).update(c.dict("rope_scaling", None) or {})
    values |= rope.by_layer_type(c)
    return {kind: rope.rotary(c, values[kind], s.head_dim, s.context) for kind in set(kinds)}


def _attentions(c: Config, s: Sizes, kinds: list[str]) -> list[Attention]:
    other = c.sub("attention_other_setting") if "attention_other_setting" in c else Config({}, c.where)
    other.only("attention_type", "sliding_attention")
    other.only("num_attention_groups", s.kv_heads)
    other.only("head_dim", s.head_dim)
    heads = c.count("num_sliding_attention_heads", other.count("num_attention_heads", s.heads))
    other.finish()
    c.ignore("follows from num_sliding_attention_heads", "per_layer_config")
    c.dict("attention_other_setting", None)
    bias, window = c.bool("attention_bias", False), c.count("sliding_window", None)
    if "sliding_attention" in kinds and window is None:
        raise LaminaError(f"{c.where}: layer_types has sliding layers, so sliding_window is needed")
    shared: dict[str, Any] = {"bias": bias, "output_bias": bias, "gate": "head"}
    shared["qk_norm"] = QKNorm(norm=RMSNorm(eps=s.eps, offset=1.0))
    shared["scale"] = c.float("query_pre_attn_scalar", float(s.head_dim)) ** -0.5
    turned = _rotaries(c, s, kinds)
    made = {kind: s.attention(rotary=turned[kind], **shared) for kind in turned}
    if "sliding_attention" in made:
        made["sliding_attention"] = made["sliding_attention"].replace(window=window, heads=heads)
    return [made[kind] for kind in kinds]


def _limits(c: Config, key: str, layers: int) -> list[Clamp | None]:
    """What an activated gate and its partner may not exceed, in each layer; 0 is no limit."""
    said = c.list(key, [None] * layers)
    if len(said) < layers or any(v is not None and not isinstance(v, int | float) for v in said):
        raise LaminaError(f"{c.where}: {key} needs {layers} numbers")
    return [Clamp(limit=v, after=True) if v else None for v in said[:layers]]


def _feed_forwards(c: Config, s: Sizes) -> list[Op]:
    listed = c.data.get("moe_layers_enum")
    listed = c.str("moe_layers_enum").split(",") if isinstance(listed, str) else c.list("moe_layers_enum", None)
    numbers = set(map(int, listed)) if listed is not None else set(range(3, s.layers))
    c.ignore("the layers with experts are listed", "moe_every_n_layer", "moe_layer_offset")
    usual = ["sparse" if i in numbers else "dense" for i in range(s.layers)]
    kinds = c.list("mlp_layer_types", usual)[: s.layers]
    if len(kinds) < s.layers or set(kinds) - {"sparse", "dense"}:
        raise LaminaError(f"{c.where}: mlp_layer_types needs {s.layers} entries, each 'dense' or 'sparse'")
    gate = router(c, 288, 8, "sigmoid", correction=True)
    glu = s.glu(c.bool("mlp_bias", False))
    routed = s.glu().replace(inner=c.count("moe_intermediate_size", 1280))
    shared, limits = glu.replace(inner=c.count("share_expert_dim", 1280)), _limits(c, "swiglu_limits", s.layers)
    made: list[Op] = []
    for kind, limit, held in zip(kinds, limits, _limits(c, "swiglu_limits_shared", s.layers), strict=True):
        moe = MoE(router=gate, expert=routed.replace(clamp=limit), shared=shared.replace(clamp=held))
        made.append(moe if kind == "sparse" else glu.replace(clamp=held))
    return made


def read(c: Config) -> Architecture:
    c = text_part(c, "the image encoder stands beside the text decoder, and is not read")
    one_name(c, ALIASES)
    s = sizes(c, eps=1e-5, kv_heads=8, head_dim=128, default_context=128000)
    for key in TRUE:
        c.only(key, True)
    c.only("att_impl_type", "GQA")
    c.only("sink", False)
    c.only("use_bidirectional_attention", False)
    c.ignore("how the reference runs", "need_fp32_gate", "max_seq_len")
    c.ignore("multi-token-prediction layers are not built yet", *PREDICTION)
    kinds = c.layer_types(s.layers, ["full_attention"] * s.layers, rope.LAYER_TYPES)
    norm = RMSNorm(eps=s.eps, offset=1.0)
    return decoder(c, "step3p5", s, pre_norms(_attentions(c, s, kinds), _feed_forwards(c, s), norm), norm)


FAMILIES = (Family("step3p5", ("step3p5", "step3p7"), read),)
