"""Bad input: one sentence on stderr, exit code 2, nothing on stdout."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.tiny import ENVIRONMENT, process


def _refused(result, *, says: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if not line.startswith(("loading", "loaded"))]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert says in lines[0]
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["lst"], "Did you mean 'list'?"),
        (["list", "zzz"], "nothing in the catalog matches 'zzz'"),
        (["list", "--nope"], "--nope"),
        (["show"], "SOURCE"),
        (["show", "qwen3-0.6"], "did you mean 'qwen3-0.6b'"),
        (["show", "/no/such/config.json"], "/no/such/config.json"),
        (["show", "pypi:nothing"], "pypi:nothing"),
        (["compare", "phi-4", "nope"], "nope"),
        (["compare", "phi-4", "--context", "-1"], "context '-1' is no number of tokens"),
        (["run", "/no/such/model", "hi"], "/no/such/model"),
        (["run", "x"], "PROMPT"),
        (["run", "x", ""], "the prompt is empty"),
        (["run", "x", "hi", "--temperature", "-1"], "temperature"),
        (["run", "x", "hi", "--top-p", "2"], "top_p"),
        (["run", "x", "hi", "--max-new-tokens", "many"], "--max-new-tokens"),
        (["run", "x", "hi", "--stop", ""], "stop"),
        (["chat", "/no/such/model"], "/no/such/model"),
        (["check", "/no/such/model"], "/no/such/model"),
        (["check", "x", "--tokens", "3", "--prompt", "hi"], "--tokens"),
        (["convert", "/no/such/model", "/tmp/never-written"], "/no/such/model"),
    ],
)
def test_bad_input_is_one_sentence(run, arguments: list[str], says: str) -> None:
    _refused(run(*arguments), says=says)


def test_what_cannot_be_a_config_is_one_sentence(run, tmp_path: Path) -> None:
    broken, other = tmp_path / "config.json", tmp_path / "other.json"
    broken.write_text('{"model_type": ')
    other.write_text('{"model_type": "lama"}')
    _refused(run("show", broken), says=str(broken))
    _refused(run("show", other), says="lama")


def test_bad_input_for_a_model_is_one_sentence(run, chat_model: Path, base_model: Path, tmp_path: Path) -> None:
    _refused(run("run", chat_model, "a " * 20_000), says="context")
    _refused(run("run", base_model, "hi", "--chat"), says="no chat template")
    _refused(run("run", base_model, "hi", "--system", "be brief"), says="chat template")
    _refused(run("run", chat_model, "hi", "--dtype", "int3"), says="int3")
    _refused(run("run", chat_model, "hi", "--device", "abacus"), says="abacus")
    _refused(run("chat", base_model, "--system", "be brief", input=""), says="chat template")
    _refused(run("chat", chat_model, "--context", 30_001, input=""), says="30,001")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").write_text("mine")
    _refused(run("convert", chat_model, tmp_path / "full"), says="not an empty directory")
    _refused(run("convert", chat_model, tmp_path / "new", "--layout", "nope"), says="nope")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_a_process_says_the_same() -> None:
    done = process("show", "nope")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: 'nope' is neither")


def test_help_and_version(run) -> None:
    assert run().exit_code == 0
    assert run().stdout == run("--help").stdout
    for name in ("list", "show", "compare", "run", "chat", "check", "convert"):
        assert f"\n  {name} " in run("--help").stdout
        assert run(name, "--help").exit_code == 0
    assert run("--version").stdout.startswith("lamina ")


def test_a_reader_that_goes_away_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)  # before anything is written, so that the outcome does not depend on time
    command = [sys.executable, "-m", "lamina", "list"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, env=ENVIRONMENT)
    os.close(write)
    assert done.stderr == ""
    assert done.returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_sentence() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "lamina", "list"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, env=ENVIRONMENT)
    assert done.returncode == 2
    assert done.stderr == "error: the output: No space left on device\n"


def test_an_interruption_is_quiet(base_model: Path) -> None:
    """Interrupted while it writes: what was written stays, and the exit code says so."""
    command = [sys.executable, "-m", "lamina", "run", str(base_model), "the", "--max-new-tokens", "20000"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    try:
        assert child.stdout is not None
        first = child.stdout.read(1)
        child.send_signal(signal.SIGINT)
        rest, errors = child.communicate(timeout=60)
    finally:
        child.kill()
    assert first
    assert rest.endswith("\n")
    assert child.returncode == 130
    assert "Traceback" not in errors
