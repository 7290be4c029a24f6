"""Ling 2.5, Ring 2.5 and Ling 2.6: lightning attention, and latent attention every `layer_group_size` blocks.

Heads of lightning attention are normalised, rotated in part and scaled; their output is normalised in groups of heads.
Source: the publisher's code (github.com/inclusionAI/Ring-V2.5, models/) for all that is here: the keys and what absent
ones mean, the names of tensors, that a head fades at a rate of its own times 1 - (i - 1) / (n - 1) + 1e-5, that heads
whose number is no power of two have the rates of ALiBi (arXiv 2108.12409), that the blocks behind the last whole group
attend. Mechanisms: arXiv 2401.04658 (lightning attention), 2405.04434 (latent attention).
Differs: what the reference calls `bailing_hybrid` is Ling 3.0 and has none of this: a forward pass written by hand in
the tests is what ours is compared with. Published configs say `bailing_hybrid` too; the class tells them apart.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, LatentAttention, LightningAttention, RMSNorm
from lamina.errors import LaminaError
from lamina.published import latent, rope
from lamina.published.common import Family, Sizes, decoder, pre_norms
from lamina.published.config import Config
from lamina.published.experts import mixture, moe_of, router, sparse_layers
from lamina.published.rules import EXPERTS, PRE_NORMS, ROUTER, SHARED, Layout, Rule, decoder_rules, later_layers, named
from lamina.published.rules import GLU as GLU_RULES

CLASS, SHARE = "BailingMoeV2_5ForCausalLM", "partial_rotary_factor"
ONLY = {
    **dict.fromkeys(("moe_router_enable_expert_bias", "norm_topk_prob", "rope_interleave"), True),
    **dict.fromkeys(("use_bias", "use_qkv_bias", "linear_silu", "use_nGPT", "norm_head"), False),
    "num_kv_heads_for_linear_attn": 0,
}
"""Keys of published configs, and the one value of each for which the model is as described here."""


def read(c: Config) -> Architecture:
    for key, value in ONLY.items():
        c.only(key, value)
    c.ignore("training", "embedding_dropout", "output_dropout", "mtp_loss_scaling_factor", "router_dtype")
    c.ignore("no layer has a window", "max_window_layers")
    c.ignore("all heads have keys and values of their own", "num_key_value_heads")
    c.data = {key: value for key, value in c.data.items() if key != "num_key_value_heads"}
    dim = c.count("head_dim", 128, most=1 << 16)
    s = latent.sizes(c, default_context=32768)
    linear, full = _mixers(c, s, dim)
    group, sparse, norm = c.count("layer_group_size", 5), sparse_layers(c, s.layers, 1), RMSNorm(eps=s.eps)
    gate = router(c, 256, 8, "sigmoid", groups=8, active_groups=4, correction=True)
    moe = mixture(c, s, gate, 512, shared=1)
    c.only("moe_shared_expert_intermediate_size", moe.expert.inner)
    whole = s.layers - s.layers % group
    mixers = [full if (i + 1) % group == 0 or i >= whole else linear for i in range(s.layers)]
    return decoder(c, "bailing_linear", s, pre_norms(mixers, [moe if has else s.glu() for has in sparse], norm), norm)


def _mixers(c: Config, s: Sizes, dim: int) -> tuple[LightningAttention, LatentAttention]:
    """Both rotate as many dimensions: a share of the head of lightning attention, a part of its own in the other."""
    values, full = rope.parameters(c, 600000.0), latent.attention(c, s, query_latent=None)
    rotary = rope.rotary(c, {SHARE: 0.5} | values, dim, s.context)
    if rotary.dim != full.rotary_dim:
        raise LaminaError(
            f"{c.where}: partial_rotary_factor of a head of {dim} is {rotary.dim}; qk_rope_head_dim is "
            f"{full.rotary_dim}, and both must be one"
        )
    c.only("rotary_dim", rotary.dim)
    groups, norm = c.count("group_norm_size", 4, most=1 << 16), RMSNorm(eps=s.eps)
    linear = LightningAttention(
        heads=s.heads,
        head_dim=dim,
        activation=None,
        first=1,
        rates="powers",
        scale=dim**-0.5,
        qk_norm=norm if c.bool("use_qk_norm", True) else None,
        rotary=rotary,
        norm=norm,
        norm_groups=groups,
    )
    return linear, latent.rotated(c, s, full, {key: values[key] for key in values if key != SHARE})


def write(arch: Architecture) -> dict[str, Any]:
    moe, kinds = moe_of(arch), [next(block.ops()) for block in arch.blocks]
    keys = latent.keys(arch, CLASS)
    turned = keys.pop("rope_parameters")
    base, scaled = turned.pop("rope_theta"), turned.get("rope_type") != "default"
    said = {
        **{key: keys[key] for key in keys if key not in ("n_routed_experts", "n_shared_experts", "attention_bias")},
        "num_experts": moe.router.experts,
        "num_shared_experts": keys["n_shared_experts"],
        "rope_theta": base,
        "rope_scaling": turned if scaled else None,
        "layer_group_size": 1 + next(i for i, op in enumerate(kinds) if isinstance(op, LatentAttention)),
    }
    linear = next((op for op in kinds if isinstance(op, LightningAttention)), None)
    if linear and linear.rotary:
        said |= {"head_dim": linear.head_dim, "group_norm_size": linear.norm_groups}
        said |= {"use_qk_norm": linear.qk_norm is not None, SHARE: linear.rotary.dim / linear.head_dim}
    return {"model_type": "bailing_hybrid", **said}


OF_LINEAR = "query_layernorm:q_norm key_layernorm:k_norm g_proj:gate_proj g_norm:norm dense:o_proj"
LINEAR = (
    Rule("attention.query_key_value.weight", *(f"mixer.op.{p}_proj.weight" for p in "qkv")),
    *named("attention.", "mixer.op.", OF_LINEAR),
)
FULL = tuple(
    Rule("attention.dense", rule.ours[0]) if rule.theirs.endswith(".o_proj") else rule
    for rule in latent.attention_rules("attention.")
)
CORRECTION = Rule("mlp.gate.expert_bias", "feed_forward.op.router.correction")
BLOCK = (*PRE_NORMS, *GLU_RULES, *EXPERTS, CORRECTION, *ROUTER, *SHARED)


def layout(arch: Architecture) -> Layout:
    linear = [i for i, block in enumerate(arch.blocks) if isinstance(next(block.ops()), LightningAttention)]
    full = [i for i in range(len(arch.blocks)) if i not in linear]
    mixing = [rule.limited(linear) for rule in LINEAR] + [rule.limited(full) for rule in FULL]
    rules = (Rule("model.word_embeddings.weight", "embedding.table"), *decoder_rules((*mixing, *BLOCK))[1:])
    return Layout(rules, skip=later_layers(len(arch.blocks)))


FAMILIES = (Family("bailing_linear", ("bailing_moe_v2_5",), read, write, layout, classes=(CLASS,)),)
