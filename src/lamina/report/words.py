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
    Parallel,
    Rotary,
    SequenceGLU,
)
from lamina.arch.feedforward import FeedForward
from lamina.arch.norm import Norm

ACTIVATIONS = {"silu": "SiLU", "gelu": "GELU", "gelu_tanh": "GELU (tanh)", "relu": "ReLU", "relu2": "ReLU²"}
GATED = {"silu": "SwiGLU", "gelu": "GeGLU", "gelu_tanh": "GeGLU (tanh)", "relu": "ReGLU", "relu2": "ReLU² GLU"}


# -- numbers


def _scaled(value: float, units: Sequence[str]) -> str:
    """Three significant digits and a unit, each unit 1000 times the one before."""
    left, power = float(f"{value:.3g}"), 0
    while left >= 1000 and power < len(units) - 1:
        left, power = left / 1000, power + 1
    return f"{left:.3g} {units[power]}".rstrip() if left < 1000 else f"{left:,.0f} {units[power]}"


def count(value: float) -> str:
    """How many: 596 M, 32.8 B."""
    return _scaled(value, ("", "K", "M", "B", "T"))


def size(nbytes: float) -> str:
    """Bytes in decimal units: 4.29 GB."""
    return _scaled(nbytes, ("B", "kB", "MB", "GB", "TB"))


def tokens(value: int) -> str:
    """A context length: 32k, 128k, and plain digits where it is no multiple of 1024."""
    return f"{value // 1024}k" if value >= 1024 and value % 1024 == 0 else f"{value:,}"


def number(value: float) -> str:
    """A field's number: whole ones with separators, others with four significant digits."""
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:.4g}"


# -- parts


def name_of(op: Op) -> str:
    """An op in a word or two: `GQA 16/8`, `SwiGLU 3,072`. One without words of its own is named by its kind."""
    if isinstance(op, Attention | CrossAttention):
        kind = "MHA" if op.heads == op.kv_heads else "MQA" if op.kv_heads == 1 else "GQA"
        heads = f"{kind} {op.heads}" if op.heads == op.kv_heads else f"{kind} {op.heads}/{op.kv_heads}"
        return heads if isinstance(op, Attention) else f"cross-attention {heads}"
    if isinstance(op, GLU):
        return f"{GATED[op.activation]} {op.inner:,}"
    if isinstance(op, MLP):
        return f"MLP {op.inner:,}, {ACTIVATIONS[op.activation]}"
    if isinstance(op, SequenceGLU):
        return f"{name_of(op.glu)} along {op.length:,} tokens"
    return str(getattr(op, "kind", type(op).__name__)).replace("_", " ")


@functools.singledispatch
def phrases(part: Node) -> list[str]:
    """What else there is to say of a part, a phrase a fact; of one without words of its own, its fields."""
    fields = ((name, getattr(part, name)) for name in type(part).model_fields if name != "kind")
    return [f"{name} {value}" for name, value in fields if value not in (None, False)]


@phrases.register
def _(op: Attention) -> list[str]:
    said = [f"head {op.head_dim}"]
    if op.window:
        said.append(f"window {op.window:,}")
    said.append(rotary(op.rotary, op.head_dim) if op.rotary else "no rotary (NoPE)")
    if op.qk_norm:
        said.append(f"QK-norm {norm(op.qk_norm.norm)} over the {op.qk_norm.over}")
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
    return ["bias"] if op.bias else []


@phrases.register
def _(op: MLP) -> list[str]:
    return ["bias"] if op.bias else []


@phrases.register
def _(op: SequenceGLU) -> list[str]:
    return []


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


def kinds(blocks: Sequence[Block]) -> tuple[list[Block], list[int]]:
    """The different blocks in order of appearance, and which of them stands at each place."""
    different: list[Block] = []
    known: dict[int, int] = {}
    for block in blocks:
        if id(block) not in known:
            if block not in different:
                different.append(block)
            known[id(block)] = different.index(block)
    return different, [known[id(block)] for block in blocks]


def labels(different: Sequence[Block]) -> list[str]:
    """A word or two for each of some blocks that tells it from the others."""
    if len(different) == 1:
        return ["block"]
    told = [_traits(block) for block in different]
    telling = [0, *(i for i in (1, 2) if len({traits[i] for traits in told}) > 1)]
    for used in range(1, len(telling) + 1):
        found = [", ".join(filter(None, (traits[i] for i in telling[:used]))) for traits in told]
        if len(set(found)) == len(found):
            return found
    return [f"{word} {i + 1}".strip() for i, word in enumerate(found)]


def _traits(block: Block) -> tuple[str, str, str]:
    """Of a block: how far its mixer reaches, its positions, its feed-forward."""
    mixers = [op for op in block.ops() if not isinstance(op, FeedForward)]
    rest = [op for op in block.ops() if isinstance(op, FeedForward)]
    reach, positions = " + ".join(_reach(op) for op in mixers), ""
    if mixers and isinstance(mixers[0], Attention):
        positions = "rotary" if mixers[0].rotary else "NoPE"
    dense = all(isinstance(op, GLU | MLP) for op in rest)
    return reach, positions, "dense" if dense else " + ".join(name_of(op) for op in rest)


def _reach(op: Op) -> str:
    if isinstance(op, Attention):
        return "sliding" if op.window else "full"
    return "cross" if isinstance(op, CrossAttention) else name_of(op)


def folded(names: Iterable[str]) -> str:
    """A sequence with runs and repeated patterns folded: `(5 x sliding + 1 x full) x 10 + 2 x sliding`."""
    runs = [(name, len(list(group))) for name, group in groupby(names)]
    said, at = [], 0
    while at < len(runs):
        period, times = _repeat(runs, at)
        unit = " + ".join(f"{many} x {name}" for name, many in runs[at : at + period])
        said.append(f"({unit}) x {times}" if times > 1 else unit)
        at += period * times
    return " + ".join(said)


def _repeat(runs: list[tuple[str, int]], at: int) -> tuple[int, int]:
    """(period, times) of the pattern from `at` on that covers most, the shortest such; (1, 1) if none repeats."""
    best = (1, 1)
    for period in range(2, (len(runs) - at) // 2 + 1):
        times = 1
        while runs[at : at + period] == runs[at + times * period : at + (times + 1) * period]:
            times += 1
        if times > 1 and period * times > best[0] * best[1]:
            best = (period, times)
    return best


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


def ops_of(name: str, value: Branch) -> dict[str, Op]:
    """The ops of a branch by name; those of a Parallel one by one."""
    return value.op.named_ops() if isinstance(value.op, Parallel) else {name: value.op}
