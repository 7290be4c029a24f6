"""A scene as SVG: one style sheet, glyphs defined once, nothing fetched from anywhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from typing import Literal

from lamina.report.drawing import font
from lamina.report.drawing.scene import Box, Cells, Dots, Line, Mark, Piece, Point, Text
from lamina.report.drawing.theme import COLOURS, Theme, value, variables

Letters = Literal["outlines", "font"]


def svg(scene: Piece, title: str, description: str, theme: Theme = "auto", letters: Letters = "outlines") -> str:
    """The drawing as a document of its own, or to stand in a page."""
    writer = Writer(theme, letters)
    width, height = number(scene.width), number(scene.height)
    marks = [(0.0, 0.0, Box(0, 0, scene.width, scene.height, "paper")), *scene.walk()]
    body = [*writer.shapes(mark for mark in marks if not isinstance(mark[2], Text)), *writer.texts(marks)]
    rules = "".join(f".lamina .{name}{{{rule}}}" for name, rule in sorted(writer.rules.items()))
    glyphs = "".join(f'<path id="{name}" d="{path}"/>' for name, path in sorted(writer.glyphs.items()))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="lamina" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'
    )
    said = f"<title>{escape(title)}</title><desc>{escape(description)}</desc>"
    exact = ".lamina{text-rendering:geometricPrecision}" if letters == "font" else ""
    style = f"<style>{variables(theme, writer.roles)}{exact}{rules}</style>"
    return "\n".join([head, said, style, f"<defs>{glyphs}</defs>" if glyphs else "", *body, "</svg>\n"])


def resolved(document: str, mode: Literal["light", "dark"] = "light") -> str:
    """A document for both themes with the colours of one written out, for readers that know no variables."""
    return re.sub(r"var\(--([a-z-]+)\)", lambda m: COLOURS[m[1]][mode == "dark"], document)


def number(value: float) -> str:
    """A coordinate, to a tenth."""
    return f"{value:.1f}".removesuffix(".0") if abs(value) >= 0.05 else "0"


class Writer:
    """Writes marks as elements, and remembers which styles and glyphs they use."""

    def __init__(self, theme: Theme, letters: Letters) -> None:
        self.theme: Theme = theme
        self.letters = letters
        self.rules: dict[str, str] = {}
        self.roles: set[str] = set()
        self.glyphs: dict[str, str] = {}

    def style(self, kind: str, role: str | None, more: str = "", name: str = "") -> str:
        """The class that fills ("f") or strokes ("s") with a role's colour."""
        said = f"{kind}{name}-{role or 'none'}"
        if role:
            self.roles.add(role)
        colour = value(role, self.theme) if role else "none"
        self.rules[said] = f"{'fill' if kind == 'f' else 'stroke'}:{colour}{more}"
        return said

    # -- shapes

    def shapes(self, marks: Iterable[tuple[float, float, Mark]]) -> Iterable[str]:
        """In the order of painting; neighbouring lines are written together."""
        for kind, group in groupby(marks, key=lambda mark: type(mark[2])):
            if kind is Line:
                yield from self.lines([([(x + a, y + b) for a, b in m.points], m) for x, y, m in group])  # type: ignore[union-attr]
                continue
            for x, y, mark in group:
                if isinstance(mark, Box):
                    yield self.box(x + mark.x, y + mark.y, mark)
                elif isinstance(mark, Cells):
                    yield from self.cells(x, y, mark)
                elif isinstance(mark, Dots) and mark.centres:
                    yield self.dots(x, y, mark)

    def box(self, x: float, y: float, mark: Box) -> str:
        classes = self.style("f", mark.fill)
        if mark.stroke:
            classes += " " + self._stroke(mark)
        place = f'x="{number(x)}" y="{number(y)}" width="{number(mark.width)}" height="{number(mark.height)}"'
        corners = f' rx="{number(mark.radius)}"' if mark.radius else ""
        return f'<rect class="{classes}" {place}{corners}/>'

    def _stroke(self, mark: Box | Line) -> str:
        name = ("" if mark.thick == 1 else number(mark.thick).replace(".", "_")) + ("d" if mark.dashed else "")
        more = ("" if mark.thick == 1 else f";stroke-width:{number(mark.thick)}") + (
            ";stroke-dasharray:4 3" if mark.dashed else ""
        )
        return self.style("s", mark.stroke, more, name)

    def lines(self, lines: Sequence[tuple[list[Point], Line]]) -> Iterable[str]:
        """Strokes of one style as one path, then heads of one colour as one."""
        strokes: dict[str, str] = {}
        heads: dict[str, str] = {}
        for points, mark in lines:
            if mark.arrow:
                points, head = _headed(points, mark.thick)
                heads[mark.stroke] = heads.get(mark.stroke, "") + head
            style = self._stroke(mark)
            strokes[style] = strokes.get(style, "") + _rounded(points, mark.radius)
        none = self.style("f", None)
        yield from (f'<path class="{none} {style}" d="{path}"/>' for style, path in strokes.items())
        yield from (f'<path class="{self.style("f", role)}" d="{path}"/>' for role, path in heads.items())

    def cells(self, x: float, y: float, mark: Cells) -> Iterable[str]:
        """Rows of equal rectangles as dashed lines as thick as they are high."""
        paths: dict[tuple[float, float, float], str] = {}
        for start, count, pitch in _runs(mark.boxes):
            a, b, wide, high = mark.boxes[start]
            long = wide if count == 1 else pitch * (count - 1) + wide
            piece = f"M{number(x + a)} {_fine(y + b + high / 2)}h{_fine(long)}"
            paths[(wide, high, pitch)] = paths.get((wide, high, pitch), "") + piece
        role = self.style("s", mark.fill)
        for (wide, high, pitch), path in paths.items():
            dashes = f' stroke-dasharray="{_fine(wide)} {_fine(pitch - wide)}"' if pitch else ""
            yield f'<path class="{role}" stroke-width="{_fine(high)}"{dashes} d="{path}"/>'

    def dots(self, x: float, y: float, mark: Dots) -> str:
        """Lines of no length with round ends."""
        path, at = "", (0.0, 0.0)
        for a, b in mark.centres:
            here = (round(x + a, 1), round(y + b, 1))
            move = (
                f"m{number(here[0] - at[0])} {number(here[1] - at[1])}"
                if path
                else f"M{number(here[0])} {number(here[1])}"
            )
            path, at = f"{path}{move}h0", here
        role = self.style("s", mark.colour)
        return f'<path class="{role}" stroke-linecap="round" stroke-width="{_fine(2 * mark.radius)}" d="{path}"/>'

    # -- text

    def texts(self, marks: Iterable[tuple[float, float, Mark]]) -> Iterable[str]:
        """All text, by its style."""
        styles: dict[tuple[str, float, bool], list[str]] = {}
        for x, y, mark in marks:
            if isinstance(mark, Text):
                write = self._letters if self.letters == "font" else self._glyphs
                styles.setdefault((mark.colour, mark.size, mark.bold), []).append(write(x + mark.x, y + mark.y, mark))
        for (colour, size, bold), texts in styles.items():
            classes = self.style("f", colour)
            if self.letters == "font":
                name = f"t{number(size).replace('.', '_')}{'b' if bold else ''}"
                self.rules[name] = f"font:{600 if bold else 400} {number(size)}px '{font.FAMILY}',sans-serif"
                classes += f" {name}"
            yield f'<g class="{classes}">{"".join(texts)}</g>'

    def _letters(self, x: float, y: float, mark: Text) -> str:
        return f'<text x="{number(x)}" y="{number(y)}">{escape(mark.text, quote=False)}</text>'

    def _glyphs(self, x: float, y: float, mark: Text) -> str:
        uses = ""
        for character, at in font.placed(mark.text, mark.bold):
            if character != " ":
                name = f"{'b' if mark.bold else 'r'}{ord(character):x}"
                self.glyphs.setdefault(name, font.outline(character, mark.bold))
                uses += f'<use href="#{name}" x="{at}"/>'
        place = f"translate({number(x)} {number(y)})scale({mark.size / font.units():.6f})"
        return f'<g transform="{place}">{uses}</g>'


