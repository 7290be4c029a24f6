"""DeepSeek V2, V3 and V3.2, and Kimi K2, which is a DeepSeek V3: latent attention, and experts chosen in groups.

Source: arXiv 2405.04434, 2412.19437, 2512.02556 (the indexer), 2507.20534 (Kimi K2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lamina.arch import Architecture, MoE, Op, RMSNorm
from lamina.published import latent, rope, vision_more
from lamina.published.common import Family, Sizes, decoder, pre_norm
from lamina.published.config import Config
from lamina.published.encoders import split
from lamina.published.experts import mixture, moe_of, router, sparse_layers
from lamina.published.prediction import drafting


def blocks_around(
    c: Config, family: str, s: Sizes, mixers: Sequence[Op], moe: MoE, sparse: list[bool], **head: Any
) -> Architecture:
    """The decoder: a norm before each mixer and each feed-forward, which is experts where a layer is sparse.

    A dense feed-forward is as an expert is, of another inner width.
    """
    norm, dense = RMSNorm(eps=s.eps), moe.expert.replace(inner=s.inner)
    places = list(zip(mixers, sparse, strict=True))
    made = {place: pre_norm(place[0], moe if place[1] else dense, norm) for place in set(places)}
    return decoder(c, family, s, [made[place] for place in places], norm, **head)


def read_v2(c: Config) -> Architecture:
    s = latent.sizes(c)
    c.only("mlp_bias", False)
    c.only("norm_topk_prob", False)
    op = latent.rotated(c, s, latent.attention(c, s), rope.parameters(c, 10000.0))
    method = c.choice("topk_method", ("greedy", "group_limited_greedy"), "greedy")
    gate = router(c, 64, normalise=False, group_best=1)
    if method == "greedy":
        gate = gate.replace(groups=1, active_groups=1)
    moe = mixture(c, s, gate, 1407, shared=2)
    return blocks_around(c, "deepseek_v2", s, [op] * s.layers, moe, sparse_layers(c, s.layers))


def _v3_mixture(c: Config, s: Sizes) -> MoE:
    gate = router(c, 256, 8, "sigmoid", scale=2.5, groups=8, active_groups=4, correction=True)
    return mixture(c, s, gate, 2048, shared=1)


def read_v3(c: Config) -> Architecture:
    c, encoders = split(c, vision_more.kimi)
    s = latent.sizes(c, default_context=4096)
    op = latent.rotated(c, s, latent.attention(c, s), rope.parameters(c, 10000.0), latent.layout(c))
    arch = blocks_around(c, "deepseek_v3", s, [op] * s.layers, _v3_mixture(c, s), sparse_layers(c, s.layers, 3))
    return arch.replace(encoders=encoders)


def read_v32(c: Config) -> Architecture:
    s = latent.sizes(c, default_context=163840)
    c.only("rope_interleave", True)
    c.only("mlp_bias", False)
    c.layer_types(s.layers, ["indexed_attention"] * s.layers, ("indexed_attention",))
    op = latent.rotated(c, s, latent.attention(c, s), rope.parameters(c, 10000.0))
    assert op.rotary
    half = op.rotary.replace(layout="half")  # the indexer pairs other dimensions than the attention
    op = op.replace(indexer=latent.indexer(c, half, heads=64))
    return blocks_around(c, "deepseek_v32", s, [op] * s.layers, _v3_mixture(c, s), sparse_layers(c, s.layers, 3))


def write_v2(arch: Architecture) -> dict[str, Any]:
    method = "greedy" if moe_of(arch).router.groups == 1 else "group_limited_greedy"
    return {"model_type": "deepseek_v2", **latent.keys(arch, "DeepseekV2ForCausalLM"), "topk_method": method}


def write_v3(arch: Architecture) -> dict[str, Any]:
    return {
        "model_type": "deepseek_v3",
        **latent.keys(arch, "DeepseekV3ForCausalLM"),
        "rope_interleave": latent.interleaved(arch),
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
    }


def write_v32(arch: Architecture) -> dict[str, Any]:
    said = latent.keys(arch, "DeepseekV32ForCausalLM") | latent.indexer_keys(arch)
    del said["indexer_types"]  # each layer chooses by itself
    return {"model_type": "deepseek_v32", **said, "topk_method": "noaux_tc"}


FAMILIES = (
    Family("deepseek_v2", ("deepseek_v2",), read_v2, write_v2, latent.layout_of),
    drafting(
        Family("deepseek_v3", ("deepseek_v3", "kimi_k2", "kimi_k25"), read_v3, write_v3, latent.layout_of), latent.BLOCK
    ),
    drafting(
        Family("deepseek_v32", ("deepseek_v32",), read_v32, write_v32, latent.sparse_layout),
        latent.BLOCK + latent.INDEXER,
    ),
)
