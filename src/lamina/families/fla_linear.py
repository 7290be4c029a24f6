"""Linear attention, RetNet and GLA in the layout of flash-linear-attention.

Source: its configurations and layers (linear_attn, multiscale_retention, gla); arXiv 2006.16236, 2307.08621 and
2312.06635. Features with weights of their own (`elementwise_product`, `hedgehog`, ...), short convolutions and key
heads that are shared are refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from lamina.arch import Architecture, GatedLinearAttention, LinearAttention, Retention, RMSNorm, Rotary
from lamina.errors import LaminaError
from lamina.published import fla
from lamina.published.common import Family, Sizes
from lamina.published.config import Config, shown
from lamina.published.rules import Layout, Rule, named

FEATURES = ("elu", "relu", "identity")


def _heads(c: Config, s: Sizes, keys: float, values: float) -> dict[str, Any]:
    """Sizes of heads; the arguments are how many times the width they are together where no key says so."""
    c.only("num_kv_heads", s.heads)
    found: dict[str, Any] = {"heads": s.heads, "norm": RMSNorm(eps=s.eps)}
    for name, key, usual in (("key_dim", "expand_k", keys), ("value_dim", "expand_v", values)):
        whole = s.width * c.float(key, usual)
        if not math.isclose(whole, round(whole)) or round(whole) < s.heads or round(whole) % s.heads:
            raise LaminaError(f"{c.where}: {key} makes {whole:g} of hidden_size, which {s.heads} heads do not divide")
        found[name] = round(whole) // s.heads
    return found


def read_linear(c: Config) -> Architecture:
    s, features = fla.sizes(c, heads=4, layers=24), c.str("feature_map", "elementwise_product")
    if features not in FEATURES:
        raise LaminaError(f"{c.where}: feature_map is {shown(features)}; known: {', '.join(map(repr, FEATURES))}")
    c.only("norm_q", False)
    c.only("norm_k", False)
    c.ignore("these features have no weights", "tie_feature_map_qk")
    sizes, divided = _heads(c, s, 1.0, 1.0), c.bool("norm_feature_map", False)
    op = LinearAttention(**sizes, features=features, normalise=divided, eps=1e-10)  # type: ignore[arg-type]
    return fla.read(c, "linear_attn", s, op)


def read_retnet(c: Config) -> Architecture:
    c.data = {"hidden_ratio": 2} | c.data
    s = fla.sizes(c, heads=8, layers=24)
    c.only("feature_map", None)
    c.ignore("not read by the reference", "use_short_conv", "conv_size")
    sizes, gate = _heads(c, s, 1.0, 2.0), "silu" if c.bool("use_output_gate", True) else None
    return fla.read(c, "retnet", s, Retention(**sizes, rotary=Rotary(dim=sizes["key_dim"]), gate=gate))


def read_gla(c: Config) -> Architecture:
    s = fla.sizes(c, heads=4, layers=24)
    for key, value in {"feature_map": None, "use_short_conv": False, "clamp_min": None}.items():
        c.only(key, value)
    c.ignore("not read by the reference, or of a convolution that there is not", "use_gk", "use_gv", "conv_size")
    sizes, gate = _heads(c, s, 0.5, 1.0), "silu" if c.bool("use_output_gate", True) else None
    return fla.read(c, "gla", s, GatedLinearAttention(**sizes, gate=gate))


Kind = LinearAttention | Retention | GatedLinearAttention


def _op(arch: Architecture) -> Any:
    return next(op for op in arch.ops() if isinstance(op, Kind))


def _keys(arch: Architecture, kind: str, name: str) -> dict[str, Any]:
    op = _op(arch)
    return {
        "model_type": kind,
        **fla.keys(arch, f"{name}ForCausalLM"),
        "num_heads": op.heads,
        "expand_k": op.heads * op.key_dim / arch.width,
        "expand_v": op.heads * op.value_dim / arch.width,
    }


def write_linear(arch: Architecture) -> dict[str, Any]:
    said = {"feature_map": _op(arch).features, "norm_feature_map": _op(arch).normalise}
    return _keys(arch, "linear_attn", "LinearAttention") | said


def write_retnet(arch: Architecture) -> dict[str, Any]:
    return _keys(arch, "retnet", "RetNet") | {"use_output_gate": _op(arch).gate is not None}


def write_gla(arch: Architecture) -> dict[str, Any]:
    return _keys(arch, "gla", "GLA") | {"use_output_gate": _op(arch).gate is not None}


PROJECTIONS = named("attn.", "mixer.op.", "q_proj k_proj v_proj o_proj g_proj:gate_proj")
DECAY = named("attn.", "mixer.op.", "gk_proj.0:decay_a_proj gk_proj.1:decay_b_proj")
PLAIN, JOINED = Rule("attn.g_norm", "mixer.op.norm"), Rule("attn.g_norm_swish_gate", "mixer.op.norm")


def _gated(*rules: Rule) -> Callable[[Architecture], Layout]:
    """The norm is called after the gate where both are computed at once, as they usually are."""

    def made(arch: Architecture) -> Layout:
        plain, joined = (fla.layout((*PROJECTIONS, *rules, norm))(arch) for norm in (PLAIN, JOINED))
        first, second = (joined, plain) if _op(arch).gate else (plain, joined)
        return Layout(first.rules, others=(*first.others, second.rules, *second.others))

    return made


LINEAR = fla.layout((*PROJECTIONS, Rule("attn.norm", "mixer.op.norm")))
FAMILIES = (
    Family("linear_attn", ("linear_attn",), read_linear, write_linear, LINEAR),
    Family("retnet", ("retnet",), read_retnet, write_retnet, _gated()),
    Family("gla", ("gla",), read_gla, write_gla, _gated(*DECAY)),
)
