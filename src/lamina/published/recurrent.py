"""Recurrent mixers as a config.json writes them: Gated DeltaNet, Mamba-2 and Mamba."""

from __future__ import annotations

import math
from typing import Any, Literal

from lamina.arch import Architecture, Block, Branch, Embedding, GatedDeltaNet, Head, Mamba, Mamba2, RMSNorm
from lamina.errors import LaminaError
from lamina.published.config import Config, shown
from lamina.published.rules import Layout, Rule, named

TRAINING = ("time_step_max", "time_step_floor", "time_step_scale", "time_step_init_scheme", "rescale_prenorm_residual")
RUNNING = ("chunk_size", "mamba_chunk_size", "use_mambapy", "use_associative_scan", "use_falcon_mambapy")
RUNNING += ("use_mem_eff_path", "num_logits_to_keep", "logits_to_keep", "residual_in_fp32")
"""Keys about how weights begin, and about how they are run, that change no output of the model."""

OWN_KEYS = {"state": "state_size", "convolution": "conv_kernel", "rank": "time_step_rank", "expand": "expand"}
OWN_KEYS |= {"bias": "use_bias", "convolution_bias": "use_conv_bias"}
HYBRID_KEYS = {"state": "mamba_d_state", "convolution": "mamba_d_conv", "rank": "mamba_dt_rank"}
HYBRID_KEYS |= {"expand": "mamba_expand", "bias": "mamba_proj_bias", "convolution_bias": "mamba_conv_bias"}
"""How Mamba's sizes are spelt by its own models, and by hybrids."""


def ignore_running(c: Config) -> None:
    """Passes over what recurrent models' configs say of their initialisation and their kernels."""
    c.ignore("initialisation", *TRAINING)
    c.ignore("how the reference runs", *RUNNING)
    c.only("mamba_ssm_cache_dtype", "float32")
    c.only("mamba_ssm_dtype", "float32")


def kinds(c: Config, key: str, listed: list[str], layers: int, known: dict[str, str]) -> list[str]:
    """The kind of each layer under our name for it, as `key` lists them; `known` maps every spelling to one.

    Raises: LaminaError for a list of another length, or an unknown kind.
    """
    if len(listed) != layers:
        raise LaminaError(f"{c.where}: {key} has {len(listed)} entries for {layers} layers")
    for i, kind in enumerate(listed):
        if kind not in known:
            raise LaminaError(f"{c.where}: {key}[{i}] is {shown(kind)}; known: {', '.join(map(repr, known))}")
    return [known[kind] for kind in listed]


def delta_net(
    c: Config,
    eps: float,
    key_heads: int = 16,
    value_heads: int = 32,
    key_dim: int = 128,
    value_dim: int | None = 128,
    gate: Literal["silu", "sigmoid"] = "silu",
) -> GatedDeltaNet:
    """A Gated DeltaNet; the arguments are the family's values for absent keys (`value_dim` None: twice key_dim)."""
    key_dim = c.count("linear_key_head_dim", key_dim, most=1 << 16)
    return GatedDeltaNet(
        key_heads=c.count("linear_num_key_heads", key_heads, most=1 << 16),
        value_heads=c.count("linear_num_value_heads", value_heads, most=1 << 16),
        key_dim=key_dim,
        value_dim=c.count("linear_value_head_dim", value_dim or 2 * key_dim, most=1 << 16),
        convolution=c.count("linear_conv_kernel_dim", 4, most=1 << 16),
        norm=RMSNorm(eps=eps),
        gate=gate,
    )


def step_limits(c: Config) -> dict[str, Any]:
    """`time_step_limit`: the least and the largest step; no largest one where it is infinite."""
    stated = [
        math.inf if bound == {"__float__": "Infinity"} else bound
        for bound in c.list("time_step_limit", [0.0, math.inf])
    ]
    if len(stated) != 2 or not all(isinstance(bound, int | float) for bound in stated):
        raise LaminaError(f"{c.where}: time_step_limit needs two numbers, the least and the largest step")
    least, most = stated
    return {"step_min": float(least), "step_max": None if most == math.inf else float(most)}


