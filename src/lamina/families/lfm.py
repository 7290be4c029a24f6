"""LFM2: most blocks mix tokens with a gated short convolution, the others with grouped attention.

Source: arXiv 2511.23404; the experts of LFM2-8B-A1B: its published config.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from lamina.arch import Architecture, QKNorm, RMSNorm
from lamina.arch.base import Op
from lamina.published import liquid
from lamina.published.common import Family, Sizes, decoder, pick, pre_norms, rope_keys, sizes
from lamina.published.config import Config
from lamina.published.experts import (
    dense_of,
    key_of,
    mixture,
    moe_of,
    router,
    router_keys,
    sparse_blocks,
    sparse_layers,
)
from lamina.published.rules import Layout, Rule


def _kinds(c: Config, s: Sizes) -> list[str]:
    """Every layer is attention unless `full_attn_idxs` or `layer_types` says otherwise."""
    attended = c.list("full_attn_idxs", list(range(s.layers)))
    usual = [liquid.FULL if i in attended else liquid.CONV for i in range(s.layers)]
    return c.layer_types(s.layers, usual, (liquid.CONV, liquid.FULL))


def _read(c: Config, family: str, s: Sizes, feed_forwards: list[Op]) -> Architecture:
    """The norm stays in front of what it feeds; the last norm is called that of the embedding."""
    norm, kinds = RMSNorm(eps=s.eps), _kinds(c, s)
    c.only("hidden_act", "silu")
    mixers: dict[str, Op] = {
        liquid.CONV: liquid.convolution(c, 3),
        liquid.FULL: s.attention(rotary=s.rotary(c, 1_000_000.0), qk_norm=QKNorm(norm=norm)),
    }
    blocks = pre_norms([mixers[kind] for kind in kinds], feed_forwards, norm)
    return decoder(c, family, s, blocks, norm, tied=liquid.tied(c))


def _published_names(c: Config, s: Sizes) -> None:
    """Keys of published configs that the reference leaves unread, because others say the same."""
    c.only("use_pos_enc", True)
    c.only("block_use_swiglu", True)
    for key in ("block_dim", "conv_dim", "conv_dim_out"):
        c.only(key, s.width)
    c.only("num_heads", s.heads)
    c.ignore("norm_eps is what counts", "block_norm_eps")
    c.ignore("initialisation", "block_mlp_init_scale", "block_out_init_scale", "block_use_xavier_init")
    c.ignore("initialisation", "conv_use_xavier_init")


def read(c: Config) -> Architecture:
    """The inner width is 2/3 of the stated one, rounded up, where the config asks for that."""
    inner = c.count(key_of(c, "block_ff_dim", "intermediate_size"), 12288)
    s = sizes(c, **liquid.NORM, kv_heads=8, default_context=128_000, inner=inner)
    _published_names(c, s)
    multiple, factor = c.count("block_multiple_of", 256), c.float("block_ffn_dim_multiplier", 1.0)
    if c.bool("block_auto_adjust_ff_dim", True):
        inner = -(-int(factor * int(2 * inner / 3)) // multiple) * multiple
    s = dataclasses.replace(s, inner=inner)
    return _read(c, "lfm2", s, [s.glu()] * s.layers)


def read_moe(c: Config) -> Architecture:
    s = sizes(c, **liquid.NORM, kv_heads=8, default_context=128_000, inner=7168)
    correction = c.bool("use_expert_bias", True)
    routed = mixture(c, s, router(c, experts=32, active=4, score="sigmoid", correction=correction), inner=1792)
    return _read(c, "lfm2_moe", s, [routed if sparse else s.glu() for sparse in sparse_layers(c, s.layers, dense=2)])


def write(arch: Architecture) -> dict[str, Any]:
    own = {"model_type": "lfm2", "block_auto_adjust_ff_dim": False}
    return own | liquid.keys(arch, "Lfm2ForCausalLM") | rope_keys(arch)


def write_moe(arch: Architecture) -> dict[str, Any]:
    moe = moe_of(arch)
    routed = router_keys(moe.router, "num_experts")
    return {
        "model_type": "lfm2_moe",
        **liquid.keys(arch, "Lfm2MoeForCausalLM", dense_of(arch)),
        **rope_keys(arch),
        **pick(routed, "num_experts", "num_experts_per_tok", "norm_topk_prob", "routed_scaling_factor"),
        "use_expert_bias": moe.router.correction,
        "moe_intermediate_size": moe.expert.inner,
        "num_dense_layers": [*sparse_blocks(arch), True].index(True),
    }


ATTENTION = (
    *(Rule(f"self_attn.{p}_proj", f"mixer.op.{p}_proj") for p in "qkv"),
    *(Rule(f"self_attn.{p}_layernorm", f"mixer.op.{p}_norm") for p in "qk"),
    Rule("self_attn.out_proj", "mixer.op.o_proj"),
)
EXPERTS = (
    *(
        Rule(f"feed_forward.experts.{{e}}.{theirs}", f"feed_forward.op.experts.{ours}_proj")
        for theirs, ours in (("w1", "gate"), ("w3", "up"), ("w2", "down"))
    ),
    Rule("feed_forward.gate", "feed_forward.op.router.gate"),
    Rule("feed_forward.expert_bias", "feed_forward.op.router.correction"),
)


def layout(arch: Architecture) -> Layout:
    return liquid.layout(arch, ATTENTION + EXPERTS)


FAMILIES = (
    Family("lfm2", ("lfm2",), read, write, layout),
    Family("lfm2_moe", ("lfm2_moe",), read_moe, write_moe, layout),
)
