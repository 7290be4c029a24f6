"""Where two architectures differ, by path."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from lamina.arch.base import Node
from lamina.arch.block import Branch
from lamina.arch.encoder import Encoder
from lamina.arch.model import Architecture
from lamina.arch.paths import parts, runs


class Difference(NamedTuple):
    """One field that differs; None stands for what one side does not have."""

    path: str
    left: Any
    right: Any


class Diff(tuple[Difference, ...]):
    """All differences; prints a line for each, the blocks in which the same thing differs together."""

    def folded(self) -> list[Difference]:
        """The same, with blocks in which the same thing differs together: `blocks[0-3].mixer.heads`."""
        found: dict[tuple[str, str, str], tuple[Difference, list[int]]] = {}
        for difference in self:
            place = re.match(r"((?:encoders\[\d+\]\.)?blocks)\[(\d+)\](.*)", difference.path)
            path = f"{place[1]}[]{place[3]}" if place else difference.path
            key = (path, _shown(difference.left), _shown(difference.right))
            found.setdefault(key, (difference, []))[1].extend([int(place[2])] if place else [])
        return [
            Difference(path.replace("[]", f"[{runs(blocks)}]", 1), first.left, first.right)
            for (path, _, _), (first, blocks) in found.items()
        ]

    def __str__(self) -> str:
        return "\n".join(f"{path}: {_shown(left)} -> {_shown(right)}" for path, left, right in self.folded())


def diff(left: Architecture, right: Architecture) -> Diff:
    """What differs between two architectures, by path; empty (and so false) if they are equal.

    Iterating gives (path, left, right); printing folds what differs alike in several blocks.
    """
    return Diff(differences(left, right))


def _shown(value: Any) -> str:
    if isinstance(value, Encoder):
        return f"{value.modality} encoder of {value.parameters():,} parameters"
    if isinstance(value, Node):
        return value.model_dump_json(exclude_defaults=True)
    return "none" if value is None else str(value)


def differences(left: Architecture, right: Architecture) -> Iterator[Difference]:
    """Every field in which two architectures differ, `name` aside, in the order in which they are written."""
    for field in type(left).model_fields:
        if field != "name":
            yield from _compare(field, getattr(left, field), getattr(right, field))


def _compare(path: str, left: Any, right: Any) -> Iterator[Difference]:
    if left is right or left == right:
        return
    ours, theirs = _parts(left), _parts(right)
    if type(left) is not type(right) or ours is None or theirs is None:
        yield Difference(path, left, right)
        return
    for key in dict.fromkeys((*ours, *theirs)):
        absent = (key not in theirs and _usual(left, key)) or (key not in ours and _usual(right, key))
        if not absent:
            yield from _compare(path + key, ours.get(key), theirs.get(key))


def _usual(value: Any, key: str) -> bool:
    """Whether a field that the other side has no place for is at its default, and so makes no difference."""
    owners: tuple[Any, ...] = (value.op, value) if isinstance(value, Branch) else (value,)
    for owner in owners:
        if field := getattr(type(owner), "model_fields", {}).get(key[1:]):
            return getattr(owner, key[1:]) == field.get_default(call_default_factory=True)
    return False


def _parts(value: Any) -> dict[str, Any] | None:
    """The parts of a value by the step that leads to each; None for one without parts."""
    if isinstance(value, tuple):
        nodes = not value or any(isinstance(p, Node) for p in value)
        return {f"[{i}]": part for i, part in enumerate(value)} if nodes else None
    inner = parts(value)
    return None if inner is None else {f".{name}": part for name, part in inner.items()}
