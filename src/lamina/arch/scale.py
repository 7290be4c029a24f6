"""A small sibling of an architecture, that keeps what makes it what it is.

Kept exactly: the pattern of blocks, how many query heads share a key head, how many experts there are for each that
a token uses, kernels, windows, and every field that is no size. Sizes follow one factor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from lamina.arch.base import Node, Op
from lamina.arch.block import Block, kinds
from lamina.arch.edit import rewritten
from lamina.arch.encoder import Encoder
from lamina.arch.model import MaskedDiffusion
from lamina.arch.patterns import folds
from lamina.arch.position import LongRopeScaling
from lamina.arch.shared_transformer import SharedTransformer
from lamina.errors import LaminaError

if TYPE_CHECKING:
    from lamina.arch.model import Architecture

WIDTHS = (
    *("inner", "latent", "query_latent", "memory_width", "decay_rank", "gate_rank", "rank", "output_rank", "width"),
)
HEADS = ("heads", "kv_heads", "key_heads", "value_heads", "groups", "norm_groups", "output_groups")
DIMS = ("head_dim", "key_dim", "value_dim", "plain_dim", "rotary_dim", "dim", "state")
EXPERTS = ("experts", "active", "identities", "active_groups")
TABLES = ("vocab", "rows")
"""Names of sizes, by how they follow the factor; a size that is in none of these stays."""

KEEP = ("vocab", "depth", "heads", "experts")
"""What `scaled` can be asked to keep as it is."""
STEPS, AROUND = 240, 6
"""How many factors are looked at, and how many around the one where the count passes what is asked for."""
N = TypeVar("N", bound=Node)


def scaled(arch: Architecture, parameters: int, keep: Iterable[str] = ("vocab",)) -> Architecture:
    """The sibling whose count of parameters is nearest to `parameters`.

    Width, inner widths and depth follow one factor; heads and their sizes follow its square root, so that both
    shrink; experts likewise, with as many to each that is used. `keep` names what stays: vocab, depth, heads, experts.
    Raises: LaminaError if `keep` names something else, or if no factor comes within a tenth of `parameters`.
    """
    kept = set(keep)
    if wrong := sorted(kept - set(KEEP)):
        raise LaminaError(f"keep names {wrong[0]!r}; known: {', '.join(KEEP)}")
    if parameters < 1:
        raise LaminaError(f"parameters ({parameters}) must be positive")
    shape = _nearest(arch, parameters, kept)  # settles the depth, in whole layers
    best = _nearest(_shortened(arch, shape, kept), parameters, kept | {"depth"}, around=shape)
    made = _by(_shortened(arch, shape, kept), best, kept | {"depth"})
    total, _, embedding = made.parameters()
    if abs(total - parameters) > parameters / 10:
        raise LaminaError(
            f"no sibling of {arch.name or 'this architecture'} has about {parameters:,} parameters; the nearest has "
            f"{total:,}, of which {embedding:,} are the embedding's"
        )
    return made.replace(name=f"{arch.name} at {total:,}".strip())


def _nearest(arch: Architecture, parameters: int, keep: set[str], around: float | None = None) -> float:
    """The factor whose sibling has the nearest count; the count grows with it, but for rounding."""
    low, high = (1 / 512, 8.0) if around is None else (around / 4, around * 4)
    factors = [low * (high / low) ** (i / STEPS) for i in range(STEPS + 1)]
    first, last = 0, STEPS
    while last - first > 2:
        middle = (first + last) // 2
        smaller = _by(arch, factors[middle], keep).parameters().total < parameters
        first, last = (middle, last) if smaller else (first, middle)
    near = factors[max(0, first - AROUND) : last + AROUND + 1]
    return min(near, key=lambda factor: abs(_by(arch, factor, keep).parameters().total - parameters))


def _by(arch: Architecture, factor: float, keep: set[str]) -> Architecture:
    """The sibling at one factor."""
    scale = _Scale(factor, keep)
    blocks = _shortened(arch, factor, keep).blocks
    embedding = scale.node(arch.embedding)
    if embedding.per_layer:
        embedding = embedding.replace(per_layer=embedding.per_layer.replace(blocks=len(blocks)))
    different, places = kinds(blocks)
    made = [scale.node(block) for block in different]
    parts = ((name, getattr(arch, name)) for name in ("stream", "recursion", "objective", "prediction"))
    others: dict[str, Any] = {name: scale.node(part) for name, part in parts if isinstance(part, Node)}
    if isinstance(objective := arch.objective, MaskedDiffusion):
        others["objective"] = objective.replace(mask_token=min(objective.mask_token, embedding.vocab - 1))
    others["encoders"] = tuple(_encoder(encoder, factor, keep) for encoder in arch.encoders)
    return arch.replace(embedding=embedding, blocks=tuple(made[place] for place in places), **others)


def _encoder(encoder: Encoder, factor: float, keep: set[str]) -> Encoder:
    """An encoder at the same factor: blocks evenly chosen, with the first of each kind and those that are read."""
    different, places = kinds(encoder.blocks)
    count = len(places) if "depth" in keep else min(len(places), max(1, round(len(places) * factor)))
    chosen = {i * len(places) // count for i in range(count)} if places else set()
    kept = sorted(chosen | set(encoder.taps) | {places.index(kind) for kind in range(len(different))})
    scale = _Scale(factor, keep | {"vocab"})  # places of a picture are no vocabulary
    made = [scale.node(block) for block in different]
    fields: dict[str, Any] = {"blocks": tuple(made[places[at]] for at in kept)}
    fields["taps"] = tuple(kept.index(tap) for tap in encoder.taps)
    if encoder.norm_after:
        fields["norm_after"] = sum(at < encoder.norm_after for at in kept)
    for name in ("stem", "connector"):
        fields[name] = tuple(scale.node(step) for step in getattr(encoder, name))
    return encoder.replace(**fields)


def _shortened(arch: Architecture, factor: float, keep: set[str]) -> Architecture:
    """Fewer blocks in the same pattern, where the depth is not kept: each run and each repeated group at least once.

    What is left of a pattern that was cut off at the end may go. A block that reads what another keeps goes on
    reading the last block of that kind before it.
    """
    if "depth" in keep or arch.recursion:
        return arch
    _, places = kinds(arch.blocks)
    kept: list[int] = []
    at, seen = 0, set()
    for times, pattern in folds(places):
        size = sum(many for many, _ in pattern)
        if times > 1:
            kept += [at + j % size for j in range(size * max(1, round(times * factor)))]
        else:
            for many, kind in pattern:
                kept += [at] * max(kind not in seen, round(many * factor))
                at += many
        at += size * times if times > 1 else 0
        seen |= {kind for _, kind in pattern}
    found = [_moved(arch.blocks[old], places, kept, i) for i, old in enumerate(kept)]
    per_layer = arch.embedding.per_layer
    counted = per_layer.replace(blocks=len(found)) if per_layer else None
    return arch.replace(blocks=tuple(found), embedding=arch.embedding.replace(per_layer=counted))


def _moved(block: Block, places: list[int], kept: list[int], at: int) -> Block:
    """A block that reads another's keys and values reads those of the last block of the same kind that is kept."""

    def moved(op: Node) -> Node:
        if not isinstance(op, Op) or op.source is None:
            return op
        alike = [new for new in range(at) if places[kept[new]] == places[op.source]]
        return op.replace(**{"same_as" if isinstance(op, SharedTransformer) else "kv_from": alike[-1]})

    return rewritten(block, Node, moved)


