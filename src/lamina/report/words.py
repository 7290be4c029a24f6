"""Parts of an architecture in the field's words, and numbers as people write them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from itertools import groupby

from lamina.arch import (
    GLU,
    MLP,
    Architecture,
    Attention,
    Block,
    Branch,
    CrossAttention,
    LayerNorm,
    Node,
    Op,
    RMSNorm,
    Rotary,
    SequenceGLU,
)
from lamina.arch.block import kinds as kinds
from lamina.arch.feedforward import FeedForward
from lamina.arch.norm import Norm
from lamina.arch.patterns import folds as folds

ACTIVATIONS = {"silu": "SiLU", "gelu": "GELU", "gelu_tanh": "GELU (tanh)", "relu": "ReLU", "relu2": "ReLU²"}
ACTIVATIONS |= {"xielu": "xIELU", "sigmoid": "sigmoid", "quick_gelu": "quick GELU"}
GATED = {"silu": "SwiGLU", "gelu": "GeGLU", "gelu_tanh": "GeGLU (tanh)", "relu": "ReGLU", "relu2": "ReLU² GLU"}
GATED |= {"xielu": "xIELU GLU", "quick_gelu": "quick GeGLU"}


# -- numbers


def _scaled(value: float, units: Sequence[str]) -> str:
    """Three significant digits and a unit, each unit 1000 times the one before."""
    left, power = float(f"{value:.3g}"), 0
    while left >= 1000 and power < len(units) - 1:
        left, power = left / 1000, power + 1
    return f"{left:.3g} {units[power]}".rstrip() if left < 1000 else f"{left:,.0f} {units[power]}"


def count(value: float) -> str:
    """How many: 596 M, 32.8 B; beyond 1,000 T as FLOPs are written, P and E."""
    return _scaled(value, ("", "K", "M", "B", "T", "P", "E"))


def size(nbytes: float) -> str:
    """Bytes in decimal units: 4.29 GB."""
    return _scaled(nbytes, ("B", "kB", "MB", "GB", "TB"))


def seconds(value: float) -> str:
    """A time: 12.3 ms, 4.5 s, 2.1 h."""
    for limit, unit, size_of in ((1e-3, "µs", 1e-6), (1, "ms", 1e-3), (600, "s", 1), (7200, "min", 60)):
        if value < limit:
            return f"{value / size_of:.3g} {unit}"
    return f"{value / 3600:,.3g} h"


def tokens(value: int) -> str:
    """A context length: 32k, 128k, 1M, and plain digits where it is no multiple of 1024."""
    if value >= 1 << 20 and value % (1 << 20) == 0:
        return f"{value >> 20}M"
    return f"{value // 1024}k" if value >= 1024 and value % 1024 == 0 else f"{value:,}"


def number(value: float) -> str:
    """A field's number: whole ones with separators, others with four significant digits."""
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:.4g}"


# -- parts


@functools.singledispatch
def kind_of(op: Node) -> str:
    """What kind of part it is, without numbers: `Gated DeltaNet`. One without words of its own is its kind."""
    return str(getattr(op, "kind", type(op).__name__)).replace("_", " ")


@functools.singledispatch
def name_of(op: Node) -> str:
    """A part in a word or two: `GQA 16/8`, `SwiGLU 3,072`. One without words of its own is named by its kind."""
    return kind_of(op)


@kind_of.register(Attention)
@kind_of.register(CrossAttention)
def _(op: Attention) -> str:
    return "MHA" if op.heads == op.kv_heads else "MQA" if op.kv_heads == 1 else "GQA"


@name_of.register(Attention)
@name_of.register(CrossAttention)
def _(op: Attention) -> str:
    heads = f"{kind_of(op)} {op.heads}" if op.heads == op.kv_heads else f"{kind_of(op)} {op.heads}/{op.kv_heads}"
    return heads if isinstance(op, Attention) else f"cross-attention {heads}"


@name_of.register
def _(op: GLU) -> str:
    return f"{GATED[op.activation]} {op.inner:,}"


@name_of.register
def _(op: MLP) -> str:
    return f"MLP {op.inner:,}, {ACTIVATIONS[op.activation]}"


@name_of.register
def _(op: SequenceGLU) -> str:
    return f"{name_of(op.glu)} along {op.length:,} tokens"


@functools.singledispatch
def phrases(part: Node) -> list[str]:
    """What else there is to say of a part, a phrase a fact; of one without words of its own, its fields."""
    fields = ((name.replace("_", " "), getattr(part, name)) for name in type(part).model_fields if name != "kind")
    return [f"{name} {_shown(value)}" for name, value in fields if value not in (None, False)]


