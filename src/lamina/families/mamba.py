"""Mamba, Falcon-Mamba and Mamba-2: blocks of one recurrent branch, without attention or feed-forward.

Source: arXiv 2312.00752, 2410.05355 (Falcon-Mamba: norms without weights on step, B and C), 2405.21060.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, Block, Branch, Embedding, Head, Mamba, Mamba2, RMSNorm
from lamina.errors import LaminaError
from lamina.published.common import Family
from lamina.published.config import Config
from lamina.published.recurrent import ignore_running, mamba, step_limits


def _decoder(c: Config, family: str, op: Mamba | Mamba2, vocab: int, layers: int, tied: bool) -> Architecture:
    norm = RMSNorm(eps=c.float("layer_norm_epsilon", 1e-5))
    block = Block(branches=(Branch(op=op, before=norm),))
    c.only("hidden_act", "silu")
    c.ignore("initialisation", "time_step_min")
    c.ignore("vocab_size counts the padding", "pad_vocab_size_multiple")
    made: dict[str, Any] = {
        "embedding": Embedding(vocab=c.count("vocab_size", vocab), width=c.count("hidden_size")),
        "blocks": (block,) * c.count("num_hidden_layers", layers, most=1 << 12),
        "head": Head(tied=c.bool("tie_word_embeddings", tied)),
        "context": c.count("max_position_embeddings", None),
    }
    c.finish()
    return Architecture(family=family, norm=norm, **made)


def _read_mamba(c: Config, family: str, norms: RMSNorm | None) -> Architecture:
    width = c.count("hidden_size", 768)
    op = mamba(c, width, norms=norms)
    c.only("intermediate_size", op.inner)
    c.only("d_inner", op.inner)  # older names, in configs that were converted
    c.only("d_model", width)
    c.only("n_layer", c.data.get("num_hidden_layers", 32))
    c.only("rms_norm", True)
    c.only("ssm_cfg", ({},))
    c.ignore("how the reference runs", "fused_add_norm")
    return _decoder(c, family, op, 50280, 32, tied=True)


def read_mamba(c: Config) -> Architecture:
    return _read_mamba(c, "mamba", None)


def read_falcon(c: Config) -> Architecture:
    norms = RMSNorm(eps=c.float("mixer_rms_eps", 1e-6), weight=False)
    return _read_mamba(c, "falcon_mamba", norms)


def read_mamba2(c: Config) -> Architecture:
    width, bias = c.count("hidden_size", 4096), c.bool("use_bias", False)
    heads, head_dim = c.count("num_heads", 128, most=1 << 16), c.count("head_dim", 64, most=1 << 16)
    if heads * head_dim != c.count("expand", 2, most=1 << 10) * width:
        raise LaminaError(f"{c.where}: num_heads ({heads}) of head_dim ({head_dim}) must make expand * hidden_size")
    ignore_running(c)
    c.ignore("unused by the reference", "time_step_rank")
    c.only("rms_norm", True)
    c.only("norm_before_gate", False)
    groups = c.count("n_groups", 8, most=1 << 16)
    op = Mamba2(
        heads=heads,
        head_dim=head_dim,
        groups=groups,
        state=c.count("state_size", 128, most=1 << 16),
        convolution=c.count("conv_kernel", 4, most=1 << 16),
        convolution_bias=c.bool("use_conv_bias", True),
        bias=bias,
        output_bias=bias,
        norm=RMSNorm(eps=c.float("layer_norm_epsilon", 1e-5)),
        norm_groups=groups,
        **step_limits(c),
    )
    return _decoder(c, "mamba2", op, 32768, 64, tied=False)


FAMILIES = (
    Family("mamba", ("mamba",), read_mamba),
    Family("falcon_mamba", ("falcon_mamba",), read_falcon),
    Family("mamba2", ("mamba2",), read_mamba2),
)
