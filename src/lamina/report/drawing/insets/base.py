"""What an inset is, and how the insets of a part are found: by its type."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from lamina.arch import Parallel
from lamina.arch.base import Node
from lamina.report.drawing.font import wrapped
from lamina.report.drawing.parts import SMALL
from lamina.report.drawing.scene import Piece, blank, column, framed, label, padded, paragraph, row, sized, typeset


@dataclass(frozen=True)
class Inset:
    """A titled diagram, and what it shows in a sentence."""

    title: str
    piece: Piece
    note: str = ""

    def body(self, width: float) -> Piece:
        """The diagram in the middle of a width, the note below."""
        note = paragraph(self.note, width, SMALL) if self.note else blank()
        return column([sized(self.piece, width, align="middle"), note], 12)


@functools.singledispatch
def insets(part: Node, width: float) -> tuple[Inset, ...]:
    """The insets of a part of an architecture, no wider than `width`; none for a type that has none registered."""
    return ()


@insets.register
def _(op: Parallel, width: float) -> tuple[Inset, ...]:
    return tuple(inset for part in op.ops for inset in insets(part, width))


def node(text: str | Sequence[str], family: str, width: float = 0.0, size: float = SMALL, bold: bool = False) -> Piece:
    """Words in a box, each line in its middle; wrapped if a width is given."""
    said = [typeset(line) for line in ([text] if isinstance(text, str) else text)]
    lines = [line for each in said for line in (wrapped(each, size, width - 10, bold) if width else [each])]
    words = column([label(line, size, bold, f"{family}-deep") for line in lines], 0, "middle")
    return framed(sized(padded(words, 5, 4), width, align="middle"), f"{family}-soft", f"{family}-edge", 6)


def key(pieces: Sequence[tuple[Piece, str]], gap: float = 14.0) -> Piece:
    """Small signs and what they stand for."""
    return row([row([sign, paragraph(text, 200, SMALL)], 6) for sign, text in pieces], gap)