def _shown(value: object) -> str:
    if isinstance(value, LayerNorm | RMSNorm):
        return norm(value)
    if isinstance(value, Node):
        return ", ".join((name_of(value), *phrases(value)))
    return number(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


@phrases.register
def _(op: Attention) -> list[str]:
    said = [f"head {op.head_dim}"]
    said[0] += f", value {op.value_dim}" if op.value_dim else ""
    if op.kv_from is not None:
        said.append(f"keys and values of layer {op.kv_from}")
    if op.window:
        said.append(f"window {op.window:,}")
    if op.chunk:
        said.append(f"chunks of {op.chunk:,}")
    said += phrases(op.blocks) if op.blocks else []
    said.append(rotary(op.rotary, op.head_dim) if op.rotary else "no rotary (NoPE)")
    if op.qk_norm:
        after = ", after rotation" if op.qk_norm.after_rotary else ""
        said.append(f"QK-norm {norm(op.qk_norm.norm)} over the {op.qk_norm.over}{after}")
    said += ["keys are the values too"] if op.keys_as_values else []
    said += [f"{norm(op.value_norm)} of values"] if op.value_norm else []
    said += [f"values times {number(op.value_scale)}"] if op.value_scale != 1 else []
    said += ["sinks"] if op.sinks else []
    said += [f"{norm(op.output_norm)} of each head's output"] if op.output_norm else []
    said += gate(op.gate, op.gate_activation) + temperature(op.temperature)
    if op.softcap:
        said.append(f"soft-cap {number(op.softcap)}")
    if op.scale is not None:
        said.append(f"scale {number(op.scale)}")
    biased = [name for name, has in (("q, k, v", op.bias), ("output", op.output_bias)) if has]
    return said + ([f"bias on {' and '.join(biased)}"] if biased else [])


@phrases.register
def _(op: CrossAttention) -> list[str]:
    said = [f"head {op.head_dim}", f"memory of width {op.memory_width:,}"]
    if op.qk_norm:
        said.append(f"QK-norm {norm(op.qk_norm.norm)} over the {op.qk_norm.over}")
    return said


@phrases.register
def _(op: GLU) -> list[str]:
    said = [f"clamped at {number(op.clamp.limit)}"] if op.clamp else []
    said += [f"squashed at {number(op.squash.gate)}"] if op.squash else []
    said += [f"{number(100 * op.sparsity)} % of the gate is zero"] if op.sparsity else []
    return said + (["bias"] if op.bias else [])


@phrases.register
def _(op: MLP) -> list[str]:
    return ["bias"] if op.bias else []


@phrases.register
def _(op: SequenceGLU) -> list[str]:
    return []


def gate(kind: str | None, activation: str = "sigmoid") -> list[str]:
    """A gate on the output of attention."""
    return [f"{activation} gate of {'each number' if kind == 'elementwise' else 'each head'}"] if kind else []


def temperature(value: Node | None) -> list[str]:
    """What makes attention sharper with length."""
    if value is None:
        return []
    floor = getattr(value, "floor", None)
    return [f"sharper with length, from {floor:,}" if floor else "sharper with length, as learned"]


def rotary(value: Rotary, head_dim: int) -> str:
    """Rotary positions: base, how much of the head, layout, scaling."""
    said = f"rotary base {number(value.base)}"
    if value.dim != head_dim:
        said += f" on {value.dim} of {head_dim}"
    if value.layout != "half":
        said += f", {value.layout}"
    if value.scaling:
        factor = getattr(value.scaling, "factor", None)
        said += f", {value.scaling.kind} scaling" + (f" x{number(factor)}" if factor else "")
    return said


def norm(value: Norm) -> str:
    """A norm in a word, with what is unusual about it."""
    if isinstance(value, LayerNorm):
        return "LayerNorm" if value.bias else "LayerNorm without bias"
    if not value.weight:
        return "RMSNorm without weight"
    return f"RMSNorm ({number(value.offset)} + weight)" if value.offset else "RMSNorm"


def branch(value: Branch) -> list[str]:
    """Where the norms of a residual branch stand, and how its output enters the stream."""
    places = (("before", value.before), ("after", value.after), ("of the sum", value.joined))
    said = []
    for kind, found in groupby([(norm(n), place) for place, n in places if n], lambda pair: pair[0]):
        said.append(f"{kind} {' and '.join(place for _, place in found)}")
    if not said:
        said.append("no norm")
    if value.gate:
        said.append(f"{value.gate} gate")
    if value.multiplier != 1:
        said.append(f"times {number(value.multiplier)}")
    return said + (["zero for tokens that see no memory"] if value.attended_only else [])


# -- patterns of blocks


SHORT = 26  # characters of a phrase that may stand in a label


def labels(different: Sequence[Block]) -> list[str]:
    """A word or two for each of some blocks that tells it from the others."""
    if len(different) == 1:
        return ["block"]
    told = [_traits(block) for block in different]
    several = [{traits[i] for traits in told} for i in range(len(told[0]))]
    several[1].discard("")  # what has no positions at all needs no word for it
    telling = [0, *(i for i in range(1, len(several)) if len(several[i]) > 1)]
    for used in range(1, len(telling) + 1):
        found = [", ".join(filter(None, (traits[i] for i in telling[:used]))) for traits in told]
        if len(set(found)) == len(found):
            return found
    return _told_apart(found, different)


def _told_apart(found: list[str], different: Sequence[Block]) -> list[str]:
    """Equal labels made different: by a short phrase that is said of one block alone, else by numbers."""
    said = [_said(block) for block in different]
    labels = list(found)
    for i, label in enumerate(found):
        others = [j for j, other in enumerate(found) if other == label and j != i]
        own = [phrase for phrase in said[i] if others and all(phrase not in said[j] for j in others)]
        short = [phrase for phrase in own if len(phrase) <= SHORT and ": " not in phrase]
        labels[i] = f"{label}, {min(short, key=len)}" if short else label
    return [
        f"{label} ({labels[: i + 1].count(label)})" if labels.count(label) > 1 else label
        for i, label in enumerate(labels)
    ]


def _said(block: Block) -> list[str]:
    """Every phrase about a block's parts."""
    return [phrase for op in block.ops() for phrase in (name_of(op), *phrases(op))]


def _traits(block: Block) -> tuple[str, ...]:
    """Of a block: how far its mixer reaches, its positions, its feed-forward; and what it shares."""
    mixers = [op for op in block.ops() if not isinstance(op, FeedForward)]
    rest = [op for op in block.ops() if isinstance(op, FeedForward)]
    reach, positions = " + ".join(_reach(op) for op in mixers or rest), ""
    if mixers and "rotary" in type(mixers[0]).model_fields:
        positions = "rotary" if mixers[0].rotary else "NoPE"  # type: ignore[attr-defined]
    rest = rest if mixers else []
    dense = all(isinstance(op, GLU | MLP) for op in rest)
    feed_forward = "dense" if dense else " + ".join(kind_of(op) for op in rest)
    return reach, positions, feed_forward, _shares(mixers)


def _shares(mixers: Sequence[Op]) -> str:
    """What mixers take from earlier blocks."""
    shared = ["shared KV" for op in mixers if getattr(op, "kv_from", None) is not None]
    shared += [f"weights of {op.source}" for op in mixers if getattr(op, "same_as", None) is not None]
    return " + ".join(
        shared + ["shared choice" for op in mixers if getattr(getattr(op, "indexer", None), "shared", False)]
    )


def _reach(op: Op) -> str:
    if isinstance(op, Attention):
        return "sliding" if op.window else "chunked" if op.chunk else "full"
    return "cross" if isinstance(op, CrossAttention) else kind_of(op)


def folded(names: Iterable[str]) -> str:
    """A sequence with runs and repeated patterns folded: `(5 x sliding + 1 x full) x 10 + 2 x sliding`."""
    said = []
    for times, pattern in folds(names):
        unit = " + ".join(f"{many} x {name}" for many, name in pattern)
        said.append(f"({unit}) x {times}" if times > 1 else unit)
    return " + ".join(said)


def attention(arch: Architecture) -> str:
    """The mixers of an architecture in a line: `GQA 32/16, 5:1 window 1024`."""
    mixers = [[op for op in block.ops() if not isinstance(op, FeedForward)] for block in arch.blocks]
    crossing = sum(any(isinstance(op, CrossAttention) for op in ops) for ops in mixers)
    own = [op for ops in mixers for op in ops if not isinstance(op, CrossAttention)]
    said = [" / ".join(dict.fromkeys(name_of(op) for op in own))] if own else []
    attentions = [op for op in own if isinstance(op, Attention)]
    windows = sorted({op.window for op in attentions if op.window})
    if windows:
        ratio = _ratio([bool(op.window) for op in attentions])
        said.append(f"{ratio} window {'/'.join(map(str, windows))}".strip())
    without = [op.rotary is None for op in attentions]
    if any(without) and not all(without):
        same = without == [op.window is None for op in attentions]
        said.append("NoPE when full" if same else f"{_ratio([not w for w in without])} NoPE")
    if crossing:
        said.append(f"{crossing} x cross")
    if arch.bidirectional:
        said.append("both ways")
    return ", ".join(said) or "none"


def _ratio(flags: Sequence[bool]) -> str:
    """`5:1` for five set and one not, over and over; counts where nothing repeats; empty if all are set."""
    if all(flags):
        return ""
    for period in range(1, len(flags) // 2 + 1):
        if all(flag == flags[i % period] for i, flag in enumerate(flags)):
            return f"{sum(flags[:period])}:{period - sum(flags[:period])}"
    return f"{sum(flags)} of {len(flags)}"


def prediction(arch: Architecture) -> str | None:
    """The heads for later tokens, which the total leaves out."""
    if arch.prediction is None:
        return None
    heads = len(arch.prediction.blocks)
    said = "a head for the token after the next" if heads == 1 else f"heads for {heads} tokens after the next"
    return f"{said}, {count(arch.prediction_parameters)} parameters beside the total"
