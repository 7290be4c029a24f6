"""RecurrentGemma (Griffin): two blocks of a gated linear recurrence for one of local attention.

Source: arXiv 2404.07839, 2402.19427.
"""

from __future__ import annotations

import math
from typing import Any

from lamina.arch import GLU, RGLRU, Architecture, Attention, RMSNorm
from lamina.arch.base import Op
from lamina.published import rope
from lamina.published.common import Family, common_keys, decoder, pre_norm, rope_keys, sizes
from lamina.published.config import Config
from lamina.published.experts import respelt
from lamina.published.rules import Layout, Rule, decoder_rules, named

KINDS = ("recurrent", "attention")


def bfloat16(x: float) -> float:
    """The nearest number with eight significant bits: the embedding scale is rounded so whatever the precision."""
    mantissa, exponent = math.frexp(x)
    return math.ldexp(round(mantissa * 256) / 256, exponent)


def read(c: Config) -> Architecture:
    s = sizes(c, 1e-6, "hidden_activation", "gelu_pytorch_tanh", default_context=8192, vocab=256000)
    c.ignore("hidden_activation is what counts", "hidden_act")
    c.ignore("training", "w_init_variance_scale", "final_w_init_variance_scale")
    c.only("embeddings_scale_by_sqrt_dim", True)
    respelt(c, "block_types", "_block_types")
    values = rope.parameters(c, 10000.0)
    values.setdefault("partial_rotary_factor", 0.5)
    rotary, window = rope.rotary(c, values, s.head_dim, None), c.count("attention_window_size", 2048)
    glu = s.glu(bias=True).replace(inner=max(1, s.inner // 2))  # the key says the width of gate and up together
    inner, kernel = c.count("lru_width", s.width), c.count("conv1d_width", 4, most=1 << 10)
    attention = s.attention(rotary=rotary, window=window, bias=c.bool("attention_bias", False), output_bias=True)
    recurrence = RGLRU(inner=inner, heads=s.heads, convolution=kernel, activation=glu.activation)
    mixers: dict[str, Op] = {"attention": attention, "recurrent": recurrence}
    norm, period = RMSNorm(eps=s.eps, offset=1.0), c.list("block_types", ["recurrent", "recurrent", "attention"])
    c.data = c.data | {"layer_types": (period * s.layers)[: s.layers]}
    made = {kind: pre_norm(mixer, glu, norm) for kind, mixer in mixers.items()}
    blocks = [made[kind] for kind in c.layer_types(s.layers, [], KINDS)]
    softcap, scale = c.float("logits_soft_cap", 30.0), bfloat16(math.sqrt(s.width))
    return decoder(c, "recurrent_gemma", s, blocks, norm, tied=True, embedding_scale=scale, softcap=softcap)


def _recurrent(arch: Architecture) -> list[bool]:
    return [any(isinstance(op, RGLRU) for op in block.ops()) for block in arch.blocks]


def write(arch: Architecture) -> dict[str, Any]:
    recurrence = next(op for op in arch.ops() if isinstance(op, RGLRU))
    glu = next(op for op in arch.ops() if isinstance(op, GLU))
    plain = Attention(heads=recurrence.heads, kv_heads=1, head_dim=arch.width // recurrence.heads)
    attention = next((op for op in arch.ops() if isinstance(op, Attention)), plain)
    return {
        "model_type": "recurrent_gemma",
        **common_keys(arch, "RecurrentGemmaForCausalLM", "hidden_activation", glu, attention),
        **rope_keys(arch),
        "intermediate_size": 2 * glu.inner,
        "attention_window_size": attention.window or 2048,
        "attention_bias": attention.bias,
        "lru_width": recurrence.inner,
        "conv1d_width": recurrence.convolution,
        "block_types": ["recurrent" if is_so else "attention" for is_so in _recurrent(arch)],
        "logits_soft_cap": arch.head.softcap,
    }


RECURRENCE = (
    *named("temporal_block.", "mixer.op.", "linear_y:gate_proj linear_x:in_proj linear_out:o_proj conv_1d:convolution"),
    Rule("temporal_block.rg_lru.recurrent_param", "mixer.op.decay_rate"),
    *(
        Rule(f"temporal_block.rg_lru.{theirs}_gate_{leaf}", f"mixer.op.{ours}_gate.{leaf}", transpose=leaf == "weight")
        for theirs, ours in (("input", "input"), ("recurrent", "decay"))
        for leaf in ("weight", "bias")
    ),
)
LOCAL = named("temporal_block.", "mixer.op.", "q_proj k_proj v_proj o_proj")
BLOCK = (
    *named("mlp_block.", "feed_forward.op.", "gate_proj up_proj down_proj"),
    *named("", "", "temporal_pre_norm:mixer.before channel_pre_norm:feed_forward.before"),
)


def layout(arch: Architecture) -> Layout:
    kinds = _recurrent(arch)
    own = (
        rule.limited(i for i, kind in enumerate(kinds) if kind == recurrent)
        for rules, recurrent in ((RECURRENCE, True), (LOCAL, False))
        for rule in rules
    )
    return Layout((Rule("model.final_norm", "norm"), *decoder_rules((*own, *BLOCK))))


FAMILIES = (Family("recurrent_gemma", ("recurrent_gemma",), read, write, layout),)
