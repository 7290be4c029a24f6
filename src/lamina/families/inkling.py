"""Inkling: no rotation but a learned bias of each distance, short filters everywhere, shared experts that compete.

Source: the published config and the reference's code.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import GLU, Architecture, LengthTemperature, MoE, QKNorm, RelativeAttention, RMSNorm, ShortFilter
from lamina.arch.block import Block, Branch
from lamina.errors import LaminaError
from lamina.published.common import Family, Sizes, decoder, sizes, text_part
from lamina.published.config import Config
from lamina.published.experts import one_name, router, sparse_layers

KINDS = ("hybrid_sliding", "hybrid")
ALIASES = {
    "conv_kernel_size": ("sconv_kernel_size",),
    "max_position_embeddings": ("model_max_length",),
    "sliding_window_size": ("sliding_window",),
    "logits_mup_width_multiplier": ("embedding_multiplier",),
}
PREDICTION = ("num_mtp_layers", "chain_hidden_post_norm", "mtp_hidden_states_first", "mtp_local_layer_ids")
TRUE = ("use_sconv", "use_embed_norm", "use_global_scale", "use_gate_bias", "norm_after_topk", "shared_expert_sink")


def layer_kinds(c: Config, layers: int) -> list[str]:
    """Every sixth layer sees everything, unless the config lists those that have a window."""
    local = c.list("local_layer_ids", [i for i in range(layers) if (i + 1) % 6])
    return c.layer_types(layers, [KINDS[0] if i in local else KINDS[1] for i in range(layers)], KINDS)


def attentions(c: Config, s: Sizes, usual: tuple[int, int, int], **fields: Any) -> dict[str, RelativeAttention]:
    """Of each kind of layer; `usual` are the window, and the heads and key/value heads of layers that have one."""
    window = c.count("sliding_window_size", usual[0])
    full = RelativeAttention(
        heads=s.heads,
        kv_heads=s.kv_heads,
        head_dim=s.head_dim,
        relative_dim=c.count("d_rel", 16),
        extent=c.count("rel_extent", 1024),
        **fields,
    )
    own = {
        "heads": c.count("swa_num_attention_heads", usual[1]),
        "kv_heads": c.count("swa_num_key_value_heads", usual[2]),
        "head_dim": c.count("swa_head_dim", 128),
    }
    return {"hybrid": full, "hybrid_sliding": full.replace(**own, window=window, extent=window)}


def temperature(c: Config, floor: int | None) -> LengthTemperature | None:
    floor, scale = c.count("log_scaling_n_floor", floor), c.float("log_scaling_alpha", 0.1)
    return LengthTemperature(floor=floor, scale=scale, steps=False) if floor else None


def padded(c: Config, arch: Architecture, eps: float, usual: int | None = None) -> Architecture:
    """What is read of the table is normalised; logits of rows beyond `unpadded_vocab_size` are dropped."""
    tokens = c.count("unpadded_vocab_size", usual) or arch.vocab
    if tokens > arch.vocab:
        raise LaminaError(f"{c.where}: unpadded_vocab_size ({tokens}) exceeds vocab_size ({arch.vocab})")
    embedding, head = arch.embedding.replace(norm=RMSNorm(eps=eps)), arch.head.replace(padding=arch.vocab - tokens)
    return arch.replace(embedding=embedding, head=head)


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
    c.ignore("multi-token-prediction layers are not built yet", "mtp_config")
    c = text_part(c, "the encoders merge patches and sound step by step, and are not read")
    one_name(c, ALIASES)
    s = sizes(c, kv_heads=8, head_dim=128, inner=24576, default_context=131072)
    norm, filter_ = RMSNorm(eps=s.eps), ShortFilter(kernel=c.count("conv_kernel_size", 4))
    for key in TRUE:
        c.only(key, True)
    for key in ("q_bias", "o_bias", "tie_word_embeddings"):
        c.only(key, False)
    c.ignore("multi-token-prediction layers are not built yet", *PREDICTION)
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


FAMILIES = (Family("inkling", ("inkling_text", "inkling_mm_model"), read),)
