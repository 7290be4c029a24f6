"""Drawings: nothing overlaps or is cut, text is readable, and what is written is SVG that needs nothing else."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from itertools import combinations
from typing import Literal

import pytest

import lamina
from lamina import catalog
from lamina.arch import Architecture, Block, Branch, Op, RMSNorm
from lamina.arch.measure import Kept, Shape, Work, linear
from lamina.report.drawing import compare, draw, font, inset, lineage, png, poster
from lamina.report.drawing.block import block_piece
from lamina.report.drawing.parts import PAGE, SMALL
from lamina.report.drawing.poster import poster_scene
from lamina.report.drawing.scene import Box, Line, Piece, Text
from lamina.report.drawing.sheet import sheet_scene
from lamina.report.drawing.svg import svg
from lamina.report.drawing.theme import COLOURS, FAMILIES, contrast
from lamina.report.drawing.versus import compare_scene, lineage_scene

Rectangle = tuple[float, float, float, float]
SLACK, EDGE = 0.6, 3.0  # of text, and of lines
SETS = {
    "compare": lambda: compare_scene(*architectures("llama-3-8b", "qwen3-next-80b-a3b")),
    "compare-latent": lambda: compare_scene(*architectures("deepseek-v3", "gemma-3-27b")),
    "compare-same": lambda: compare_scene(*architectures("phi-4", "phi-4")),
    "lineage": lambda: lineage_scene(architectures("gpt-2-124m", "llama-3-8b", "qwen3-4b", "qwen3-next-80b-a3b")),
    "lineage-long": lambda: lineage_scene(
        architectures("gemma-2-27b", "gemma-3-27b", "trm", "kimi-linear-48b-a3b", "longcat-flash", "llada-8b")
    ),
    "poster": lambda: poster_scene(architectures(*catalog.names()[::4])),
}


def architectures(*names: str) -> list[Architecture]:
    return [lamina.architecture(name) for name in names]


def text_boxes(scene: Piece) -> list[tuple[Rectangle, str]]:
    """Every text of a scene and the rectangle that it takes."""
    found = []
    for x, y, mark in scene.walk():
        if isinstance(mark, Text) and mark.text.strip():
            left, top, right, bottom = mark.box
            found.append(((x + left, y + top, x + right, y + bottom), mark.text))
    return found


def overlap(a: Rectangle, b: Rectangle, slack: float = SLACK) -> bool:
    return min(a[2], b[2]) - max(a[0], b[0]) > slack and min(a[3], b[3]) - max(a[1], b[1]) > slack


def overlapping(scene: Piece) -> list[tuple[str, str]]:
    """Texts that share ground. Sorted by height, so that only neighbours are compared."""
    boxes = sorted(text_boxes(scene), key=lambda found: found[0][1])
    found, near = [], []
    for box, text in boxes:
        near = [other for other in near if other[0][3] > box[1]]
        found += [(text, said) for other, said in near if overlap(box, other)]
        near.append((box, text))
    return found


def outside(piece: Piece, path: str = "scene") -> Iterator[str]:
    """What of a piece, or of a piece in it, sticks out."""
    for mark in (*piece.marks, *piece.over):
        if isinstance(mark, Text):
            left, top, right, bottom = mark.box
            if min(left, top) < -SLACK or right > piece.width + SLACK or bottom > piece.height + SLACK:
                yield f"{path}: {mark.text!r}"
        if isinstance(mark, Line) and path != "scene":
            xs, ys = zip(*mark.points, strict=True)
            if min(*xs, *ys) < -EDGE or max(xs) > piece.width + EDGE or max(ys) > piece.height + EDGE:
                yield f"{path}: a line to {max(xs):.0f}, {max(ys):.0f} in {piece.width:.0f} x {piece.height:.0f}"
    for x, y, part in piece.parts:
        right, bottom = x + part.width, y + part.height
        if min(x, y) < -SLACK or right > piece.width + SLACK or bottom > piece.height + SLACK:
            size, room = f"{part.width:.0f} x {part.height:.0f}", f"{piece.width:.0f} x {piece.height:.0f}"
            yield f"{path}: a piece of {size} at {x:.0f}, {y:.0f} in {room}"
        yield from outside(part, f"{path} > {x:.0f},{y:.0f}")


def crossed(scene: Piece) -> list[str]:
    """Texts that a line runs through, unless the ground that they stand on was painted over the line."""
    boxes, found, lines = text_boxes(scene), [], []
    for x, y, mark in scene.walk():
        if isinstance(mark, Box) and mark.fill:
            ground = (x + mark.x, y + mark.y, x + mark.x + mark.width, y + mark.y + mark.height)
            lines = [(line, said) for line, said in lines if not _covers(ground, line, dict(said))]
        if isinstance(mark, Line):
            for (ax, ay), (bx, by) in zip(mark.points, mark.points[1:], strict=False):
                if ax != bx and ay != by:
                    continue  # slanted lines fan out below what they lead to
                line = (x + min(ax, bx), y + min(ay, by), x + max(ax, bx), y + max(ay, by))
                lines += [(line, ((said, box),)) for box, said in boxes if _through(line, box)]
    return found + [said for _, texts in lines for said, _ in texts]


def _covers(ground: Rectangle, line: Rectangle, texts: dict[str, Rectangle]) -> bool:
    return all(
        ground[0] <= b[0] and ground[1] <= b[1] and ground[2] >= b[2] and ground[3] >= b[3] for b in texts.values()
    )


def _through(line: Rectangle, box: Rectangle) -> bool:
    inside = (box[0] + 1, box[1] + 2, box[2] - 1, box[3] - 2)
    return line[0] < inside[2] and line[2] > inside[0] and line[1] < inside[3] and line[3] > inside[1]


def check(scene: Piece, page: float | None = PAGE) -> None:
    """That a scene is one to hang on a wall, as far as a machine can tell."""
    if page:
        assert scene.width <= page + SLACK
    assert overlapping(scene) == []
    assert list(outside(scene)) == []
    assert crossed(scene) == []
    sizes = {mark.size for _, _, mark in scene.walk() if isinstance(mark, Text)}
    assert min(sizes) >= SMALL


@pytest.mark.parametrize("name", catalog.names())
def test_a_sheet_is_laid_out_well(name: str) -> None:
    check(sheet_scene(lamina.architecture(name), catalog.source(name)))


@pytest.mark.parametrize("name", SETS)
def test_several_are_laid_out_well(name: str) -> None:
    check(SETS[name](), None if name == "poster" else PAGE)


def test_the_checks_find_what_they_look_for() -> None:
    words = Text(0, 10, "some words", 12, False, "ink")
    apart = Piece(200, 100, parts=((0, 0, Piece(100, 20, (words,))), (0, 30, Piece(100, 20, (words,)))))
    check(apart)
    onto = Piece(200, 100, parts=((0, 0, Piece(100, 20, (words,))), (20, 8, Piece(100, 20, (words,)))))
    assert overlapping(onto) == [("some words", "some words")]
    assert list(outside(Piece(30, 20, (words,)))) == ["scene: 'some words'"]
    assert len(list(outside(Piece(30, 20, parts=((0.0, 10.0, Piece(20, 20)),))))) == 1
    assert crossed(Piece(200, 100, (words, Line(((5, 0), (5, 90)))))) == ["some words"]


# -- the document


def parsed(document: str) -> ElementTree.Element:
    return ElementTree.fromstring(document)


def elements(root: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return list(root.iter(f"{{http://www.w3.org/2000/svg}}{name}"))


@pytest.mark.parametrize("text", ["outlines", "font"])
@pytest.mark.parametrize("name", ["gpt-2-124m", "deepseek-v3", "trm"])
def test_what_is_written_is_svg_that_needs_nothing_else(name: str, text: Literal["outlines", "font"]) -> None:
    document = draw(lamina.architecture(name), text=text, facts=catalog.source(name))
    root = parsed(document)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == name
    assert elements(root, "title")[0].text == name
    assert "parameters" in (elements(root, "desc")[0].text or "")
    references = [e.attrib["href"] for e in root.iter() if "href" in e.attrib]
    known = {e.attrib["id"] for e in root.iter() if "id" in e.attrib}
    assert all(r.startswith("#") and r[1:] in known for r in references)
    assert not re.search(r"url\(|@import|<image|<script|<foreignObject", document)
    assert document.count("http") == 1  # the namespace
    assert bool(elements(root, "text")) is (text == "font")
    used = {c for e in root.iter() for c in e.attrib.get("class", "").split()} - {"lamina"}
    style = elements(root, "style")[0].text or ""
    assert used == set(re.findall(r"\.lamina \.([\w-]+)\{", style))
    assert set(re.findall(r"var\(--([\w-]+)\)", style)) == set(re.findall(r"--([\w-]+):", style))


def test_the_same_value_is_drawn_the_same() -> None:
    one, other = (lamina.Architecture.from_json(lamina.architecture("qwen3-next-80b-a3b").to_json()) for _ in "ab")
    assert one is not other
    assert draw(one) == draw(other)


def test_all_text_is_in_both_kinds_of_document() -> None:
    arch = lamina.architecture("gemma-3-270m")
    lines = [e.text for e in elements(parsed(draw(arch, text="font")), "text")]
    drawn = elements(parsed(draw(arch)), "use")
    assert len(drawn) == sum(len(line.replace(" ", "")) for line in lines if line)


def test_a_line_is_as_wide_as_its_outlines() -> None:
    for bold in (False, True):
        for line in ("GQA 32/8, window 4,096", "AVATAR To. Ty", "β k (v − S′k)′ → α × 128"):
            ends = [at for _, at in font.placed(line, bold)]
            last = font.width(line[-1], font.units(), bold)
            assert font.width(line, 16, bold) == pytest.approx((ends[-1] + last) * 16 / font.units())
    assert font.width("AV", 100) < font.width("A", 100) + font.width("V", 100)  # kerned


@pytest.mark.parametrize("bold", [False, True])
def test_outlines_stay_near_their_advances(bold: bool) -> None:
    for character in font.characters():
        xs = [float(x) for x in re.findall(r"[ML](-?\d+)", font.outline(character, bold))]
        advance = font.width(character, font.units(), bold)
        assert all(-0.12 * font.units() <= x <= advance + 0.12 * font.units() for x in xs), character


def test_any_text_can_be_shown() -> None:
    assert font.shown("naïve → 4 × β") == "naïve → 4 × β"
    assert font.shown("Ł模 ﬁ") == "?? fi"
    assert font.shown("a\tb\u2009c") == "a b c"
    assert font.wrapped("a b", 12, 1000) == ["a b"]
    narrow = font.wrapped("incomprehensibilities", 12, 40)
    assert "".join(narrow) == "incomprehensibilities"
    assert all(font.width(line, 12) <= 40 for line in narrow)


# -- colours


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_text_can_be_read(mode: int) -> None:
    grounds = ["paper", "panel"]
    for role in ("ink", "muted", *(f"{f}-deep" for f in FAMILIES)):
        for ground in grounds:
            assert contrast(COLOURS[role][mode], COLOURS[ground][mode]) >= 4.5, (role, ground)
    for family in FAMILIES:
        for role in (f"{family}-deep", "ink"):
            assert contrast(COLOURS[role][mode], COLOURS[f"{family}-soft"][mode]) >= 4.5, (role, family)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # the known just-not-enough grey


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_kinds_of_mixers_can_be_told_apart_without_red_or_green(mode: int) -> None:
    mixers = ("full", "window", "latent", "delta", "scan", "convolution", "cross")
    for kind in (_without_red, _without_green):
        seen = {family: kind(COLOURS[f"{family}-edge"][mode]) for family in mixers}
        for one, other in combinations(mixers, 2):
            distance = sum((a - b) ** 2 for a, b in zip(seen[one], seen[other], strict=True)) ** 0.5
            assert distance > 50, (one, other, kind.__name__, distance)


def _linear(colour: str) -> list[float]:
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]


def _shown_as(colour: str, matrix: tuple[tuple[float, ...], ...]) -> list[float]:
    rows = (sum(a * b for a, b in zip(row, _linear(colour), strict=True)) for row in matrix)
    return [
        255 * (12.92 * p if p <= 0.0031308 else 1.055 * p ** (1 / 2.4) - 0.055) for p in (max(0.0, r) for r in rows)
    ]


def _without_red(colour: str) -> list[float]:
    """Protanopia. Source: Machado, Oliveira and Fernandes 2009, table 1."""
    return _shown_as(
        colour, ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998))
    )


def _without_green(colour: str) -> list[float]:
    """Deuteranopia, from the same table."""
    return _shown_as(
        colour, ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881))
    )


# -- what nobody has drawn before


class Novel(Op):
    """A mixer that the drawings know nothing of."""

    kind: Literal["novel_mixer"] = "novel_mixer"
    groups: int = 3
    norm: RMSNorm = RMSNorm()

    @property
    def role(self) -> str:
        return "mixer"

    def weights(self, width: int) -> dict[str, Shape]:
        return linear("q_proj", width, width)

    def work(self, width: int, memory: int = 0, decoding: bool = False) -> Work:
        return Work(2 * width * width)

    def keeps(self, width: int) -> tuple[Kept, ...]:
        return (Kept("recurrent", 7, each="sequence"),)


def test_an_unknown_mechanism_is_drawn_with_its_words() -> None:
    block = Block.model_construct(branches=(Branch.model_construct(op=Novel(), before=RMSNorm()),))
    piece = block_piece([block], 312)
    check(piece)
    assert {"novel mixer", "groups 3", "norm RMSNorm"} <= {text for _, text in text_boxes(piece)}
    fills = {mark.fill for _, _, mark in piece.walk() if isinstance(mark, Box)}
    assert "delta-soft" in fills  # it keeps a recurrent state


def test_insets_stand_alone() -> None:
    op = next(lamina.architecture("deepseek-v3").ops())
    root = parsed(inset(op, 400, text="font"))
    said = [e.text for e in elements(root, "text")]
    assert "Latent path of MLA" in said
    assert any("576" in (line or "") for line in said)  # 512 + 64 numbers are kept
    assert parsed(inset(Novel(), 400)).attrib["aria-label"] == "novel mixer"


# -- PNG


def size_of(data: bytes) -> tuple[int, int]:
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


@pytest.mark.parametrize("scale", [0.5, 2])
def test_a_png_has_the_size_that_was_asked_for(scale: float) -> None:
    arch = lamina.architecture("gpt-2-124m")
    scene = sheet_scene(arch)
    width, height = size_of(png(draw(arch), scale))
    assert width == pytest.approx(scene.width * scale, abs=1)
    assert height == pytest.approx(scene.height * scale, abs=1)


def test_a_png_shows_what_the_drawing_says() -> None:
    light, dark = (png(draw(lamina.architecture("trm"), theme), 0.5) for theme in ("light", "dark"))
    assert light != dark
    assert png(draw(lamina.architecture("trm"), "auto"), 0.5) == light
    page = Piece(4, 4, (Box(0, 0, 4, 4, "full-edge"),))
    assert len(png(svg(page, "", ""), 1)) < 200


def test_a_scale_that_makes_no_picture_is_refused() -> None:
    with pytest.raises(lamina.LaminaError, match="scale"):
        png(draw(lamina.architecture("trm")), 0)


def test_several_are_documents_too() -> None:
    some = architectures("gpt-2-124m", "llama-3-8b")
    for document in (compare(*some), lineage(some), poster(some)):
        root = parsed(document)
        assert "llama-3-8b" in root.attrib["aria-label"] + (elements(root, "desc")[0].text or "")
