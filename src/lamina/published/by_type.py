"""Full and sliding layers that each have a rotary embedding of their own, as a config.json writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lamina.arch import Architecture, Attention, Rotary
from lamina.errors import LaminaError
from lamina.published import rope
from lamina.published.common import Sizes, attention_of, windows
from lamina.published.config import Config, shown


def number(c: Config, key: str, kinds: Sequence[str], usual: float) -> dict[str, float]:
    """A number for all layers, or a list with one for each, by type of layer.

    Raises: LaminaError if layers of one type differ
    """
    values = c.list(key) if isinstance(c.data.get(key), list) else [c.float(key, usual)] * len(kinds)
    found = {kind: {v for v, k in zip(values, kinds, strict=False) if k == kind} for kind in set(kinds)}
    if len(values) < len(kinds) or any(len(v) != 1 for v in found.values()):
        raise LaminaError(f"{c.where}: {key!r} is {shown(values)}; one number is needed for each kind of layer")
    return {kind: v.pop() for kind, v in found.items()}


def listed(c: Config, kinds: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The rotary parameters of each type, of which old configs have a list for the layers.

    A scaling concerns the full ones.
    """
    theta = number(c, "rope_theta", kinds, 10000.0)
    partial = number(c, "partial_rotary_factors", kinds, 1.0)
    c.only("yarn_only_types", ["full_attention"])
    values = {kind: {"rope_theta": theta[kind], "partial_rotary_factor": partial[kind]} for kind in theta}
    values.get("full_attention", {}).update(c.dict("rope_scaling", None) or {})
    return values | rope.by_layer_type(c)


def rotaries(c: Config, s: Sizes, kinds: Sequence[str], said: dict[str, dict[str, Any]]) -> dict[str, Rotary]:
    """The rotary embedding of each type of layer that there is.

    Raises: LaminaError for a type of which nothing is said
    """
    if missing := set(kinds) - set(said):
        raise LaminaError(f"{c.where}: rope_parameters lacks {', '.join(sorted(missing))}, which layer_types has")
    return {kind: rope.rotary(c, said[kind], s.head_dim, s.context) for kind in set(kinds)}


def attentions(arch: Architecture) -> dict[str, Attention]:
    """A layer of each type, the other where there is none of one."""
    found = {kind: attention_of(arch, i) for i, kind in enumerate(windows(arch)[1])}
    return {kind: found.get(kind, attention_of(arch)) for kind in rope.LAYER_TYPES}


def keys(arch: Architecture, window: int) -> dict[str, Any]:
    """The types of layers, and what each has; `window` is written where no layer has one."""
    width, kinds = windows(arch)
    turned = {kind: attention_of(arch, i) for i, kind in enumerate(kinds)}
    return {
        "layer_types": kinds,
        "sliding_window": width or window,
        "rope_parameters": {kind: rope.written(op.rotary, op.head_dim) for kind, op in turned.items() if op.rotary},
        "attention_bias": attention_of(arch).bias,
    }
