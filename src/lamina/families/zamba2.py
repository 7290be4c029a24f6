"""Zamba 2: Mamba-2 blocks, some of which read one of a few shared transformers beside the stream.

Source: arXiv 2411.15242; the reference.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lamina.arch import Architecture, Mamba2, RMSNorm, SharedTransformer
from lamina.errors import LaminaError
from lamina.published import rope, zamba
from lamina.published.common import Family, Sizes, decoder, published, sizes
from lamina.published.config import Config
from lamina.published.recurrent import ignore_running, kinds, mamba2_rules
from lamina.published.rules import Layout, Rule, named

DERIVED = ("hybrid_layer_ids", "kv_channels", "num_query_groups", "attention_hidden_size", "mamba_headdim")
USUAL = [zamba.HYBRID if i in (6, 12, 18, 24, 30, 36, 42, 47, 51) else zamba.MAMBA for i in range(54)]
LONG = 16384  # tokens, where use_long_context says so


def _mamba(c: Config, width: int) -> Mamba2:
    """The reference holds steps above `time_step_min` in a prompt (and forgets to, one token at a time)."""
    inner = c.count("mamba_expand", 2, most=1 << 10) * width
    heads, groups = c.count("n_mamba_heads", 8, most=1 << 16), c.count("mamba_ngroups", 1, most=1 << 16)
    if inner % heads:
        raise LaminaError(f"{c.where}: n_mamba_heads ({heads}) must divide mamba_expand * hidden_size ({inner})")
    c.ignore("the convolution has a bias whatever it says", "use_conv_bias")
    bias = c.bool("add_bias_linear", False)
    return Mamba2(
        heads=heads,
        head_dim=inner // heads,
        groups=groups,
        state=c.count("mamba_d_state", 64, most=1 << 16),
        convolution=c.count("mamba_d_conv", 4, most=1 << 16),
        bias=bias,
        output_bias=bias,
        norm=RMSNorm(eps=1e-5),
        norm_groups=groups,
        step_min=c.float("time_step_min", 0.001),
    )


def _shared(c: Config, s: Sizes, bias: bool) -> SharedTransformer:
    """Scores are smaller than a head's size would make them by the square root of two, as in the reference."""
    rotary = s.rotary(c) if c.bool("use_mem_rope", False) else None
    c.ignore("attention has no positions", "rope_theta", "rope_scaling", "rope_parameters")
    rank, adapted = c.count("adapter_rank", 128), c.bool("use_shared_attention_adapter", False)
    return SharedTransformer(
        attention=s.attention(rotary=rotary, scale=(s.head_dim / 2) ** -0.5),
        feed_forward=s.glu(bias),
        norm=RMSNorm(eps=s.eps),
        attention_rank=rank if adapted else None,
        feed_forward_rank=rank,
    )


def read(c: Config) -> Architecture:
    width, heads = c.count("hidden_size"), c.count("num_attention_heads", most=1 << 16)
    size = max(1, 2 * width // heads)
    c.only("tie_word_embeddings", True)  # where it is false, the reference shares no transformer either
    c.only("attention_head_dim", size)
    usual: dict[str, int] = {"head_dim": size, "inner": 4 * width, "layers": len(USUAL), "vocab": 32000}
    s = sizes(c, 1e-5, "hidden_act", "gelu", "rms_norm_eps", default_context=4096, **usual)
    c.ignore("it follows from other keys", *DERIVED)
    found = kinds(c, "layers_block_type", c.list("layers_block_type", USUAL), s.layers, zamba.KINDS)
    mamba, different = _mamba(c, width), c.count("num_mem_blocks", 1, most=1 << 12)
    ignore_running(c)
    shared, norm = _shared(c, s, mamba.bias), RMSNorm(eps=s.eps)
    blocks = zamba.arranged(found, mamba, shared, norm, different)
    long = c.bool("use_long_context", False)
    arch = decoder(c, "zamba2", s, blocks, norm, tied=True)
    return arch.replace(context=LONG) if long else arch


def write(arch: Architecture) -> dict[str, Any]:
    mamba = next(op for op in arch.ops() if isinstance(op, Mamba2))
    found = list(zamba.asides(arch).values())
    attention, rank = found[0].attention, found[0].feed_forward_rank
    turning = {"rope_parameters": rope.written(attention.rotary, attention.head_dim)} if attention.rotary else {}
    return {
        "model_type": "zamba2",
        **zamba.attention_keys(arch, "Zamba2ForCausalLM"),
        "hidden_act": published(found[0].feed_forward.activation),
        "mamba_expand": mamba.inner // arch.width,
        "n_mamba_heads": mamba.heads,
        "mamba_ngroups": mamba.groups,
        "mamba_d_state": mamba.state,
        "mamba_d_conv": mamba.convolution,
        "time_step_min": mamba.step_min,
        "add_bias_linear": mamba.bias,
        "num_mem_blocks": sum(aside.same_as is None for aside in found),
        "adapter_rank": rank,
        "use_shared_attention_adapter": found[0].attention_rank is not None,
        "use_mem_rope": attention.rotary is not None,
        **turning,
    }


def layout(arch: Architecture) -> Layout:
    """Adapters are numbered by the hybrid layer that uses them, and stand in the one whose weights it reads."""
    feed_forward = Rule("gate_up_proj", "gate_proj", "up_proj"), Rule("down_proj", "down_proj")
    base = zamba.layout(arch, mamba2_rules("", ""), "shared_transformer", feed_forward)
    rules = list[Rule]()
    for number, (i, aside) in enumerate(zamba.asides(arch).items()):
        theirs = f"model.layers.{i if aside.same_as is None else aside.same_as}.shared_transformer."
        ours, parts = f"blocks.{i}.mixer.aside.", f"{number}.0:down {number}.1:up"
        for part in "qkv":
            adapters = f"{theirs}self_attn.linear_{part}_adapter_list.", f"{ours}attention.adapters.{part}."
            rules += named(*adapters, parts)
        rules += named(f"{theirs}feed_forward.gate_up_proj_adapter_list.", f"{ours}feed_forward.adapter.", parts)
    return replace(base, rules=(*base.rules, *rules))


FAMILIES = (Family("zamba2", ("zamba2",), read, write, layout),)
