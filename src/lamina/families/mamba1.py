"""Mamba and Falcon-Mamba: blocks of one recurrent branch, without attention or feed-forward.

Source: arXiv 2312.00752, 2410.05355 (Falcon-Mamba: norms without weights on step, B and C).
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, Mamba, RMSNorm
from lamina.published.common import Family
from lamina.published.config import Config
from lamina.published.recurrent import backbone, backbone_keys, backbone_layout, mamba, mamba_rules


def _read_mamba(c: Config, family: str, norms: RMSNorm | None) -> Architecture:
    width = c.count("hidden_size", 768)
    op = mamba(c, width, norms=norms)
    op = op.replace(inner=c.count("intermediate_size", op.inner))  # Falcon-Mamba's says another expand, which is unused
    c.only("d_inner", op.inner)  # older names, in configs that were converted
    c.only("d_model", width)
    c.only("n_layer", c.data.get("num_hidden_layers", 32))
    c.only("rms_norm", True)
    c.only("ssm_cfg", ({},))
    c.ignore("how the reference runs", "fused_add_norm")
    return backbone(c, family, op, 50280, 32, tied=True)


def read_mamba(c: Config) -> Architecture:
    return _read_mamba(c, "mamba", None)


def read_falcon(c: Config) -> Architecture:
    norms = RMSNorm(eps=c.float("mixer_rms_eps", 1e-6), weight=False)
    return _read_mamba(c, "falcon_mamba", norms)


def _keys(arch: Architecture, name: str, op: Mamba) -> dict[str, Any]:
    own = {"model_type": name, "time_step_rank": op.rank, "intermediate_size": op.inner}
    return backbone_keys(arch, op) | own


def write_mamba(arch: Architecture) -> dict[str, Any]:
    op = next(op for op in arch.ops() if isinstance(op, Mamba))
    return _keys(arch, "mamba", op) | {"architectures": ["MambaForCausalLM"]}


def write_falcon(arch: Architecture) -> dict[str, Any]:
    op = next(op for op in arch.ops() if isinstance(op, Mamba))
    assert op.norms
    own = {"architectures": ["FalconMambaForCausalLM"], "mixer_rms_eps": op.norms.eps}
    return _keys(arch, "falcon_mamba", op) | own


LAYOUT = backbone_layout(mamba_rules("", ""))
FAMILIES = (
    Family("mamba", ("mamba",), read_mamba, write_mamba, LAYOUT),
    Family("falcon_mamba", ("falcon_mamba",), read_falcon, write_falcon, LAYOUT),
)
