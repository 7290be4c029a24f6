"""The font that drawings are set in: widths, kerning and outlines, the same on every machine."""

from __future__ import annotations

import base64
import functools
import itertools
import json
import unicodedata
from collections.abc import Iterator
from importlib import resources
from typing import Any

FAMILY = "Lamina Sans"
ASCENT, DESCENT = 0.76, 0.24  # of the size: what capitals with accents, and descenders, reach


@functools.cache
def _data() -> dict[str, Any]:
    return json.loads((resources.files("lamina.report.fonts") / "sans.json").read_text(encoding="utf-8"))


@functools.cache
def _face(bold: bool) -> tuple[dict[str, int], dict[str, int], dict[str, str]]:
    face = _data()["semibold" if bold else "regular"]
    return face["advances"], face["kerning"], face["outlines"]


def units() -> int:
    """Of the font, to one em."""
    return _data()["units"]


def outline(character: str, bold: bool) -> str:
    """The SVG path of a character, in units, y downwards from the baseline."""
    return _face(bold)[2][character]


def shown(text: str) -> str:
    """The text in characters that the font has: others lose their accents, or become a question mark."""
    known = _face(False)[0]
    if all(c in known for c in text):
        return text
    plain = ("".join(p for p in unicodedata.normalize("NFKD", c) if p in known) if c not in known else c for c in text)
    return "".join(p or (" " if c.isspace() else "?") for p, c in zip(plain, text, strict=True))


def placed(text: str, bold: bool) -> Iterator[tuple[str, int]]:
    """Each character and where it starts, in units."""
    advances, kerning, _ = _face(bold)
    at, before = 0, ""
    for character in text:
        at += kerning.get(before + character, 0)
        yield character, at
        at, before = at + advances[character], character


@functools.lru_cache(4096)
def width(text: str, size: float, bold: bool = False) -> float:
    """How wide a line of text is."""
    advances, kerning, _ = _face(bold)
    total = sum(advances[c] for c in text) + sum(kerning.get(a + b, 0) for a, b in itertools.pairwise(text))
    return total * size / units()


def wrapped(text: str, size: float, room: float, bold: bool = False) -> list[str]:
    """The text in lines no wider than `room`; a word that is wider by itself is cut."""
    lines: list[str] = []
    for word in text.split():
        together = f"{lines[-1]} {word}" if lines else word
        if lines and width(together, size, bold) <= room:
            lines[-1] = together
            continue
        while width(word, size, bold) > room and len(word) > 1:
            fits = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or width(word[:n], size, bold) <= room)
            lines.append(word[:fits])
            word = word[fits:]
        lines.append(word)
    return lines or [""]


def css() -> str:
    """The @font-face rules of a page that shows drawings made with text="font"."""
    rules = []
    for weight in (400, 600):
        data = (resources.files("lamina.report.fonts") / f"sans-{weight}.woff2").read_bytes()
        source = f"url(data:font/woff2;base64,{base64.b64encode(data).decode()}) format('woff2')"
        rules.append(f"@font-face{{font-family:'{FAMILY}';font-weight:{weight};src:{source}}}")
    return "\n".join(rules)


def characters() -> list[str]:
    """All that the font has."""
    return list(_face(False)[0])