def _fine(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _runs(boxes: Sequence[tuple[float, float, float, float]]) -> Iterable[tuple[int, int, float]]:
    """(start, count, pitch) of neighbouring boxes of one size in a row, evenly apart."""
    at = 0
    while at < len(boxes):
        _x, y, *size = boxes[at]
        count, pitch = 1, 0.0
        for a, b, *other in boxes[at + 1 :]:
            step = round(a - boxes[at + count - 1][0], 3)
            if other != size or b != y or step <= size[0] or (pitch and step != pitch):
                break
            count, pitch = count + 1, step
        yield at, count, pitch
        at += count


def _headed(points: list[Point], thick: float) -> tuple[list[Point], str]:
    """The line without its last bit, and the triangle that stands there."""
    (ax, ay), (bx, by) = points[-2:]
    length = ((bx - ax) ** 2 + (by - ay) ** 2) ** 0.5 or 1.0
    ux, uy = (bx - ax) / length, (by - ay) / length
    long, half = 4 + 2 * thick, 2 + 1.1 * thick
    sx, sy = bx - ux * long, by - uy * long
    corners = ((bx, by), (sx - uy * half, sy + ux * half), (sx + uy * half, sy - ux * half))
    path = "M" + "L".join(f"{number(a)} {number(b)}" for a, b in corners) + "z"
    return [*points[:-1], (bx - ux * long * 0.8, by - uy * long * 0.8)], path


def _rounded(points: list[Point], radius: float) -> str:
    """The path through points, each corner rounded as far as its sides allow."""
    at = points[0]
    said = f"M{number(at[0])} {number(at[1])}"
    for (ax, ay), (bx, by), (cx, cy) in zip(points, points[1:], points[2:], strict=False):
        first = ((bx - ax) ** 2 + (by - ay) ** 2) ** 0.5
        second = ((cx - bx) ** 2 + (cy - by) ** 2) ** 0.5
        r = min(radius, first / 2, second / 2)
        if r < 0.5:
            said, at = said + _straight(at, (bx, by)), (bx, by)
            continue
        start = (bx - (bx - ax) / first * r, by - (by - ay) / first * r)
        end = (bx + (cx - bx) / second * r, by + (cy - by) / second * r)
        said += f"{_straight(at, start)}Q{number(bx)} {number(by)} {number(end[0])} {number(end[1])}"
        at = end
    return said + _straight(at, points[-1])


def _straight(start: Point, end: Point) -> str:
    """A straight line on from a point, in the shortest words."""
    x, y = number(end[0]), number(end[1])
    if number(start[0]) == x:
        return "" if number(start[1]) == y else f"V{y}"
    return f"H{x}" if number(start[1]) == y else f"L{x} {y}"
