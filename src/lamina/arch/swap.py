"""Putting one mechanism in the place of another: sizes that are not given follow from what stood there."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, get_args

from lamina.arch.base import Node, Op
from lamina.arch.block import AnyFeedForward, AnyMixer, Branch
from lamina.arch.feedforward import GLU, FeedForward
from lamina.arch.model import Causal, DeepSupervision, MaskedDiffusion
from lamina.arch.moe import MoE, Router
from lamina.arch.norm import LayerNorm, RMSNorm
from lamina.arch.position import LearnedPositions, Rotary
from lamina.errors import LaminaError

KINDS: dict[str, type[Op]] = {
    kind.model_fields["kind"].default: kind for kind in (*get_args(AnyMixer), *get_args(AnyFeedForward))
}
"""Every mixer and feed-forward, by kind."""

PARTS: dict[str, type[Node]] = {
    kind.model_fields["kind"].default: kind
    for kind in (RMSNorm, LayerNorm, Rotary, LearnedPositions, Causal, MaskedDiffusion, DeepSupervision)
}
"""Other parts that an edit can name, by kind."""


def in_place_of(kind: str, old: Any, width: int, given: dict[str, Any]) -> Op:
    """A mechanism with the `given` fields; the others so that it does the work of the old one at its size.

    A mixer's heads together stay as wide as they were; experts that a token uses stay as wide together.
    Raises: LaminaError if it cannot stand there, or a size neither is given nor follows.
    """
    op = old.op if isinstance(old, Branch) else old
    made = KINDS[kind]
    if isinstance(op, Op) and issubclass(made, FeedForward) != isinstance(op, FeedForward):
        raise LaminaError(f"{kind} cannot stand in the place of {getattr(op, 'kind', type(op).__name__)}")
    if isinstance(op, made):
        return op.replace(**given)
    sizes = _SIZES.get(kind, _same_fields)(op, width, given)
    known = {name: value for name, value in sizes.items() if value is not None and name in made.model_fields}
    return made(**(known | {name: value for name, value in given.items() if name not in _SPENT.get(kind, ())}))


def _same_fields(op: Any, width: int, given: dict[str, Any]) -> dict[str, Any]:
    """For a mechanism without a rule of its own: fields of the same name keep their value."""
    kept = ("heads", "kv_heads", "head_dim", "key_dim", "value_dim", "inner", "rotary", "activation")
    return {name: getattr(op, name) for name in kept if hasattr(op, name)}


def _inner(op: Any, width: int) -> int:
    """How wide a mixer's heads are together: what its output projection reads."""
    shape = op.weights(width).get("o_proj.weight") if isinstance(op, Op) else None
    return shape[1] if shape else width


def _head(op: Any, inner: int, most: int) -> int:
    """A head's size: the old one's if it divides, else the largest power of two up to `most` that does."""
    old = getattr(op, "head_dim", 0)
    return old if old and old <= most and inner % old == 0 else math.gcd(inner, most)


def _rotary(op: Any, dim: int) -> Rotary:
    old = getattr(op, "rotary", None)
    return old.replace(dim=dim, scaling=None) if isinstance(old, Rotary) else Rotary(dim=dim)


