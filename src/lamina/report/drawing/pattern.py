"""Which blocks of an architecture are drawn: the different ones, those that differ in numbers alone as one if many."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lamina.arch import Block
from lamina.report import words

MOST = 6  # different blocks that are each drawn
_NUMBER = re.compile(r"\d[\d,.]*\d|\d")


class Kind(NamedTuple):
    """A block to draw: its label, one that stands for it, all its variants, and the layers it stands at."""

    label: str
    block: Block
    variants: tuple[Block, ...]
    places: tuple[int, ...]
    which: tuple[int, ...]

    def variants_at(self) -> Iterator[tuple[Block, int]]:
        """Each layer of the kind, with the block that stands there."""
        yield from ((self.variants[i], at) for i, at in zip(self.which, self.places, strict=True))


class Pattern(NamedTuple):
    """The kinds of an architecture's blocks, and which of them each layer is."""

    kinds: tuple[Kind, ...]
    layers: tuple[int, ...]

    def block(self, layer: int) -> Block:
        """The kind of block that stands at a layer."""
        return self.kinds[self.layers[layer]].block


def pattern(blocks: Sequence[Block]) -> Pattern:
    """The kinds of blocks in a stack; those that differ in numbers alone are one where there are many."""
    different, places = words.kinds(blocks)
    groups = [[i] for i in range(len(different))]
    if len(different) > MOST:
        found: dict[str, list[int]] = {}
        for i, block in enumerate(different):
            found.setdefault(_NUMBER.sub("#", " | ".join(described(block))), []).append(i)
        groups = list(found.values())
    group_of = {i: g for g, group in enumerate(groups) for i in group}
    layers = tuple(group_of[p] for p in places)
    labels = words.labels([different[group[0]] for group in groups])
    kinds = []
    for n, (label, group) in enumerate(zip(labels, groups, strict=True)):
        at = tuple(i for i, g in enumerate(layers) if g == n)
        which = tuple(group.index(places[i]) for i in at)
        kinds.append(Kind(label, different[group[0]], tuple(different[i] for i in group), at, which))
    return Pattern(tuple(kinds), layers)


def described(block: Block) -> list[str]:
    """Everything that the words say of a block."""
    said = []
    for name, branch in block.named_branches().items():
        said += [name, *words.branch(branch)]
        for role, op in branch.named_ops(name).items():
            said += [role, words.name_of(op), *words.phrases(op)]
    return said


def merged(texts: Sequence[str]) -> str:
    """Texts that differ in numbers alone as one: 2 and 5 as 2–5."""
    first = texts[0]
    if all(text == first for text in texts):
        return first
    found = [_NUMBER.findall(text) for text in texts]
    if len({len(numbers) for numbers in found}) > 1:
        return first
    spans = iter(zip(*found, strict=True))
    return _NUMBER.sub(lambda match: _span(next(spans)), first)


def _span(numbers: Sequence[str]) -> str:
    values = sorted(set(numbers), key=lambda text: float(text.replace(",", "")))
    return values[0] if len(values) == 1 else f"{values[0]}–{values[-1]}"


def places(kind: Kind, total: int) -> str:
    """Where a kind stands: `layers 0–4, 6–10`, or how many there are if that is long."""
    from lamina.arch.paths import runs

    if len(kind.places) == total:
        return f"all {total} layers"
    said = runs(kind.places).replace("-", "–").replace(",", ", ")
    if len(kind.places) == 1:
        return f"layer {said}"
    return f"layers {said}" if len(said) <= 34 else f"{len(kind.places)} of {total} layers"
