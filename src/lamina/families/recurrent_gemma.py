"""RecurrentGemma (Griffin): two blocks of a gated linear recurrence for one of local attention.

Source: arXiv 2404.07839, 2402.19427.
"""

from __future__ import annotations

import math

from lamina.arch import RGLRU, Architecture, RMSNorm
from lamina.arch.base import Op
from lamina.published import rope
from lamina.published.common import Family, decoder, pre_norm, sizes
from lamina.published.config import Config

KINDS = ("recurrent", "attention")


def bfloat16(x: float) -> float:
    """The nearest number with eight significant bits: the embedding scale is rounded so whatever the precision."""
    mantissa, exponent = math.frexp(x)
    return math.ldexp(round(mantissa * 256) / 256, exponent)


def read(c: Config) -> Architecture:
    s = sizes(c, 1e-6, "hidden_activation", "gelu_pytorch_tanh", default_context=8192, vocab=256000)
    c.ignore("hidden_activation is what counts", "hidden_act")
    c.ignore("training", "w_init_variance_scale", "final_w_init_variance_scale")
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


FAMILIES = (Family("recurrent_gemma", ("recurrent_gemma",), read),)
