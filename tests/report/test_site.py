"""The site and the report as files: sizes, safety, and arithmetic that agrees with Python's."""

from __future__ import annotations

import html.parser
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import lamina
from lamina.arch import Architecture
from lamina.cli.app import app
from lamina.errors import LaminaError
from lamina.machine import devices
from lamina.machine.roofline import bounds, devices_needed, needed_bytes
from lamina.report import html as report
from lamina.report import site as explorer
from lamina.report.drawing.theme import contrast
from lamina.report.sheet import fields, sheet
from lamina.report.site import pages, traits
from lamina.report.site.profile import CACHES, PLANS, Choices, priced, profile
from tests.report.conftest import ASSETS, Site

pytestmark = pytest.mark.xdist_group("site")

LIMIT = 5_000_000
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>'\"</title>"


def profiles(site: Site) -> list[Path]:
    return [site.folder / "data" / "site.js", *sorted((site.folder / "data").glob("[!s]*.js"))] + [
        p for p in sorted((site.folder / "data").glob("s*.js")) if p.name != "site.js"
    ]


# -- arithmetic


def grid(archs: dict[str, Architecture]) -> list[dict[str, Any]]:
    """Settings: every value of each, combined with changing others."""
    contexts = (1, 63, 1024, 5000, 32768, 131072, 1048576)
    lists = (contexts, (1, 3, 64), range(len(PLANS)), range(len(CACHES)), range(len(devices())), (1, 8))
    cycles = [itertools.cycle(values) for values in lists]
    keys = ("context", "batch", "plan", "cache", "device", "count")
    return [dict(zip(keys, map(next, cycles), strict=True)) for _ in range(21)]


def in_python(arch: Architecture, setting: dict[str, Any]) -> list[float | str]:
    cost = priced(
        arch, PLANS[setting["plan"]], context=setting["context"], batch=setting["batch"], cache=CACHES[setting["cache"]]
    )
    device = list(devices().values())[setting["device"]]
    b = bounds(cost, device, setting["count"])
    totals = [cost.weight_bytes, cost.state_bytes, needed_bytes(cost), cost.prefill_flops, cost.decode_flops]
    parts = [sum(part[key] for part in cost.breakdown()) for key in ("state_bytes", "decode_flops")]
    bound = [b.first, b.next, b.first_limit, b.next_limit]
    return [*totals, cost.moved_bytes, devices_needed(cost, device), *parts, *bound]


IN_SCRIPT = """given.map(([name, setting]) => {
  const cost = Lamina.price(all[name], setting, Lamina.choices), parts = cost.breakdown();
  const sum = (key) => parts.reduce((total, part) => total + part[key], 0), b = cost.bounds;
  return [cost.weightBytes, cost.stateBytes, cost.neededBytes, cost.prefillFlops, cost.decodeFlops, cost.movedBytes,
    cost.devicesNeeded, sum("stateBytes"), sum("decodeFlops"), b.first, b.next, b.firstLimit, b.nextLimit];
})"""


def test_the_script_computes_what_python_does(
    archs: dict[str, Architecture], site: Site, script: Callable[..., Any], tmp_path: Path
) -> None:
    collect = tmp_path / "collect.js"
    collect.write_text("var all = {}; Lamina.add = (profile) => { all[profile.name] = profile; };")
    asked = [(name, setting) for name in archs for setting in grid(archs)]
    found = script([ASSETS / "cost.js", collect, *profiles(site)], IN_SCRIPT, asked)
    assert len(found) == 21 * len(archs)
    for (name, setting), values in zip(asked, found, strict=True):
        expected = in_python(archs[name], setting)
        assert values[-2:] == expected[-2:], (name, setting)
        assert values[:-2] == pytest.approx(expected[:-2], rel=1e-9), (name, setting)


def leaves(arch: Architecture) -> dict[str, str]:
    """Every field by the path of its one place."""
    found = {p: value for p, value in fields(arch) if p != "name" and not re.match(r"(encoders\[\d+\].)?blocks", p)}
    stacks = {"blocks": arch.blocks} | {f"encoders[{i}].blocks": e.blocks for i, e in enumerate(arch.encoders)}
    for path, blocks in stacks.items():
        for i, block in enumerate(blocks):
            alone = arch.model_copy(update={"blocks": (block,), "encoders": (), "recursion": None})
            own = ((p, value) for p, value in fields(alone) if p.startswith("blocks[0]."))
            found |= {f"{path}[{i}]{p.removeprefix('blocks[0]')}": value for p, value in own}
            found[f"{path}[{i}].scaled"] = repr(block.scaled)
    return found


