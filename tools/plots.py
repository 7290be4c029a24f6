"""Plots of what bench/ measured, from the files in bench/results: written with the rest by `make docs`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lamina.report import words
from lamina.report.drawing.parts import BODY, PADDING, card
from lamina.report.drawing.plot import Series, legend, plot
from lamina.report.drawing.scene import blank, column, label, row
from lamina.report.drawing.svg import svg
from tools.tables import table

ROOT = Path(__file__).parents[1]
DECODE, LINEAR = (ROOT / "bench" / "results" / f"{name}.json" for name in ("decode", "linear"))
COLOURS = ("full", "latent", "delta", "scan")
WIDTH, HEIGHT = 400.0, 220.0
KINDS = "prefill", "training", "peak"


def plots() -> Iterable[tuple[Path, str]]:
    """Every plot that there are results for."""
    if DECODE.exists():
        yield ROOT / "docs" / "decode.svg", decode(json.loads(DECODE.read_text(encoding="utf-8")))


def decode(result: dict[str, Any]) -> str:
    """Time and state of one more token, over the tokens before it."""
    contexts, models = result["contexts"], result["models"]
    lines = [
        [Series(name, colour, tuple(m[key])) for (name, m), colour in zip(models.items(), COLOURS, strict=True)]
        for key in ("milliseconds", "state_bytes")
    ]
    titles = "Time of one more token", "State of one sequence"
    said = (lambda value: f"{value:g} ms"), words.size
    panels = [
        column([label(title, BODY, True), plot(some, contexts, WIDTH, HEIGHT, words.tokens, unit)], 8)
        for title, some, unit in zip(titles, lines, said, strict=True)
    ]
    v, width = result["versions"], 2 * WIDTH + 30 + 2 * PADDING
    setting = f"{v['layers']} layers of width 1,024, float32, {v['threads']} threads of a {v['device'].upper()}"
    setting = setting.replace(" 1 threads", " one thread")
    body = column([row(panels, 30), blank(0, 4), legend(lines[0])], 8)
    return svg(card("After so many tokens", body, width, setting), "Decoding after a long context", setting)


def ratios() -> str:
    """A table: what each model costs after the shortest and the longest context."""
    result = json.loads(DECODE.read_text(encoding="utf-8"))
    first, last = result["contexts"][0], result["contexts"][-1]
    told = ["mixers", f"after {words.tokens(first)}", f"after {words.tokens(last)}", "times", "state then"]
    rows = [
        [name, f"{ms[0]:.1f} ms", f"{ms[-1]:.1f} ms", f"{ms[-1] / ms[0]:.2f}", words.size(m["state_bytes"][-1])]
        for name, m in result["models"].items()
        for ms in (m["milliseconds"],)
    ]
    return table(told, rows, (1, 2, 3, 4))


def speeds() -> str:
    """A table: how many times as fast as transformers each mixer is, and how much of its memory a step takes."""
    measured = json.loads(LINEAR.read_text(encoding="utf-8"))["rows"]
    told = ["mixer", "prompt", "times as fast", "training step", "times as fast", "its memory"]
    rows = []
    for name, taken in measured.items():
        each = ((taken[kind]["transformers"], taken[kind]["lamina"]) for kind in KINDS)
        (before, ours), (step, our_step), (held, our_held) = each
        times = f"{before / ours:.1f}", f"{step / our_step:.1f}", f"{our_held / held:.2f} times"
        seconds = f"{ours * 1e3:.0f} ms", f"{our_step * 1e3:.0f} ms"
        rows.append([name, seconds[0], times[0], seconds[1], times[1], times[2]])
    return table(told, rows, (1, 2, 3, 4, 5))
