"""Makes src/lamina/report/fonts from Inter: outlines and widths for what draws, woff2 for pages that carry a font.

Run where fonttools and brotli are installed, on an unpacked npm package @fontsource/inter (SIL Open Font License):
    python tools/make_fonts.py PACKAGE
The fonts hold what drawings write and no more; right and left arrows are the upward one, turned.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from fontTools.feaLib.builder import addOpenTypeFeaturesFromString
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.recordingPen import DecomposingRecordingPen
from fontTools.pens.svgPathPen import SVGPathPen
from fontTools.pens.transformPen import TransformPen
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont

TARGET = Path(__file__).parents[1] / "src" / "lamina" / "report" / "fonts"
FAMILY = "Lamina Sans"
WEIGHTS = {"regular": 400, "semibold": 600}
LATIN = "".join(chr(c) for c in [*range(0x20, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]) + "–—‘’“”…′↑↓−"
GREEK = "ΔΘΛΣΦΨΩαβγδεζηθικλμνξπρστφχψω"
TURNED = {"→": -1, "←": 1}
LEAST_KERN = 16  # of 2048 units; less is not seen


def outlines(font: TTFont, characters: str) -> dict[str, tuple[int, Any]]:
    """(advance, drawing) of each character, composites taken apart."""
    names, glyphs, found = font.getBestCmap(), font.getGlyphSet(), {}
    for character in characters:
        name = names[ord(character)]
        pen = DecomposingRecordingPen(glyphs)
        glyphs[name].draw(pen)
        found[character] = (font["hmtx"][name][0], pen)
    return found


def turned(up: tuple[int, Any], sign: int, middle: float) -> tuple[int, Any]:
    """The upward arrow turned to the right (-1) or left (1), about the height `middle`."""
    advance, pen = up
    length, out = 2048 * 0.86, DecomposingRecordingPen({})
    # x' = -sign * y, y' = sign * x, then back to where a character stands
    dx, dy = (123.0, middle + advance / 2) if sign < 0 else (length - 123, middle - advance / 2)
    pen.replay(TransformPen(out, (0, sign, -sign, 0, dx, dy)))
    return round(length), out


def path(pen: Any) -> str:
    """An SVG path, y downwards."""
    svg = SVGPathPen({}, ntos=lambda v: str(round(v)))
    pen.replay(TransformPen(svg, (1, 0, 0, -1, 0, 0)))
    return svg.getCommands()


def kerning(font: TTFont, characters: str) -> dict[str, int]:
    """Pairs of characters that stand closer or wider than their advances say."""
    names, pairs = font.getBestCmap(), {}
    tables = [t for lookup in font["GPOS"].table.LookupList.Lookup for t in lookup.SubTable]
    tables = [getattr(t, "ExtSubTable", t) for t in tables]
    for a in characters:
        for b in characters:
            value = next((v for t in tables if (v := pair(t, names[ord(a)], names[ord(b)])) is not None), 0)
            if abs(value) >= LEAST_KERN:
                pairs[a + b] = value
    return pairs


def pair(table: Any, a: str, b: str) -> int | None:
    """What one subtable says of two glyphs; None if nothing."""
    if table.LookupType != 2 or a not in table.Coverage.glyphs:
        return None
    if table.Format == 1:
        records = table.PairSet[table.Coverage.glyphs.index(a)].PairValueRecord
        found = next((r.Value1 for r in records if r.SecondGlyph == b), None)
        return found.XAdvance if found else None
    record = table.Class1Record[table.ClassDef1.classDefs.get(a, 0)].Class2Record[table.ClassDef2.classDefs.get(b, 0)]
    return getattr(record.Value1, "XAdvance", 0) if record.Value1 else 0


def built(glyphs: dict[str, tuple[int, Any]], pairs: dict[str, int], source: TTFont, weight: int) -> TTFont:
    """A font of these glyphs, with this kerning."""
    name = {c: f"u{ord(c):04X}" for c in glyphs}
    drawn, widths = {".notdef": TTGlyphPen(None).glyph()}, {".notdef": (1024, 0)}
    for character, (advance, pen) in glyphs.items():
        out = TTGlyphPen(None)
        pen.replay(out)
        drawn[name[character]] = out.glyph(round=round)  # type: ignore[arg-type]
        widths[name[character]] = (advance, 0)
    builder = FontBuilder(source["head"].unitsPerEm)
    builder.setupGlyphOrder(list(drawn))
    builder.setupCharacterMap({ord(c): n for c, n in name.items()})
    builder.setupGlyf(drawn)
    lefts = {n: g.xMin if hasattr(g, "xMin") else 0 for n, g in builder.font["glyf"].glyphs.items()}
    builder.setupHorizontalMetrics({n: (width, lefts.get(n, 0)) for n, (width, _) in widths.items()})
    builder.setupHorizontalHeader(ascent=source["hhea"].ascent, descent=source["hhea"].descent)
    builder.setupNameTable({"familyName": FAMILY, "styleName": "Regular" if weight == 400 else "SemiBold"})
    builder.setupOS2(usWeightClass=weight, sTypoAscender=source["hhea"].ascent, sTypoDescender=source["hhea"].descent)
    builder.setupPost(keepGlyphNames=False)
    lines = "\n".join(f"  pos {name[a]} {name[b]} {value};" for (a, b), value in pairs.items())
    addOpenTypeFeaturesFromString(builder.font, f"feature kern {{\n{lines}\n}} kern;")
    return builder.font


def main(package: Path) -> None:
    said: dict[str, Any] = {"family": FAMILY}
    for style, weight in WEIGHTS.items():
        latin, greek = (TTFont(package / "files" / f"inter-{s}-{weight}-normal.woff2") for s in ("latin", "greek"))
        glyphs = outlines(latin, LATIN) | outlines(greek, GREEK)
        middle = latin["OS/2"].sCapHeight / 2
        glyphs |= {character: turned(glyphs["↑"], sign, middle) for character, sign in TURNED.items()}
        pairs = kerning(latin, LATIN)
        said |= {"units": latin["head"].unitsPerEm, "ascent": latin["hhea"].ascent, "descent": -latin["hhea"].descent}
        said |= {"capital": latin["OS/2"].sCapHeight}
        said[style] = {
            "advances": {c: advance for c, (advance, _) in glyphs.items()},
            "kerning": pairs,
            "outlines": {c: path(pen) for c, (_, pen) in glyphs.items()},
        }
        font = built(glyphs, pairs, latin, weight)
        font.flavor = "woff2"
        font.save(TARGET / f"sans-{weight}.woff2")
    (TARGET / "sans.json").write_text(json.dumps(said, ensure_ascii=False, separators=(",", ":")) + "\n")
    shutil.copy(package / "LICENSE", TARGET / "LICENSE.txt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
