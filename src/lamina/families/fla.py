"""DeltaNet and Gated DeltaNet in the layout of flash-linear-attention.

Source: its configurations and layers (delta_net, gated_deltanet); arXiv 2406.06484, 2412.06464.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from lamina.arch import Architecture, DeltaNet, GatedDeltaNet, RMSNorm
from lamina.errors import LaminaError
from lamina.published import fla
from lamina.published.common import Family, Sizes
from lamina.published.config import Config
from lamina.published.delta_net import separate

GATES: dict[str, Literal["silu", "sigmoid"]] = {"swish": "silu", "silu": "silu", "sigmoid": "sigmoid"}
FEATURES: dict[str, Literal["silu", "relu", "elu"] | None] = {
    "silu": "silu",
    "relu": "relu",
    "elu": "elu",
    "identity": None,
}
UNITS: dict[str, Literal["length", "sum"]] = {"l2": "length", "sum": "sum"}


def _expanded(c: Config, key: str, s: Sizes) -> int:
    """The size of a head, of all of which together the width is so many times as large."""
    whole = s.width * c.float(key, 1.0)
    if not math.isclose(whole, round(whole)) or round(whole) < s.heads or round(whole) % s.heads:
        raise LaminaError(f"{c.where}: {key} makes {whole:g} of hidden_size, which {s.heads} heads do not divide")
    return round(whole) // s.heads


def read_plain(c: Config) -> Architecture:
    s = fla.sizes(c, heads=16, layers=24)
    c.ignore("its output is always normalised, as in the reference", "use_output_norm")
    c.only("share_conv_kernel", False)
    net = DeltaNet(
        heads=s.heads,
        key_dim=_expanded(c, "expand_k", s),
        value_dim=_expanded(c, "expand_v", s),
        convolution=c.count("conv_size", 4, most=1 << 16) if c.bool("use_short_conv", True) else None,
        activation=FEATURES[c.choice("qk_activation", FEATURES, "silu")],
        unit=UNITS[c.choice("qk_norm", UNITS, "l2")],
        learned_step=c.bool("use_beta", True),
        norm=RMSNorm(eps=s.eps),
        gate="silu" if c.bool("use_gate", False) else None,
        negative_eigenvalues=c.bool("allow_neg_eigval", False),
    )
    c.ignore("there is no short convolution", "conv_size")
    return fla.read(c, "delta_net", s, net)


def read_gated(c: Config) -> Architecture:
    s = fla.sizes(c, heads=6, layers=21)
    dim, gate = c.count("head_dim", 256, most=1 << 16), GATES[c.choice("output_gate_activation", GATES, "swish")]
    c.only("use_short_conv", True)
    net = GatedDeltaNet(
        key_heads=s.heads,
        value_heads=c.count("num_v_heads", s.heads, most=1 << 16),
        key_dim=dim,
        value_dim=max(1, int(dim * c.float("expand_v", 2.0))),
        convolution=c.count("conv_size", 4, most=1 << 16),
        norm=RMSNorm(eps=s.eps),
        gate=gate if c.bool("use_gate", True) else None,
        negative_eigenvalues=c.bool("allow_neg_eigval", False),
    )
    return fla.read(c, "gated_deltanet", s, net)


def write_plain(arch: Architecture) -> dict[str, Any]:
    net = next(op for op in arch.ops() if isinstance(op, DeltaNet))
    return {
        "model_type": "delta_net",
        **fla.keys(arch, "DeltaNetForCausalLM"),
        "num_heads": net.heads,
        "expand_k": net.heads * net.key_dim / arch.width,
        "expand_v": net.heads * net.value_dim / arch.width,
        "use_short_conv": net.convolution is not None,
        "conv_size": net.convolution or 4,
        "qk_activation": net.activation or "identity",
        "qk_norm": {ours: theirs for theirs, ours in UNITS.items()}[net.unit],
        "use_beta": net.learned_step,
        "use_gate": net.gate is not None,
        "allow_neg_eigval": net.negative_eigenvalues,
    }


def write_gated(arch: Architecture) -> dict[str, Any]:
    net = next(op for op in arch.ops() if isinstance(op, GatedDeltaNet))
    share = net.value_dim / net.key_dim
    return {
        "model_type": "gated_deltanet",
        **fla.keys(arch, "GatedDeltaNetForCausalLM"),
        "num_heads": net.key_heads,
        "num_v_heads": net.value_heads,
        "head_dim": net.key_dim,
        "expand_v": share if int(net.key_dim * share) == net.value_dim else math.nextafter(share, math.inf),
        "conv_size": net.convolution,
        "use_gate": net.gate is not None,
        "output_gate_activation": {"silu": "swish", "sigmoid": "sigmoid", None: "swish"}[net.gate],
        "allow_neg_eigval": net.negative_eigenvalues,
    }


LAYOUT = fla.layout(separate("attn."))
FAMILIES = (
    Family("delta_net", ("delta_net",), read_plain, write_plain, LAYOUT),
    Family("gated_deltanet", ("gated_deltanet",), read_gated, write_gated, LAYOUT),
)
