"""LFM2 and LFM3: most blocks mix tokens with a gated short convolution, the others with grouped attention.

Source: arXiv 2511.23404 (LFM2); the published config of LFM3-1.7B.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from lamina.arch import Architecture, Block, Branch, QKNorm, RMSNorm, ShortConvolution
from lamina.arch.base import Op
from lamina.errors import LaminaError
from lamina.published import rope
from lamina.published.common import Family, Sizes, decoder, pre_norm, sizes
from lamina.published.config import Config
from lamina.published.experts import key_of, mixture, router, sparse_layers

NORM = {"eps": 1e-5, "eps_key": "norm_eps"}
CONV, FULL, SLIDING = "conv", "full_attention", "sliding_attention"


def _convolution(c: Config, kernel: int) -> ShortConvolution:
    return ShortConvolution(kernel=c.count("conv_L_cache", kernel, most=1 << 16), bias=c.bool("conv_bias", False))


def _tied(c: Config) -> bool:
    tied = c.bool("tie_embedding", c.bool("tie_word_embeddings", True))
    c.only("tie_word_embeddings", tied)
    return tied


def _kinds(c: Config, s: Sizes) -> list[str]:
    """Every layer is attention unless `full_attn_idxs` or `layer_types` says otherwise."""
    attended = c.list("full_attn_idxs", list(range(s.layers)))
    return c.layer_types(s.layers, [FULL if i in attended else CONV for i in range(s.layers)], (CONV, FULL))


def _read2(c: Config, family: str, s: Sizes, feed_forwards: list[Op]) -> Architecture:
    """The norm stays in front of what it feeds; the last norm is called that of the embedding."""
    norm, kinds = RMSNorm(eps=s.eps), _kinds(c, s)
    c.only("hidden_act", "silu")
    mixers: dict[str, Op] = {
        CONV: _convolution(c, 3),
        FULL: s.attention(rotary=s.rotary(c, 1_000_000.0), qk_norm=QKNorm(norm=norm)),
    }
    both = list(zip(kinds, feed_forwards, strict=True))
    made = {pair: pre_norm(mixers[pair[0]], pair[1], norm) for pair in set(both)}
    return decoder(c, family, s, [made[pair] for pair in both], norm, tied=_tied(c))


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


def read_lfm2(c: Config) -> Architecture:
    """The inner width is 2/3 of the stated one, rounded up, where the config asks for that."""
    inner = c.count(key_of(c, "block_ff_dim", "intermediate_size"), 12288)
    s = sizes(c, **NORM, kv_heads=8, default_context=128_000, inner=inner)
    _published_names(c, s)
    multiple, factor = c.count("block_multiple_of", 256), c.float("block_ffn_dim_multiplier", 1.0)
    if c.bool("block_auto_adjust_ff_dim", True):
        inner = -(-int(factor * int(2 * inner / 3)) // multiple) * multiple
    s = dataclasses.replace(s, inner=inner)
    return _read2(c, "lfm2", s, [s.glu()] * s.layers)


def read_lfm2_moe(c: Config) -> Architecture:
    s = sizes(c, **NORM, kv_heads=8, default_context=128_000, inner=7168)
    correction = c.bool("use_expert_bias", True)
    routed = mixture(c, s, router(c, experts=32, active=4, score="sigmoid", correction=correction), inner=1792)
    return _read2(c, "lfm2_moe", s, [routed if sparse else s.glu() for sparse in sparse_layers(c, s.layers, dense=2)])


def read_lfm3(c: Config) -> Architecture:
    """Norms before and after each branch, a gate on each head, and windows on some of the attention."""
    s = sizes(c, **NORM, kv_heads=4, head_dim=128, default_context=128_000, inner=7680)
    norm, bias = RMSNorm(eps=s.eps), c.bool("attention_bias", False)
    after = norm if c.bool("use_sandwich_norm", True) else None
    c.only("hidden_act", "silu")
    shared: dict[str, Any] = {"bias": bias, "output_bias": bias, "qk_norm": QKNorm(norm=norm)}
    shared["gate"] = "head" if c.bool("use_attention_gate", True) else None
    values = rope.by_layer_type(c) or {
        SLIDING: {"rope_theta": 10_000.0},
        FULL: {"rope_type": "proportional", "rope_theta": 1_000_000.0, "partial_rotary_factor": 0.5},
    }
    usual = [FULL if i % 4 == 2 else SLIDING if i % 4 == 0 and i else CONV for i in range(s.layers)]
    kinds, window = c.layer_types(s.layers, usual, (CONV, FULL, SLIDING)), c.count("sliding_window", 256)
    mixers: dict[str, Op] = {CONV: _convolution(c, 7)}
    for kind, seen in ((FULL, None), (SLIDING, window)):
        if kind in kinds and kind not in values:
            raise LaminaError(f"{c.where}: rope_parameters says nothing of {kind}, which layer_types has")
        if kind in values:
            rotary = rope.rotary(c, {"rope_theta": 1_000_000.0} | values[kind], s.head_dim, s.context)
            mixers[kind] = s.attention(rotary=rotary, window=seen, **shared)
    made = {
        kind: Block(branches=(Branch(op=op, before=norm, after=after), Branch(op=s.glu(), before=norm, after=after)))
        for kind, op in mixers.items()
    }
    return decoder(c, "lfm3", s, [made[kind] for kind in kinds], norm, tied=_tied(c))


FAMILIES = (
    Family("lfm2", ("lfm2",), read_lfm2),
    Family("lfm2_moe", ("lfm2_moe",), read_lfm2_moe),
    Family("lfm3", ("lfm3",), read_lfm3),
)
