"""What architectures are filtered by, and which are near one another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from lamina.arch import Architecture, Attention, Mamba, Mamba2, Mamba3, Op, Parallel
from lamina.arch.feedforward import FeedForward
from lamina.report.sheet import fields

WIDTH = 64  # of a stream to ask parts about that say nothing without one


def kept(arch: Architecture) -> set[str]:
    """The kinds of what mixers keep of a sequence."""
    return {k.kind for op in arch.ops() for k in op.keeps(WIDTH)}


def _recurrent(arch: Architecture, scan: bool) -> bool:
    """Whether a mixer keeps a matrix that a scan, or else a rule of another kind, moves on."""
    mixers = (op for op in arch.ops() if any(k.kind == "recurrent" for k in op.keeps(WIDTH)))
    return any(isinstance(op, Mamba | Mamba2 | Mamba3) == scan for op in mixers)


def _full(op: Op) -> bool:
    """Whether a mixer looks at all that came before."""
    kinds = {k.kind for k in op.keeps(WIDTH)}
    return bool({"full", "latent"} & kinds) and not {"index", "compressed"} & kinds


def _experts(arch: Architecture) -> bool:
    return any(isinstance(op, FeedForward) and op.unused(WIDTH) for op in arch.ops())


def _without_positions(arch: Architecture) -> bool:
    return any(isinstance(op, Attention) and op.rotary is None for op in arch.ops()) and not arch.embedding.positions


MECHANISMS: dict[str, Callable[[Architecture], bool]] = {
    "Full attention": lambda a: a.bidirectional or any(_full(op) for op in a.ops()),
    "Sliding window": lambda a: bool({"window", "chunk"} & kept(a)),
    "Latent attention": lambda a: "latent" in kept(a),
    "Sparse attention": lambda a: bool({"index", "compressed"} & kept(a)),
    "Linear attention": lambda a: _recurrent(a, scan=False),
    "State space": lambda a: _recurrent(a, scan=True),
    "Convolution": lambda a: "convolution" in kept(a),
    "Cross-attention": lambda a: "cross" in kept(a),
    "Mixture of experts": _experts,
    "Dense": lambda a: not _experts(a),
    "Parallel branches": lambda a: any(isinstance(b.op, Parallel) for block in a.blocks for b in block.branches),
    "No positions (NoPE)": _without_positions,
    "Recursion, loops": lambda a: a.recursion is not None or a.loops > 1,
    "Looks both ways": lambda a: a.bidirectional,
    "Images, sound": lambda a: bool(a.encoders),
}
"""What can be asked for on the catalog's page, and whether an architecture has it."""

SIZES = {
    "below 3 B": (0, 3e9),
    "3 to 10 B": (3e9, 10e9),
    "10 to 40 B": (10e9, 40e9),
    "40 to 150 B": (40e9, 150e9),
    "above 150 B": (150e9, float("inf")),
}
"""Parameters in total, from and below."""


def mechanisms(arch: Architecture) -> list[str]:
    return [name for name, has in MECHANISMS.items() if has(arch)]


def size(arch: Architecture) -> str:
    total = arch.parameters().total
    return next(name for name, (low, high) in SIZES.items() if low <= total < high)


def nearest(archs: Mapping[str, Architecture], many: int = 4) -> dict[str, list[str]]:
    """For each architecture those that share most fields with it, the nearest first."""
    said = {name: _fields(arch) for name, arch in archs.items()}
    return {name: _closest(name, said, many) for name in archs}


def _closest(name: str, said: Mapping[str, frozenset[tuple[str, str]]], many: int) -> list[str]:
    own = said[name]
    shared = {other: len(own & theirs) / len(own | theirs) for other, theirs in said.items() if other != name}
    return sorted(shared, key=lambda other: (-shared[other], other))[:many]


def _fields(arch: Architecture) -> frozenset[tuple[str, str]]:
    return frozenset(_without_places(fields(arch)))


def _without_places(pairs: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    for path, value in pairs:
        if path != "name":
            yield (path.partition("].")[2] if path.startswith("blocks[") else path), value
