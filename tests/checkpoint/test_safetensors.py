"""Our safetensors reader and writer against the safetensors package, and every way a file can be wrong."""

from __future__ import annotations

import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from huggingface_hub import split_torch_state_dict_into_shards
from torch.utils._python_dispatch import TorchDispatchMode

from lamina.checkpoint import safetensors as ours
from lamina.checkpoint.tensors import PLAIN, StoredTensor
from lamina.errors import LaminaError
from lamina.ops.blocks import PIECE


def tensors_of_every_type() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    values = torch.randn(3, 5, 7) * 20
    result = {name: values.abs().to(dtype) if name[0] == "U" else values.to(dtype) for name, dtype in PLAIN.items()}
    return result | {
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
        "strided": values.permute(2, 0, 1),
    }


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(a.contiguous().view(-1).view(torch.uint8), b.contiguous().view(-1).view(torch.uint8))


def written(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(dtype: Any = "F32", shape: Any = (2,), span: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": span}


def test_we_read_what_the_package_writes(tmp_path: Path) -> None:
    tensors = {name: t.contiguous() for name, t in tensors_of_every_type().items()}
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors", metadata={"format": "pt", "of": "test"})
    file = ours.open_safetensors(tmp_path / "a.safetensors")
    assert file.metadata == {"format": "pt", "of": "test"}
    assert set(file.tensors) == set(tensors)
    for name, tensor in tensors.items():
        stored = file.tensors[name]
        assert (stored.shape, stored.dtype, stored.nbytes) == (
            tuple(tensor.shape),
            tensor.dtype,
            tensor.nbytes,
        )
        assert same(stored.read(), tensor), name


def test_the_package_reads_what_we_write(tmp_path: Path) -> None:
    tensors = tensors_of_every_type()
    path = tmp_path / "a.safetensors"
    ours.save_safetensors(((name, t) for name, t in tensors.items()), path)
    read = safetensors.torch.load_file(path)
    assert set(read) == set(tensors)
    assert all(same(read[name], tensor) for name, tensor in tensors.items())
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}
    for stored in ours.open_safetensors(path).tensors.values():
        assert stored.raw.storage_offset() % stored.dtype.itemsize == 0, stored.name
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_read_is_a_view_of_the_file_unless_misaligned(tmp_path: Path) -> None:
    header, data = {"a": entry()}, torch.tensor([1.5, -2.0]).numpy().tobytes()
    for padding in range(4):
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 4 + padding)
        stored = ours.open_safetensors(written(tmp_path / "a", text, data)).tensors["a"]
        view = stored.read()
        assert view.tolist() == [1.5, -2.0]
        assert (view.untyped_storage().data_ptr() == stored.raw.untyped_storage().data_ptr()) == (padding == 0)


