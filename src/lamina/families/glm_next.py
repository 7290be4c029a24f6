"""GLM-5.3-Flash: pools of keys chosen in latent attention, linear attention between, several residual streams.

Source: the published config and reference.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import GLU, Architecture, Clamp, KeyPool, KimiDeltaAttention, RMSNorm
from lamina.errors import LaminaError
from lamina.families.deepseek import blocks_around
from lamina.published import kimi_delta, latent, streams, vision_more
from lamina.published.common import Family
from lamina.published.config import Config
from lamina.published.encoders import split
from lamina.published.experts import layer_kinds, mixture, moe_of, router, sparse_layers
from lamina.published.rules import Layout, Rule, decoder_rules, later_layers

INDEXED = "indexed_attention"


def read(c: Config) -> Architecture:
    c, encoders = split(c, vision_more.glm)
    s = latent.sizes(c, eps=1e-5, default_context=1048576)
    norm, clamp = RMSNorm(eps=s.eps), Clamp(limit=c.float("swiglu_limit", 10.0))
    if s.activation != "silu":
        raise LaminaError(f"{c.where}: hidden_act is {s.activation}; a clamped feed-forward is known with 'silu'")
    op = latent.attention(c, s, plain=256, rotary=0, value=256, norm=norm)
    if op.rotary_dim or not op.query_latent:
        raise LaminaError(f"{c.where}: qk_rope_head_dim must be 0 and q_lora_rank a number for this model_type")
    if any(latent.shared_choices(c, s.layers)):
        raise LaminaError(f"{c.where}: indexer_types must be 'full': a linear layer passes no choice on")
    pool = KeyPool(size=c.count("index_kpool", 16), tail=c.bool("index_kpool_always_select_tail", True))
    op = op.replace(indexer=latent.indexer(c, None, pool=pool))
    usual = ["indexed_attention" if i % 4 == 3 else "linear_attention" for i in range(s.layers)]
    known = {"linear_attention": _delta(c, norm), "indexed_attention": op, "full_attention": op}
    mixers = [known[kind] for kind in c.layer_types(s.layers, usual, known)]
    gate = router(c, 288, 8, "sigmoid", scale=2.5, correction=True)
    moe = mixture(c, s, gate, 2048, shared=1, expert=s.glu().replace(clamp=clamp))
    stream = streams.hyper_connections(c, s.eps, joining="mean")
    arch = blocks_around(c, "glm5_next", s, mixers, moe, sparse_layers(c, s.layers, 3))
    return arch.replace(stream=stream, encoders=encoders)


def _delta(c: Config, norm: RMSNorm) -> KimiDeltaAttention:
    """The linear layers: decay and gate come from bottlenecks as wide as a head."""
    size = c.count("linear_head_dim", 128)
    floor = None if "linear_lower_bound" in c.data else -5.0
    sizes = {"heads": c.count("linear_num_heads", 64), "convolution": c.count("linear_conv_kernel_dim", 4)}
    return kimi_delta.sized(size, norm.eps, size, size, c.float("linear_lower_bound", floor), **sizes)


def write(arch: Architecture) -> dict[str, Any]:
    """The text decoder's."""
    linear = [op for op in arch.ops() if isinstance(op, KimiDeltaAttention)]
    indexer, expert = latent.attention_of(arch).indexer, moe_of(arch).expert
    assert isinstance(expert, GLU)
    assert indexer
    assert indexer.pool
    assert expert.clamp
    said = latent.keys(arch, "Glm5NextForConditionalGeneration") | latent.indexer_keys(arch) | layer_kinds(arch)
    del said["first_k_dense_replace"], said["rope_parameters"]  # which the list says, and which there is none of
    return {
        "model_type": "glm5_next_text",
        **said,
        "indexer_types": ["full"] * len(arch.blocks),
        "index_kpool": indexer.pool.size,
        "index_kpool_always_select_tail": indexer.pool.tail,
        "layer_types": kimi_delta.kinds_of(arch, INDEXED),
        **(_linear_keys(linear[0]) if linear else {}),
        "swiglu_limit": expert.clamp.limit,
        **streams.hyper_keys(arch),
    }


def _linear_keys(op: KimiDeltaAttention) -> dict[str, Any]:
    keys = {"linear_num_heads": "heads", "linear_head_dim": "key_dim", "linear_conv_kernel_dim": "convolution"}
    return {key: getattr(op, field) for key, field in (keys | {"linear_lower_bound": "decay_floor"}).items()}


POOLED = (
    Rule("self_attn.indexer.index_kpool_compress_ape", "mixer.op.indexer.pool_bias"),
    Rule("self_attn.indexer.index_kpool_compress_gate", "mixer.op.indexer.pool_proj.weight"),
)
BLOCK = kimi_delta.rules() + latent.BLOCK + latent.INDEXER + POOLED + streams.around_branches("hc_attn_", "hc_ffn_")


def layout(arch: Architecture) -> Layout:
    skip = {r"(model\.)?visual\..*": "the image encoder is not part of this model"} | later_layers(len(arch.blocks))
    return Layout(decoder_rules(BLOCK, root="model.language_model."), skip=skip)


FAMILIES = (Family("glm5_next", ("glm5_next", "glm5_next_text"), read, write, layout),)
