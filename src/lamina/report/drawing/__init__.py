"""Drawings of architectures, laid out from what the value says. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lamina.arch import Architecture
from lamina.arch.base import Node
from lamina.report import words
from lamina.report.drawing.font import css as font_css
from lamina.report.drawing.insets import insets
from lamina.report.drawing.parts import PADDING, PAGE, card
from lamina.report.drawing.poster import poster_scene
from lamina.report.drawing.raster import png
from lamina.report.drawing.scene import blank, column
from lamina.report.drawing.sheet import sheet_scene
from lamina.report.drawing.svg import Letters, svg
from lamina.report.drawing.theme import Theme
from lamina.report.drawing.versus import compare_scene, lineage_scene
from lamina.report.sheet import rendered, sheet

__all__ = ["compare", "draw", "font_css", "inset", "lineage", "png", "poster"]


def draw(
    arch: Architecture, theme: Theme = "auto", text: Letters = "outlines", facts: dict[str, Any] | None = None
) -> str:
    """The sheet of one architecture as SVG; `facts` is what its publisher says (catalog.source).

    `theme` "auto" follows the reader's light or dark; `text` "outlines" needs no font, "font" the page's (font_css).
    """
    said = "; ".join(" ".join(line.split()) for line in rendered(sheet(arch)) if line.strip())
    return svg(sheet_scene(arch, facts), _title(arch), said, theme, text)


def compare(left: Architecture, right: Architecture, theme: Theme = "auto", text: Letters = "outlines") -> str:
    """Two architectures side by side, what is said of one alone marked."""
    from lamina.report.differences import rendered as differing

    title = f"{_title(left)} and {_title(right)}"
    return svg(compare_scene(left, right), title, "; ".join(differing(left, right)), theme, text)


def lineage(archs: Sequence[Architecture], theme: Theme = "auto", text: Letters = "outlines") -> str:
    """Architectures in their order, with what changed at each step."""
    title = " → ".join(_title(arch) for arch in archs)
    return svg(lineage_scene(archs), title, _summary(archs), theme, text)


def poster(archs: Sequence[Architecture], theme: Theme = "auto", text: Letters = "outlines", title: str = "") -> str:
    """A card for each of any architectures."""
    heading = title or f"{len(archs)} architectures"
    return svg(poster_scene(archs, title), heading, _summary(archs), theme, text)


def inset(part: Node, width: float = PAGE / 3, theme: Theme = "auto", text: Letters = "outlines") -> str:
    """The diagrams of one mechanism alone; empty where its type has none."""
    room = width - 2 * PADDING
    cards = [card(found.title, found.body(room), width) for found in insets(part, room)]
    scene = column(cards, 16) if cards else blank(1, 1)
    return svg(scene, words.name_of(part), ", ".join(words.phrases(part)), theme, text)


def _title(arch: Architecture) -> str:
    return arch.name or arch.family


def _summary(archs: Sequence[Architecture]) -> str:
    return "; ".join(
        f"{_title(arch)}: {words.count(arch.parameters().total)} parameters, {words.attention(arch)}" for arch in archs
    )
