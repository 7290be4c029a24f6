"""Jamba: one block in eight is attention without positions, the others Mamba; every second one has experts.

Source: arXiv 2403.19887.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import GLU, Architecture, Attention, Mamba, MoE, RMSNorm
from lamina.arch.base import Op
from lamina.errors import LaminaError
from lamina.published.common import Family, common_keys, decoder, pre_norm, sizes
from lamina.published.config import Config
from lamina.published.experts import router, sparse_blocks
from lamina.published.recurrent import HYBRID_KEYS, mamba, mamba_rules
from lamina.published.rules import ATTENTION, Layout, Rule, decoder_rules, named


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
    if c.data.get("num_experts") == 1:
        c.ignore("there is one expert, which is not chosen", "num_experts_per_tok")
        c.data = c.data | {"num_experts_per_tok": 1}
    chosen = router(c, experts=16, active=2, normalise=False)
    mixers: dict[bool, Op] = {True: s.attention(), False: mamba(c, s.width, HYBRID_KEYS, norm)}
    routed = MoE(router=chosen, expert=s.glu()) if chosen.experts > 1 else s.glu()
    feed_forwards: dict[bool, Op] = {True: routed, False: s.glu()}
    attended, sparse = _every(c, "attn", 8, 4, s.layers), _every(c, "expert", 2, 1, s.layers)
    both = list(zip(attended, sparse, strict=True))
    made = {(a, e): pre_norm(mixers[a], feed_forwards[e], norm) for a, e in set(both)}
    return decoder(c, "jamba", s, [made[pair] for pair in both], norm)


def _said(name: str, kinds: list[bool]) -> dict[str, int]:
    """The period and offset of the layers of a kind. Raises: LaminaError if there are none that say it."""
    layers = len(kinds)
    where = [i for i, has in enumerate(kinds) if has] or [layers]
    offset = where[0]
    period = where[1] - offset if where[1:] else max(layers, offset + 1)
    if offset >= period or kinds != [i % period == offset for i in range(layers)]:
        raise LaminaError(f"jamba has {name} layers at one place of each period; {where} of {layers} are not so")
    return {f"{name}_layer_period": period, f"{name}_layer_offset": offset}


def _attended(arch: Architecture) -> list[bool]:
    return [any(isinstance(op, Attention) for op in block.ops()) for block in arch.blocks]


def write(arch: Architecture) -> dict[str, Any]:
    scan = next(op for op in arch.ops() if isinstance(op, Mamba))
    moe = next((op for op in arch.ops() if isinstance(op, MoE)), None)
    glu = moe.expert if moe else next(op for op in arch.ops() if isinstance(op, GLU))
    attention = next((op for op in arch.ops() if isinstance(op, Attention)), None)
    return {
        "model_type": "jamba",
        **common_keys(arch, "JambaForCausalLM", feed_forward=glu, attention=attention),
        "num_experts": moe.router.experts if moe else 1,
        "num_experts_per_tok": moe.router.active if moe else 1,
        **_said("attn", _attended(arch)),
        **_said("expert", sparse_blocks(arch)),
        "mamba_expand": scan.inner // arch.width,
        "mamba_d_state": scan.state,
        "mamba_d_conv": scan.convolution,
        "mamba_dt_rank": scan.rank,
        "mamba_conv_bias": scan.convolution_bias,
        "mamba_proj_bias": scan.bias,
    }


SCAN = (
    *mamba_rules(),
    *named("mamba.", "mixer.op.", "dt_layernorm:step_norm b_layernorm:b_norm c_layernorm:c_norm"),
)
PARTS = ("gate", "up", "down")
BLOCK = (
    *named("feed_forward.", "feed_forward.op.", "gate_proj up_proj down_proj router:router.gate"),
    *(Rule(f"feed_forward.experts.{{e}}.{p}_proj", f"feed_forward.op.experts.{p}_proj") for p in PARTS),
    *named("", "", "input_layernorm:mixer.before pre_ff_layernorm:feed_forward.before"),
)


def layout(arch: Architecture) -> Layout:
    attended = _attended(arch)
    mixers = [(ATTENTION, True), (SCAN, False)]
    own = (r.limited(i for i, a in enumerate(attended) if a == has) for rules, has in mixers for r in rules)
    return Layout((Rule("model.final_layernorm", "norm"), *decoder_rules((*own, *BLOCK))))


FAMILIES = (Family("jamba", ("jamba",), read, write, layout),)
