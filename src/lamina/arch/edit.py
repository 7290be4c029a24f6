"""Changing a value: the same architecture with parts replaced, by kind or by path. What results is checked again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from lamina.arch.base import Node, Op
from lamina.arch.block import Block, Branch, Parallel, named
from lamina.arch.paths import Step, chosen, parts, steps, unknown
from lamina.errors import LaminaError

if TYPE_CHECKING:
    from lamina.arch.model import Architecture

N = TypeVar("N", bound=Node)
Change = Callable[[Any], Any]
"""What becomes of a part: it is given the old one (None where there is none) and returns the new one."""


def rewritten(value: Any, kind: type[N], change: Callable[[N], Any]) -> Any:
    """`value` with `change` applied to every part of it that is of `kind`, at any depth.

    Parts that do not change stay the same objects, and equal objects stay shared.
    """
    done: dict[int, Any] = {}

    def visit(part: Any) -> Any:
        if isinstance(part, tuple):
            inner = tuple(visit(p) for p in part)
            return part if all(a is b for a, b in zip(part, inner, strict=True)) else inner
        if not isinstance(part, Node):
            return part
        if id(part) not in done:
            fields = {name: getattr(part, name) for name in type(part).model_fields}
            visited = {name: visit(field) for name, field in fields.items()}
            changed = any(visited[name] is not fields[name] for name in fields)
            new = part.replace(**visited) if changed else part
            done[id(part)] = change(new) if isinstance(new, kind) else new
        return done[id(part)]

    return visit(value)


# -- by path


def replaced(arch: Architecture, path: str, part: Any, ratio: tuple[int, int] | None = None) -> Architecture:
    """An architecture with another part at every place that a path matches.

    `part` is the new part, None to remove one, or a function of the old one. With a `ratio` of (m, n), the first m
    of every m + n blocks that match are changed, and n stay.
    Raises: LaminaError, naming the path, if it matches nothing, or if the parts contradict each other.
    """
    change = part if callable(part) and not isinstance(part, Node) else lambda old: part
    way = steps(path)
    if way[0].name == "blocks":
        return _in_blocks(arch, way, path, change, ratio)
    if ratio is not None:
        raise LaminaError(f"{path}: a ratio chooses among blocks, so the path must begin with blocks[*]")
    return _at(arch, way, path, change)


def _in_blocks(
    arch: Architecture, way: list[Step], path: str, change: Change, ratio: tuple[int, int] | None
) -> Architecture:
    first, rest = way[0], way[1:]
    if first.index is None and rest:
        raise LaminaError(f"{path}: say which blocks, as in blocks[*] or blocks[0-3]")
    if first.index is None:
        return _checked(path, lambda: arch.replace(blocks=change(arch.blocks)))
    places = chosen(first.index, len(arch.blocks), path)
    if ratio is not None:
        changed, kept = ratio
        if changed < 1 or kept < 0:
            raise LaminaError(f"{path}: the ratio {changed}:{kept} must change at least one block of each group")
        places = [place for i, place in enumerate(places) if i % (changed + kept) < changed]
    done: dict[int, Any] = {}  # equal objects stay shared
    blocks = list(arch.blocks)
    for place in places:
        old = blocks[place]
        if id(old) not in done:
            done[id(old)] = _at(old, rest, path, change) if rest else _checked(path, lambda old=old: change(old))
        blocks[place] = done[id(old)]
    return _checked(path, lambda: arch.replace(blocks=tuple(block for block in blocks if block is not None)))


def _at(value: Any, way: list[Step], path: str, change: Change) -> Any:
    """`value` with the part changed that the steps lead to."""
    name, rest = way[0].name, way[1:]
    known = parts(value)
    if known is None or name not in known:
        raise unknown(path, name, value)
    if way[0].index is not None:
        return _in_row(value, way, path, change)
    if rest:
        return _with(value, name, _at(known[name], rest, path, change), path)
    new = _checked(path, lambda: change(known[name]))
    if isinstance(known[name], Branch) and isinstance(new, Op):
        new = _checked(path, lambda: known[name].replace(op=new))
    return _with(value, name, new, path)


def _in_row(value: Any, way: list[Step], path: str, change: Change) -> Any:
    """`value` with some of the parts changed that one of its fields holds in a row."""
    name, index, row = way[0].name, way[0].index or "", getattr(value, way[0].name, None)
    if not isinstance(row, tuple) or not all(isinstance(part, Node) for part in row):
        raise LaminaError(f"{path}: {name} is not indexed; blocks, encoders and their steps are")
    found = list(row)
    for place in chosen(index, len(row), path):
        old = row[place]
        found[place] = _at(old, way[1:], path, change) if way[1:] else _checked(path, lambda old=old: change(old))
    return _checked(path, lambda: value.replace(**{name: tuple(part for part in found if part is not None)}))


def _with(value: Any, name: str, part: Any, path: str) -> Any:
    """`value` with one of its parts, as `parts` names them, replaced; a branch or parallel op goes if it is None."""
    if isinstance(value, Block) and name in value.named_branches():
        branches = (value.named_branches() | {name: part}).values()
        return _checked(path, lambda: value.replace(branches=tuple(b for b in branches if b is not None)))
    if isinstance(value, Branch) and name not in type(value).model_fields:
        return _checked(path, lambda: value.replace(op=_with(value.op, name, part, path)))
    if isinstance(value, Parallel) and name in named(value.ops):
        ops = [op for op in (named(value.ops) | {name: part}).values() if op is not None]
        return ops[0] if len(ops) == 1 else _checked(path, lambda: value.replace(ops=tuple(ops)))
    return _checked(path, lambda: value.replace(**{name: part}))


def _checked(path: str, make: Callable[[], Any]) -> Any:
    """What `make` gives; what is wrong with it is said with the path."""
    try:
        return make()
    except LaminaError as error:
        message = str(error)
        raise LaminaError(message if message.startswith(path) else f"{path}: {message}") from None


# -- as text


def edited(arch: Architecture, text: str) -> Architecture:
    """An architecture with edits written as text: `PATH=VALUE`, several parted by commas.

    VALUE is a number, true, false, none, a word, or a mechanism with the fields that shall not follow from what
    stands there: `blocks[*].mixer=gated_deltanet(value_heads=8)@3:1` changes three of every four blocks.
    `scaled=100M` makes a sibling of that size; `scaled=100M(keep=vocab+depth)` says what stays.
    Raises: LaminaError, naming the path.
    """
    for edit in _split(text, ","):
        path, equals, value = edit.partition("=")
        if not equals or not value.strip():
            raise LaminaError(f"{edit!r} is no edit; accepted: PATH=VALUE, as in blocks[*].mixer.window=1024")
        if path.strip() == "scaled":
            arch = _scaled(arch, value.strip())
            continue
        value, at, ratio = value.strip().partition("@")
        pair = re.fullmatch(r"(\d+):(\d+)", ratio)
        if at and not pair:
            raise LaminaError(
                f"{path}: @{ratio} is no ratio; accepted: @3:1, three changed and one kept, over and over"
            )
        many = (int(pair[1]), int(pair[2])) if pair else None
        arch = replaced(arch, path.strip(), _change(value, _width(arch, path.strip()), path), many)
    return arch


def _width(arch: Architecture, path: str) -> int:
    """That of the vectors a path's part reads: the decoder's, or an encoder's."""
    first = steps(path)[0]
    if first.name != "encoders" or first.index is None:
        return arch.width
    return arch.encoders[chosen(first.index, len(arch.encoders), path)[0]].width


