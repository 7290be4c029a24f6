"""Inkling: no rotation but a learned bias of each distance, short filters everywhere, shared experts that compete.

Source: the published config and the reference's code.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import GLU, Architecture, MoE, QKNorm, RMSNorm, ShortFilter
from lamina.arch.block import Block, Branch
from lamina.published.common import Family, Sizes, decoder, rounded, sizes, text_part
from lamina.published.config import LATER, Config
from lamina.published.experts import dense_of, moe_of, one_name, router, sparse_blocks, sparse_layers
from lamina.published.inkling import ALIASES, attentions, keys, layer_kinds, layout, padded, temperature
from lamina.published.rules import Layout, Rule, named

PREDICTION = ("num_mtp_layers", "chain_hidden_post_norm", "mtp_hidden_states_first", "mtp_local_layer_ids")
TRUE = ("use_sconv", "use_embed_norm", "use_global_scale", "use_gate_bias", "norm_after_topk", "shared_expert_sink")


def _feed_forwards(c: Config, s: Sizes) -> list[GLU | MoE]:
    """With `dense_intermediate_size`, that is the dense layers' and `intermediate_size` the experts'."""
    dense = s.glu().replace(inner=c.count("dense_intermediate_size", s.inner))
    usual = s.inner if "dense_intermediate_size" in c else 3072
    inner, shared = c.count("moe_intermediate_size", usual), c.count("n_shared_experts", 2)
    c.only("scoring_func", "sigmoid")
    c.only("gate_activation", "sigmoid")
    chosen = router(c, 256, 6, "sigmoid", scale=8.0, correction=True, shared=shared)
    expert = s.glu().replace(inner=inner)
    moe = MoE(router=chosen, expert=expert, shared=expert.replace(inner=shared * inner))
    first = c.count("dense_mlp_idx", 0, least=0)
    return [moe if sparse else dense for sparse in sparse_layers(c, s.layers, first)]


def read(c: Config) -> Architecture:
    c.ignore(LATER, "mtp_config")
    c = text_part(c, "the encoders merge patches and sound step by step, and are not read")
    one_name(c, ALIASES)
    s = sizes(c, kv_heads=8, head_dim=128, inner=24576, default_context=131072)
    norm, filter_ = RMSNorm(eps=s.eps), ShortFilter(kernel=c.count("conv_kernel_size", 4))
    for key in TRUE:
        c.only(key, True)
    for key in ("q_bias", "o_bias", "tie_word_embeddings"):
        c.only(key, False)
    c.ignore(LATER, *PREDICTION)
    c.ignore("not read by the reference", "rms_norm_eps_moe_gate", "number_of_conv_states")
    made = attentions(c, s, (512, 64, 16), filter=filter_, qk_norm=QKNorm(norm=norm))
    made = {kind: op.replace(scale=1 / op.head_dim) for kind, op in made.items()}
    made["hybrid"] = made["hybrid"].replace(temperature=temperature(c, None))
    layers = list(zip([made[kind] for kind in layer_kinds(c, s.layers)], _feed_forwards(c, s), strict=True))
    around = {"before": norm, "filter": filter_}
    blocks = {
        (op, feed): Block(branches=(Branch(op=op, **around), Branch(op=feed, gate="factor", **around)))
        for op, feed in set(layers)
    }
    scale, softcap = 1 / c.float("logits_mup_width_multiplier", 24.0), c.float("final_logit_softcapping", None)
    c.count("unpadded_vocab_size", None)
    arch = decoder(c, "inkling", s, [blocks[layer] for layer in layers], norm, scale=scale, softcap=softcap)
    return padded(c, arch, s.eps)


def write(arch: Architecture) -> dict[str, Any]:
    moe = moe_of(arch)
    return keys(arch, "InklingForCausalLM") | {
        "model_type": "inkling_text",
        "hidden_act": moe.expert.activation,
        "intermediate_size": dense_of(arch).inner,
        "moe_intermediate_size": moe.expert.inner,
        "n_routed_experts": moe.router.experts,
        "num_experts_per_tok": moe.router.active,
        "n_shared_experts": moe.router.shared,
        "route_scale": moe.router.scale,
        "mlp_layer_types": ["sparse" if sparse else "dense" for sparse in sparse_blocks(arch)],
        "logits_mup_width_multiplier": float(rounded(1 / arch.head.scale)),
    }


def _layout(arch: Architecture) -> Layout:
    """Shared experts are published one by one, and what all are multiplied by with the router."""
    shared, mlp = moe_of(arch).router.shared, "feed_forward.op."
    folded = {"gate": shared, "up": shared, "down": -shared}
    block = (
        *(Rule(f"mlp.shared_experts.{p}_proj", f"{mlp}shared.{p}_proj.weight", folded=n) for p, n in folded.items()),
        *named("mlp.", mlp, "gate_proj up_proj down_proj gate.e_score_correction_bias:router.correction"),
        *named("mlp.", mlp, "gate:router.gate"),
        *named("self_attn.", "mixer.op.", "q_norm k_norm"),
    )
    scales = (
        Rule(f"model.layers.{i}.mlp.{'gate.' * sparse}global_scale", f"blocks.{i}.feed_forward.gate")
        for i, sparse in enumerate(sparse_blocks(arch))
    )
    return layout(block, tuple(scales))


FAMILIES = (Family("inkling", ("inkling_text", "inkling_mm_model"), read, write, _layout),)
