"""Zamba: Mamba blocks, some of which read one shared transformer beside the stream.

Source: arXiv 2405.16712; the reference.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, Mamba, RMSNorm, SharedTransformer
from lamina.published import zamba
from lamina.published.common import Family, decoder, published, sizes
from lamina.published.config import Config
from lamina.published.recurrent import HYBRID_KEYS, kinds, mamba
from lamina.published.rules import Layout, Rule, named


def _usual(c: Config, layers: int) -> list[str]:
    """The kinds of layers where they are not listed: after the first three, one hybrid in each period."""
    period, offset = c.count("attn_layer_period", 6), c.count("attn_layer_offset", 4, least=0)
    later = [zamba.HYBRID if i % period == offset else zamba.MAMBA for i in range(layers - 3)]
    return [zamba.MAMBA, zamba.MAMBA, zamba.HYBRID, *later]


def read(c: Config) -> Architecture:
    """Scores are smaller than a head's size would make them by the square root of two, as in the reference."""
    width, heads = c.count("hidden_size"), c.count("num_attention_heads", most=1 << 16)
    size = c.count("attention_head_dim", max(1, 2 * width // heads), most=1 << 16)
    usual: dict[str, int] = {"head_dim": size, "kv_heads": 16, "inner": 14848, "layers": 76, "vocab": 32000}
    s = sizes(c, 1e-5, "hidden_act", "gelu", "rms_norm_eps", default_context=4096, **usual)
    c.only("tie_word_embeddings", True)  # where it is false, the reference shares no transformer either
    c.only("attention_hidden_size", 2 * width)
    c.only("hidden_mamba_act", "silu")
    c.ignore("initialisation", "time_step_min")
    found = kinds(c, "layers_block_type", c.list("layers_block_type", _usual(c, s.layers)), s.layers, zamba.KINDS)
    mixer = mamba(c, width, HYBRID_KEYS).replace(heads=c.count("n_mamba_heads", 2, most=1 << 16), interleaved=True)
    norm = RMSNorm(eps=s.eps)
    shared = SharedTransformer(attention=s.attention(scale=(s.head_dim / 2) ** -0.5), feed_forward=s.glu(), norm=norm)
    return decoder(c, "zamba", s, zamba.arranged(found, mixer, shared, norm, 1), norm, tied=True)


def write(arch: Architecture) -> dict[str, Any]:
    mixer = next(op for op in arch.ops() if isinstance(op, Mamba))
    aside = next(iter(zamba.asides(arch).values()))
    return {
        "model_type": "zamba",
        **zamba.attention_keys(arch, "ZambaForCausalLM"),
        "hidden_act": published(aside.feed_forward.activation),
        "attention_head_dim": aside.attention.head_dim,
        "attention_hidden_size": 2 * arch.width,
        "n_mamba_heads": mixer.heads,
        "mamba_expand": mixer.inner // arch.width,
        "mamba_d_state": mixer.state,
        "mamba_d_conv": mixer.convolution,
        "mamba_dt_rank": mixer.rank,
        "mamba_conv_bias": mixer.convolution_bias,
        "mamba_proj_bias": mixer.bias,
    }


def layout(arch: Architecture) -> Layout:
    """What heads have of their own is published as a matrix or vector for each."""
    heads = next(op for op in arch.ops() if isinstance(op, Mamba)).heads
    folded = "x_proj_weight:x_proj.weight dt_proj_weight:step_proj.weight dt_proj_bias:step_proj.bias"
    pairs = (pair.split(":") for pair in f"{folded} A_log:decay_log_rate D:skip".split())
    mixer = (
        *named("", "", "in_proj conv1d:convolution out_proj:o_proj"),
        *(Rule(theirs, ours, folded=heads) for theirs, ours in pairs),
    )
    return zamba.layout(arch, mixer, "shared_transf", named("", "", "gate_proj up_proj down_proj"))


FAMILIES = (Family("zamba", ("zamba",), read, write, layout),)
