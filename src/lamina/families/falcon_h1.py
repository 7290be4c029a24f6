"""Falcon-H1: Mamba-2 and attention side by side in every block, with multipliers on nearly everything.

Multipliers that pass through a linear map unseen are folded: those of what attention reads and of its keys into the
scale of its scores, those of what it reads and gives into its share of the block.
Source: arXiv 2507.22448; the multipliers are those of maximal update parametrisation, 2203.03466.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, Attention, Block, Branch, Mamba2, Parallel, RMSNorm
from lamina.errors import LaminaError
from lamina.published.common import Family, Sizes, common_keys, decoder, factor, glu_of, rope_keys, sizes
from lamina.published.config import Config
from lamina.published.recurrent import mamba2, mamba2_keys, mamba2_rules
from lamina.published.rules import Layout, Rule, decoder_rules, named


def _multipliers(c: Config, key: str, count: int) -> list[float]:
    found = c.list(key, [1.0] * count)
    if len(found) != count or not all(isinstance(m, int | float) for m in found):
        raise LaminaError(f"{c.where}: {key} needs {count} numbers")
    return [float(m) for m in found]


def _mamba(c: Config, s: Sizes) -> Mamba2:
    """`mamba_rms_norm` asks for a norm, `mamba_norm_before_gate` says where it stands."""
    first = c.bool("mamba_norm_before_gate", True)
    fields: dict[str, Any] = {"norm_first": first, "output_bias": c.bool("projectors_bias", False)}
    if not c.bool("mamba_rms_norm", False):
        fields |= {"norm": None, "norm_groups": 1, "norm_first": False}
    read = c.float("ssm_in_multiplier", 1.0)
    fields["multipliers"] = tuple(read * m for m in _multipliers(c, "ssm_multipliers", 5))
    stated = {} if c.data.get("mamba_d_ssm", 1024) is None else {"inner": c.count("mamba_d_ssm", 1024)}
    made = mamba2(c, s.width, s.eps, **stated, **fields)
    if made.bias and read != 1.0:
        raise LaminaError(f"{c.where}: mamba_proj_bias with an ssm_in_multiplier ({read}) is not known")
    return made


def _attention(c: Config, s: Sizes, read: float) -> Attention:
    bias = c.bool("attention_bias", False)
    if bias and (read, c.float("key_multiplier", 1.0), c.float("attention_out_multiplier", 1.0)) != (1.0, 1.0, 1.0):
        raise LaminaError(f"{c.where}: attention_bias beside multipliers on attention is not known")
    scale = s.head_dim**-0.5 * (read * read * c.float("key_multiplier", 1.0))
    return s.attention(rotary=s.rotary(c), bias=bias, output_bias=bias, scale=scale)


def read(c: Config) -> Architecture:
    s = sizes(c, eps=1e-5, kv_heads=8, default_context=8192)
    norm, attended = RMSNorm(eps=s.eps), c.float("attention_in_multiplier", 1.0)
    c.only("hidden_act", "silu")  # the reference takes it for the short convolution too
    c.only("attn_layer_indices", None)
    mixers = Parallel(
        ops=(_mamba(c, s), _attention(c, s, attended)),
        multipliers=(c.float("ssm_out_multiplier", 1.0), attended * c.float("attention_out_multiplier", 1.0)),
    )
    gate, down = _multipliers(c, "mlp_multipliers", 2)
    glu = s.glu(c.bool("mlp_bias", False)).replace(gate_multiplier=gate)
    block = Block(branches=(Branch(op=mixers, before=norm), Branch(op=glu, before=norm, multiplier=down)))
    return decoder(
        c,
        "falcon_h1",
        s,
        [block] * s.layers,
        norm,
        embedding_scale=c.float("embedding_multiplier", 1.0),
        scale=c.float("lm_head_multiplier", 1.0),
    )


def write(arch: Architecture) -> dict[str, Any]:
    """Of multipliers that were folded into one, that one alone."""
    mixers, feed_forward = arch.blocks[0].branches
    assert isinstance(mixers.op, Parallel)
    mamba, attention = mixers.op.ops
    assert isinstance(mamba, Mamba2)
    assert isinstance(attention, Attention)
    assert attention.scale is not None
    glu = glu_of(arch)
    return {
        "model_type": "falcon_h1",
        **common_keys(arch, "FalconH1ForCausalLM", feed_forward=glu, attention=attention),
        **rope_keys(arch),
        **mamba2_keys(mamba, arch.width),
        "mamba_d_ssm": mamba.inner,
        "mamba_rms_norm": mamba.norm is not None,
        "mamba_norm_before_gate": mamba.norm_first,
        "projectors_bias": mamba.output_bias,
        "attention_bias": attention.bias,
        "mlp_bias": glu.bias,
        "ssm_multipliers": list(mamba.multipliers),
        "ssm_out_multiplier": mixers.op.multipliers[0],
        "attention_out_multiplier": mixers.op.multipliers[1],
        "key_multiplier": factor(attention.scale, attention.head_dim**-0.5),
        "mlp_multipliers": [glu.gate_multiplier, feed_forward.multiplier],
        "embedding_multiplier": arch.embedding.scale,
        "lm_head_multiplier": arch.head.scale,
    }


RULES = (
    *mamba2_rules(ours="parallel.op.mixer."),
    *named("self_attn.", "parallel.op.mixer_2.", "q_proj k_proj v_proj o_proj"),
    *named("feed_forward.", "feed_forward.op.", "gate_proj up_proj down_proj"),
    Rule("input_layernorm", "parallel.before"),
    Rule("pre_ff_layernorm", "feed_forward.before"),
)
LAYOUT = Layout((Rule("model.final_layernorm", "norm"), *decoder_rules(RULES)))

FAMILIES = (Family("falcon_h1", ("falcon_h1",), read, write, LAYOUT),)