def _scaled(arch: Architecture, text: str) -> Architecture:
    """A sibling of so many parameters: `100M`, or `1.5B(keep=vocab+depth)`."""
    match = re.fullmatch(r"(?P<size>\d+(\.\d+)?)(?P<unit>[KMBkmb]?)(\(keep=(?P<keep>[a-z+]*)\))?", text)
    if match is None:
        raise LaminaError(f"scaled: {text!r} is no size; accepted: 100M, 1.5B or 100M(keep=vocab+depth)")
    factor = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}[match["unit"].lower()]
    keep = ("vocab",) if match["keep"] is None else tuple(filter(None, match["keep"].split("+")))
    return _checked("scaled", lambda: arch.scaled(round(float(match["size"]) * factor), keep))


def _change(text: str, width: int, path: str) -> Change:
    """What a value written as text makes of the old part."""
    from lamina.arch.swap import KINDS, PARTS, in_place_of

    match = re.fullmatch(r"(?P<kind>[A-Za-z_]\w*)(\((?P<fields>.*)\))?", text)
    kind = match["kind"].lower() if match else ""
    if match and kind in KINDS:
        given = dict(_field(item, path) for item in _split(match["fields"] or "", ","))
        return lambda old: in_place_of(kind, old, width, given)
    if match and kind in PARTS:
        fields = dict(_field(item, path) for item in _split(match["fields"] or "", ","))
        return lambda old: PARTS[kind](**fields)
    value = _literal(text)
    if match and match["fields"] is not None:
        raise LaminaError(f"{path}: {match['kind']!r} is no mechanism; known: {', '.join(sorted((*KINDS, *PARTS)))}")
    return lambda old: _plausible(value, old)


def _plausible(value: Any, old: Any) -> Any:
    """A plain value in the place of a part that has fields can only be none, or a mechanism mistyped."""
    from lamina.arch.swap import KINDS

    if isinstance(old, Op | Branch) and isinstance(value, str | int | float):
        raise LaminaError(f"{value!r} is no mechanism; known: {', '.join(sorted(KINDS))}")
    return value


def _field(item: str, path: str) -> tuple[str, Any]:
    name, equals, value = item.partition("=")
    if not equals:
        raise LaminaError(f"{path}: {item!r} is no field; accepted: NAME=VALUE")
    return name.strip(), _literal(value.strip())


def _literal(text: str) -> Any:
    if text.lower() in ("none", "null"):
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def _split(text: str, mark: str) -> list[str]:
    """Cut at marks that stand in no brackets."""
    found, depth, start = [], 0, 0
    for i, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == mark and depth == 0:
            found.append(text[start:i])
            start = i + 1
    return [item.strip() for item in (*found, text[start:]) if item.strip()]