def mamba2(c: Config, width: int, eps: float, heads: int = 128, inner: int | None = None, **fields: Any) -> Mamba2:
    """Mamba-2 as hybrids write it (`mamba_d_state` and so on); `inner` is mamba_expand times the width if None.

    Raises: LaminaError if the heads do not fill the inner width.
    """
    expanded = c.count("mamba_expand", 2, most=1 << 10) * width
    inner = inner or expanded
    heads, groups = c.count("mamba_n_heads", heads, most=1 << 16), c.count("mamba_n_groups", 1, most=1 << 16)
    head_dim = _auto(c, "mamba_d_head", max(1, inner // heads))
    if heads * head_dim != inner:
        raise LaminaError(f"{c.where}: mamba_n_heads ({heads}) of mamba_d_head ({head_dim}) must make {inner}")
    ignore_running(c)
    bias = c.bool("mamba_proj_bias", False)
    own = {"output_bias": bias, "norm": RMSNorm(eps=eps), "norm_groups": groups} | step_limits(c)
    return Mamba2(
        heads=heads,
        head_dim=head_dim,
        groups=groups,
        state=c.count("mamba_d_state", 256, most=1 << 16),
        convolution=c.count("mamba_d_conv", 4, most=1 << 16),
        convolution_bias=c.bool("mamba_conv_bias", True),
        bias=bias,
        **(own | fields),
    )


def limits_written(op: Mamba2) -> list[Any]:
    """`time_step_limit` as the reference writes it: infinity is no number of JSON."""
    return [op.step_min, {"__float__": "Infinity"} if op.step_max is None else op.step_max]


def mamba2_keys(op: Mamba2, width: int) -> dict[str, Any]:
    """What `mamba2` reads, written."""
    return {
        "mamba_expand": max(1, op.inner // width),
        "mamba_n_heads": op.heads,
        "mamba_d_head": op.head_dim,
        "mamba_n_groups": op.groups,
        "mamba_d_state": op.state,
        "mamba_d_conv": op.convolution,
        "mamba_conv_bias": op.convolution_bias,
        "mamba_proj_bias": op.bias,
        "time_step_limit": limits_written(op),
    }


def mamba2_rules(theirs: str = "mamba.", ours: str = "mixer.op.") -> tuple[Rule, ...]:
    """The tensors of Mamba-2, which every published model names alike."""
    names = "in_proj conv1d:convolution dt_bias:step_bias A_log:decay_log_rate D:skip norm out_proj:o_proj"
    return named(theirs, ours, names)


def mamba_rules(theirs: str = "mamba.", ours: str = "mixer.op.") -> tuple[Rule, ...]:
    """The tensors of Mamba, which every published model names alike."""
    names = "in_proj conv1d:convolution x_proj dt_proj:step_proj A_log:decay_log_rate D:skip out_proj:o_proj"
    return named(theirs, ours, names)


def mamba(c: Config, width: int, key: dict[str, str] = OWN_KEYS, norms: RMSNorm | None = None) -> Mamba:
    """Mamba; `key` says how the config spells it, `norms` is what stands on the bottleneck, B and C."""
    ignore_running(c)
    return Mamba(
        inner=c.count(key["expand"], 2, most=1 << 10) * width,
        state=c.count(key["state"], 16, most=1 << 16),
        rank=_auto(c, key["rank"], -(-width // 16)),
        convolution=c.count(key["convolution"], 4, most=1 << 16),
        convolution_bias=c.bool(key["convolution_bias"], True),
        bias=c.bool(key["bias"], False),
        norms=norms,
    )


def backbone(c: Config, family: str, op: Mamba | Mamba2, vocab: int, layers: int, tied: bool) -> Architecture:
    """A decoder of blocks with one recurrent branch; `vocab`, `layers` and `tied` are for absent keys."""
    norm = RMSNorm(eps=c.float("layer_norm_epsilon", 1e-5))
    block = Block(branches=(Branch(op=op, before=norm),))
    c.only("hidden_act", "silu")
    c.ignore("initialisation", "time_step_min")
    c.ignore("vocab_size counts the padding", "pad_vocab_size_multiple")
    made: dict[str, Any] = {
        "embedding": Embedding(vocab=c.count("vocab_size", vocab), width=c.count("hidden_size")),
        "blocks": (block,) * c.count("num_hidden_layers", layers, most=1 << 12),
        "head": Head(tied=c.bool("tie_word_embeddings", tied)),
        "context": c.count("max_position_embeddings", None),
    }
    c.finish()
    return Architecture(family=family, norm=norm, **made)


def backbone_keys(arch: Architecture, op: Mamba | Mamba2) -> dict[str, Any]:
    """What both kinds of such decoders say in the same words."""
    return {
        "vocab_size": arch.vocab,
        "hidden_size": arch.width,
        "num_hidden_layers": len(arch.blocks),
        "max_position_embeddings": arch.context,
        "tie_word_embeddings": arch.head.tied,
        "layer_norm_epsilon": arch.norm.eps if arch.norm else None,
        "expand": max(1, op.inner // arch.width),
        "state_size": op.state,
        "conv_kernel": op.convolution,
        "use_conv_bias": op.convolution_bias,
        "use_bias": op.bias,
    }


def backbone_layout(mixer: tuple[Rule, ...]) -> Layout:
    """The tensors of such a decoder, around those of its mixer."""
    stem = "backbone.layers.{i}."
    block = (rule.within(stem + "mixer.", "blocks.{i}.mixer.op.") for rule in mixer)
    norms = (Rule("backbone.norm_f", "norm"), Rule(stem + "norm", "blocks.{i}.mixer.before"))
    return Layout((Rule("backbone.embeddings.weight", "embedding.table"), *block, *norms, Rule("lm_head", "head")))


def _auto(c: Config, key: str, usual: int) -> int:
    """A whole number, or "auto" for the usual one."""
    if c.data.get(key) == "auto":
        c.only(key, "auto")
        return usual
    return c.count(key, usual, most=1 << 16)
