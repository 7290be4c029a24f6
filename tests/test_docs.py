"""The documents are true: their code runs, their links lead somewhere, what they call new is new."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import lamina
import lamina.arch
from lamina.arch.base import Node
from lamina.families import families
from tests.reference import ids, reference, relative

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "lamina"
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
EXPRESSED = ("tiny-aya-3.35b", "olmo-2-7b", "gemma-3-270m", "llama-3.2-11b-vision", "llada-8b", "trm")
KINDS = ("python", "python run", "python proposed", "python family", "console", "")


class Fence(NamedTuple):
    """A fenced block: what stands behind the opening fence, its text, and where it begins."""

    kind: str
    text: str
    page: Path
    line: int

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def run(self) -> dict[str, Any]:
        """Its names after it ran; a traceback names the page and the line."""
        names: dict[str, Any] = {"__name__": "document"}
        exec(compile("\n" * self.line + self.text, str(self.page), "exec"), names)
        return names


def fences(page: Path) -> list[Fence]:
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE)
    return [Fence(m[1], m[2], page, text.count("\n", 0, m.start()) + 1) for m in found]


FENCES = [fence for page in PAGES for fence in fences(page)]
RUNNABLE = [fence for fence in FENCES if fence.kind == "python run"]
PROPOSED = [fence for fence in FENCES if fence.kind == "python proposed"]


@pytest.mark.parametrize("fence", RUNNABLE, ids=str)
def test_a_runnable_block_runs(fence: Fence) -> None:
    assert "assert" in fence.text  # it says what is true, or it proves nothing
    fence.run()


@pytest.mark.parametrize("fence", FENCES, ids=str)
def test_a_block_is_of_a_known_kind_and_parses(fence: Fence) -> None:
    assert fence.kind in KINDS
    if fence.kind.startswith("python"):
        ast.parse(fence.text)


@pytest.mark.parametrize("name", EXPRESSED)
def test_an_expression_equals_the_catalog(name: str) -> None:
    (fence,) = (f for f in RUNNABLE if f.page.name == "design.md" and f'lamina.architecture("{name}")' in f.text)
    assert fence.run()["arch"] == lamina.architecture(name)


def unknown(fence: Fence) -> dict[int, set[str]]:
    """What a block uses that lamina.arch does not have, by the line it stands in: classes, and fields of classes."""
    found: dict[int, set[str]] = {}
    for call in ast.walk(ast.parse(fence.text)):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or not call.func.id[0].isupper():
            continue
        kind = getattr(lamina.arch, call.func.id, None)
        if kind is None:
            found.setdefault(call.lineno, set()).add(call.func.id)
        elif issubclass(kind, Node):
            for word in call.keywords:
                if word.arg is not None and word.arg not in kind.model_fields:
                    found.setdefault(word.value.lineno, set()).add(f"{call.func.id}.{word.arg}")
    return found


@pytest.mark.parametrize("fence", PROPOSED, ids=str)
def test_what_is_proposed_is_marked_and_still_new(fence: Fence) -> None:
    lines = fence.text.splitlines()
    marked = {i for i, line in enumerate(lines, 1) if "# NEW" in line}
    missing = unknown(fence)
    for line, names in missing.items():
        assert line in marked, f"{fence.page.name}:{fence.line + line}: {names} do not exist and are not marked NEW"
    values = {i for i in marked if re.search(r'activation="quick_gelu"', lines[i - 1])}  # a new value, not a new field
    for line in marked - set(missing) - values:
        raise AssertionError(f"{fence.page.name}:{fence.line + line}: marked NEW, and it exists: {lines[line - 1]!r}")


def test_something_is_proposed_and_the_check_sees_it() -> None:
    assert len(PROPOSED) == 1
    text = 'a = Attention(heads=2, colour="red")\nb = Attention(heads=2)\nc = Flux(3)\n'
    assert unknown(Fence("", text, ROOT, 0)) == {1: {"Attention.colour"}, 3: {"Flux"}}


def test_every_family_is_named() -> None:
    """Beside the catalog: those that run, then those that are only read."""
    row = re.compile(r"^\| `([\w.-]+)` \|", re.MULTILINE)
    running = {family.name for family in families().values() if family.layout is not None}
    catalog = (ROOT / "docs" / "catalog.md").read_text(encoding="utf-8").split("## Families that run")[1]
    run, read = catalog.split("## Families that are read")
    assert set(row.findall(run)) == running
    assert set(row.findall(read)) == {family.name for family in families().values()} - running


def test_parity_has_every_row() -> None:
    """The page is written from the tests that ran (`make parity`); a row that was added since is missed here."""
    from table import ROWS

    page = (ROOT / "docs" / "parity.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([\w.-]+)` \|", page, re.MULTILINE) == [row.name for row in ROWS]
    assert "fails" not in page


def test_the_readme_uses_what_exists() -> None:
    told = subprocess.run([sys.executable, "-m", "lamina", "--help"], capture_output=True, text=True, check=True)
    commands = set(re.findall(r"^  ([a-z]+)  ", told.stdout.split("Commands:")[1], re.MULTILINE))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = "\n".join(fence.text for fence in FENCES if fence.kind == "console")
    used = set(re.findall(r"^make ([a-z]+)", text, re.MULTILINE))
    assert {"demo", "test"} <= used <= targets
    assert set(re.findall(r"^lamina ([a-z]+)", text, re.MULTILINE)) == commands


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*\n(?:.*\n)*?```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.is_file(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in headings}, target
    for path in re.findall(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|txt|md))`", text):
        assert (SOURCE / path).is_file() or (ROOT / path).is_file(), f"{page.name}: {path}"


MECHANISMS = sorted(page for page in (ROOT / "docs" / "mechanisms").glob("*.md") if page.stem != "README")
NOBODY = {"differential-attention", "mamba", "rg-lru", "rwkv-7", "sequence-glu", "shared-transformer", "slstm"}
NOBODY |= {"deltanet", "mamba-3", "linear-attention", "retention", "gated-linear-attention"}
"""What no entry of the catalog has."""


@pytest.mark.parametrize("page", MECHANISMS, ids=lambda page: page.stem)
def test_a_mechanism_page_is_whole_and_names_what_the_catalog_has(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for heading in ("Cost", "Who uses it", "Try it", "Where", "Checked"):
        assert f"\n## {heading}\n" in text
    users = text.split("\n## Who uses it\n")[1].split("\n## ")[0]
    named = {word for word in re.findall(r"`([^`]+)`", users) if re.fullmatch(r"[a-z0-9.-]+\d[a-z0-9.-]*|trm", word)}
    assert bool(named) == (page.stem not in NOBODY)
    assert named <= set(lamina.names()), named - set(lamina.names())


def test_the_example_of_a_family_equals_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """The block in CONTRIBUTING.md, as a family of its own."""
    from table import BASE, row

    (fence,) = (f for f in FENCES if f.kind == "python family")
    assert len(fence.text.splitlines()) <= 60
    (family,) = fence.run()["FAMILIES"]
    monkeypatch.setitem(families(), "starcoder2", family)
    said = re.search(r"The row is `(row\(.*?\))`", fence.page.read_text(encoding="utf-8"))
    assert said
    theirs, directory = reference(eval(said[1], {"row": row, "BASE": BASE}))
    ours, x = lamina.load(directory), ids(2, 19)
    with torch.inference_mode():
        assert relative(ours(x), theirs(x, use_cache=False).logits) <= 1e-5
    assert lamina.architecture(family.write(ours.arch)) == ours.arch


def test_a_runnable_block_that_is_wrong_fails() -> None:
    with pytest.raises(AssertionError):
        Fence("python run", "x = 1\nassert x == 2\n", ROOT, 0).run()
