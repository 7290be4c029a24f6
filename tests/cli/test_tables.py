"""list, show, compare: what they print is what the value says, without torch."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import lamina
from lamina import catalog
from lamina.report import words
from lamina.report.sheet import sheet


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["list", "--json"],
        ["show", "gemma-3-27b"],
        ["compare", "qwen3-4b", "phi-4"],
        ["--help"],
        ["run", "-h"],
    ],
)
def test_what_prices_architectures_brings_no_torch(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom lamina.cli import main\n"
        f"sys.argv = ['lamina', *{arguments!r}]\n"
        "try: main()\nexcept SystemExit as end: assert end.code == 0, end.code\n"
        "print(*{'torch', 'numpy', 'transformers', 'rich'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "\n")
    assert len(done.stdout.splitlines()) > 2


def test_list_says_of_every_entry_what_its_value_says(run) -> None:
    rows = json.loads(run("list", "--json").stdout)
    assert [row["name"] for row in rows] == lamina.names()
    for row in rows:
        arch = lamina.architecture(row["name"])
        assert row["parameters"] == arch.parameters().total
        assert row["state_bytes"] == arch.state_bytes(context=32768, dtype="bfloat16")
        assert (row["layers"], row["width"], row["context"]) == (len(arch.blocks), arch.width, arch.context)
        assert row["released"] == catalog.source(row["name"])["released"]


def test_list_in_words(run) -> None:
    text = run("list").stdout
    for phrase in ("596 M", "32.8 B", "GQA 16/8", "MHA 32", "MQA 4/1, 5:1 window 512", "GQA 48/8, 3:1 window 8192"):
        assert phrase in text
    assert "3:1 NoPE" in text  # SmolLM3
    assert "3:1 window 4096, NoPE when full" in text  # Tiny Aya
    assert "8 x cross" in text  # Llama 3.2 Vision
    assert "* longer than the published context" in text


def test_list_can_be_narrowed(run) -> None:
    names = [row["name"] for row in json.loads(run("list", "Gemma", "--json").stdout)]
    assert names == [name for name in lamina.names() if "gemma" in name]
    globbed = [row["name"] for row in json.loads(run("list", "gemma-3-*", "--json").stdout)]
    assert globbed == [name for name in lamina.names() if name.startswith("gemma-3-")]


def test_a_narrow_terminal_gets_fewer_columns() -> None:
    from lamina.report.tables import LIST, Entry, records, table

    rows = records(LIST, [Entry(lamina.architecture("gemma-3-27b"), {}, 32768)])
    wide, narrow = table(LIST, rows), table(LIST, rows, 60)
    assert len(wide[0]) > 100
    assert max(map(len, narrow)) <= 60
    assert "parameters" in narrow[0]
    assert "family" not in narrow[0]


@pytest.mark.parametrize("name", lamina.names())
def test_a_sheet_adds_up(name: str) -> None:
    arch = lamina.architecture(name)
    said = sheet(arch, None)
    parts = {key: value for key, value in said["parameters"].items() if key not in ("total", "active")}
    assert sum(parts.values()) == arch.parameters().total
    assert min(parts.values()) >= 0
    assert sum(block["count"] for block in said["blocks"]) == len(arch.blocks)
    assert sorted(at for block in said["blocks"] for at in block["places"]) == list(range(len(arch.blocks)))
    assert len({block["label"] for block in said["blocks"]}) == len(said["blocks"])
    assert said["state"]["bytes"]["32768"] == arch.state_bytes(context=32768)
    assert said["flops_per_token"]["4096"] == arch.flops(1, 4096)
    assert lamina.Architecture.from_json(json.dumps(said["architecture"])) == arch
    assert said["state"]["bytes_per_token"] == arch.state_bytes(1) - arch.state_bytes(0)


def test_show_prints_the_same_as_json_and_in_words(run) -> None:
    arch = lamina.architecture("gemma-3-27b")
    said = json.loads(run("show", "gemma-3-27b", "--json").stdout)
    assert said["parameters"]["total"] == arch.parameters().total
    assert said["published"]["repository"] == "google/gemma-3-27b-it"
    text = run("show", "gemma-3-27b").stdout
    assert "62 = (5 x sliding + 1 x full) x 10 + 2 x sliding" in text
    assert "window 1,024" in text
    assert f"{arch.parameters().total:,}" in text
    assert "RMSNorm (1 + weight) before and after" in text


@pytest.mark.parametrize("width", [64, 80, 120])
def test_a_sheet_fits_a_terminal(width: int) -> None:
    from lamina.report.sheet import rendered

    for name in lamina.names():
        said = sheet(lamina.architecture(name), catalog.source(name))
        lines = rendered(said, width)
        own = lines[: lines.index("published")]  # an address there is not broken
        assert max(map(len, own)) <= width


def test_show_paths_are_those_of_the_value(run) -> None:
    lines = run("show", "cwm-32b", "--paths").stdout.splitlines()[1:]
    said = dict(line.split(maxsplit=1) for line in lines)
    assert said["blocks[0].mixer.heads"] == "48"
    assert said["blocks[1..3].mixer.window"] == "8192"
    assert said["blocks[61..63].mixer.rotary.scaling.kind"] == "llama3"
    assert said["embedding.width"] == "6144"
    assert "blocks[0].mixer.window" not in said


def test_show_reads_a_directory_and_a_config(run, chat_model) -> None:
    for source in (chat_model, chat_model / "config.json"):
        said = json.loads(run("show", source, "--json").stdout)
        assert said["name"] == "chatty"
        assert said["published"] is None
        assert said["parameters"]["head"] == said["parameters"]["embedding"] == 300 * 24


def test_compare_prices_at_the_context_that_is_asked_for(run, chat_model) -> None:
    rows = json.loads(run("compare", "gemma-3-270m", chat_model, "--context", 777, "--json").stdout)
    first = lamina.architecture("gemma-3-270m")
    assert [row["name"] for row in rows] == ["gemma-3-270m", "chatty"]
    assert rows[0]["state_bytes"] == first.state_bytes(777)
    assert rows[0]["flops_per_token"] == first.flops(1, 777)
    assert "state at 777" in run("compare", "phi-4", "--context", 777).stdout


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("ssss", "4 x s"),
        ("sfsf", "(1 x s + 1 x f) x 2"),
        ("sssfsssfss", "(3 x s + 1 x f) x 2 + 2 x s"),
        ("dddmmmm", "3 x d + 4 x m"),
        ("ssscsssscsssscs", "3 x s + (1 x c + 4 x s) x 2 + 1 x c + 1 x s"),
        ("abcabcabc", "(1 x a + 1 x b + 1 x c) x 3"),
    ],
)
def test_folding(names: str, said: str) -> None:
    assert words.folded(names) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0"), (999, "999"), (1000, "1 K"), (999_499, "999 K"), (999_999, "1 M"), (596_049_920, "596 M"),
     (32_762_123_264, "32.8 B"), (405_853_388_800, "406 B"), (1.5e15, "1.5 P")],
)  # fmt: skip
def test_counts_in_words(value: float, said: str) -> None:
    assert words.count(value) == said


def test_bytes_and_contexts_in_words() -> None:
    assert [words.size(n) for n in (0, 512, 4_294_967_296, 999_600_000)] == ["0 B", "512 B", "4.29 GB", "1 GB"]
    assert [words.tokens(n) for n in (1024, 131072, 500_000, 81)] == ["1k", "128k", "500,000", "81"]


def test_a_part_without_words_of_its_own_is_described_by_its_fields() -> None:
    from lamina.arch import Op

    class Novel(Op):
        kind: str = "novel_mixer"
        groups: int = 3
        bias: bool = False

    assert words.name_of(Novel()) == "novel mixer"
    assert words.phrases(Novel()) == ["groups 3"]
