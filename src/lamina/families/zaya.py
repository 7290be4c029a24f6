"""ZAYA1: compressed convolutional attention and experts behind a deep router, on a stream that is scaled and shifted.

Source: arXiv 2511.17127; the published config.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import (
    AffineResidual,
    Architecture,
    Block,
    Branch,
    CompressedConvolutionalAttention,
    MoE,
    RMSNorm,
    Rotary,
    Router,
    RouterMLP,
)
from lamina.errors import LaminaError
from lamina.published import rope
from lamina.published.common import Family, Sizes, common_keys, decoder, sizes
from lamina.published.config import Config
from lamina.published.experts import moe_of
from lamina.published.rules import PRE_NORMS, Layout, Rule, decoder_rules, named

BASES = {"hybrid": 5_000_000.0, "hybrid_sliding": 10_000.0}
"""The layer types, with and without a window, and the usual bases of their rotary embeddings."""
ROUTER, EXPERTS = "feed_forward.op.router.", "feed_forward.op.experts."
SCALED = "residual_bias:stream_bias residual_scale:stream_scale hidden_states_bias:output_bias "
SCALED += "hidden_states_scale:output_scale"
BLOCK = (
    *PRE_NORMS,
    *named("self_attn.", "mixer.op.", "o_proj qk_norm.temp:key_scale qkv_proj.q_proj:q_proj qkv_proj.k_proj:k_proj"),
    *named("self_attn.qkv_proj.v_proj_", "mixer.op.", "current:v_proj delayed:delayed_v_proj"),
    *named("self_attn.qkv_proj.conv_qk_", "mixer.op.", "depthwise grouped"),
    *named("mlp.gate.", ROUTER, "balancing_biases:correction down_proj:mlp.down_proj router_states_scale:mlp.carry"),
    *named("mlp.gate.router_mlp.", ROUTER + "mlp.", "norm fc1:layers.0 fc2:layers.1 out_proj:gate"),
    *named("post_attention_residual_scale.", "mixer.residual.", SCALED),
    *named("post_mlp_residual_scale.", "feed_forward.residual.", SCALED),
    Rule("mlp.experts.gate_up_proj", EXPERTS + "gate_proj.weight", EXPERTS + "up_proj.weight", stacked=True),
    Rule("mlp.experts.down_proj", EXPERTS + "down_proj.weight", stacked=True),
)
LAYOUT = Layout(decoder_rules(BLOCK) + named("model.input_hidden_states_", "embedding.affine.", "bias scale"))


def _rotary(c: Config, s: Sizes, kind: str) -> Rotary:
    found = c.dict("rope_parameters", {})
    if unknown := set(found) - set(BASES) - {"rope_type"}:
        raise LaminaError(f"{c.where}: rope_parameters holds {unknown.pop()!r}; known: {', '.join(BASES)}")
    usual = {"rope_theta": BASES[kind], "partial_rotary_factor": 0.5} if kind not in found else {}
    return rope.rotary(c, usual | (found.get(kind) or {}), s.head_dim, s.context)


def _experts(c: Config, s: Sizes, carried: bool) -> MoE:
    """One expert of E a token, or none: the router's last choice is to skip them."""
    deep = RouterMLP(width=c.count("router_hidden_size", 256), carried=carried, norm=RMSNorm(eps=s.eps))
    experts = 1 + c.count("num_experts", 16, most=1 << 16)
    c.only("num_experts_per_tok", 1)
    router = Router(experts=experts, active=1, normalise=False, correction=True, mlp=deep)
    expert = s.glu().replace(inner=s.inner)
    return MoE(router=router, expert=expert, identities=1, identities_give="nothing")


def read(c: Config) -> Architecture:
    c.only("intermediate_size", None)
    c.data = c.data | {"intermediate_size": c.count("moe_intermediate_size", 2048)}
    s = sizes(c, 1e-5, default_context=131072, kv_heads=2, head_dim=128, vocab=262272)
    window, kinds = c.count("sliding_window", None), c.layer_types(s.layers, ["hybrid"] * s.layers, BASES)
    if window is None and "hybrid_sliding" in kinds:
        raise LaminaError(f"{c.where}: layer_types has sliding layers, so sliding_window is needed")
    c.ignore("training", "output_router_logits")
    norm, bias = RMSNorm(eps=s.eps), c.bool("attention_bias", False)

    def block(kind: str, carried: bool) -> Block:
        mixer = CompressedConvolutionalAttention(
            heads=s.heads,
            kv_heads=s.kv_heads,
            head_dim=s.head_dim,
            rotary=_rotary(c, s, kind),
            window=window if kind == "hybrid_sliding" else None,
            depthwise=c.count("cca_time0", 2, most=1 << 10),
            grouped=c.count("cca_time1", 2, most=1 << 10),
            bias=bias,
            output_bias=bias,
        )
        ops = (mixer, _experts(c, s, carried))
        return Block(branches=tuple(Branch(op=op, before=norm, residual=AffineResidual()) for op in ops))

    layers = [(kind, i > 0) for i, kind in enumerate(kinds)]
    made = {layer: block(*layer) for layer in set(layers)}
    arch = decoder(c, "zaya", s, [made[layer] for layer in layers], norm, tied=True, bias=c.bool("lm_head_bias", False))
    return arch.replace(embedding=arch.embedding.replace(affine=True))


def write(arch: Architecture) -> dict[str, Any]:
    ops = [op for op in arch.ops() if isinstance(op, CompressedConvolutionalAttention)]
    op, moe, kinds = ops[0], moe_of(arch), ["hybrid_sliding" if op.window else "hybrid" for op in ops]
    assert moe.router.mlp
    turned = {kind: rope.written(op.rotary, op.head_dim) for kind, op in zip(kinds, ops, strict=True) if op.rotary}
    keys = common_keys(arch, "ZayaForCausalLM", feed_forward=moe.expert, attention=op)
    keys["moe_intermediate_size"] = keys.pop("intermediate_size")
    return keys | {
        "model_type": "zaya",
        "num_experts": moe.computing,
        "router_hidden_size": moe.router.mlp.width,
        "attention_bias": op.bias,
        "cca_time0": op.depthwise,
        "cca_time1": op.grouped,
        "sliding_window": next((op.window for op in ops if op.window), None),
        "layer_types": kinds,
        "rope_parameters": turned,
        "lm_head_bias": arch.head.bias,
    }


FAMILIES = (Family("zaya", ("zaya",), read, write, LAYOUT),)