def _attention(op: Any, width: int, given: dict[str, Any]) -> dict[str, Any]:
    head = given.get("head_dim") or _head(op, _inner(op, width), 128)
    heads = given.get("heads") or max(1, _inner(op, width) // head)
    groups = given.get("kv_heads") or math.gcd(heads, max(1, heads // 4))
    return {"heads": heads, "kv_heads": groups, "head_dim": head, "rotary": _rotary(op, head - head % 2)}


def _differential_attention(op: Any, width: int, given: dict[str, Any]) -> dict[str, Any]:
    """As its paper proportions it: half as many heads, also of keys and values, each of two maps."""
    head = given.get("head_dim") or _head(op, _inner(op, width) // 2, 128)
    heads = given.get("heads") or max(1, _inner(op, width) // (2 * head))
    groups = given.get("kv_heads") or math.gcd(heads, max(1, getattr(op, "kv_heads", heads // 2) // 2))
    return {"heads": heads, "kv_heads": groups, "head_dim": head, "rotary": _rotary(op, head - head % 2)}


def _latent_attention(op: Any, width: int, given: dict[str, Any]) -> dict[str, Any]:
    """As DeepSeek proportions it: a latent of four heads, and half a head of rotated key."""
    head = _head(op, _inner(op, width), 128)
    rotated = given.get("rotary_dim") or max(2, head // 4 * 2)
    sizes = {"heads": max(1, _inner(op, width) // head), "latent": 4 * head, "plain_dim": head, "value_dim": head}
    return sizes | {"rotary_dim": rotated, "rotary": _rotary(op, rotated)}


def _gated_deltanet(op: Any, width: int, given: dict[str, Any]) -> dict[str, Any]:
    """As Qwen3-Next proportions it: heads of 128, half as many of keys as of values."""
    head = given.get("value_dim") or _head(op, _inner(op, width), 128)
    values = given.get("value_heads") or max(1, _inner(op, width) // head)
    return {"key_heads": values // 2 if values % 2 == 0 else values, "value_heads": values} | {
        "key_dim": head,
        "value_dim": head,
    }


def _kimi_delta_attention(op: Any, width: int, given: dict[str, Any]) -> dict[str, Any]:
    head = given.get("value_dim") or _head(op, _inner(op, width), 128)
    heads = max(1, _inner(op, width) // head)
    return {"heads": heads, "key_dim": head, "value_dim": head, "decay_rank": head, "gate_rank": head}


def _heads_of(op: Any, width: int, given: dict[str, Any]) -> dict[str, Any]:
    """Heads as wide together as they were, with keys and values of one size."""
    head = given.get("head_dim") or _head(op, _inner(op, width), 128)
    heads = max(1, _inner(op, width) // head)
    return {"heads": heads, "head_dim": head, "key_dim": head, "value_dim": head}


def _mlstm(op: Any, width: int, given: dict[str, Any]) -> dict[str, Any]:
    sizes = _heads_of(op, width, given)
    return {name: sizes[name] for name in ("heads", "key_dim", "value_dim")}


def _slstm(op: Any, width: int, given: dict[str, Any]) -> dict[str, Any]:
    """As its paper has it: four heads."""
    head = given.get("head_dim") or max(1, _inner(op, width) // given.get("heads", 4))
    return {"heads": max(1, _inner(op, width) // head), "head_dim": head}


def _rwkv7(op: Any, width: int, given: dict[str, Any]) -> dict[str, Any]:
    """As its paper proportions it: heads of 64, and ranks that grow with the root of the width."""
    head = given.get("key_dim") or _head(op, _inner(op, width), 64)
    ranks = {"decay_rank": 2.5 * head / 64, "step_rank": 2.5 * head / 64, "gate_rank": 5.0}
    heads = given.get("heads") or max(1, _inner(op, width) // head)
    rank = {name: max(32, round(factor * width**0.5 / 32) * 32) for name, factor in ranks.items()}
    return {"heads": heads, "key_dim": head, "value_dim": head} | rank


def _lightning(op: Any, width: int, given: dict[str, Any]) -> dict[str, Any]:
    sizes = _heads_of(op, width, given)
    return {name: sizes[name] for name in ("heads", "head_dim")}


def _retention(op: Any, width: int, given: dict[str, Any]) -> dict[str, Any]:
    sizes = _mlstm(op, width, given)
    key = given.get("key_dim", sizes["key_dim"])
    return sizes | {"rotary": _rotary(op, key - key % 2)}


def _mamba2(op: Any, width: int, given: dict[str, Any]) -> dict[str, Any]:
    """As its paper proportions it: twice the width, heads of 64, a state of 128."""
    head = given.get("head_dim") or math.gcd(2 * width, 64)
    return {"heads": 2 * width // head, "head_dim": head, "state": 128}


def _mamba3(op: Any, width: int, given: dict[str, Any]) -> dict[str, Any]:
    """As Mamba-2, half of whose state's numbers turn."""
    return _mamba2(op, width, given) | {"turning": given.get("state", 128) // 4}


def _mamba(op: Any, width: int, given: dict[str, Any]) -> dict[str, Any]:
    """As its paper proportions it: twice the width, a state of 16, steps of rank D / 16."""
    return {"inner": 2 * width, "state": 16, "rank": -(-width // 16)}


def _feed_forward(op: Any, width: int, given: dict[str, Any]) -> dict[str, Any]:
    if isinstance(op, MoE):
        return {"inner": round(op.used) * op.expert.inner + (op.shared.inner if op.shared else 0)}
    return {name: getattr(op, name) for name in ("inner", "activation") if hasattr(op, name)}


def _moe(op: Any, width: int, given: dict[str, Any]) -> dict[str, Any]:
    """Experts of which `active` are together as wide as the one feed-forward was."""
    experts, active = given.get("experts", 64), given.get("active", 8)
    inner = given.get("inner") or max(1, getattr(op, "inner", 4 * width) // active)
    expert = GLU(inner=inner, activation=getattr(op, "activation", "silu"))
    return {"router": Router(experts=experts, active=active), "expert": expert}


_SIZES: dict[str, Callable[[Any, int, dict[str, Any]], dict[str, Any]]] = {
    "attention": _attention,
    "differential_attention": _differential_attention,
    "latent_attention": _latent_attention,
    "gated_deltanet": _gated_deltanet,
    "deltanet": _mlstm,
    "kimi_delta_attention": _kimi_delta_attention,
    "lightning_attention": _lightning,
    "mlstm": _mlstm,
    "linear_attention": _mlstm,
    "gated_linear_attention": _mlstm,
    "retention": _retention,
    "slstm": _slstm,
    "rwkv7": _rwkv7,
    "mamba2": _mamba2,
    "mamba3": _mamba3,
    "mamba": _mamba,
    "rg_lru": lambda op, width, given: {"inner": width, "heads": getattr(op, "heads", 1)},
    "short_convolution": lambda op, width, given: {"kernel": 3},
    "channel_mix": lambda op, width, given: _feed_forward(op, width, given) | {"activation": "relu2"},
    "glu": _feed_forward,
    "mlp": _feed_forward,
    "moe": _moe,
}
_SPENT = {"moe": ("experts", "active", "inner")}
"""Fields that a rule takes which are no fields of the mechanism itself."""
