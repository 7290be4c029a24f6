"""What keeps the code readable and quick to start: sizes of files and functions, and what an import costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "lamina"
FILE, FUNCTION, PARAMETERS = 400, 60, 12
FOLDERS = {"families": 120, "ops": 200}  # lines a file, where that is less than FILE


def over_budget(root: Path) -> Iterator[str]:
    """A line for each file or function under `root` that is larger than its budget."""
    for path in sorted(root.rglob("*.py")):
        name, text = path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")
        lines, budget = len(text.splitlines()), FOLDERS.get(path.parent.name, FILE)
        if lines > budget:
            yield f"{name}: {lines} lines, {budget} allowed"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION:
                    yield f"{name}:{node.lineno} {node.name}: {lines} lines, {FUNCTION} allowed"
                a = node.args
                count = len([*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, [a.vararg, a.kwarg])])
                if count > PARAMETERS:
                    yield f"{name}:{node.lineno} {node.name}: {count} parameters, {PARAMETERS} allowed"


def test_the_source_keeps_its_budgets() -> None:
    assert len(list(SOURCE.rglob("*.py"))) > 2  # the right folder
    assert list(over_budget(SOURCE)) == []


def test_what_is_over_budget_is_found(tmp_path: Path) -> None:
    (tmp_path / "families").mkdir()
    (tmp_path / "families" / "big.py").write_text("x = 1\n" * 121)
    (tmp_path / "families" / "fits.py").write_text("x = 1\n" * 120)
    (tmp_path / "file.py").write_text("x = 1\n" * 401)
    (tmp_path / "function.py").write_text("class A:\n    async def f(self):\n" + "        x = 1\n" * 60)
    (tmp_path / "parameters.py").write_text("def f(a, b, c, /, d, e, f, g, *h, i, j, k, l, **m): ...\n")
    assert list(over_budget(tmp_path)) == [
        "families/big.py: 121 lines, 120 allowed",
        "file.py: 401 lines, 400 allowed",
        "function.py:2 f: 61 lines, 60 allowed",
        "parameters.py:1 f: 13 parameters, 12 allowed",
    ]


@pytest.mark.parametrize("module", ["lamina", "lamina.arch", "lamina.cli", "lamina.checkpoint.sources"])
def test_an_import_brings_no_torch(module: str) -> None:
    code = f"import sys, {module}; print(*{{'torch', 'transformers', 'huggingface_hub'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")
