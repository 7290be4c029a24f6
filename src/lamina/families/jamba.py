"""Jamba: one block in eight is attention without positions, the others Mamba; every second one has experts.

Source: arXiv 2403.19887.
"""

from __future__ import annotations

from lamina.arch import Architecture, MoE, RMSNorm
from lamina.arch.base import Op
from lamina.errors import LaminaError
from lamina.published.common import Family, decoder, pre_norm, sizes
from lamina.published.config import Config
from lamina.published.experts import router
from lamina.published.recurrent import HYBRID_KEYS, mamba


def _every(c: Config, name: str, period: int, offset: int, layers: int) -> list[bool]:
    """Which layers are of a kind: one in each `period`, the one at `offset`."""
    period, offset = c.count(f"{name}_layer_period", period), c.count(f"{name}_layer_offset", offset, least=0)
    if offset >= period:
        raise LaminaError(f"{c.where}: {name}_layer_offset ({offset}) must be below {name}_layer_period ({period})")
    return [i % period == offset for i in range(layers)]


def read(c: Config) -> Architecture:
    s = sizes(c, kv_heads=8, default_context=262144)
    norm = RMSNorm(eps=s.eps)
    c.only("hidden_act", "silu")  # the reference takes it for the short convolution too
    c.only("sliding_window", None)
    c.ignore("how the reference runs", "calc_logits_for_entire_prompt")
    chosen = router(c, experts=16, active=2, normalise=False)
    mixers: dict[bool, Op] = {True: s.attention(), False: mamba(c, s.width, HYBRID_KEYS, norm)}
    routed = MoE(router=chosen, expert=s.glu()) if chosen.experts > 1 else s.glu()
    feed_forwards: dict[bool, Op] = {True: routed, False: s.glu()}
    attended, sparse = _every(c, "attn", 8, 4, s.layers), _every(c, "expert", 2, 1, s.layers)
    both = list(zip(attended, sparse, strict=True))
    made = {(a, e): pre_norm(mixers[a], feed_forwards[e], norm) for a, e in set(both)}
    return decoder(c, "jamba", s, [made[pair] for pair in both], norm)


FAMILIES = (Family("jamba", ("jamba",), read),)
