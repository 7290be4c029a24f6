"""Mixtures with an expert that all tokens share behind a sigmoid, of a width of its own, as Qwen publishes them."""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, MoE, Router
from lamina.published.common import Sizes, pick
from lamina.published.config import Config
from lamina.published.experts import moe_of, router_keys
from lamina.published.rules import EXPERTS, ROUTER, Rule, shared_rules

SHARED = shared_rules("mlp.shared_expert")
GATE = Rule("mlp.shared_expert_gate", "feed_forward.op.shared_gate")
MIXTURE = (*EXPERTS, *ROUTER, *SHARED, GATE)


def experts(c: Config, s: Sizes, chosen: Router) -> MoE:
    """Routed experts and the shared one, of hybrids that do not name the width of either by default."""
    inner, shared = c.count("moe_intermediate_size", 512), c.count("shared_expert_intermediate_size", 512)
    glu = s.glu()
    return MoE(router=chosen, expert=glu.replace(inner=inner), shared=glu.replace(inner=shared), shared_gate=True)


def experts_keys(arch: Architecture, *more: str) -> dict[str, Any]:
    """The inverse; `more` are keys of the router that a family has besides."""
    moe = moe_of(arch)
    assert moe.shared
    return {
        **pick(router_keys(moe.router, "num_experts"), "num_experts", "num_experts_per_tok", *more),
        "moe_intermediate_size": moe.expert.inner,
        "shared_expert_intermediate_size": moe.shared.inner,
    }
