"""Damaged and lying files: LaminaError or every tensor can be read, and little memory is taken either way."""

from __future__ import annotations

import collections
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamina.checkpoint.gguf import open_gguf
from lamina.checkpoint.safetensors import open_safetensors, open_sharded
from lamina.checkpoint.tensors import TensorFile
from lamina.errors import LaminaError

FUZZ = settings(
    derandomize=True, deadline=None, max_examples=300, suppress_health_check=list(HealthCheck), database=None
)
MOST = 3_000_000  # bytes of Python memory at the peak; the files have a few thousand
LIES = [0, 1, 2, 31, 255, 1 << 16, (1 << 31) - 1, 1 << 32, 1 << 40, 1 << 62, (1 << 63) - 1, (1 << 64) - 1]

Mutation = Callable[[bytes], bytes]


def flip(at: float, mask: int) -> Mutation:
    return lambda b: b[: (i := int(at * len(b)))] + bytes(x ^ mask for x in b[i : i + 1]) + b[i + 1 :]


def cut(at: float) -> Mutation:
    return lambda b: b[: int(at * len(b))]


def splice(start: float, size: int, to: float) -> Mutation:
    def mutate(b: bytes) -> bytes:
        i, j = int(start * len(b)), int(to * len(b))
        return b[:j] + b[i : i + size] + b[j:]

    return mutate


def lie(at: float, value: int, size: int) -> Mutation:
    return lambda b: b[: (i := int(at * len(b)))] + (value % (1 << 8 * size)).to_bytes(size, "little") + b[i + size :]


# most of a file's meaning stands near its beginning, so half of the places are drawn there
PLACES = st.floats(0, 1, exclude_max=True) | st.floats(0, 0.05)
MUTATIONS = st.lists(
    st.builds(flip, PLACES, st.integers(1, 255))
    | st.builds(cut, PLACES)
    | st.builds(splice, PLACES, st.integers(1, 64), PLACES)
    | st.builds(lie, PLACES, st.sampled_from(LIES), st.sampled_from([1, 4, 8])),
    min_size=1,
    max_size=4,
)


def gguf_example(path: Path) -> bytes:
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_array("words", [f"w{i}" for i in range(20)])
    writer.add_array("numbers", list(range(20)))
    writer.add_uint32("general.alignment", 32)
    for name in ("F32", "I8", "Q4_1", "Q8_0", "Q6_K"):
        values = rng.standard_normal((3, 256), dtype=np.float32)
        if name == "Q6_K":
            writer.add_tensor(name, rng.integers(0, 255, (3, 210), np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q6_K)
        elif name[0] == "Q":
            kind = gguf.GGMLQuantizationType[name]
            writer.add_tensor(name, gguf.quants.quantize(values[:, :32], kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values[:, :5].astype(np.float32 if name == "F32" else np.int8))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def safetensors_example(path: Path) -> bytes:
    tensors = {
        "a": torch.ones(3, 5),
        "b": torch.ones(7, dtype=torch.bfloat16),
        "c": torch.ones(2, 2, 2).bool(),
    }
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    return path.read_bytes()


def attempt(open_file: Any, path: Path, content: bytes, seen: collections.Counter) -> None:
    """Open and read everything; count what came of it."""
    path.unlink(missing_ok=True)  # a new file: the old one may still be mapped
    path.write_bytes(content)
    said = str(path.parent)
    tracemalloc.start()
    try:
        file = open_file(path)
    except LaminaError as error:
        seen["refused"] += 1
        said = str(error)
    else:
        seen["accepted"] += 1
        read_all(file)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MOST
    assert str(path.parent) in said
    assert len(said) < 2000


def read_all(file: TensorFile) -> None:
    for stored in file.tensors.values():
        values = stored.read()
        assert values.shape == stored.shape
        assert values.nbytes <= 16 * stored.nbytes
        stored.copy_to(torch.empty(stored.shape, dtype=torch.float64))


@pytest.mark.parametrize(("open_file", "example"), [(open_gguf, gguf_example), (open_safetensors, safetensors_example)])
def test_damaged_files(tmp_path: Path, open_file: Any, example: Callable[[Path], bytes]) -> None:
    valid = example(tmp_path / "valid")
    seen: collections.Counter = collections.Counter()
    attempt(open_file, tmp_path / "file", valid, seen)
    assert seen == {"accepted": 1}

    @settings(FUZZ, max_examples=800)
    @given(MUTATIONS)
    def damaged(mutations: list[Mutation]) -> None:
        content = valid
        for mutate in mutations:
            content = mutate(content)
        attempt(open_file, tmp_path / "file", content, seen)

    damaged()
    assert min(seen["accepted"], seen["refused"]) > 10, seen  # hypothesis draws otherwise as more modules are loaded


@pytest.mark.parametrize("open_file", [open_gguf, open_safetensors])
def test_random_bytes(tmp_path: Path, open_file: Any) -> None:
    seen: collections.Counter = collections.Counter()
    heads = [b"", b"GGUF\3\0\0\0", b"GGUF\2\0\0\0" + bytes(7) + b"\1", (40).to_bytes(8, "little") + b"{"]

    @FUZZ
    @given(st.sampled_from(heads), st.binary(max_size=400))
    def random(head: bytes, body: bytes) -> None:
        attempt(open_file, tmp_path / "file", head + body, seen)

    random()
    assert seen["refused"] > 100


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=4) | st.sampled_from([*LIES, -1, 10**30, "F32"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
SIZES = st.lists(st.sampled_from([0, 1, 2, 3, 4, 8, *LIES]), max_size=4)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "U8", "BF16", "BOOL", "F8_E4M3"]) | VALUES,
        "shape": SIZES | VALUES,
        "data_offsets": st.sampled_from([[0, 8], [8, 8], [8, 16], [0, 16], [16, 16]]) | SIZES | VALUES,
    }
)


def test_headers_that_lie(tmp_path: Path) -> None:
    """Valid JSON of the right form, with sizes and offsets that do not fit, or values of another type."""
    seen: collections.Counter = collections.Counter()

    @FUZZ
    @given(st.dictionaries(st.sampled_from(["a", "b", "__metadata__", ""]), ENTRIES | VALUES, max_size=3))
    def lying(header: dict[str, Any]) -> None:
        text = json.dumps(header).encode()
        attempt(open_safetensors, tmp_path / "file", len(text).to_bytes(8, "little") + text + bytes(16), seen)

    lying()
    assert seen["refused"] > 100


def test_an_index_that_lies(tmp_path: Path) -> None:
    safetensors_example(tmp_path / "one.safetensors")
    seen: collections.Counter = collections.Counter()
    shards = st.sampled_from(
        [*["one.safetensors"] * 3, "two.safetensors", "../one.safetensors", "..", "", "\0.safetensors"]
    )
    maps = st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), shards | VALUES, max_size=3) | VALUES

    @FUZZ
    @given(st.fixed_dictionaries({"weight_map": maps}, optional={"metadata": VALUES}) | VALUES)
    def lying(index: Any) -> None:
        attempt(open_sharded, tmp_path / "index.json", json.dumps(index).encode(), seen)

    lying()
    assert seen["refused"] > 100
    assert seen["accepted"] > 0
