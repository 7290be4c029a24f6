"""EXAONE 4: norms after each sublayer, norm of queries and keys, and no positions where a layer sees everything.

Three layers of four have a window and rotary positions; without windows every layer is rotated.
Source: arXiv 2507.11407.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, Block, Branch, QKNorm, RMSNorm
from lamina.errors import LaminaError
from lamina.published.common import Family, attention_of, common_keys, decoder, rope_keys, sizes, windows
from lamina.published.config import Config, shown
from lamina.published.rope import LAYER_TYPES
from lamina.published.rules import AFTER_NORMS, ATTENTION, GLU, QK_NORMS, Layout, decoder_rules


def _layer_kinds(c: Config, layers: int, window: int | None) -> list[str]:
    """A pattern is a period, whose last layer sees everything, or letters: L for a window, G for none."""
    key = "sliding_window_pattern"
    spelt = isinstance(c.data.get(key), str)
    letters = c.str(key) if spelt else "L" * (c.count(key, 4, most=1 << 12, least=0) - 1) + "G"
    if not letters or set(letters) - {"L", "G"}:
        raise LaminaError(f"{c.where}: {key} is {shown(letters)}; a period or letters L and G are expected")
    local = [letters[i % len(letters)] == "L" and not (spelt and i == layers - 1) for i in range(layers)]
    usual = ["sliding_attention" if here and window else "full_attention" for here in local]
    kinds = c.layer_types(layers, usual, LAYER_TYPES)
    if "sliding_attention" in kinds and not window:
        raise LaminaError(f"{c.where}: layer_types has sliding layers, so sliding_window is needed")
    return kinds


def read(c: Config) -> Architecture:
    s = sizes(c, eps=1e-5, kv_heads=32)
    rotary, norm = s.rotary(c), RMSNorm(eps=s.eps)
    window = c.count("sliding_window", None) if "sliding_window" in c.data else 4096
    made = {}
    for kind in LAYER_TYPES:
        local = kind == "sliding_attention"
        attention = s.attention(
            rotary=rotary if local or not window else None,
            qk_norm=QKNorm(norm=norm),
            window=window if local else None,
        )
        made[kind] = Block(branches=(Branch(op=attention, after=norm), Branch(op=s.glu(), after=norm)))
    blocks = [made[kind] for kind in _layer_kinds(c, s.layers, window)]
    return decoder(c, "exaone4", s, blocks, norm)


def write(arch: Architecture) -> dict[str, Any]:
    window, kinds = windows(arch)
    return {
        "model_type": "exaone4",
        **common_keys(arch, "Exaone4ForCausalLM"),
        **rope_keys(arch),
        "sliding_window": window or (None if attention_of(arch).rotary else 4096),
        "layer_types": kinds,
    }


LAYOUT = Layout(decoder_rules(ATTENTION + GLU + AFTER_NORMS + QK_NORMS))
FAMILIES = (Family("exaone4", ("exaone4",), read, write, LAYOUT),)
