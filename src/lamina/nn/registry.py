"""Which module runs which part of a value, and which of its fields it reads: said where it is read.

A mechanism's file in nn/ declares its op with `runs`, and the smaller parts that it reads with `reads`. Whatever is
not declared is refused before anything is built (nn/understood.py), so no field is passed over in silence.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from lamina.arch.base import Node, Op

MODULES: dict[type[Op], Callable[..., nn.Module]] = {}
"""The module of each op: made of its value, the width of what it reads, and its place in the decoder."""

UNDERSTOOD: dict[type[Node], str] = {}
"""The fields that are read, by the part they are of. Any other must be at its default for a model to be built."""

ALLOWED: dict[tuple[type[Node], str], tuple[Any, ...]] = {}
"""Of fields that are understood in part, what is."""

M = TypeVar("M", bound=Callable[..., nn.Module])


def runs(value: type[Op], fields: str) -> Callable[[M], M]:
    """Declares a module as that of an op, and the fields of the op that it reads."""

    def declare(module: M) -> M:
        MODULES[value] = module
        reads(value, fields)
        return module

    return declare


def reads(value: type[Node], fields: str = "", **allowed: tuple[Any, ...]) -> None:
    """Declares which fields of a part are read; `allowed` holds, of one read in part, the values that run."""
    UNDERSTOOD[value] = fields
    ALLOWED.update({(value, field): choices for field, choices in allowed.items()})


class Place:
    """Where in a decoder a module stands while it is built.

    Fields: `block` is the number of its block, `blocks` how many there are, `vocab` how many tokens; `lent` are the
    states that later blocks read too, `transformers` those whose weights they may read, by block. States are numbered
    through the decoder: `slot` takes the next number.
    """

    def __init__(self, vocab: int = 0, blocks: int = 1) -> None:
        self.block, self.blocks, self.vocab = 0, blocks, vocab
        self.lent: set[int] = set()
        self.transformers: dict[int, nn.Module] = {}
        self._slots: list[int] = []  # the block of each

    def slot(self) -> int:
        """The number of a new state."""
        self._slots.append(self.block)
        return len(self._slots) - 1

    def borrowed(self, block: int) -> int:
        """The number of the first state of an earlier block, which is read too where the module stands."""
        slot = self._slots.index(block)
        self.lent.add(slot)
        return slot


@functools.cache
def discovered() -> dict[type[Node], str]:
    """The fields that are read, by part, after importing every module of nn/ so that each declares its own."""
    import lamina.nn

    for module in pkgutil.iter_modules(lamina.nn.__path__):
        importlib.import_module(f"lamina.nn.{module.name}")
    return UNDERSTOOD
