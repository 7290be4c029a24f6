"""`lamina draw`: files that are whole, names that are what one expects, one sentence for what is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import lamina
from lamina.cli.app import app
from lamina.report.drawing import compare, draw, lineage, png, poster
from lamina.report.drawing.sheet import sheet_scene

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["draw", *map(str, arguments)])


def drawn(*arguments: object) -> Path:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return Path(result.stdout.strip())


def archs(*names: str) -> list[lamina.Architecture]:
    return [lamina.architecture(name) for name in names]


def test_one_name_is_a_sheet_in_a_file_of_its_name(here: Path) -> None:
    path = drawn("gpt-2-124m")
    assert path == Path("gpt-2-124m.svg")
    assert path.read_text(encoding="utf-8") == draw(
        lamina.architecture("gpt-2-124m"), facts=lamina.catalog.source("gpt-2-124m")
    )
    assert [file.name for file in here.iterdir()] == ["gpt-2-124m.svg"]  # nothing else is left


def test_an_ending_says_what_is_written(here: Path) -> None:
    path = drawn("gpt-2-124m", "-o", "sub.PNG", "--scale", "0.5", "--theme", "dark")
    data = path.read_bytes()
    scene = sheet_scene(lamina.architecture("gpt-2-124m"), lamina.catalog.source("gpt-2-124m"))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(data[16:20], "big") == pytest.approx(scene.width / 2, abs=1)
    assert data == png(draw(*archs("gpt-2-124m"), "dark", facts=lamina.catalog.source("gpt-2-124m")), 0.5)


@pytest.mark.parametrize(
    ("arguments", "name", "document"),
    [
        (["llama-3-8b", "phi-4"], "llama-3-8b-phi-4.svg", lambda: compare(*archs("llama-3-8b", "phi-4"))),
        (["llama-3-8b", "phi-4", "--lineage"], "lineage.svg", lambda: lineage(archs("llama-3-8b", "phi-4"))),
        (["llama-3-8b", "phi-4", "--poster"], "poster.svg", lambda: poster(archs("llama-3-8b", "phi-4"))),
    ],
    ids=["compare", "lineage", "poster"],
)
def test_several_names(arguments: list[str], name: str, document) -> None:
    path = drawn(*arguments)
    assert path == Path(name)
    assert path.read_text(encoding="utf-8") == document()


def test_all_of_the_catalog_is_a_poster() -> None:
    text = drawn("--all").read_text(encoding="utf-8")
    assert all(f"{name}: " in text for name in lamina.names())


def test_a_config_file_is_drawn_too(here: Path) -> None:
    import json

    (here / "mine.json").write_text(json.dumps(lamina.catalog.config("qwen3-0.6b")))
    assert drawn("mine.json") == Path("mine.svg")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "nothing to draw"),
        (["nope"], "nope"),
        (["phi-4", "-o", "phi.gif"], "phi.gif: a drawing is written as .svg or .png"),
        (["phi-4", "-o", "missing/phi.svg"], "missing/phi.svg: cannot be written"),
        (["phi-4", "-o", "phi.png", "--scale", "0"], "scale (0) must be between 0.1 and 8"),
        (["phi-4", "--lineage"], "a lineage needs two"),
        (["phi-4", "llama-3-8b", "trm"], "add --lineage or --poster"),
        (["phi-4", "trm", "--lineage", "--poster"], "exclude each other"),
        (["phi-4", "--theme", "pink"], "pink"),
    ],
)
def test_what_is_wrong_is_one_sentence(here: Path, arguments: list[str], says: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert list(here.iterdir()) == []


def test_a_file_that_cannot_be_made_leaves_the_old_one(here: Path) -> None:
    (here / "taken.svg").mkdir()
    assert run("phi-4", "-o", "taken.svg").exit_code == 2
    assert [file.name for file in here.iterdir()] == ["taken.svg"]


def test_drawing_brings_no_torch() -> None:
    code = (
        "import sys\nfrom lamina.cli import main\nsys.argv = ['lamina', 'draw', 'phi-4']\n"
        "try: main()\nexcept SystemExit as end: assert end.code == 0, end.code\n"
        "print(*{'torch', 'numpy', 'transformers', 'rich', 'resvg_py'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "phi-4.svg\n", "\n")
