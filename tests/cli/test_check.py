"""check and convert, against transformers itself."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch

import lamina
from tests.cli.tiny import TEMPLATE, tiny_model
from tests.families.table import ROWS
from tests.reference import reference


def test_check_passes_on_a_sound_checkpoint(run, chat_model: Path) -> None:
    done = run("check", chat_model, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["verdict"] == "PASS"
    assert report["bound"] == 1e-5
    assert report["token_ids_equal"] is True
    assert report["greedy"]["equal"] is True
    assert len(report["greedy"]["lamina"]) == 8
    names = [row["name"] for row in report["layers"]]
    assert names == ["embedding", "blocks[0]", "blocks[1]", "blocks[2] + norm", "logits"]
    assert all(row["difference"] <= 1e-5 and row["largest"] > 0.1 for row in report["layers"])
    assert report["layers"][-1]["difference"] == report["difference"]


def test_check_in_words(run, chat_model: Path) -> None:
    done = run("check", chat_model, "--tokens", 11)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-1].startswith("PASS")
    assert "not compared: random ids were read (11 tokens)" in done.stdout
    assert "ignored" in done.stdout
    prompted = run("check", chat_model, "--prompt", "hello there")
    assert "token ids     equal (" in prompted.stdout


def test_check_finds_the_layer_that_differs(run, chat_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One weight of ours changed: the rows before it agree, those after it do not, and the exit code is 1."""
    load = lamina.load

    def changed(*arguments: object, **options: object):
        model = load(*arguments, **options)  # type: ignore[arg-type]
        with torch.no_grad():
            next(p for n, p in model.blocks[1].named_parameters() if n.endswith("down_proj.weight"))[0] += 0.05
        return model

    monkeypatch.setattr(lamina, "load", changed)
    done = run("check", chat_model, "--json")
    assert done.exit_code == 1
    report = json.loads(done.stdout)
    assert report["verdict"] == "FAIL"
    differences = [row["difference"] for row in report["layers"]]
    assert max(differences[:2]) <= 1e-5
    assert min(differences[2:]) > 1e-5
    assert run("check", chat_model).stdout.splitlines()[-1].startswith("FAIL")


@pytest.mark.parametrize(("name", "said"), [("hy4", ["blocks[0]", "blocks[1]"]), ("gemma3n", [])])
def test_check_of_streams_compares_what_both_have_in_one_shape(run, name: str, said: list[str]) -> None:
    _, directory = reference(next(row for row in ROWS if row.name == name))
    done = run("check", directory, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    names = [row["name"] for row in report["layers"]]
    assert report["verdict"] == "PASS"
    assert names[-1] == "logits"
    assert names[: len(said)] == said
    assert all(row["difference"] <= 1e-5 for row in report["layers"])


def test_check_without_transformers_is_one_sentence(run, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "transformers" else find(name))
    done = run("check", "anything")
    assert done.exit_code == 2
    assert "lamina[check]" in done.stderr


def test_check_of_what_transformers_does_not_know(run, tmp_path: Path) -> None:
    written = lamina.save(tiny_model(TEMPLATE), tmp_path / "own", layout="lamina")
    done = run("check", written)
    assert done.exit_code == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "cannot load it" in errors[0]


def test_convert_writes_what_transformers_loads(run, chat_model: Path, tmp_path: Path) -> None:
    done = run("convert", chat_model, tmp_path / "new")
    assert done.exit_code == 0
    files = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert [Path(line.split("  ")[0]).name for line in done.stdout.splitlines()] == files
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(files)
    from transformers import AutoModelForCausalLM

    ids = torch.arange(3, 40)[None]
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "new")(ids).logits
    ours = lamina.load(chat_model)(ids)
    theirs, ours = theirs.detach(), ours.detach()
    assert float((ours - theirs).abs().max() / theirs.abs().max()) <= 1e-5


def test_convert_in_another_type_and_layout(run, chat_model: Path, tmp_path: Path) -> None:
    assert run("convert", chat_model, tmp_path / "half", "--dtype", "bfloat16").exit_code == 0
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"
    assert run("convert", chat_model, tmp_path / "own", "--layout", "lamina").exit_code == 0
    own = lamina.load(tmp_path / "own")
    ids = torch.arange(3, 40)[None]
    assert own.arch == lamina.load(chat_model).arch
    assert torch.equal(own(ids), lamina.load(chat_model)(ids))


def test_a_failed_convert_leaves_nothing(run, chat_model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(chat_model, broken)
    (broken / "model.safetensors").write_bytes((broken / "model.safetensors").read_bytes()[:-9])
    done = run("convert", broken, tmp_path / "new")
    assert done.exit_code == 2
    assert "model.safetensors" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]
