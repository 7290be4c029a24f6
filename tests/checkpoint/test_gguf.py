"""Our GGUF reader against the gguf package, and every way a file can be wrong."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from lamina.checkpoint.gguf import FORMATS, open_gguf
from lamina.checkpoint.headers.gguf import TYPES
from lamina.checkpoint.headers.table import count_bytes
from lamina.checkpoint.safetensors import open_safetensors, save_safetensors
from lamina.errors import LaminaError

METADATA: dict[str, tuple[Any, Any]] = {
    "of.text": ("a b", gguf.GGUFValueType.STRING),
    "of.umlaut": ("ü漢", gguf.GGUFValueType.STRING),
    "of.u8": (200, gguf.GGUFValueType.UINT8),
    "of.i8": (-100, gguf.GGUFValueType.INT8),
    "of.u16": (60000, gguf.GGUFValueType.UINT16),
    "of.i16": (-30000, gguf.GGUFValueType.INT16),
    "of.u32": (4_000_000_000, gguf.GGUFValueType.UINT32),
    "of.i32": (-2_000_000_000, gguf.GGUFValueType.INT32),
    "of.u64": (1 << 63, gguf.GGUFValueType.UINT64),
    "of.i64": (-(1 << 62), gguf.GGUFValueType.INT64),
    "of.f32": (0.5, gguf.GGUFValueType.FLOAT32),
    "of.f64": (0.1, gguf.GGUFValueType.FLOAT64),
    "of.yes": (True, gguf.GGUFValueType.BOOL),
    "of.no": (False, gguf.GGUFValueType.BOOL),
}
ARRAYS: dict[str, list[Any]] = {
    "of.numbers": [3, -5, 7],
    "of.reals": [0.5, -1.25],
    "of.flags": [True, False, True],
    "of.words": ["", "a", "漢字", "▁the"],
}
PLAIN_ARRAYS = {
    "F32": np.float32, "F16": np.float16, "F64": np.float64, "I8": np.int8, "I16": np.int16, "I32": np.int32,
    "I64": np.int64,
}  # fmt: skip


def write_with_the_package(path: Path, tensors: dict[str, np.ndarray], types: dict[str, str]) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    for key, (value, kind) in METADATA.items():
        writer.add_key_value(key, value, kind)
    for key, values in ARRAYS.items():
        writer.add_array(key, values)
    for name, tensor in tensors.items():
        raw = gguf.GGMLQuantizationType[types[name]] if name in types else None
        writer.add_tensor(name, tensor, raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def example_tensors() -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """A tensor of each format by its name; plain ones have odd sizes."""
    rng = np.random.default_rng(0)
    tensors: dict[str, np.ndarray] = {}
    for name, dtype in PLAIN_ARRAYS.items():
        tensors[name] = (rng.standard_normal((3, 5, 7)) * 20).astype(dtype)
    for name in ("BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4"):
        values = rng.standard_normal((3, 5, 96), dtype=np.float32)
        tensors[name] = gguf.quants.quantize(values, gguf.GGMLQuantizationType[name])
    for name in ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"):
        size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]][1]
        tensors[name] = rng.integers(0, 0x3C, (7, 2 * size), dtype=np.uint8)  # bytes below 0x3c: scales below 1
    return tensors, {name: name for name in tensors if name not in PLAIN_ARRAYS}


def test_we_read_what_the_package_writes(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    tensors, types = example_tensors()
    write_with_the_package(path, tensors, types)
    file, reader = open_gguf(path), gguf.GGUFReader(path)
    expected = {key: f.contents() for key, f in reader.fields.items() if not key.startswith("GGUF.")}
    assert file.metadata == expected
    assert {key: file.metadata[key] for key in METADATA} == {key: value for key, (value, _) in METADATA.items()}
    assert {key: file.metadata[key] for key in ARRAYS} == ARRAYS
    assert [type(file.metadata[key]) for key in METADATA] == [type(value) for value, _ in METADATA.values()]
    assert list(file.tensors) == [tensor.name for tensor in reader.tensors]
    for tensor in reader.tensors:
        stored = file.tensors[tensor.name]
        assert stored.shape == tuple(int(size) for size in tensor.shape[::-1])
        assert (stored.format, stored.nbytes) == (tensor.tensor_type.name, tensor.n_bytes)
        values = np.array(tensor.data)
        if tensor.name not in PLAIN_ARRAYS:
            values = gguf.quants.dequantize(values, tensor.tensor_type)
        assert np.array_equal(stored.read().to(torch.float64).numpy(), values.astype(np.float64)), tensor.name
    assert set(file.tensors) == set(FORMATS.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_copy_to_any_strides_and_type(tmp_path: Path, dtype: torch.dtype, layout: tuple[int, ...]) -> None:
    values = np.random.default_rng(1).standard_normal((3, 701, 992), dtype=np.float32)
    raw = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q4_1)
    write_with_the_package(tmp_path / "a", {"w": raw}, {"w": "Q4_1"})
    memory = torch.full([values.shape[i] for i in layout], float("nan"), dtype=dtype)
    out = memory.permute([layout.index(i) for i in range(3)])
    stored = open_gguf(tmp_path / "a").tensors["w"]
    stored.copy_to(out)
    expected = torch.from_numpy(gguf.quants.dequantize(raw, gguf.GGMLQuantizationType.Q4_1))
    assert torch.equal(out, expected.to(dtype))
    assert torch.equal(stored.read_rows(1, 3), expected[1:3])


def test_a_vector_of_blocks_gives_its_rows(tmp_path: Path) -> None:
    raw = gguf.quants.quantize(np.linspace(-1, 1, 96, dtype=np.float32), gguf.GGMLQuantizationType.Q8_0)
    write_with_the_package(tmp_path / "a", {"w": raw}, {"w": "Q8_0"})
    expected = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType.Q8_0)
    assert open_gguf(tmp_path / "a").tensors["w"].read_rows(5, 50).tolist() == expected[5:50].tolist()


def test_stored_tensors_can_be_written_as_safetensors(tmp_path: Path) -> None:
    tensors, types = example_tensors()
    write_with_the_package(tmp_path / "a.gguf", tensors, types)
    source = open_gguf(tmp_path / "a.gguf").tensors
    save_safetensors(source, tmp_path / "a.safetensors")
    for name, stored in open_safetensors(tmp_path / "a.safetensors").tensors.items():
        assert torch.equal(stored.read(), source[name].read())


def test_a_large_vocabulary_is_read_quickly(tmp_path: Path) -> None:
    words = [f"token {i} ▁" for i in range(262_144)]
    (tmp_path / "a").write_bytes(gguf_bytes([pair("words", 9, array(8, [text(word) for word in words]))]))
    start = time.process_time()
    assert open_gguf(tmp_path / "a").metadata == {"words": words}
    assert time.process_time() - start < 1


# ------------------------------------------------------------------------------------ files written by hand


def text(value: str | bytes) -> bytes:
    value = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(value)) + value


def array(kind: int, items: list[bytes], count: int | None = None) -> bytes:
    return struct.pack("<IQ", kind, len(items) if count is None else count) + b"".join(items)


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def info(name: str, dims: tuple[int, ...] = (4,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def gguf_bytes(
    pairs: list[bytes] = (), tensors: list[bytes] = (), data: bytes = b"", *,
    counts: tuple[int, int] | None = None, version: int = 3, alignment: int = 32,
) -> bytes:  # fmt: skip
    head = b"GGUF" + struct.pack("<IQQ", version, *(counts or (len(tensors), len(pairs))))
    head += b"".join(pairs) + b"".join(tensors)
    return head + bytes(-len(head) % alignment) + data


@pytest.mark.parametrize("version", [2, 3])
def test_a_file_written_by_hand(tmp_path: Path, version: int) -> None:
    """Nested arrays, an alignment of its own, a scalar, a gap between tensors."""
    nested = array(9, [array(4, [struct.pack("<I", i)]) for i in (7, 8)])
    pairs = [pair("general.alignment", 4, struct.pack("<I", 8)), pair("nested", 9, nested)]
    tensors = [info("b", (3, 2), 24, 16), info("a", (), 0, 0)]
    data = struct.pack("<f", 2.5) + bytes(12) + bytes(range(6))
    (tmp_path / "a").write_bytes(gguf_bytes(pairs, tensors, data, version=version, alignment=8))
    file = open_gguf(tmp_path / "a")
    assert file.metadata == {"general.alignment": 8, "nested": [[7], [8]]}
    assert file.tensors["a"].read().item() == 2.5
    assert file.tensors["b"].read().tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(("number", "size"), [(0, 7), (2, 32), (14, 256)])
def test_a_tensor_without_elements(tmp_path: Path, number: int, size: int) -> None:
    (tmp_path / "a").write_bytes(gguf_bytes(tensors=[info("a", (size, 0, 3), number)]))
    stored = open_gguf(tmp_path / "a").tensors["a"]
    assert stored.read().shape == (3, 0, size)
    stored.copy_to(torch.empty(size, 0, 3).permute(2, 1, 0))
    assert stored.read_rows(1, 3).shape == (2, 0, size)


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def one(*args: Any, data: bytes = bytes(16), **kwargs: Any) -> bytes:
    return gguf_bytes(tensors=[info(*args, **kwargs)], data=data)


HUGE = 1 << 62
DEEP = u32(9) + struct.pack("<Q", 1)
BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "does not begin with 'GGUF'"),
    "another format": (b"PK\3\4" + bytes(60), "does not begin with 'GGUF'"),
    "magic alone": (b"GGUF", "the version claims 4 bytes, and 0 are left"),
    "version 1": (gguf_bytes(version=1), "version 1; versions 2 and 3 are accepted"),
    "version 4": (gguf_bytes(version=4), "version 4"),
    "big-endian": (gguf_bytes(version=3 << 24), "big-endian"),
    "tensor count": (gguf_bytes(counts=(HUGE, 0)), "cannot describe so many"),
    "pair count": (gguf_bytes(counts=(0, 1 << 40)), "cannot describe so many"),
    "key length": (gguf_bytes([struct.pack("<Q", HUGE) + bytes(20)]), "a metadata key claims 46116860184"),
    "key UTF-8": (gguf_bytes([text(b"\xff") + u32(0) + b"\0"]), "not UTF-8"),
    "key twice": (gguf_bytes([pair("k", 0, b"\1")] * 2), "'k' stands twice"),
    "value type": (gguf_bytes([pair("k", 13, bytes(8))]), "'k' has value type 13"),
    "boolean": (gguf_bytes([pair("k", 7, b"\2")]), "'k' holds a boolean that is neither"),
    "string length": (gguf_bytes([pair("k", 8, struct.pack("<Q", HUGE))]), "'k' claims"),
    "array length": (gguf_bytes([pair("k", 9, array(12, [], HUGE))]), "'k' claims"),
    "array type": (gguf_bytes([pair("k", 9, array(99, [b"\0"]))]), "'k' has value type 99"),
    "string array length": (gguf_bytes([pair("k", 9, array(8, [], 1 << 40))]), "'k' claims"),
    "string in array": (
        gguf_bytes([pair("k", 9, array(8, [text("a"), struct.pack("<Q", HUGE)]))]), "ends in number 1"),
    "UTF-8 in array": (gguf_bytes([pair("k", 9, array(8, [text(b"\xc3")]))]), "not UTF-8"),
    "nesting": (gguf_bytes([pair("k", 9, DEEP * 2000 + array(0, [b"\0"]))]), "'k' nests arrays"),
    "alignment 0": (gguf_bytes([pair("general.alignment", 4, u32(0))]), "alignment is '0'"),
    "alignment 24": (gguf_bytes([pair("general.alignment", 4, u32(24))]), "power of two"),
    "alignment text": (gguf_bytes([pair("general.alignment", 8, text("32"))]), "power of two"),
    "alignment huge": (gguf_bytes([pair("general.alignment", 4, u32(1 << 31))]), "power of two"),
    "part": (gguf_bytes([pair("split.count", 2, b"\3\0")]), "one of 3 parts"),
    "name twice": (gguf_bytes(tensors=[info("a"), info("a", offset=32)], data=bytes(64)), "'a' stands twice"),
    "dimensions": (one("a", (1,) * 5), "'a' claims 5 dimensions"),
    "product": (one("a", (HUGE, HUGE, HUGE)), "'a' claims too many elements"),
    "empty but huge": (one("a", (0, HUGE, HUGE)), "'a' claims too many elements"),
    "type": (one("a", kind=99), "'a' is stored as type 99; known: F32"),
    "unread type": (one("a", kind=23), r"'a' is stored as IQ4_XS \(type 23\); known: F32"),
    "blocks": (one("a", (48, 32), 2, data=bytes(999)), r"'a' of shape \[32, 48\] is stored as Q4_0"),
    "blocks of nothing": (one("a", (), 2), "must be a multiple of 32"),
    "offset beyond": (one("a", offset=HUGE), "'a' claims bytes"),
    "truncated": (one("a", (5,)), "'a' claims bytes 64 to 84; .* file's 80"),
    "offset unaligned": (one("a", offset=8, data=bytes(64)), "'a' claims bytes"),
    "overlap": (
        gguf_bytes(tensors=[info("b", offset=32), info("a", (9,))], data=bytes(64)), "'b' overlaps .* 'a'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_file_is_one_sentence(tmp_path: Path, case: str) -> None:
    content, sentence = BAD[case]
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(LaminaError, match=sentence) as error:
        open_gguf(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_types_and_their_sizes_are_those_of_the_gguf_package() -> None:
    assert set(FORMATS.items()) < set(TYPES.items())
    theirs = {kind.value: (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert len(theirs) >= 30
    for number, (name, values, nbytes) in theirs.items():
        assert TYPES[number] == name
        assert count_bytes("here", (3, 5 * values), name) == 15 * nbytes
