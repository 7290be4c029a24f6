"""Rotary embeddings as a config.json writes them: old (`rope_theta`, `rope_scaling`) and new (`rope_parameters`)."""

from __future__ import annotations

import math
from typing import Any

from lamina.arch import DynamicScaling, LinearScaling, Llama3Scaling, LongRopeScaling, Rotary, YarnScaling
from lamina.errors import LaminaError
from lamina.published.config import Config, shown

LAYER_TYPES: tuple[str, ...] = ("full_attention", "sliding_attention")


def parameters(config: Config, base: float) -> dict[str, Any]:
    """The rotary parameters of a config whose layers all share them, or those by layer type.

    Source: the reference's precedence (rope_scaling, then rope_parameters, then the keys of old configs).
    """
    found = dict(config.dict("rope_scaling", None) or config.dict("rope_parameters", None) or {})
    config.dict("rope_parameters", None)
    theta = config.float("rope_theta", base)
    partial = config.float("partial_rotary_factor", None)
    nested = [found[kind] for kind in LAYER_TYPES if isinstance(found.get(kind), dict)] or [found]
    for values in nested:
        values.setdefault("rope_theta", theta)
        if partial is not None:
            values.setdefault("partial_rotary_factor", partial)
    return found


def by_layer_type(config: Config) -> dict[str, dict[str, Any]]:
    """`rope_parameters` of families whose layer types each have their own.

    Raises: LaminaError for a key that is no layer type
    """
    found = config.dict("rope_parameters", None) or {}
    for kind, values in found.items():
        if kind not in LAYER_TYPES or not isinstance(values, dict | None):
            raise LaminaError(
                f"{config.where}: rope_parameters holds {kind!r}; expected is an object for each of "
                f"{', '.join(LAYER_TYPES)}"
            )
    return {kind: dict(values or {}) for kind, values in found.items()}


def rotary(config: Config, values: dict[str, Any], head_dim: int, context: int | None, layout: str = "half") -> Rotary:
    """One set of rotary parameters as a value.

    Raises: LaminaError for an unknown rope_type or key, naming both and what is known.
    """
    c = Config(dict(values), f"{config.where}: rope_parameters")
    c.ignored = config.ignored
    c.ignore("unused by the reference", "attn_factor", "finetuned")
    c.ignore("a text token has the same position in every section", "mrope_section", "mrope_interleaved")
    old, new = c.str("type", None), c.str("rope_type", None)
    kind = new or old or "default"
    base = c.float("rope_theta")
    share = c.float("partial_rotary_factor", 1.0)
    dim, turning = int(head_dim * share), None
    original = c.count("original_max_position_embeddings", context)
    scaling: Any = None
    if kind == "linear":
        scaling = LinearScaling(factor=c.float("factor"))
    elif kind == "dynamic":
        scaling = DynamicScaling(factor=c.float("factor"), original_context=_needed(c, context))
    elif kind == "llama3":
        scaling = Llama3Scaling(
            factor=c.float("factor"),
            low_frequency=c.float("low_freq_factor"),
            high_frequency=c.float("high_freq_factor"),
            original_context=_needed(c, original),
        )
    elif kind == "yarn":
        scaling = _yarn(c, original, context)
    elif kind in ("longrope", "su"):
        scaling = _longrope(c, original, context)
    elif kind == "proportional":
        dim, turning = head_dim, int(share * head_dim // 2) if share != 1.0 else None
        factor = c.float("factor", 1.0)
        scaling = LinearScaling(factor=factor) if factor != 1.0 else None
    elif kind != "default":
        raise LaminaError(
            f"{c.where}: rope_type is {shown(kind)}; known: "
            "default, linear, dynamic, llama3, yarn, longrope, proportional"
        )
    c.finish()
    return Rotary(base=base, dim=dim, layout=layout, scaling=scaling, turning=turning)  # type: ignore[arg-type]


def _needed(c: Config, context: int | None) -> int:
    if not context:
        raise LaminaError(f"{c.where}: original_max_position_embeddings is missing, and so is max_position_embeddings")
    return context


def _yarn(c: Config, original: int | None, context: int | None) -> YarnScaling:
    original = _needed(c, original)
    factor = c.float("factor", None) or (context or original) / original
    mscale, mscale_all = c.float("mscale", None), c.float("mscale_all_dim", None)

    def attention(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    usual = attention(mscale) / attention(mscale_all) if mscale and mscale_all else attention(1.0)
    return YarnScaling(
        factor=factor,
        original_context=original,
        beta_fast=c.float("beta_fast", None) or 32.0,
        beta_slow=c.float("beta_slow", None) or 1.0,
        attention_factor=c.float("attention_factor", usual),
        truncate=c.bool("truncate", True),
    )


def _longrope(c: Config, original: int | None, context: int | None) -> LongRopeScaling:
    original = _needed(c, original)
    factor = c.float("factor", None) or (context or original) / original
    usual = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 and original > 1 else 1.0
    return LongRopeScaling(
        short=tuple(c.list("short_factor")),
        long=tuple(c.list("long_factor")),
        original_context=original,
        attention_factor=c.float("attention_factor", usual),
    )


def written(rotary: Rotary, head_dim: int) -> dict[str, Any]:
    """The `rope_parameters` of a rotary value: what `rotary` above reads back."""
    out: dict[str, Any] = {"rope_theta": rotary.base, "rope_type": "default"}
    if rotary.dim != head_dim:
        share = rotary.dim / head_dim
        out["partial_rotary_factor"] = share if int(head_dim * share) == rotary.dim else math.nextafter(share, 1)
    if rotary.turning is not None:
        share = 2 * rotary.turning / head_dim
        share = share if int(share * head_dim // 2) == rotary.turning else math.nextafter(share, 1)
        out |= {"rope_type": "proportional", "partial_rotary_factor": share}
        return out | ({"factor": rotary.scaling.factor} if isinstance(rotary.scaling, LinearScaling) else {})
    s = rotary.scaling
    if s is None:
        return out
    out["rope_type"] = s.kind
    if isinstance(s, LongRopeScaling):
        factors = {"short_factor": list(s.short), "long_factor": list(s.long)}
        return (
            out
            | factors
            | {
                "attention_factor": s.attention_factor,
                "original_max_position_embeddings": s.original_context,
            }
        )
    out["factor"] = s.factor
    if isinstance(s, Llama3Scaling):
        out |= {"low_freq_factor": s.low_frequency, "high_freq_factor": s.high_frequency}
    if isinstance(s, YarnScaling):
        out |= {"beta_fast": s.beta_fast, "beta_slow": s.beta_slow, "attention_factor": s.attention_factor}
        out |= {} if s.truncate else {"truncate": False}
    if isinstance(s, Llama3Scaling | YarnScaling):
        out["original_max_position_embeddings"] = s.original_context
    return out
