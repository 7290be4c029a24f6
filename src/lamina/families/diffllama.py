"""DiffLlama: Llama with differential attention, whose share of the second map begins larger in deeper layers.

Source: arXiv 2410.05258, and the reference.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, DifferentialAttention, RMSNorm
from lamina.errors import LaminaError
from lamina.published import rope
from lamina.published.common import Family, common_keys, decoder, pre_norm, sizes
from lamina.published.config import Config
from lamina.published.rules import ATTENTION, GLU, PRE_NORMS, Layout, Rule, decoder_rules


def read(c: Config) -> Architecture:
    """A config counts the heads of both maps, and values half as large.

    Raises: LaminaError for an odd number of them
    """
    s, bias = sizes(c, eps=1e-5), c.bool("attention_bias", False)
    for key, heads in (("num_attention_heads", s.heads), ("num_key_value_heads", s.kv_heads)):
        if heads % 2:
            raise LaminaError(f"{c.where}: {key} is {heads}; an even number is needed, for each head has two maps")
    attention = DifferentialAttention(
        heads=s.heads // 2,
        kv_heads=s.kv_heads // 2,
        head_dim=s.head_dim,
        rotary=s.rotary(c),
        norm=RMSNorm(eps=s.eps, weight=False),
        bias=bias,
        output_bias=bias,
    )
    c.ignore("initialisation", "lambda_std_dev")
    norm = RMSNorm(eps=s.eps)
    return decoder(c, "diffllama", s, [pre_norm(attention, s.glu(), norm)] * s.layers, norm)


def write(arch: Architecture) -> dict[str, Any]:
    op = next(op for op in arch.ops() if isinstance(op, DifferentialAttention))
    assert op.rotary
    return {
        "model_type": "diffllama",
        **common_keys(arch, "DiffLlamaForCausalLM", attention=op),
        "num_attention_heads": 2 * op.heads,
        "num_key_value_heads": 2 * op.kv_heads,
        "rope_parameters": rope.written(op.rotary, op.head_dim),
        "attention_bias": op.bias,
    }


LAMBDAS = tuple(Rule(f"self_attn.lambda_{name}", f"mixer.op.lambda_{name}") for name in ("q1", "k1", "q2", "k2"))

FAMILIES = (
    Family("diffllama", ("diffllama",), read, write, Layout(decoder_rules(ATTENTION + LAMBDAS + GLU + PRE_NORMS))),
)