class _Scale:
    """How sizes change with a factor."""

    def __init__(self, factor: float, keep: set[str]) -> None:
        self.factor, self.keep = factor, keep

    def width(self, size: int) -> int:
        return _rounded(size * self.factor, 8)

    def node(self, part: N) -> N:
        """A part with its sizes changed, and those of its parts."""
        fields: dict[str, Any] = {name: getattr(part, name) for name in type(part).model_fields}
        heads, dims = self._heads({name: fields[name] for name in HEADS if isinstance(fields.get(name), int)})
        experts = self._experts({name: fields[name] for name in EXPERTS if isinstance(fields.get(name), int)})
        for name, value in fields.items():
            if isinstance(value, Node):
                fields[name] = self.node(value) if name != "rotary" else self._rotary(value, dims)
            elif isinstance(value, tuple):
                fields[name] = tuple(self.node(inner) if isinstance(inner, Node) else inner for inner in value)
            elif isinstance(value, int) and not isinstance(value, bool):
                fields[name] = self._size(name, value, dims)
        if "experts" in experts:
            heads.pop("groups", None)  # those of a router are of experts
        return type(part)(**(fields | heads | experts))

    def _size(self, name: str, value: int, dims: float) -> int:
        if name in WIDTHS:
            return _rounded(value * self.factor, 16 if name == "width" else 8)
        if name in TABLES and "vocab" not in self.keep:
            return _rounded(value * self.factor, 64)
        return _rounded(value * dims, 2) if name in DIMS else value

    def _heads(self, counts: dict[str, int]) -> tuple[dict[str, int], float]:
        """Counts of heads in their ratio, and the factor that is left for their size."""
        if not counts:
            return {}, math.sqrt(self.factor)
        common = math.gcd(*counts.values())
        fewer = common if "heads" in self.keep else min(common, max(1, round(common * math.sqrt(self.factor))))
        if self.factor > 1 and "heads" not in self.keep:
            fewer = round(common * math.sqrt(self.factor))
        return {name: count // common * fewer for name, count in counts.items()}, self.factor * common / fewer

    def _experts(self, counts: dict[str, int]) -> dict[str, int]:
        """Counts of experts, with as many for each that is used, in as many groups as divide them."""
        if "experts" not in counts or "experts" in self.keep:
            return dict(counts)
        common = math.gcd(*(count for count in counts.values() if count))
        fewer = max(1, round(common * math.sqrt(min(self.factor, 1))))
        return {name: count // common * fewer for name, count in counts.items()}

    def _rotary(self, rotary: Any, dims: float) -> Any:
        """Fewer dimensions turn; lists of one number for each pair are thinned out evenly."""
        dim = _rounded(rotary.dim * dims, 2)
        pairs, fewer = rotary.dim // 2, dim // 2
        fields: dict[str, Any] = {"dim": dim}
        if rotary.sections:
            fields["sections"] = _shares(rotary.sections, fewer)
        if rotary.turning:
            fields["turning"] = max(1, rotary.turning * fewer // pairs)
        if isinstance(scaling := rotary.scaling, LongRopeScaling):
            chosen = [i * pairs // fewer for i in range(fewer)]
            lists = {name: tuple(getattr(scaling, name)[i] for i in chosen) for name in ("short", "long")}
            fields["scaling"] = scaling.replace(**lists)
        return rotary.replace(**fields)


def _shares(sizes: tuple[int, ...], total: int) -> tuple[int, ...]:
    """Sizes in about the same proportion that add up to a total, none of them zero."""
    found = [max(1, size * total // sum(sizes)) for size in sizes]
    found[-1] += total - sum(found)
    return tuple(found)


def _rounded(size: float, step: int) -> int:
    """The nearest multiple of a step, at least one step."""
    return max(step, round(size / step) * step)
