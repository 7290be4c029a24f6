"""The pages as text: templates filled with what is known of architectures. Nothing is written here."""

from __future__ import annotations

import functools
import json
import re
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lamina import __version__
from lamina.arch import Architecture
from lamina.report import words
from lamina.report.drawing import draw, font_css
from lamina.report.drawing.theme import COLOURS

Facts = dict[str, Any]

SERIES = (
    ("#2f6fb5", "#6aa8ea"),
    ("#c25e12", "#ec9c55"),
    ("#1f7f58", "#54c293"),
    ("#8a3fa0", "#cf93e0"),
    ("#b03a30", "#ea8479"),
    ("#6b6a00", "#c9b840"),
    ("#0f7c8c", "#55c3d3"),
    ("#a12c66", "#ee85b5"),
)
"""Colours of lines, on light and on dark."""

_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)
_DESCRIPTION = re.compile(r"<desc>.*?</desc>", re.DOTALL)  # the page says all of it in words
_OWN_COLOURS = re.compile(r"\.lamina\{--[^}]*\}@media\(prefers-color-scheme:dark\)\{\.lamina\{--[^}]*\}\}")


def script(value: Any) -> Markup:
    """A value as JSON that may stand within a script element, whatever it holds."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    escapes = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
    for character, escape in escapes.items():
        text = text.replace(character, escape)
    return Markup(text)


def date(text: str | None) -> str:
    """A date as far as it is known: 5 Aug 2025, Oct 2025, 2019."""
    months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
    match (text or "").split("-"):
        case [year, month, day]:
            return f"{int(day)} {months[int(month) - 1]} {year}"
        case [year, month]:
            return f"{months[int(month) - 1]} {year}"
        case [year] if year:
            return year
    return "date not recorded"


@functools.cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("lamina.report.site"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    found.filters |= {"script": script, "date": date, "count": words.count, "size": words.size, "tokens": words.tokens}
    found.globals |= {"version": __version__, "chart": json.loads(vendored("chart.json"))}
    return found


def page(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)


def asset(name: str) -> str:
    """The text of a file of the site's own."""
    return (resources.files("lamina.report.site") / "assets" / name).read_text(encoding="utf-8")


def vendored(name: str) -> str:
    """The text of a file that others wrote."""
    return (resources.files("lamina.report.site") / "vendor" / name).read_text(encoding="utf-8")


# -- styles


def tokens() -> str:
    """The colours of the drawings and of the lines of charts, for a light and a dark page, as custom properties."""
    light, dark = (
        "".join(f"--{role}:{pair[i]};" for role, pair in COLOURS.items())
        + "".join(f"--series-{n}:{pair[i]};" for n, pair in enumerate(SERIES))
        for i in (0, 1)
    )
    return (
        f":root{{color-scheme:light;{light}}}\n"
        f":root[data-theme=dark]{{color-scheme:dark;{dark}}}\n"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}\n"
    )


def styles() -> dict[str, str]:
    """The style sheets by name."""
    return {"fonts.css": font_css(), "tokens.css": tokens(), "site.css": asset("site.css")}


class Drawings:
    """Drawings in the font and the colours of a page, which carries their style rules once."""

    def __init__(self) -> None:
        self.rules: dict[str, None] = {}

    def draw(self, arch: Architecture, facts: Facts | None) -> Markup:
        svg = draw(arch, text="font", facts=facts)
        for sheet in _STYLE.findall(svg):
            rules = _OWN_COLOURS.sub("", sheet)
            self.rules |= dict.fromkeys(rule + "}" for rule in rules.split("}") if rule.strip())
        return Markup(_DESCRIPTION.sub("", _STYLE.sub("", svg)))

    @property
    def style(self) -> str:
        return "".join(sorted(rule.strip() for rule in self.rules))


# -- what a page says


def link(text: Any) -> str | None:
    """An address that may stand behind a link: of the web, and nothing else."""
    return text if isinstance(text, str) and re.match(r"https?://[^\s\"'<>]+$", text) else None


def repository(name: str | None) -> str | None:
    """Where a repository of models is, by its owner and name."""
    return f"https://huggingface.co/{name}" if name and re.fullmatch(r"[\w.-]+/[\w.-]+", name) else None


def published(facts: Facts) -> list[tuple[str, str, str | None]]:
    """What a publisher says, and where the config is from: name, text and address."""
    config = facts.get("config") or {}
    where = str(config.get("source") or "")
    code = re.match(r"github\.com/[\w.-]+/[\w.-]+", where)
    rows = [
        ("released", date(facts.get("released")), None),
        ("licence", facts.get("licence") or "not recorded", None),
        ("repository", facts.get("repository"), repository(facts.get("repository"))),
        ("parameters, as published", facts.get("published_parameters"), None),
        ("active parameters, as published", facts.get("published_active_parameters"), None),
        ("context, as published", facts.get("context"), None),
        ("config", config.get("kind"), None),
        ("config from", where, f"https://{code[0]}" if code else link(where)),
        ("read about it", facts.get("article"), link(facts.get("article"))),
        ("note", facts.get("note"), None),
    ]
    return [(name, str(text), href) for name, text, href in rows if text]


def also(facts: Facts) -> list[tuple[str, str | None]]:
    """Models of the same architecture, with their dates and addresses."""
    return [
        (f"{other['name']}, {date(other.get('released'))}" if other.get("released") else other["name"],
         repository(other.get("repository")))
        for other in facts.get("also") or ()
    ]  # fmt: skip


def architecture(card: Facts, said: Facts, facts: Facts, drawing: Markup) -> str:
    """The page of one architecture, from its card, its sheet and what its publisher says."""
    return page(
        "architecture.html",
        base="../",
        page="",
        arch=card,
        drawing=drawing,
        structure=_structure(said),
        published=published(facts),
        also=also(facts),
    )


def _structure(said: Facts) -> list[tuple[str, str]]:
    """What it is made of, in the field's words."""
    several = len(said["blocks"]) > 1
    rows = [
        ("context", f"{said['context']:,} tokens" if said["context"] else "not stated"),
        ("objective", said["objective"].replace("_", " ")),
        ("embedding", said["embedding"]),
        ("blocks", f"{said['layers']} = {said['pattern']}" if several else str(said["layers"])),
        ("recursion", said["recursion"]),
    ]
    for block in said["blocks"]:
        span = f"{block['count']} x {block['label']}: " if several else ""
        rows += [(f"{span}{name.replace('_', '-')}", text) for name, text in block["parts"].items()]
    rows += [(title, text) for title, text in said["encoders"]]
    return [pair for pair in [*rows, ("final norm", said["norm"] or "none"), ("head", said["head"])] if pair[1]]