PAIRS = (
    ("qwen3-30b-a3b", "qwen3-next-80b-a3b"),
    ("deepseek-v3", "kimi-k2"),
    ("gemma-2-27b", "gemma-3-27b"),
    ("llama-3.2-11b-vision", "command-r"),
    ("gpt-2-124m", "trm"),
    ("gemma-3-27b", "gemma-4-31b"),
    ("gemma-4-e4b", "llama-4-scout"),
    ("qwen2-vl-7b", "qwen3.5-35b-a3b"),
    ("qwen3-4b", "qwen3-4b"),
)


@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_the_diff_says_what_python_does(
    left: str, right: str, archs: dict[str, Architecture], script: Callable[..., Any]
) -> None:
    a, b = archs[left], archs[right]
    given = [profile(arch, sheet(arch), {})["fields"] for arch in (a, b)]
    found = script([ASSETS / "difference.js"], "Lamina.difference.differences(given[0], given[1])", given)
    said = {(path, one.get("left"), one.get("right")) for one in found for path in _places(one)}
    ours, theirs = leaves(a), leaves(b)
    whole = {path for path, *_ in said if re.search(r"blocks\[\d+\]$", path)}  # blocks that one side lacks
    expected = {(p, ours.get(p), theirs.get(p)) for p in ours.keys() | theirs.keys() if ours.get(p) != theirs.get(p)}
    assert {one for one in said if one[0] not in whole} == {one for one in expected if not _within(one[0], whole)}
    assert all(any(_within(path, {block}) for path, *_ in expected) for block in whole)
    python = {path for path, *_ in lamina.diff(a, b)}
    assert bool(python) == bool(said) == (left != right)
    for path in python:  # each of Python's holds one of the page's, or is in a block that one side lacks
        assert any(_within(one[0], {path}) for one in said) or _within(path, whole), path
    for one in said:  # and the other way round, but for fields that one side's kind of part does not have
        assert None in one[1:] or _within(one[0], python) or any(_within(path, {one[0]}) for path in python), one


def _places(one: dict[str, Any]) -> list[str]:
    """The paths of a folded difference, one by one."""
    if one["stack"] is None:
        return [one["path"]]
    return [f"{one['stack']}[{i}]{'.' if one['path'] else ''}{one['path']}" for i in one["layers"]]


def _within(path: str, parts: set[str]) -> bool:
    """Whether a path is that of one of these parts, or of something in it."""
    return any(path == part or path.startswith((f"{part}.", f"{part}[")) for part in parts)


def test_words_write_numbers_as_python_does(script: Callable[..., Any]) -> None:
    from lamina.report import words

    values = [1, 12, 999, 999.6, 1000, 1024, 4.29e9, 32768, 596e6, 1.34e12, 20_480, 999_600, 123_456_789]
    found = script([ASSETS / "words.js"], "given.map((v) => [Lamina.words.count(v), Lamina.words.size(v)])", values)
    assert found == [[words.count(v), words.size(v)] for v in values]
    assert script([ASSETS / "words.js"], "Lamina.words.runs([0,1,2,5,7,8])") == "0-2,5,7-8"


# -- files


def test_the_site_is_small_and_quick(site: Site) -> None:
    held = sum(path.stat().st_size for path in site.folder.rglob("*") if path.is_file())
    assert site.nbytes == held < LIMIT
    assert site.seconds < 20


def test_every_architecture_has_a_page(site: Site, archs: dict[str, Architecture]) -> None:
    assert {path.stem for path in (site.folder / "architectures").iterdir()} == set(archs)
    index = (site.folder / "index.html").read_text()
    assert all(f'href="architectures/{name}.html"' in index for name in archs)


