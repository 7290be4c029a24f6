"""Changing a value: the same architecture with parts replaced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from lamina.arch.base import Node

N = TypeVar("N", bound=Node)


def rewritten(value: Any, kind: type[N], change: Callable[[N], Any]) -> Any:
    """`value` with `change` applied to every part of it that is of `kind`, at any depth.

    Parts that do not change stay the same objects, and equal objects stay shared.
    """
    done: dict[int, Any] = {}

    def visit(part: Any) -> Any:
        if isinstance(part, tuple):
            parts = tuple(visit(p) for p in part)
            return part if all(a is b for a, b in zip(part, parts, strict=True)) else parts
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
