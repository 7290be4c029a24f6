"""Line plots: where things stand, and that what is committed is drawn from what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lamina.report import words
from lamina.report.drawing.plot import Series, _ticks, legend, plot
from lamina.report.drawing.scene import Dots, Line, Text
from tools.plots import DECODE, decode, plots, ratios

AT = (1024, 4096, 65536)
SERIES = (Series("grows", "full", (1.5, 6.0, 90.0)), Series("stays", "delta", (4.0, 4.0, 4.0)))


def test_lines_stand_by_the_logarithms_of_their_numbers() -> None:
    piece = plot(SERIES, AT, 400, 200, words.tokens, lambda value: f"{value:g} ms")
    marks = [mark for _, _, mark in piece.walk()]
    grows, stays = (mark.centres for mark in marks if isinstance(mark, Dots))
    assert [x for x, _ in grows] == [x for x, _ in stays]
    (x0, y0), (x1, y1), (x2, y2) = grows
    assert (x2 - x0) / (x1 - x0) == pytest.approx(3.0)  # 1k to 64k is six doublings, 1k to 4k two
    assert (y0 - y2) / (y0 - y1) == pytest.approx(2.953, abs=1e-3)  # ln 60 / ln 4
    assert y2 < y1 < y0  # upwards
    assert len({y for _, y in stays}) == 1
    assert y1 < stays[0][1] < y0
    assert all(0 <= x <= 400 and 0 <= y <= 200 for x, y in (*grows, *stays))
    said = {mark.text for _, _, mark in piece.walk() if isinstance(mark, Text)}
    assert {"1k", "4k", "64k", "1 ms", "100 ms"} <= said
    assert piece.width <= 401
    assert piece.height <= 200
    assert sum(isinstance(mark, Line) and mark.stroke == "delta-edge" for mark in marks) == 1
    names = {mark.text for _, _, mark in legend(SERIES).walk() if isinstance(mark, Text)}
    assert names == {"grows", "stays"}


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ((1.5, 90.0), [1, 2, 5, 10, 20, 50, 100]),
        ((3.0, 3.0), [2, 5]),
        ((10.0, 10.0), [10, 20]),
        ((4e6, 4.2e9), [2e6, 1e7, 1e8, 1e9, 5e9]),
        ((0.03, 0.4), [0.02, 0.05, 0.1, 0.2, 0.5]),
    ],
)
def test_ticks_are_round_and_hold_all_values(values: tuple[float, ...], ticks: list[float]) -> None:
    assert _ticks(values) == pytest.approx(ticks)


def test_what_was_measured_is_drawn() -> None:
    """`make docs` writes it; the bench says how each number came about."""
    ((path, document),) = plots()
    assert path.read_text(encoding="utf-8") == document, "run `make docs`"
    assert ElementTree.fromstring(document).tag == "{http://www.w3.org/2000/svg}svg"
    result = json.loads(DECODE.read_text(encoding="utf-8"))
    for name, model in result["models"].items():
        assert name in ratios()
        grown = model["state_bytes"][-1] / model["state_bytes"][0]
        assert grown == pytest.approx(result["contexts"][-1] / result["contexts"][0]) or grown < 64
        assert (grown == 1.0) == (name in ("Gated DeltaNet", "Mamba-2"))
    assert decode(result) == decode(json.loads(json.dumps(result)))
    assert Path(path.parent / "recurrences.md").read_text(encoding="utf-8").count("](decode.svg)") == 1