class References(html.parser.HTMLParser):
    """What a page loads, what it links to, and the ids in it."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in attrs}
        self.ids += [said["id"]] if "id" in said else []
        if tag == "a":
            self.links.append(said.get("href", ""))
        else:
            self.loads += [said[name] for name in ("src", "href", "data", "srcset") if name in said]
        assert not [name for name in said if name.startswith("on")], f"a handler in <{tag}>"


def references(path: Path) -> References:
    found = References()
    found.feed(path.read_text(encoding="utf-8"))
    return found


def test_nothing_is_fetched_from_elsewhere_and_no_link_is_dead(site: Site) -> None:
    checked = 0
    for path in site.folder.rglob("*.html"):
        found = references(path)
        assert len(found.ids) == len(set(found.ids)), path
        for target in found.loads:
            assert target.startswith("data:image/svg+xml,") or (path.parent / target).is_file(), (path, target)
        for target in found.links:
            if not target.startswith("https://"):
                assert not target.partition("#")[0] or (path.parent / target.partition("#")[0]).is_file(), (
                    path,
                    target,
                )
                checked += 1
    assert checked > 500
    for path in (site.folder / "assets").glob("*.css"):
        outside = re.findall(r"url\((?!data:)|@import", path.read_text())
        assert not outside, path


def test_colours_are_all_defined_and_readable(site: Site) -> None:
    texts = [path.read_text() for folder in ("assets", "architectures") for path in (site.folder / folder).iterdir()]
    known = set(re.findall(r"--[\w-]+(?=:)", (site.folder / "assets" / "tokens.css").read_text()))
    used = {name for text in texts for name in re.findall(r"var\((--[\w-]+)", text)}
    assert used - known <= {"--layers", "--series-"}
    for light, dark in pages.SERIES:  # lines against what they stand on: 3 is asked for
        panel = [pages.COLOURS["panel"][i] for i in (0, 1)]
        assert min(contrast(light, panel[0]), contrast(dark, panel[1])) >= 3
    assert not re.search(r"\.lamina\{--", (site.folder / "assets" / "drawing.css").read_text())


def test_the_rules_of_drawings_do_not_contradict_one_another(site: Site) -> None:
    rules = re.findall(r"([^{}]+)\{([^}]*)\}", (site.folder / "assets" / "drawing.css").read_text())
    assert len(rules) > 10
    assert len({selector for selector, _ in rules}) == len(rules)


def test_names_and_notes_are_text(archs: dict[str, Architecture], tmp_path: Path) -> None:
    arch = archs["qwen3-0.6b"].model_copy(update={"name": HOSTILE})
    facts = dict.fromkeys(("note", "licence", "article", "repository", "context"), HOSTILE) | {
        "config": {"kind": HOSTILE, "source": f"javascript:alert(1)//{HOSTILE}"},
        "also": [{"name": HOSTILE, "repository": "javascript:alert(1)"}],
    }
    explorer.write(tmp_path / "site", {"safe": arch}, {"safe": facts})
    report.write([arch, archs["phi-4"]], tmp_path / "site" / "report.html", facts={HOSTILE: facts})
    for path in [*(tmp_path / "site").rglob("*.html"), *(tmp_path / "site").rglob("*.js")]:
        text = path.read_text()
        assert "<script>alert" not in text, path
        assert "<img" not in text, path
        assert 'href="javascript' not in text, path


def test_data_in_a_script_cannot_end_it() -> None:
    text = str(pages.script({"a": "</script><!-- & \u2028"}))
    assert not re.search("[<>&\u2028]", text)
    assert json.loads(text) == {"a": "</script><!-- & \u2028"}


# -- writing


def test_only_a_site_is_replaced(archs: dict[str, Architecture], tmp_path: Path) -> None:
    one = {"trm": archs["trm"]}
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(LaminaError, match="not empty, and not a site"):
        explorer.write(folder, one, {"trm": {}})
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    (folder / "thesis.txt").unlink()
    explorer.write(folder, one, {"trm": {}})
    (folder / "architectures" / "old.html").write_text("of a former catalog")
    explorer.write(folder, one, {"trm": {}})
    assert [path.name for path in (folder / "architectures").iterdir()] == ["trm.html"]
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_failure_leaves_what_was_there(archs: dict[str, Architecture], tmp_path: Path) -> None:
    folder = tmp_path / "site"
    explorer.write(folder, {"trm": archs["trm"]}, {"trm": {}})
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(KeyError):
        explorer.write(folder, {"trm": archs["trm"]}, {})
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_the_same_catalog_gives_the_same_bytes(archs: dict[str, Architecture], tmp_path: Path) -> None:
    two = {name: archs[name] for name in ("trm", "deepseek-v3")}
    for name in ("a", "b"):
        explorer.write(tmp_path / name, two, {"trm": {}, "deepseek-v3": {}})
    for path in (tmp_path / "a").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_the_command(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["explore", "trm", "Qwen3-0.6B", "-o", str(tmp_path / "site")])
    assert done.exit_code == 0, done.output
    assert "2 architectures" in done.output
    assert (tmp_path / "site" / "architectures" / "qwen3-0.6b.html").is_file()
    wrong = CliRunner().invoke(app, ["explore", "qwen33", "-o", str(tmp_path / "no")])
    assert (wrong.exit_code, (tmp_path / "no").exists()) == (2, False)
    assert "nothing in the catalog is called 'qwen33'" in wrong.output
    (tmp_path / "file").write_text("x")
    refused = CliRunner().invoke(app, ["explore", "trm", "-o", str(tmp_path / "file")])
    assert refused.exit_code == 2
    assert "not a site that lamina made" in refused.output


# -- the report


def test_the_report_is_one_file(archs: dict[str, Architecture], tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    same = [archs[name] for name in ("llama-3.1-8b", "deepseek-v3", "deepseek-v3")]
    nbytes = report.write(same, path, {"context": 131072, "device": "b200"})
    assert nbytes == path.stat().st_size < 1_000_000
    found = references(path)
    assert found.loads == ["data:,"]
    assert len(found.ids) == len(set(found.ids))
    text = path.read_text()
    assert "deepseek-v3 (2)" in text
    assert '"context":"131072"' in text
    assert text.count("</script>") == text.count("<script>")


def test_a_report_starts_where_it_is_told(archs: dict[str, Architecture], tmp_path: Path) -> None:
    mine = next(iter(devices().values())).model_copy(update={"name": "mine", "title": "My device", "memory": 12345})
    setting = {"plan": "q2_k,experts=mxfp4", "cache": "q8_0", "device": mine, "count": 2, "batch": None}
    text = report.report([archs["phi-4"]], setting)
    assert (
        'Lamina.start = {"set":"phi-4","plan":"q2_k,experts=mxfp4","cache":"q8_0","device":"mine","count":"2"}' in text
    )
    assert '{"name":"q2_k,experts=mxfp4",' in text
    assert '"title":"My device","memory":12345' in text
    assert '"device":"h100"' in report.report([archs["phi-4"]], {"device": "NVIDIA H100 SXM", "plan": "bf16"})
    for wrong in ({"plan": "q9"}, {"cache": "tiny"}, {"device": "abacus"}):
        with pytest.raises(LaminaError, match="is not known"):
            report.write([archs["phi-4"]], tmp_path / "report.html", wrong)
    assert list(tmp_path.iterdir()) == []


# -- what architectures are found by


def test_mechanisms_are_told_from_the_value(archs: dict[str, Architecture]) -> None:
    has = {name: set(traits.mechanisms(arch)) for name, arch in archs.items()}
    assert has["deepseek-v3"] >= {"Latent attention", "Mixture of experts"}
    assert "Sparse attention" in has["deepseek-v3.2"]
    assert "Sparse attention" not in has["deepseek-v3"]
    assert has["qwen3-next-80b-a3b"] >= {"Linear attention", "Full attention", "Mixture of experts"}
    assert has["gemma-3-27b"] >= {"Sliding window", "Full attention", "Dense"}
    assert "State space" in has["nemotron-3-nano-30b-a3b"]
    assert "Linear attention" not in has["nemotron-3-nano-30b-a3b"]
    assert has["llada-8b"] >= {"Looks both ways"}
    assert has["llama-3.2-11b-vision"] >= {"Cross-attention"}
    assert has["llama-3-8b"] == {"Full attention", "Dense"}
    assert all({"Mixture of experts", "Dense"} & found for found in has.values())


def test_the_nearest_are_of_a_kind(archs: dict[str, Architecture]) -> None:
    near = traits.nearest(archs)
    assert "llama-3-8b" in near["llama-3.1-8b"]
    assert near["gpt-oss-20b"][0] == "gpt-oss-120b"
    assert all(len(found) == 4 and name not in found for name, found in near.items())


@pytest.mark.parametrize(
    ("text", "said"),
    [("2025-08-05", "5 Aug 2025"), ("2025-10", "Oct 2025"), ("2019", "2019"), (None, "date not recorded")],
)
def test_dates(text: str | None, said: str) -> None:
    assert pages.date(text) == said


def test_choices_are_priced_at_rates_that_devices_have() -> None:
    offered = Choices().record()
    for device in offered["devices"]:
        assert {plan["products"] for plan in offered["plans"]} <= set(device["rates"]), device["name"]
