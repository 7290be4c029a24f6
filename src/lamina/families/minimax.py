"""MiniMax-M2 (softmax attention, experts in every layer) and MiniMax-M3 (block-sparse attention).

Source: their published configs; the clamped SwiGLU of M3 is arXiv 2508.10925.
Differs: the reference of M3 rotates whole heads where `partial_rotary_factor` is missing, whatever `rotary_dim`
says; here a `rotary_dim` that says otherwise raises.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import GLU, Architecture, BlockIndexer, Clamp, QKNorm, RMSNorm, Rotary
from lamina.errors import LaminaError
from lamina.published import rope, vision_more
from lamina.published.common import Family, Sizes, decoder, pre_norm, pre_norms, sizes
from lamina.published.config import Config
from lamina.published.encoders import split
from lamina.published.experts import mixture, router, sparse_layers

MTP = "multi-token-prediction layers are not built yet"
BASE = 5_000_000.0
KINDS = {"full_attention": False, "minimax_m3_sparse": True}


def read_m2(c: Config) -> Architecture:
    s = sizes(c, kv_heads=8, head_dim=128, default_context=196608)
    values, turned = rope.parameters(c, BASE), c.count("rotary_dim", None)
    if turned:
        values.setdefault("partial_rotary_factor", turned / s.head_dim)
    norm = RMSNorm(eps=s.eps)
    c.only("use_qk_norm", True)
    c.only("qk_norm_type", "per_layer")
    c.only("use_routing_bias", True)
    c.only("shared_intermediate_size", 0)
    c.ignore(MTP, "use_mtp", "mtp_transformer_layers", "num_mtp_modules")
    attention = s.attention(
        rotary=rope.rotary(c, values, s.head_dim, s.context), qk_norm=QKNorm(norm=norm, over="width")
    )
    chosen = router(c, experts=256, active=8, score="sigmoid", correction=True)
    experts = mixture(c, s, chosen, inner=s.inner)
    return decoder(c, "minimax_m2", s, [pre_norm(attention, experts, norm)] * s.layers, norm)


def _indexer(c: Config, s: Sizes, rotary: Rotary, norm: RMSNorm) -> tuple[BlockIndexer, list[bool]]:
    """The indexer, and which layers have one; `sparse_attention_config` is the older spelling."""
    old: Config | None = c.sub("sparse_attention_config") if "sparse_attention_config" in c else None
    c.dict("sparse_attention_config", None)

    def number(new: str, name: str, usual: int, **bounds: Any) -> int:
        value = c.count(new, usual, **bounds)
        return old.count(name, value, **bounds) if old else value

    indexer = BlockIndexer(
        heads=number("index_n_heads", "sparse_num_index_heads", 4),
        head_dim=number("index_head_dim", "sparse_index_dim", 128),
        block=number("index_block_size", "sparse_block_size", 128),
        top_k=number("index_topk_blocks", "sparse_topk_blocks", 16),
        local=number("index_local_blocks", "sparse_local_block", 1, least=0),
        rotary=rotary,
        norm=norm,
    )
    listed = old.list("sparse_attention_freq", [0] * s.layers) if old else [0] * s.layers
    usual = ["minimax_m3_sparse" if has else "full_attention" for has in listed]
    sparse = [KINDS[kind] for kind in c.layer_types(s.layers, usual, KINDS)]
    if old:
        old.only("use_sparse_attention", True)
        old.only("sparse_score_type", "max")
        old.only("sparse_init_block", 0)
        without = old.list("sparse_disable_index_value", [int(has) for has in sparse])
        if any(has and not (i < len(without) and without[i]) for i, has in enumerate(sparse)):
            raise LaminaError(f"{old.where}: an indexer with values (sparse_disable_index_value 0) is not known")
        old.finish()
    return indexer, sparse


def read_m3(c: Config) -> Architecture:
    c, encoders = split(c, vision_more.minimax)
    c.only("hidden_act", ("silu", "swigluoai"))
    c, ignored = Config(c.data | {"hidden_act": "silu"}, c.where), c.ignored  # the clamp below says the rest
    c.ignored = ignored
    s = sizes(c, kv_heads=4, head_dim=128, default_context=524288)
    rotary = s.rotary(c, BASE)
    c.only("rotary_dim", rotary.dim)
    norm = RMSNorm(eps=s.eps, offset=1.0)
    for key, value in {"use_gemma_norm": True, "use_qk_norm": True, "qk_norm_type": "per_head"}.items():
        c.only(key, value)
    c.only("use_routing_bias", True)
    c.only("attention_output_gate", False)
    c.only("n_shared_experts", 1)
    c.ignore(MTP, "num_mtp_modules")
    indexer, chosen = _indexer(c, s, rotary, norm)
    full = s.attention(rotary=rotary, qk_norm=QKNorm(norm=norm))
    clamp = Clamp(limit=c.float("swiglu_limit", 7.0), shift=1.0, slope=c.float("swiglu_alpha", 1.702))
    expert = GLU(inner=s.inner, clamp=clamp)
    routed = router(c, experts=128, active=4, score="sigmoid", scale=2.0, correction=True)
    experts = mixture(c, s, routed, inner=s.inner, expert=expert)
    experts = experts.replace(shared=expert.replace(inner=c.count("shared_intermediate_size", 3072)))
    dense = expert.replace(inner=c.count("dense_intermediate_size", 12288))
    mixers = [full.replace(blocks=indexer) if picks else full for picks in chosen]
    feed_forwards = [experts if has else dense for has in sparse_layers(c, s.layers)]
    arch = decoder(c, "minimax_m3", s, pre_norms(mixers, feed_forwards, norm), norm)
    return arch.replace(encoders=encoders)


FAMILIES = (
    Family("minimax_m2", ("minimax_m2",), read_m2),
    Family("minimax_m3", ("minimax_m3_vl", "minimax_m3_vl_text"), read_m3),
)
