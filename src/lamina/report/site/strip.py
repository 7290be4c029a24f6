"""The strip of all layers in miniature: mixers above, feed-forwards below, coloured as in the drawings."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from markupsafe import Markup

from lamina.arch import Architecture
from lamina.report import words
from lamina.report.drawing.hues import hues

COLOURS = {
    "full": "full attention",
    "window": "window",
    "latent": "latent attention",
    "delta": "linear attention",
    "scan": "state space",
    "convolution": "convolution",
    "cross": "cross-attention",
    "other": "other mixer",
    "dense": "dense",
    "experts": "experts",
}
"""What the colours of cells say: of mixers, then of feed-forwards."""

HIGH, LOW = 7.0, 3.0


def strip(arch: Architecture) -> Markup:
    """As SVG that stretches to any width; the gaps between layers are the style sheet's, which needs their number."""
    different, places = words.kinds(arch.blocks)
    looks = [hues(block) for block in different]
    paths: dict[str, list[str]] = {}
    start = 0
    for (mixers, feed_forwards), run in groupby(looks[place] for place in places):
        many = len(list(run))
        top = HIGH if mixers and feed_forwards else HIGH + LOW
        _fill(paths, mixers, (start, 0, many, top))
        _fill(paths, feed_forwards, (start, top if mixers else 0, many, HIGH + LOW - (top if mixers else 0)))
        start += many
    marks = "".join(f'<path fill="var(--{family}-edge)" d="{"".join(d)}"/>' for family, d in paths.items())
    return Markup(
        f'<svg class="strip" style="--layers:{start}" viewBox="0 0 {start} 10" preserveAspectRatio="none" '
        f'aria-hidden="true" focusable="false">{marks}</svg>'
    )


def key(strips: Iterable[str]) -> list[tuple[str, str]]:
    """The colours that stand in some strips, and what they say."""
    together = "".join(strips)
    return [(family, text) for family, text in COLOURS.items() if f"var(--{family}-edge)" in together]


def _fill(paths: dict[str, list[str]], families: tuple[str, ...], box: tuple[float, float, float, float]) -> None:
    """Adds a rectangle to the path of each family; several share it, one below the other."""
    x, y, wide, high = box
    for i, family in enumerate(families):
        share = high / len(families)
        paths.setdefault(family, []).append(f"M{x:g} {y + i * share:.3g}h{wide:g}v{share:.3g}h{-wide:g}z")
