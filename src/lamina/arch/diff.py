"""Where two architectures differ, by path."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from lamina.arch.base import Node
from lamina.arch.model import Architecture, Block, Branch, Parallel, named


class Difference(NamedTuple):
    """One field that differs; None stands for what one side does not have."""

    path: str
    left: Any
    right: Any


class Diff(tuple[Difference, ...]):
    """All differences; prints a line for each, the blocks in which the same thing differs together."""

    def __str__(self) -> str:
        folded: dict[tuple[str, str, str], list[int]] = {}
        for path, left, right in self:
            place = re.match(r"blocks\[(\d+)\](.*)", path)
            key = (place[2] if place else path, _shown(left), _shown(right))
            folded.setdefault(key, []).extend([int(place[1])] if place else [])
        return "\n".join(
            f"{f'blocks[{_runs(blocks)}]' if blocks else ''}{path}: {left} -> {right}"
            for (path, left, right), blocks in folded.items()
        )


def diff(left: Architecture, right: Architecture) -> Diff:
    """What differs between two architectures, by path; empty (and so false) if they are equal.

    Iterating gives (path, left, right); printing folds what differs alike in several blocks.
    """
    return Diff(differences(left, right))


def _shown(value: Any) -> str:
    if isinstance(value, Node):
        return value.model_dump_json(exclude_defaults=True)
    return "none" if value is None else str(value)


def _runs(numbers: list[int]) -> str:
    """0, 1, 2, 5 as 0-2,5."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def differences(left: Architecture, right: Architecture) -> Iterator[Difference]:
    """Every field in which two architectures differ, `name` aside, in the order in which they are written."""
    for field in type(left).model_fields:
        if field != "name":
            yield from _compare(field, getattr(left, field), getattr(right, field))


def _compare(path: str, left: Any, right: Any) -> Iterator[Difference]:
    if left is right or left == right:
        return
    parts = _parts(left), _parts(right)
    if type(left) is not type(right) or parts[0] is None or parts[1] is None:
        yield Difference(path, left, right)
        return
    for key in dict.fromkeys((*parts[0], *parts[1])):
        yield from _compare(path + key, parts[0].get(key), parts[1].get(key))


def _parts(value: Any) -> dict[str, Any] | None:
    """The parts of a value by the step that leads to each; None for one without parts."""
    if isinstance(value, Block):
        return {f".{name}": branch for name, branch in value.named_branches().items()}
    if isinstance(value, Branch):
        own = {f".{name}": getattr(value, name) for name in type(value).model_fields if name != "op"}
        return own | {f".{key}": part for key, part in _fields(value.op).items()}
    if isinstance(value, Parallel):
        return {f".{name}": op for name, op in value.named_ops().items()}
    if isinstance(value, Node):
        return {f".{key}": part for key, part in _fields(value).items()}
    if isinstance(value, tuple) and any(isinstance(part, Node) for part in value):
        return {f"[{i}]": part for i, part in enumerate(value)}
    return None


def _fields(value: Node) -> dict[str, Any]:
    if isinstance(value, Parallel):
        return named(value.ops)
    return {name: getattr(value, name) for name in type(value).model_fields}
