"""What headers alone say: without torch, from here or from a server, of which little is asked."""

from __future__ import annotations

import collections
import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings

import lamina
from lamina.checkpoint import tensors
from lamina.checkpoint.gguf import FORMATS, open_gguf
from lamina.checkpoint.headers import gguf as gguf_header
from lamina.checkpoint.headers import remote, table
from lamina.checkpoint.headers import safetensors as safetensors_header
from lamina.checkpoint.headers.files import LocalFile
from lamina.checkpoint.headers.remote import RemoteFile
from lamina.checkpoint.safetensors import open_safetensors
from lamina.errors import LaminaError
from lamina.lookup import find
from lamina.ops.blocks import BLOCKS
from lamina.published.gguf import read_gguf
from tests.checkpoint import test_fuzz_readers as fuzz
from tests.checkpoint.hub import Hub
from tests.checkpoint.test_gguf_models import CASES, Case, converted, keys, reference, write

LLAMA = CASES[0]
CONFIG = {
    "model_type": "llama",
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
WORDS, ROWS, WIDTH = 262_144, 50_000, 1024


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 205 MB, nearly all of it nothing, with a vocabulary as large as they get; divisors stand last."""
    path = tmp_path_factory.mktemp("large") / "large.Q8_0.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    keys(writer, Case("large", "llama", "Llama", LLAMA.config | {"vocab_size": ROWS, "hidden_size": WIDTH}))
    writer.add_array("tokenizer.ggml.tokens", [f"word {i} ▁" for i in range(WORDS)])
    writer.add_array("tokenizer.ggml.scores", [0.5] * WORDS)
    writer.add_array("tokenizer.ggml.token_type", [1] * WORDS)
    divisors = np.linspace(1, 8, 85, dtype=np.float32)
    writer.add_tensor_info("token_embd.weight", (ROWS, WIDTH), np.dtype(np.float32), ROWS * WIDTH * 4)
    writer.add_tensor_info("rope_freqs.weight", divisors.shape, divisors.dtype, divisors.nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        start = -(-file.seek(0, 2) // 32) * 32 + ROWS * WIDTH * 4
        file.seek(start)
        file.write(divisors.tobytes() + bytes(12))
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("tiny") / "tiny.gguf", LLAMA, converted(LLAMA, reference(LLAMA)))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A model in the published layout: config.json and one file."""
    return lamina.save(lamina.build(lamina.architecture(CONFIG)), tmp_path / "model")


def header_bytes(path: Path) -> int:
    """Where the data of a GGUF file begins."""
    return min(entry.start for entry in gguf_header.read_header(LocalFile(path)).tensors.values())


# ------------------------------------------------------------------------------------------------ no torch


def test_nothing_brings_torch(hub: Hub, tiny: Path, directory: Path, tmp_path: Path) -> None:
    weights = directory / "model.safetensors"
    hub.repositories["org/config"] = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": bytes(99)}
    hub.repositories["org/gguf"] = {"tiny.gguf": tiny}
    address = f"{hub.url}/org/gguf/resolve/main/tiny.gguf"
    commands: list[list[object]] = [
        ["show", tiny],
        ["show", weights, "--json"],
        ["compare", f"{tiny}:blocks[*].mixer.window=8", directory],
        ["show", "org/config"],
        ["compare", "org/gguf", "org/gguf@v1:tiny.gguf", address, f"{address}:context=64"],
        ["diff", tiny, "org/gguf:tiny.gguf"],
    ]
    code = (
        "import sys\nfrom lamina.cli import main\n"
        f"for arguments in {[[str(word) for word in words] for words in commands]!r}:\n"
        "    sys.argv = ['lamina', *arguments]\n"
        "    try: main()\n    except SystemExit as end: assert end.code == 0, (arguments, end.code)\n"
        "    print(*{'torch', 'numpy', 'transformers'} & set(sys.modules), file=sys.stderr)"
    )
    env = os.environ | {"HF_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "\n" * len(commands)), done.stderr
    assert hub.fetched() == {"config.json", "tiny.gguf"}


# ----------------------------------------------------------------------------------- the same architecture


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_header_says_what_the_opened_file_says(case: Case, hub: Hub, tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.gguf", case, converted(case, reference(case)))
    expected = read_gguf(open_gguf(path))
    assert read_gguf(gguf_header.read_header(LocalFile(path))) == expected
    hub.repositories["org/model"] = {"tiny.gguf": path}
    for source in (path, "org/model", f"{hub.url}/org/model/resolve/main/tiny.gguf"):
        assert lamina.architecture(source) == expected.arch


@pytest.mark.parametrize(
    ("example", "open_file", "read_header"),
    [
        (fuzz.gguf_example, open_gguf, partial(gguf_header.read_header, formats=FORMATS.values())),
        (fuzz.safetensors_example, open_safetensors, partial(safetensors_header.read_header, formats=tensors.PLAIN)),
    ],
)
def test_damaged_files_are_refused_alike(tmp_path: Path, example: Any, open_file: Any, read_header: Any) -> None:
    valid, seen = example(tmp_path / "valid"), collections.Counter()

    @settings(fuzz.FUZZ, max_examples=300)
    @given(fuzz.MUTATIONS)
    def damaged(mutations: list[fuzz.Mutation]) -> None:
        content = valid
        for mutate in mutations:
            content = mutate(content)
        path = tmp_path / "file"
        path.unlink(missing_ok=True)  # a new file: the old one may still be mapped
        path.write_bytes(content)
        said: list[Any] = []
        for read in (lambda: open_file(path), lambda: read_header(LocalFile(path))):
            try:
                file = read()
                said.append([(name, t.shape, t.format, t.nbytes, t.data()) for name, t in file.tensors.items()])
            except LaminaError as error:
                said.append(str(error))
        assert said[0] == said[1]
        seen[type(said[0])] += 1

    damaged()
    assert min(seen[list], seen[str]) > 2, seen


def test_formats_have_the_sizes_they_are_opened_with() -> None:
    for name, dtype in tensors.PLAIN.items():
        assert table.PLAIN[name] == dtype.itemsize
    assert {name: (block.elements, block.nbytes) for name, block in BLOCKS.items()}.items() <= table.BLOCKS.items()


def test_a_format_that_cannot_be_unpacked_can_be_shown(tmp_path: Path) -> None:
    """The architecture of a file in IQ4_XS is known, though it cannot be loaded."""
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    keys(writer, Case("a", "llama", "Llama", LLAMA.config | {"vocab_size": 3, "hidden_size": 768}))
    writer.add_tensor("token_embd.weight", np.zeros((3, 3 * 136), np.uint8), raw_dtype=gguf.GGMLQuantizationType.IQ4_XS)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = find(tmp_path / "a.gguf")
    assert (found.arch.vocab, found.arch.width) == (3, 768)
    stored = found.stored()
    assert stored is not None
    assert (stored.formats, stored.bits_per_weight) == ({"IQ4_XS": 9 * 136}, 8 * 136 / 256)
    with pytest.raises(LaminaError, match=r"is stored as IQ4_XS \(type 23\); known: F32"):
        lamina.load(tmp_path / "a.gguf")


# ------------------------------------------------------------------------------------------- what is fetched


def test_of_a_large_file_the_header_is_fetched(hub: Hub, large: Path) -> None:
    assert large.stat().st_size > 200e6
    hub.repositories["org/large"] = {large.name: large}
    expected = lamina.architecture(large)
    assert expected.blocks[0].branches[0].op.rotary.scaling.short[-1] == 8.0  # what stands last was read
    needed = header_bytes(large)
    assert 6e6 < needed < 10e6
    for source in ("org/large", f"org/large@v1:{large.name}", f"{hub.url}/org/large/resolve/main/{large.name}"):
        hub.requests.clear()
        assert lamina.architecture(source) == expected
        assert needed < hub.sent() < needed + (1 << 20) + 1000
        assert len(hub.transfers()) < 14
    hub.requests.clear()
    edited = lamina.architecture("org/large:blocks[*].mixer.window=64")
    assert {block.branches[0].op.window for block in edited.blocks} == {64}
    assert hub.sent() < needed + (1 << 20) + 1000


def test_of_a_small_header_little_is_fetched(hub: Hub, tmp_path: Path) -> None:
    text = json.dumps({"a": {"dtype": "F32", "shape": [50, 1000, 1000], "data_offsets": [0, 200_000_000]}}).encode()
    with (tmp_path / "a.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + 200_000_000)
    hub.repositories["org/a"] = {
        "a.safetensors": tmp_path / "a.safetensors",
        "config.json": json.dumps(CONFIG).encode(),
    }
    found = find(f"{hub.url}/org/a/resolve/main/a.safetensors")
    assert (found.arch, found.arch.name) == (lamina.architecture(CONFIG).replace(name="a"), "a")
    stored = found.stored()
    assert stored is not None
    assert (stored.bytes, stored.bits_per_weight) == (200_000_000, 32)
    assert hub.sent() == (256 << 10) + len(json.dumps(CONFIG))


def test_locally_the_rest_is_not_touched(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = LocalFile.read
    monkeypatch.setattr(LocalFile, "read", lambda f, a, b: (read.append(b - a), original(f, a, b))[1])
    lamina.architecture(large)
    assert sum(read) < header_bytes(large) + (1 << 20) + 1000


@pytest.fixture
def plain_server(tmp_path: Path) -> Iterator[str]:
    """Python's own server, which knows no ranges."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_server_without_ranges(plain_server: str, hub: Hub, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(tiny.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(LaminaError, match=r"tiny.gguf: its server sends whole files only, .* download it"):
        lamina.architecture(f"{plain_server}/tiny.gguf")
    assert lamina.architecture(f"{plain_server}/config.json").width == 48  # a config needs none
    with pytest.raises(LaminaError, match="its server answered 404"):
        lamina.architecture(f"{plain_server}/none.gguf")
    hub.ranges, hub.repositories["org/gguf"] = False, {"tiny.gguf": tiny}
    with pytest.raises(LaminaError, match=r"^org/gguf:tiny.gguf: its server sends whole files only"):
        lamina.architecture("org/gguf")


def test_a_header_that_has_no_end(hub: Hub, large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["org/large"] = {"large.gguf": large}
    with pytest.raises(LaminaError, match=r"claims .* strings, and the 3000000 bytes a header may have ends in number"):
        gguf_header.read_header(RemoteFile(f"{hub.url}/org/large/resolve/main/large.gguf", limit=3_000_000))
    assert hub.sent() <= 3_000_000
    lie = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + struct.pack("<IQ", 8, 1 << 60)
    for name, content in (("lie.gguf", lie), ("lie.safetensors", (1 << 40).to_bytes(8, "little") + bytes(99))):
        hub.repositories["org/large"] |= {name: content + bytes(5000)}
        hub.requests.clear()
        with pytest.raises(LaminaError, match="claims"):
            lamina.architecture(f"{hub.url}/org/large/resolve/main/{name}")
        assert hub.sent() <= len(content) + 5000
    assert remote.LIMIT == 32 << 20


def test_a_file_cut_anywhere_is_refused(hub: Hub, tiny: Path) -> None:
    content = tiny.read_bytes()
    for stop in (0, 3, 4, 20, 100, 700, 2000, len(content) // 2, len(content) - 1):
        hub.repositories["org/cut"] = {"a.gguf": content[:stop]}
        with pytest.raises(LaminaError, match=r"^org/cut:a.gguf: "):
            lamina.architecture("org/cut")
    hub.repositories["org/cut"] = {"a.gguf": content}
    hub.cut["a.gguf"] = 1000
    with pytest.raises(LaminaError, match=r"^org/cut:a.gguf: cannot be fetched"):
        lamina.architecture("org/cut")


# ------------------------------------------------------------------------------------------ hubs and addresses


def test_the_token_goes_to_the_hub_alone(hub: Hub, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["org/gated"] = {"tiny.gguf": tiny}
    hub.gated.add("org/gated")
    with pytest.raises(LaminaError, match=r"^org/gated:tiny.gguf: its server answered 401; set HF_TOKEN"):
        lamina.architecture("org/gated")
    monkeypatch.setenv("HF_TOKEN", hub.token)
    with Hub(repositories=hub.repositories) as store:
        hub.elsewhere = store.url
        assert lamina.architecture("org/gated") == lamina.architecture(tiny)
        assert lamina.architecture(f"{store.url}/org/gated/resolve/main/tiny.gguf") == lamina.architecture(tiny)
        assert {one.headers.get("authorization") for one in hub.transfers()} == {None, f"Bearer {hub.token}"}
        assert {one.headers.get("authorization") for one in store.requests} == {None}


def test_a_repository_of_configs_and_files(hub: Hub, tiny: Path) -> None:
    hub.repositories["org/both"] = {"config.json": json.dumps(CONFIG).encode(), "tiny.gguf": tiny, "b.gguf": b""}
    assert lamina.architecture("org/both") == lamina.architecture(CONFIG).replace(name="both")
    assert lamina.architecture("org/both:tiny.gguf") == lamina.architecture(tiny)
    assert lamina.architecture("org/both:blocks[1].mixer.window=3").blocks[1].branches[0].op.window == 3
    assert lamina.architecture("org/both@v1:tiny.gguf:context=64").context == 64
    with pytest.raises(LaminaError, match=r"org/both has no x.gguf; its GGUF files: b.gguf, tiny.gguf"):
        lamina.architecture("org/both:x.gguf")
    address = f"{hub.url}/org/both/resolve/main/config.json?download=true"
    assert lamina.architecture(address) == lamina.architecture(CONFIG).replace(name="both")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("https://[/a.gguf", "is no address"),
        ("http://127.0.0.1:1/model.gguf", r"^http://127.0.0.1:1/model.gguf: cannot be fetched: "),
        ("http://127.0.0.1:99999999/model.gguf", "cannot be fetched: "),
        ("http://127.0.0.1:1/model.bin", "the address of a .gguf or .safetensors file or of a config.json is accepted"),
        ("http://127.0.0.1:1/config.json", "cannot be fetched"),
        ("ftp://x/a.gguf", "neither a file or directory nor a name"),
        ("x" * 5000, "neither a file or directory nor a name"),
        ("no/such.gguf", "does not exist; accepted: a model directory"),
    ],
)
def test_what_cannot_be_an_address_is_one_sentence(source: str, said: str) -> None:
    with pytest.raises(LaminaError, match=said) as error:
        lamina.architecture(source)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 700


# ------------------------------------------------------------------------------------------- safetensors alone


def test_a_safetensors_file_alone(directory: Path, tmp_path: Path) -> None:
    weights = directory / "model.safetensors"
    assert lamina.architecture(weights) == lamina.architecture(directory)
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes(weights.read_bytes())
    with pytest.raises(LaminaError, match="a safetensors file alone does not say its architecture; accepted is one"):
        lamina.architecture(alone)
    arch = lamina.architecture(CONFIG)
    ours = {"model_type": "lamina", "architecture": json.loads(arch.to_json())}
    for config, expected in ((CONFIG, arch.replace(name="alone")), (ours, arch)):
        safetensors.torch.save_file({"a": torch.zeros(3)}, alone, metadata={"config": json.dumps(config)})
        assert lamina.architecture(alone) == expected
    safetensors.torch.save_file({"a": torch.zeros(3)}, alone, metadata={"config": "{"})
    with pytest.raises(LaminaError, match=r"alone.safetensors: not JSON"):
        lamina.architecture(alone)


# ------------------------------------------------------------------------------------------------- what is stored


def test_stored_is_what_the_gguf_package_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "q8.gguf", LLAMA, converted(LLAMA, reference(LLAMA)), "Q8_0")
    theirs, values = collections.Counter(), 0
    for tensor in gguf.GGUFReader(path).tensors:
        theirs[tensor.tensor_type.name] += int(tensor.n_bytes)
        values += int(tensor.n_elements)
    stored = find(path).stored()
    assert stored is not None
    assert stored.formats == theirs
    assert list(stored.formats) == ["Q8_0", "F32"]
    assert stored.bytes == theirs.total()
    assert stored.bits_per_weight == 8 * theirs.total() / values
    assert find(f"{path}:context=64").stored() is None


def test_stored_of_directories(directory: Path) -> None:
    count = lamina.architecture(directory).parameters().total
    stored = find(directory).stored()
    assert stored is not None
    assert stored.as_json() == {"bytes": 4 * count, "formats": {"F32": 4 * count}, "bits_per_weight": 32}
    (directory / "model.safetensors").unlink()
    assert find(directory).stored() is None
    names = {"a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors"}
    index = {"metadata": {"total_size": 999}, "weight_map": names}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    safetensors.torch.save_file({"a": torch.zeros(3, dtype=torch.bfloat16)}, directory / "one.safetensors")
    stored = find(directory).stored()
    assert stored is not None
    assert (stored.bytes, stored.formats, stored.bits_per_weight) == (999, {}, None)
    second = {"b": torch.zeros(5), "c": torch.zeros(7, dtype=torch.uint8)}  # bytes that may hold several weights
    safetensors.torch.save_file(second, directory / "two.safetensors")
    stored = find(directory).stored()
    assert stored is not None
    assert (stored.bytes, stored.formats, stored.bits_per_weight) == (33, {"F32": 20, "U8": 7, "BF16": 6}, None)


def test_stored_is_what_the_hub_counts(hub: Hub) -> None:
    hub.repositories["org/model"] = {"config.json": json.dumps(CONFIG).encode()}
    assert find("org/model").stored() is None
    for counts, expected in (
        ({"BF16": 1000, "F32": 10}, {"BF16": 2000, "F32": 40}),
        ({"BF17": 1000}, None),
        ({"BF16": "many"}, None),
    ):
        hub.told["org/model"] = {"safetensors": {"parameters": counts, "total": 1010}}
        stored = find("org/model").stored()
        assert (stored and stored.formats) == expected
    assert hub.fetched() == {"config.json"}


def test_show_says_what_is_stored(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from lamina.cli.app import app

    path = write(tmp_path / "q8.gguf", LLAMA, converted(LLAMA, reference(LLAMA)), "Q8_0")
    stored = find(path).stored()
    assert stored is not None
    said = json.loads(CliRunner().invoke(app, ["show", str(path), "--json"]).stdout)
    assert said["stored"] == stored.as_json()
    lines = CliRunner().invoke(app, ["show", str(path)]).stdout.splitlines()
    line = next(line for line in lines if line.startswith("stored"))
    assert line.split() == f"stored 8.57 bits a weight: Q8_0 {stored.formats['Q8_0'] / 1e3:.0f} kB, F32 2.69 kB".split()
    assert f"{stored.bits_per_weight:.2f}" == "8.57"
    assert json.loads(CliRunner().invoke(app, ["show", "phi-4", "--json"]).stdout)["stored"] is None
