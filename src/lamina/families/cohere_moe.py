"""Cohere2 with experts (Command A+, North Mini Code): attention and experts side by side behind one norm.

As in Cohere2, layers that see everything have no positions, but for the dense ones at the start.
Source: the published configs and the reference's code.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, Attention, Block, Branch, LayerNorm, MoE, Parallel, RMSNorm
from lamina.arch.base import Op
from lamina.published import rope
from lamina.published.common import Family, Sizes, attention_of, common_keys, decoder, rope_keys, sizes, windows
from lamina.published.config import Config
from lamina.published.experts import dense_of, layer_kinds, moe_of, router, shared_experts, sparse_blocks, sparse_layers
from lamina.published.rules import ATTENTION, EXPERTS, GLU, ROUTER, SHARED, Layout, Rule, decoder_rules


def _layers(c: Config, s: Sizes) -> tuple[list[str], list[bool]]:
    """What each layer sees, and whether it has experts; a prefix of dense layers has a period of its own."""
    dense = c.count("first_k_dense_replace", 0, least=0)
    periods = c.count("prefix_dense_sliding_window_pattern", 1), c.count("sliding_window_pattern", 4)
    places = [(i, periods[0]) for i in range(dense)] + [(i, periods[1]) for i in range(s.layers - dense)]
    usual = ["sliding_attention" if (i + 1) % period else "full_attention" for i, period in places]
    return c.layer_types(s.layers, usual, rope.LAYER_TYPES), sparse_layers(c, s.layers)


def _mixture(c: Config, s: Sizes) -> MoE:
    """Routed and shared experts of one width; their sum, or the mean of the two sums."""
    shared = c.count("num_shared_experts", 0, least=0)
    joined = c.choice("shared_expert_combination_strategy", ("average", "sum"), "average")
    score = c.choice("expert_selection_fn", ("softmax", "sigmoid"), "softmax")
    gate = router(c, 8, 2, score)  # type: ignore[arg-type]
    if score == "softmax":
        gate = gate.replace(normalise=True)  # it is taken over the chosen alone, whatever norm_topk_prob says
    return MoE(
        router=gate,
        expert=s.glu(),
        shared=s.glu().replace(inner=s.inner * shared) if shared else None,
        scale=0.5 if shared and joined == "average" else 1.0,
    )


def read(c: Config) -> Architecture:
    s = sizes(c, eps=1e-5, eps_key="layer_norm_eps", head_dim=128, default_context=8192)
    for key, value in {"use_qk_norm": False, "use_parallel_block": True, "use_gated_activation": True}.items():
        c.only(key, value)
    c.only("position_embedding_type", "rope_gptj")
    c.only("rotary_pct", 1.0)
    rms, bias = c.float("rms_norm_eps", None), c.bool("attention_bias", False)
    norm = RMSNorm(eps=rms) if rms is not None else LayerNorm(eps=s.eps, bias=False)
    rotary, window = s.rotary(c, layout="interleaved"), c.count("sliding_window", 4096)
    kinds, sparse = _layers(c, s)
    turned_prefix = c.count("prefix_dense_sliding_window_pattern", 1) == 1
    dense = s.glu().replace(inner=c.count("prefix_dense_intermediate_size", s.inner))
    moe = _mixture(c, s)

    def block(kind: str, has_experts: bool) -> Block:
        local = kind == "sliding_attention"
        turned = local or (turned_prefix and not has_experts)
        shared = {"bias": bias, "output_bias": bias}
        attention: Attention = s.attention(
            rotary=rotary if turned else None, window=window if local else None, **shared
        )
        feed_forward: Op = moe if has_experts else dense
        return Block(branches=(Branch(op=Parallel(ops=(attention, feed_forward)), before=norm),))  # type: ignore[arg-type]

    layers = list(zip(kinds, sparse, strict=True))
    made = {layer: block(*layer) for layer in set(layers)}
    blocks = [made[layer] for layer in layers]
    return decoder(c, "cohere2_moe", s, blocks, norm, tied=True, scale=c.float("logit_scale", 0.0625))


def write(arch: Architecture) -> dict[str, Any]:
    moe, (window, kinds) = moe_of(arch), windows(arch)
    keys = common_keys(arch, "Cohere2MoeForCausalLM", feed_forward=dense_of(arch))
    eps, dense = keys.pop("rms_norm_eps"), keys.pop("intermediate_size")
    prefix = [attention_of(arch, i) for i, sparse in enumerate(sparse_blocks(arch)) if not sparse]
    return {
        "model_type": "cohere2_moe",
        **keys,
        **rope_keys(arch),
        **layer_kinds(arch),
        "rms_norm_eps" if isinstance(arch.norm, RMSNorm) else "layer_norm_eps": eps,
        "attention_bias": attention_of(arch).bias,
        "logit_scale": arch.head.scale,
        "layer_types": kinds,
        "sliding_window": window or 4096,
        "prefix_dense_sliding_window_pattern": 1 if all(op.rotary for op in prefix) else 2,
        "prefix_dense_intermediate_size": dense,
        "intermediate_size": moe.expert.inner,
        "num_experts": moe.router.experts,
        "num_experts_per_tok": moe.router.active,
        "norm_topk_prob": moe.router.normalise,
        "expert_selection_fn": moe.router.score,
        "num_shared_experts": shared_experts(moe),
        "shared_expert_combination_strategy": "sum" if moe.scale == 1.0 else "average",
    }


BLOCK = (
    Rule("input_layernorm", "parallel.before"),
    *(
        Rule(rule.theirs, "parallel.op." + rule.ours[0].replace(".op", ""))
        for rule in ATTENTION + GLU + EXPERTS + ROUTER + SHARED
    ),
)
FAMILIES = (Family("cohere2_moe", ("cohere2_moe",), read, write, Layout(decoder_rules(BLOCK))),)
