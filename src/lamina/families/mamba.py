"""Mamba-2: blocks of one recurrent branch, without attention or feed-forward. Source: arXiv 2405.21060."""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, Mamba2, RMSNorm
from lamina.errors import LaminaError
from lamina.published.common import Family
from lamina.published.config import Config
from lamina.published.recurrent import (
    backbone,
    backbone_keys,
    backbone_layout,
    ignore_running,
    limits_written,
    mamba2_rules,
    step_limits,
)


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
    return backbone(c, "mamba2", op, 32768, 64, tied=False)


def write_mamba2(arch: Architecture) -> dict[str, Any]:
    op = next(op for op in arch.ops() if isinstance(op, Mamba2))
    return {
        "model_type": "mamba2",
        "architectures": ["Mamba2ForCausalLM"],
        **backbone_keys(arch, op),
        "num_heads": op.heads,
        "head_dim": op.head_dim,
        "n_groups": op.groups,
        "time_step_limit": limits_written(op),
    }


FAMILIES = (Family("mamba2", ("mamba2",), read_mamba2, write_mamba2, backbone_layout(mamba2_rules("", ""))),)
