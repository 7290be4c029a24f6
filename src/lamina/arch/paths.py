"""Paths: how the parts of an architecture are named, one by one or many at once.

`blocks[3].mixer.rotary.base` is a field; `blocks[*].mixer` all mixers; `blocks[0-2,5]`, `blocks[::4]` and `blocks[-1]`
choose blocks. A branch is named after the role of its op, and the fields of both stand at one level.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from lamina.arch.base import Node
from lamina.arch.block import Block, Branch, Parallel, named
from lamina.errors import LaminaError, closest

_STEP = re.compile(r"(?P<name>[A-Za-z_]\w*)(\[(?P<index>[^\]]*)\])?(\.(?=.)|$)")


class Step(NamedTuple):
    """One step of a path: a name, and which of several parts (None where it is not indexed)."""

    name: str
    index: str | None


def runs(numbers: Iterable[int]) -> str:
    """0, 1, 2, 5 as 0-2,5."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][-1] + 1:
            found[-1].append(number)
        else:
            found.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in found)


def steps(path: str) -> list[Step]:
    """The steps of a path.

    Raises: LaminaError if it is not written as one.
    """
    found, at = [], 0
    while at < len(path) or not path:
        match = _STEP.match(path, at)
        if match is None:
            raise LaminaError(f"{path!r} is no path; paths look like blocks[0-3].mixer.rotary.base or head.tied")
        found.append(Step(match["name"], match["index"]))
        at = match.end()
    return found


def chosen(index: str, count: int, path: str) -> list[int]:
    """Which of `count` parts an index means: `*`, `3`, `-1`, `0-2,5`, `1:9:2`.

    Raises: LaminaError, naming the path, if it means none.
    """
    found: list[int] = []
    for item in index.split(","):
        item = item.strip()
        if item == "*":
            found += range(count)
        elif match := re.fullmatch(r"(-?\d+)?:(-?\d+)?(:(-?\d+)?)?", item):
            start, stop, step = (int(match[i]) if match[i] else None for i in (1, 2, 4))
            found += range(count)[slice(start, stop, step or None)]
        elif match := re.fullmatch(r"(\d+)-(\d+)", item):
            found += range(int(match[1]), int(match[2]) + 1)
        elif re.fullmatch(r"-?\d+", item):
            found.append(int(item) + (count if item.startswith("-") else 0))
        else:
            raise LaminaError(f"{path}: [{index}] is no index; accepted: *, 3, -1, 0-2,5 or 1:9:2")
    if not found or not all(0 <= i < count for i in found):
        raise LaminaError(f"{path}: [{index}] matches nothing; there are {count}, from 0 to {count - 1}")
    return list(dict.fromkeys(found))


def parts(value: Any) -> dict[str, Any] | None:
    """The parts of a value by the name of the step that leads to each; None for one without parts."""
    if isinstance(value, Block):
        return dict(value.named_branches()) | fields(value, "branches")
    if isinstance(value, Branch):
        inner = named(value.op.ops) if isinstance(value.op, Parallel) else fields(value.op)
        return fields(value, "op") | inner
    if isinstance(value, Parallel):
        return dict(named(value.ops))
    return fields(value) if isinstance(value, Node) else None


def fields(value: Node, *without: str) -> dict[str, Any]:
    """The fields of a value by name."""
    return {name: getattr(value, name) for name in type(value).model_fields if name not in without}


def unknown(path: str, name: str, value: Any) -> LaminaError:
    """What to say of a step that leads nowhere."""
    known = sorted(parts(value) or ())
    if not known:
        return LaminaError(f"{path}: {value!r} has no parts, so {name!r} matches nothing")
    return LaminaError(f"{path}: {name!r} matches nothing; {closest(name, known)}")
