"""The site as files: made beside where it shall stand, and put there when all of it is there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from lamina.arch import Architecture
from lamina.errors import LaminaError
from lamina.report.sheet import sheet
from lamina.report.site import pages, traits
from lamina.report.site.profile import Choices, profile
from lamina.report.site.strip import key, strip

MARKER = "lamina-site.txt"
SCRIPTS = (
    "state", "words", "cost", "charts", "figures", "settings", "compare", "difference", "diff", "page", "catalog",
)  # fmt: skip
STARTS = (
    ("llama-3.1-8b", "qwen3-next-80b-a3b", "deepseek-v3"),
    ("gpt-oss-120b", "glm-4.5-air", "minimax-m2.5"),
)
PAIRS = (("qwen3-30b-a3b", "qwen3-next-80b-a3b"), ("deepseek-v3", "kimi-k2"))

Facts = dict[str, Any]
Files = Iterator[tuple[str, str | bytes]]
Progress = Callable[[int, int], None]


def files(archs: Mapping[str, Architecture], facts: Mapping[str, Facts], progress: Progress | None = None) -> Files:
    """Every file of the site by its path; `progress` is told how many architectures are done."""
    nearest = traits.nearest(archs)
    cards, drawings = [], pages.Drawings()
    for done, (name, arch) in enumerate(archs.items(), 1):
        said = sheet(arch)
        known = profile(arch, said, facts[name]) | {"name": name, "strip": strip(arch)}
        cards.append(card(known, arch, facts[name]) | {"nearest": nearest[name]})
        yield f"data/{name}.js", f"Lamina.add({pages.script(known)});\n"
        drawing = drawings.draw(arch, facts[name])
        yield f"architectures/{name}.html", pages.architecture(cards[-1], said, facts[name], drawing)
        if progress:
            progress(done, len(archs))
    names = list(archs)
    yield (
        "data/site.js",
        f"Lamina.names = {pages.script(names)};\nLamina.choices = {pages.script(Choices().record())};\n",
    )
    yield "assets/drawing.css", drawings.style
    yield from _pages(cards, names)
    yield from _assets()


def _pages(cards: list[Facts], names: list[str]) -> Files:
    starts, pairs = ([group for group in groups if set(group) <= set(names)] for groups in (STARTS, PAIRS))
    told = {"cards": cards, "key": key(card["strip"] for card in cards)} | filters(cards)
    yield "index.html", pages.page("index.html", base="", page="index.html", **told)
    yield "compare.html", pages.page("compare.html", base="", page="compare.html", names=names, starts=starts)
    yield "diff.html", pages.page("diff.html", base="", page="diff.html", names=names, pairs=pairs)


def _assets() -> Files:
    for name, text in pages.styles().items():
        yield f"assets/{name}", text
    for name in SCRIPTS:
        yield f"assets/{name}.js", pages.asset(f"{name}.js")
    for name in ("chart.umd.min.js", "chart.js-LICENSE.txt"):
        yield f"assets/{name}", pages.vendored(name)
    yield "assets/font-LICENSE.txt", (resources.files("lamina.report.fonts") / "LICENSE.txt").read_bytes()
    yield MARKER, "This folder was made by `lamina explore`, which may replace it. Open index.html.\n"


def card(said: Facts, arch: Architecture, facts: Facts) -> Facts:
    """What a card of the catalog shows and is found by."""
    has = traits.mechanisms(arch)
    others = [other["name"] for other in facts.get("also") or ()]
    parts = [text for kind in said["fields"]["kinds"] for text in kind["parts"].values()]
    found = " ".join(
        [said["name"], said["family"], said["attention"], *has, *others, *(p.split(",")[0] for p in parts)]
    )
    shown = {key: said[key] for key in ("name", "parameters", "active", "layers", "context", "attention", "strip")}
    return shown | {
        "released": said["released"],
        "licence": said["licence"],
        "state": arch.state_bytes(context=32768),
        "mechanisms": has,
        "size": traits.size(arch),
        "text": " ".join(dict.fromkeys(found.lower().split())),
    }


def filters(cards: list[Facts]) -> Facts:
    """What cards can be filtered by, each with how many it leaves."""
    tags = [(tag, sum(tag in c["mechanisms"] for c in cards)) for tag in traits.MECHANISMS]
    sizes = [(size, size) for size in traits.SIZES if any(c["size"] == size for c in cards)]
    years = sorted({c["released"][:4] for c in cards if c["released"]}, reverse=True)
    licences = sorted({c["licence"] for c in cards if c["licence"]}, key=str.lower)
    return {
        "tags": [pair for pair in tags if pair[1]],
        "selects": [
            ("size", "Parameters", "any size", sizes),
            ("year", "Released in", "any year", [(year, year) for year in years]),
            ("licence", "Licence", "any licence", [*((name, name) for name in licences), ("-", "not recorded")]),
        ],
    }


def write(
    folder: Path, archs: Mapping[str, Architecture], facts: Mapping[str, Facts], progress: Progress | None = None
) -> int:
    """Writes the site; a site that was there is replaced, all at once. Returns its size in bytes.

    Raises: LaminaError for a folder that holds something else.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).is_file()):
        raise LaminaError(f"{folder}: not empty, and not a site that lamina made; name a new folder or an empty one")
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        made.chmod(0o755)
        size = sum(_put(made / path, content) for path, content in files(archs, facts, progress))
        _swap(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return size


def _put(path: Path, content: str | bytes) -> int:
    data = content.encode("utf-8") if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return len(data)


def _swap(made: Path, folder: Path) -> None:
    """Puts what was made where it shall stand; what was there is back if that fails."""
    if not folder.exists():
        made.rename(folder)
        return
    before = made.with_name(made.name + "-before")
    folder.rename(before)
    try:
        made.rename(folder)
    except OSError:
        before.rename(folder)
        raise
    shutil.rmtree(before, ignore_errors=True)
