"""What is generated in docs/ is what would be written today, and the commands that pages offer work."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lamina.arch import mixers
from lamina.arch.swap import KINDS
from lamina.cli.app import app
from lamina.families import family_named
from tools.mechanisms import MECHANISMS
from tools.pages import DOCS, archs, filled, generated, missing, runs, stale, table

PAGES = sorted((DOCS / "mechanisms").glob("*.md"))
TRIED = [
    (page, line)
    for page in sorted(DOCS.rglob("*.md"))
    for block in re.findall(r"^```console\n((?:.*\n)*?)```$", page.read_text(encoding="utf-8"), re.MULTILINE)
    for line in block.splitlines()
    if re.match(r"lamina (list|show|compare|diff|fit|draw) ", line)
]


@pytest.mark.parametrize("path", sorted(p for p in generated() if p.suffix == ".md"), ids=lambda path: path.stem)
def test_a_page_is_what_would_be_written(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == generated()[path], "run `make docs`"


@pytest.mark.parametrize("mechanism", MECHANISMS, ids=lambda mechanism: mechanism.slug)
def test_a_mechanism_has_a_page_and_a_drawing(mechanism: object) -> None:
    slug = mechanism.slug  # type: ignore[attr-defined]
    text = (DOCS / "mechanisms" / f"{slug}.md").read_text(encoding="utf-8")
    drawing = DOCS / "mechanisms" / "drawings" / f"{slug}.svg"
    assert drawing.read_text(encoding="utf-8") == generated()[drawing], "run `make docs`"
    assert f"](drawings/{slug}.svg)" in text
    assert {"users"} <= set(re.findall(r"<!-- generated: (\w+) -->", text))
    root = ElementTree.fromstring(drawing.read_text(encoding="utf-8"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert float(root.attrib["width"]) > 100


def test_drawings_are_all_used_and_small() -> None:
    assert not stale()
    sizes = [path.stat().st_size for path in (DOCS / "mechanisms" / "drawings").glob("*.svg")]
    assert sum(sizes) < 30_000 * len(sizes)


def test_every_mechanism_has_a_page() -> None:
    told = {kind for mechanism in MECHANISMS for kind in mechanism.types}
    assert set(KINDS.values()) <= told
    assert {page.stem for page in PAGES} - {"README"} == {mechanism.slug for mechanism in MECHANISMS}
    assert {getattr(mixers, name) for name in mixers.__all__ if name.endswith("Indexer")} <= told


def test_what_is_said_to_run_runs() -> None:
    from lamina.nn.build import empty

    said = {name: runs(name) for name in archs()}
    for name, how in said.items():
        if how != "not yet":
            empty(archs()[name].replace(encoders=()) if how == "its text" else archs()[name])
        assert (how == "yes") == (not missing(name) and family_named(archs()[name].family).layout is not None)
    assert said["qwen3-0.6b"] == "yes"
    assert said["gemma-3-27b"] == "its text"
    assert set(said.values()) <= {"yes", "its text", "random weights", "not yet"}
    assert "not yet" in said.values()


def test_a_stale_page_is_noticed() -> None:
    page = DOCS / "mechanisms" / "README.md"
    text = page.read_text(encoding="utf-8")
    assert filled(page, text.replace("[Mamba](mamba.md)", "[Mambo](mamba.md)")) == text
    assert filled(page, text.replace("# Mechanisms", "# Other")) != text


def test_a_table_is_markdown() -> None:
    assert table(("a", "b"), [("1", "2")], (1,)) == "| a | b |\n| --- | --: |\n| 1 | 2 |"


@pytest.mark.parametrize(("page", "line"), TRIED, ids=lambda value: value.stem if isinstance(value, Path) else value)
def test_a_command_to_try_works(
    page: Path, line: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # drawings are written where one stands
    words = shlex.split(line, comments=True)[1:]
    with pytest.raises(SystemExit) as ended:
        app(words)
    assert ended.value.code == 0 or (words[0] == "diff" and ended.value.code == 1), capsys.readouterr().err
    assert capsys.readouterr().out.strip()
    assert words[0] != "draw" or [path.stat().st_size > 1000 for path in tmp_path.iterdir()] == [True]
