"""Mistral Large 4: sparse latent attention; rotary frequencies and the temperature of queries are learned.

Source: the published config and reference.
"""

from __future__ import annotations

from lamina.arch import Architecture, LayerNorm, LearnedTemperature, RMSNorm
from lamina.errors import LaminaError
from lamina.families.deepseek import blocks_around
from lamina.published import latent, vision
from lamina.published.common import Family, Sizes
from lamina.published.config import Config
from lamina.published.encoders import split
from lamina.published.experts import mixture, router, sparse_layers

ROTARY = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 2048.0,
    "original_max_position_embeddings": 512,
    "attention_factor": 1.0,
}
"""What a config means that says nothing of rotary embeddings."""


def read(c: Config) -> Architecture:
    c, encoders = split(c, vision.pixtral)
    s = latent.sizes(c, eps=1e-5, default_context=1048576)
    c.only("norm_topk_prob", True)
    c.only("rope_interleave", True)
    c.layer_types(s.layers, ["indexed_attention"] * s.layers, ("indexed_attention",))
    learned = LearnedTemperature()
    op = latent.attention(c, s, query_latent=None, plain=64, norm=RMSNorm(eps=s.eps), temperature=learned)
    if op.query_latent:
        raise LaminaError(f"{c.where}: q_lora_rank is {op.query_latent}; queries of this model_type have no latent")
    turned = latent.rotated(c, s, op, latent.rotary_or(c, ROTARY))
    assert turned.rotary
    turned = turned.replace(rotary=turned.rotary.replace(learned=True))
    unturned = op.replace(plain_dim=op.head_dim, rotary_dim=0, scale=turned.scale)
    interval = c.count("no_rope_layer_interval", 4)
    turn = c.list("no_rope_layers", [int((i + 1) % interval != 0) for i in range(s.layers)])
    if len(turn) < s.layers or any(t not in (0, 1) for t in turn):
        raise LaminaError(f"{c.where}: no_rope_layers needs {s.layers} entries of 0 or 1 (1: the layer is rotated)")
    index = latent.indexer(c, None, query_norm=LayerNorm(eps=1e-6), temperature=learned)
    shared, sources = latent.shared_choices(c, s.layers), _sources(c, s, turn)
    ops = []
    for i in range(s.layers):
        base = turned if turn[i] else unturned
        indexer = index.replace(rotary=base.rotary, shared=shared[i])
        ops.append(base.replace(indexer=indexer, kv_from=sources[i]))
    moe = mixture(c, s, router(c, 128, 4), 6144, shared=1)
    softcap = c.float("final_logit_softcapping", 30.0)
    arch = blocks_around(c, "mistral_large4", s, ops, moe, sparse_layers(c, s.layers, 1), softcap=softcap)
    return arch.replace(encoders=encoders)


def _sources(c: Config, s: Sizes, turn: list[int]) -> list[int | None]:
    """The block whose latents each layer reads; None where it has its own."""
    sources = c.list("kv_source_layers", list(range(s.layers)))
    if len(sources) != s.layers:
        raise LaminaError(f"{c.where}: kv_source_layers has {len(sources)} entries for {s.layers} layers")
    for i, source in enumerate(sources):
        if not isinstance(source, int) or not 0 <= source <= i or sources[source] != source or turn[source] != turn[i]:
            raise LaminaError(
                f"{c.where}: kv_source_layers[{i}] is {source}; expected is the layer itself or an earlier one "
                "that has its own, and is rotated if it is"
            )
    return [None if source == i else source for i, source in enumerate(sources)]


FAMILIES = (Family("mistral_large4", ("mistral_large4", "mistral_large4_text"), read),)
