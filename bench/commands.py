"""How long the commands that need no torch take to answer, as a user waits for them.

python bench/commands.py [--rounds 7] [--json FILE]

Each command is started anew every time; medians and the least of wall time and of CPU time. The peer is the same
interpreter importing pydantic and typer and doing nothing: what no command here can be quicker than.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TWELVE = (
    *("gpt-2-xl", "llama-3.1-8b", "qwen3-0.6b", "gemma-3-27b", "olmo-3-32b", "gpt-oss-20b", "deepseek-v3"),
    *("kimi-linear-48b-a3b", "qwen3-next-80b-a3b", "nemotron-3-nano-30b-a3b", "gemma-4-e4b", "deepseek-v4-flash"),
)


def commands(scratch: Path) -> dict[str, list[str]]:
    """What is measured, by what it is called in the table."""
    lamina = [sys.executable, "-m", "lamina"]
    return {
        "pydantic and typer alone": [sys.executable, "-c", "import pydantic, typer"],
        "list": [*lamina, "list"],
        "show qwen3-0.6b": [*lamina, "show", "qwen3-0.6b"],
        "diff llama-3-8b deepseek-v3": [*lamina, "diff", "llama-3-8b", "deepseek-v3"],
        "compare of 12": [*lamina, "compare", *TWELVE, "--context", "4k,128k", "--device", "h200"],
        "draw deepseek-v3, SVG": [*lamina, "draw", "deepseek-v3", "-o", str(scratch / "a.svg")],
        "explore, all of the catalog": [*lamina, "explore", "-o", str(scratch / "site")],
    }


def seconds(command: list[str]) -> tuple[float, float]:
    """(wall, CPU) of one run."""
    before, start = os.times(), time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    wall, after = time.perf_counter() - start, os.times()
    return wall, after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # compiled files are kept, as for a user
    said = {}
    print(f"{'command':<30} {'wall, median':>12} {'least':>8} {'CPU, median':>12} {'least':>8}")
    with tempfile.TemporaryDirectory() as scratch:
        for name, command in commands(Path(scratch)).items():
            rounds = 3 if name.startswith("explore") else given.rounds
            seconds(command)  # files into memory
            wall, cpu = zip(*(seconds(command) for _ in range(rounds)), strict=True)
            figures = [statistics.median(wall), min(wall), statistics.median(cpu), min(cpu)]
            said[name] = dict(zip(("wall", "least_wall", "cpu", "least_cpu"), figures, strict=True))
            print(f"{name:<30} {figures[0]:>10.2f} s {figures[1]:>6.2f} s {figures[2]:>10.2f} s {figures[3]:>6.2f} s")
    if given.json:
        given.json.write_text(json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    main()