def test_writing_into_a_view_leaves_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "a", {"a": entry()}, bytes(8))
    ours.open_safetensors(path).tensors["a"].read().fill_(3)
    assert ours.open_safetensors(path).tensors["a"].read().tolist() == [0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("layout", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_copy_to_any_strides_and_type(tmp_path: Path, dtype: torch.dtype, layout: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    tensor = torch.randn(3, 521, 1031).to(torch.float16)  # 3 pieces and a bit
    assert tensor.numel() > 3 * PIECE
    ours.save_safetensors({"a": tensor}, tmp_path / "a")
    memory = torch.full([tensor.shape[i] for i in layout], float("nan"), dtype=dtype)
    out = memory.permute([layout.index(i) for i in range(3)])
    ours.open_safetensors(tmp_path / "a").tensors["a"].copy_to(out)
    assert torch.equal(out, tensor.to(dtype))


def test_read_rows(tmp_path: Path) -> None:
    tensor = torch.randn(7, 3, 5)
    ours.save_safetensors({"a": tensor}, tmp_path / "a")
    stored = ours.open_safetensors(tmp_path / "a").tensors["a"]
    assert torch.equal(stored.read_rows(2, 6), tensor[2:6])
    assert stored.read_rows(7, 7).shape == (0, 3, 5)
    with pytest.raises(LaminaError, match=r"'a' of shape \[7, 3, 5\] has no rows 2 to 8"):
        stored.read_rows(2, 8)


def test_copy_to_refuses_another_shape_or_a_type_that_loses(tmp_path: Path) -> None:
    ours.save_safetensors({"w": torch.ones(3, 5)}, tmp_path / "a")
    stored = ours.open_safetensors(tmp_path / "a").tensors["w"]
    with pytest.raises(LaminaError, match=r"'w' has shape \[3, 5\] .* \[5, 3\]"):
        stored.copy_to(torch.empty(5, 3))
    with pytest.raises(LaminaError, match="'w' holds float32 values and cannot be stored as int64"):
        stored.copy_to(torch.empty(3, 5, dtype=torch.int64))


class LargestNew(TorchDispatchMode):
    """Watches the largest tensor that operations make, apart from memory that is known."""

    def __init__(self, *known: torch.Tensor) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self.nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.untyped_storage().data_ptr() not in self.known:
            self.nbytes = max(self.nbytes, result.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("format", ["Q4_K", "BF16"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_copy_to_takes_little_memory(format: str, dtype: torch.dtype) -> None:
    rows = 8 * PIECE // 1024
    raw = torch.zeros(rows * 1024 // 256 * 144 if format == "Q4_K" else rows * 2048, dtype=torch.uint8)
    out = torch.full((1024, rows), 1.0, dtype=dtype).T
    with LargestNew(raw, out) as watch:
        StoredTensor("a", (rows, 1024), format, Path("none"), raw).copy_to(out)
    assert watch.nbytes <= 4 * PIECE
    assert not out.any()


HUGE = 1 << 62
BAD = {
    "empty": (b"", None, "has 0 bytes"),
    "header length beyond the file": ({"a": entry()}, 1 << 40, "claims a header of"),
    "not JSON": (b"{'a'}", None, "no valid JSON"),
    "not UTF-8": (b'{"\xff": 1}', None, "no valid JSON"),
    "deep JSON": (b"[" * 100_000, None, "no valid JSON"),
    "a list": (b"[]", None, "JSON list"),
    "twice": (b'{"a": {}, "a": {}}', None, "'a' stands twice"),
    "metadata": ({"__metadata__": {"a": 1}}, None, "__metadata__"),
    "entry": ({"a": []}, None, "'a' must be described by"),
    "missing key": ({"a": {"dtype": "F32", "shape": []}}, None, "'a' must be described by"),
    "dtype": ({"a": entry("F31")}, None, "'a' has dtype 'F31'; known: F64"),
    "dtype list": ({"a": entry([])}, None, "'a' has dtype"),
    "bool size": ({"a": entry(shape=[True, 2])}, None, "shape that is not a list of integers"),
    "negative size": ({"a": entry(shape=[-2, -1])}, None, "shape that is not"),
    "float size": ({"a": entry(shape=[2.0])}, None, "shape that is not"),
    "huge product": ({"a": entry(shape=[HUGE, HUGE, HUGE])}, None, "too many elements"),
    "huge but empty": ({"a": entry(shape=[0, HUGE, HUGE], span=[0, 0])}, None, "too many elements"),
    "many dimensions": ({"a": entry(shape=[1] * 65, span=[0, 4])}, None, "65 dimensions"),
    "span": ({"a": entry(span=[8, 0])}, None, "data_offsets"),
    "three offsets": ({"a": entry(span=[0, 4, 8])}, None, "data_offsets"),
    "bool offset": ({"a": entry(span=[False, 8])}, None, "data_offsets"),
    "size": ({"a": entry(span=[0, 4])}, None, "takes 8 bytes as F32"),
    "overlap": ({"a": entry(), "b": entry(span=[4, 12])}, None, "'b' overlaps that of 'a'"),
    "hole": ({"a": entry(), "b": entry(span=[12, 20])}, None, "'b' leaves a hole after that of 'a'"),
    "truncated": ({"a": entry(), "b": entry(span=[8, 16])}, None, "is cut short"),
    "trailing": ({"a": entry("U8")} | {"a": entry("U8", [7], [0, 7])}, None, "bytes that no tensor uses"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_file_is_one_sentence(tmp_path: Path, case: str) -> None:
    header, length, sentence = BAD[case]
    path = tmp_path / "bad.safetensors"
    if case == "empty":
        path.write_bytes(b"")
    else:
        written(path, header, bytes(8), length)
    with pytest.raises(LaminaError, match=sentence) as error:
        ours.open_safetensors(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_no_such_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(LaminaError, match="no such file"):
            ours.open_safetensors(path)
    os.mkfifo(tmp_path / "pipe")  # opening a pipe would wait for ever
    with pytest.raises(LaminaError, match="no such file"):
        ours.open_safetensors(tmp_path / "pipe")


# ------------------------------------------------------------------------------------ several files


def sharded(directory: Path, **changes: Any) -> Path:
    """Two shards written by the package, and an index; `changes` replace the places of tensors."""
    directory.mkdir(exist_ok=True)
    safetensors.torch.save_file({"a": torch.ones(3), "b": torch.zeros(2)}, directory / "one.safetensors")
    safetensors.torch.save_file({"c": torch.ones(5)}, directory / "two.safetensors")
    places = {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"} | changes
    index = {"metadata": {"total_size": 40}, "weight_map": places}
    (directory / ours.INDEX).write_text(json.dumps(index))
    return directory


def test_shards_are_merged(tmp_path: Path) -> None:
    for source in (sharded(tmp_path), tmp_path / ours.INDEX):
        file = ours.open_sharded(source)
        assert file.path == tmp_path
        assert file.metadata == {"total_size": 40}
        assert {name: t.shape for name, t in file.tensors.items()} == {"a": (3,), "b": (2,), "c": (5,)}
    assert ours.open_directory(tmp_path) == file


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"d": "three.safetensors"}, "shard 'three.safetensors' is missing from"),
        ({"d": "x" * 5000 + ".safetensors"}, "is missing from"),
        ({"d": "two.safetensors"}, "'d' is placed in 'two.safetensors', which does not hold it"),
        ({"a": "two.safetensors"}, "'a' is placed in 'two.safetensors', which does not hold it"),
        ({"a": "../one.safetensors"}, "'a' is placed in '../one.safetensors'; only the name"),
        ({"a": "/etc/one.safetensors"}, "only the name"),
        ({"a": "a\\one.safetensors"}, "only the name"),
        ({"a": "pytorch_model.bin"}, "only the name"),
        ({"a": 3}, "only the name"),
    ],
)
def test_a_wrong_index_is_one_sentence(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(LaminaError, match=sentence):
        ours.open_sharded(sharded(tmp_path, **changes))


def test_an_index_without_its_map(tmp_path: Path) -> None:
    (tmp_path / ours.INDEX).write_text('{"weight_map": {}}')
    with pytest.raises(LaminaError, match="needs weight_map"):
        ours.open_directory(tmp_path)


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    safetensors.torch.save_file({"c": torch.ones(5), "a": torch.ones(3)}, sharded(tmp_path) / "two.safetensors")
    with pytest.raises(LaminaError, match=r"'a' stands twice, in 'one.safetensors' and in 'two.safetensors'"):
        ours.open_sharded(tmp_path)


def test_what_a_directory_holds(tmp_path: Path) -> None:
    with pytest.raises(LaminaError, match="no such directory"):
        ours.open_directory(tmp_path / "none")
    with pytest.raises(LaminaError, match="holds no weights; accepted are"):
        ours.open_directory(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(
        LaminaError,
        match=r"only pickle files \(pytorch_model.bin\), which are never read; accepted are model",
    ):
        ours.open_directory(tmp_path)
    ours.save_safetensors({"a": torch.ones(1)}, tmp_path / "one.safetensors")
    assert set(ours.open_directory(tmp_path).tensors) == {"a"}
    ours.save_safetensors({"b": torch.ones(1)}, tmp_path / "two.safetensors")
    with pytest.raises(LaminaError, match=r"2 files \(one.safetensors, two.safetensors\) and no index"):
        ours.open_directory(tmp_path)
    ours.save_safetensors({"c": torch.ones(1)}, tmp_path / ours.SINGLE)
    assert set(ours.open_directory(tmp_path).tensors) == {"c"}


def test_save_sharded_as_the_package_names_it(tmp_path: Path) -> None:
    """Compared with huggingface_hub's own split of the same tensors; an older checkpoint is replaced."""
    tensors = {f"layer.{i}": torch.full((i + 1, 5), float(i)) for i in range(7)}
    peer = split_torch_state_dict_into_shards(tensors, max_shard_size=200)
    assert len(peer.filename_to_tensors) > 2
    ours.save_sharded({"old": torch.ones(1)}, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [ours.SINGLE]
    files = ours.save_sharded(tensors, tmp_path, max_shard_bytes=200)
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in files}
    assert {p.name for p in files} == {*peer.filename_to_tensors, ours.INDEX}
    index = json.loads((tmp_path / ours.INDEX).read_text())
    assert index == {"metadata": peer.metadata, "weight_map": peer.tensor_to_filename}
    read = {}
    for file in files[:-1]:
        read |= safetensors.torch.load_file(file)
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    ours.save_sharded(ours.open_directory(tmp_path).tensors, tmp_path)  # onto the files it is read from
    assert [p.name for p in tmp_path.iterdir()] == [ours.SINGLE]
    assert torch.equal(safetensors.torch.load_file(tmp_path / ours.SINGLE)["layer.6"], tensors["layer.6"])


class Fails:
    """A tensor that is promised and cannot be read."""

    shape, dtype = (3,), torch.float32

    def read(self) -> torch.Tensor:
        raise OSError(28, "No space left on device")


def test_nothing_half_written_remains(tmp_path: Path) -> None:
    ours.save_sharded({"a": torch.ones(3)}, tmp_path)
    for limit in (1e9, 12):
        with pytest.raises(LaminaError, match=r"model.*safetensors: cannot be written: No space left on device"):
            ours.save_sharded({"a": torch.zeros(3), "b": torch.zeros(3), "c": Fails()}, tmp_path, limit)
    with pytest.raises(LaminaError, match="cannot be written"):
        ours.save_safetensors({"a": torch.zeros(3)}, tmp_path / "none" / "a.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == [ours.SINGLE]
    assert ours.open_directory(tmp_path).tensors["a"].read().tolist() == [1, 1, 1]


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """The kernel's own refusal: writes end at a file size limit, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(LaminaError, match=r"a\.safetensors: cannot be written: File too large"):
            ours.save_safetensors({"a": torch.zeros(100_000)}, tmp_path / "a.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ([("a", torch.ones(1)), ("a", torch.ones(1))], "'a' cannot be saved: a name stands once"),
        ({"__metadata__": torch.ones(1)}, "'__metadata__' cannot be saved"),
        ({"a": torch.ones(1, dtype=torch.complex64)}, "'a' has type torch.complex64; known: F64"),
    ],
)
def test_what_cannot_be_saved(tmp_path: Path, tensors: Any, sentence: str) -> None:
    with pytest.raises(LaminaError, match=sentence):
        ours.save_safetensors(tensors, tmp_path / "a")
    assert not list(tmp_path.iterdir())
