"""LFM3: gated short convolutions, attention with a gate on each head, windows on some of it, norms on both sides.

Source: the published config of LFM3-1.7B.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, Attention, Block, Branch, QKNorm, RMSNorm
from lamina.arch.base import Op
from lamina.errors import LaminaError
from lamina.published import liquid, rope
from lamina.published.common import Family, Sizes, decoder, sizes
from lamina.published.config import Config
from lamina.published.liquid import CONV, FULL, SLIDING
from lamina.published.rules import ATTENTION, QK_NORMS, Layout, Rule

ROTARY = {
    SLIDING: {"rope_theta": 10_000.0},
    FULL: {"rope_type": "proportional", "rope_theta": 1_000_000.0, "partial_rotary_factor": 0.5},
}
"""The rotary embedding of each kind of attention in a config that says nothing of it."""


def _attentions(c: Config, s: Sizes, kinds: list[str]) -> dict[str, Op]:
    """That of each kind there is.

    Raises: LaminaError for a kind of which rope_parameters says nothing
    """
    bias, window = c.bool("attention_bias", False), c.count("sliding_window", 256)
    gate = "head" if c.bool("use_attention_gate", True) else None
    usual = s.attention(bias=bias, output_bias=bias, qk_norm=QKNorm(norm=RMSNorm(eps=s.eps)), gate=gate)
    values, made = rope.by_layer_type(c) or ROTARY, {}
    for kind, seen in ((FULL, None), (SLIDING, window)):
        if kind in kinds and kind not in values:
            raise LaminaError(f"{c.where}: rope_parameters says nothing of {kind}, which layer_types has")
        if kind in values:
            rotary = rope.rotary(c, {"rope_theta": 1_000_000.0} | values[kind], s.head_dim, s.context)
            made[kind] = usual.replace(rotary=rotary, window=seen)
    return made


def read(c: Config) -> Architecture:
    s = sizes(c, **liquid.NORM, kv_heads=4, head_dim=128, default_context=128_000, inner=7680)
    norm = RMSNorm(eps=s.eps)
    after = norm if c.bool("use_sandwich_norm", True) else None
    c.only("hidden_act", "silu")
    usual = [FULL if i % 4 == 2 else SLIDING if i % 4 == 0 and i else CONV for i in range(s.layers)]
    kinds = c.layer_types(s.layers, usual, (CONV, FULL, SLIDING))
    mixers = {CONV: liquid.convolution(c, 7)} | _attentions(c, s, kinds)
    made = {
        kind: Block(branches=(Branch(op=op, before=norm, after=after), Branch(op=s.glu(), before=norm, after=after)))
        for kind, op in mixers.items()
    }
    return decoder(c, "lfm3", s, [made[kind] for kind in kinds], norm, tied=liquid.tied(c))


def write(arch: Architecture) -> dict[str, Any]:
    found = {SLIDING if op.window else FULL: op for op in arch.ops() if isinstance(op, Attention)}
    said = liquid.keys(arch, "Lfm3ForCausalLM")
    said |= {"rope_parameters": {kind: rope.written(op.rotary, op.head_dim) for kind, op in found.items() if op.rotary}}
    for op in found.values():
        said |= {"attention_bias": op.bias, "use_attention_gate": op.gate is not None}
        said |= {"sliding_window": op.window} if op.window else {}
    return {"model_type": "lfm3", "use_sandwich_norm": arch.blocks[0].branches[0].after is not None, **said}


OWN = (
    *(*ATTENTION, *QK_NORMS),
    Rule("self_attn.gate_proj", "mixer.op.gate_proj"),
    Rule("post_operator_norm", "mixer.after"),
    Rule("post_ffn_norm", "feed_forward.after"),
)


def layout(arch: Architecture) -> Layout:
    return liquid.layout(arch, OWN)


FAMILIES = (Family("lfm3", ("lfm3",), read, write, layout),)
