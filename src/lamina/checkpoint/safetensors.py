"""The safetensors format: one file, a sharded checkpoint, a directory; reading and writing.

A file is 8 bytes of header length (little endian), a JSON header, and the data without holes. Everything the
header claims is compared with the file before memory is taken.
Source: https://github.com/huggingface/safetensors (the format), huggingface_hub (names of shards and index)
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Protocol, cast

import torch

from lamina.checkpoint.tensors import (
    HEADER_LIMIT,
    PLAIN,
    StoredTensor,
    TensorFile,
    count_elements,
    map_file,
    shown,
)
from lamina.errors import LaminaError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PLAIN_NAME = "weights.safetensors"  # what checkpoints that are no Hugging Face model are often called
_WRITTEN = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_ALIGNMENT = 64  # of the data we write
_FORMATS = {dtype: name for name, dtype in PLAIN.items()}


class Readable(Protocol):
    """What can be written besides a tensor, such as a `StoredTensor`: it knows its shape and type unread."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> torch.dtype: ...
    def read(self) -> torch.Tensor: ...


Source = torch.Tensor | Readable


# --------------------------------------------------------------------------------------------------- reading


def open_safetensors(path: str | Path) -> TensorFile:
    """Open one file.

    Raises: LaminaError if it is not a whole and consistent safetensors file
    """
    path = Path(path)
    data = map_file(path)
    header, start = _read_header(path, data)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise LaminaError(f"{path}: __metadata__ must map names to strings")
    spans = {name: _check_entry(path, name, entry) for name, entry in header.items()}
    _check_layout(path, spans, len(data) - start)
    tensors = {
        name: StoredTensor(
            name,
            tuple(header[name]["shape"]),
            header[name]["dtype"],
            path,
            data[start + first : start + last],
        )
        for name, (first, last) in spans.items()
    }
    return TensorFile(path, tensors, metadata)


def open_sharded(path: str | Path) -> TensorFile:
    """Open a sharded checkpoint by its index, or by the directory that holds `model.safetensors.index.json`.

    Raises: LaminaError if the index is not one, a shard is missing or not whole, a tensor stands in two
        shards, or a shard lacks a tensor that the index places there
    """
    index = Path(path) / INDEX if Path(path).is_dir() else Path(path)
    content = _parse_json(index, bytes(map_file(index)[: HEADER_LIMIT + 1].numpy()))
    places, metadata = content.get("weight_map"), content.get("metadata", {})
    if not isinstance(places, dict) or not places or not isinstance(metadata, dict):
        raise LaminaError(f"{index}: needs weight_map, which maps each tensor's name to the file that holds it")
    for name, shard in places.items():
        if not isinstance(shard, str) or not re.fullmatch(r"[^/\\\0:]+\.safetensors", shard):
            raise LaminaError(
                f"{index}: tensor {shown(name)} is placed in {shown(str(shard))};"
                " only the name of a .safetensors file beside the index is accepted"
            )
    tensors: dict[str, StoredTensor] = {}
    for shard in dict.fromkeys(places.values()):
        if not os.path.isfile(index.parent / shard):  # also false where the name is one no disk takes
            raise LaminaError(f"{index}: shard {shown(shard)} is missing from {index.parent}")
        for name, tensor in open_safetensors(index.parent / shard).tensors.items():
            if name in tensors:
                raise LaminaError(
                    f"{index.parent}: tensor {shown(name)} stands twice,"
                    f" in {tensors[name].path.name!r} and in {shard!r}"
                )
            tensors[name] = tensor
    for name, shard in places.items():
        if name not in tensors or tensors[name].path.name != shard:
            raise LaminaError(f"{index}: tensor {shown(name)} is placed in {shard!r}, which does not hold it")
    return TensorFile(index.parent, tensors, metadata)


def open_directory(path: str | Path) -> TensorFile:
    """Open what a directory holds: `model.safetensors`, shards, `weights.safetensors`, or its only such file.

    Raises: LaminaError if there are none, or several and no index; pickle files are named and never read
    """
    path = Path(path)
    if not path.is_dir():
        raise LaminaError(f"{path}: no such directory")
    if (path / SINGLE).is_file():
        return open_safetensors(path / SINGLE)
    if (path / INDEX).is_file():
        return open_sharded(path / INDEX)
    if (path / PLAIN_NAME).is_file():
        return open_safetensors(path / PLAIN_NAME)
    names = sorted(file.name for file in path.iterdir() if file.is_file())
    found = [name for name in names if name.endswith(".safetensors")]
    if len(found) == 1:
        return open_safetensors(path / found[0])
    accepted = f"accepted are {SINGLE}, {INDEX} with its shards, {PLAIN_NAME}, or a single .safetensors file"
    if found:
        raise LaminaError(f"{path}: holds {len(found)} files ({_listed(found)}) and no index; {accepted}")
    pickles = [name for name in names if name.endswith(_PICKLES)]
    if pickles:
        raise LaminaError(f"{path}: holds only pickle files ({_listed(pickles)}), which are never read; {accepted}")
    raise LaminaError(f"{path}: holds no weights; {accepted}")


def _read_header(path: Path, data: torch.Tensor) -> tuple[dict[str, Any], int]:
    """The header, and where the data begins."""
    if len(data) < 8:
        raise LaminaError(f"{path}: has {len(data)} bytes; a safetensors file begins with 8 bytes of header length")
    length = int.from_bytes(bytes(data[:8].numpy()), "little")
    if length > min(HEADER_LIMIT, len(data) - 8):
        raise LaminaError(
            f"{path}: claims a header of {length} bytes; accepted are at most {HEADER_LIMIT},"
            f" and the file has {len(data) - 8} after its first 8 (is it a safetensors file, and complete?)"
        )
    return _parse_json(path, bytes(data[8 : 8 + length].numpy())), 8 + length


def _parse_json(path: Path, text: bytes) -> dict[str, Any]:
    """A JSON object in which no key stands twice.

    Raises: LaminaError if it is anything else
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))
            raise LaminaError(f"{path}: {shown(twice)} stands twice in its JSON")
        return result

    if len(text) > HEADER_LIMIT:
        raise LaminaError(f"{path}: is larger than {HEADER_LIMIT} bytes, the most that is accepted for an index")
    try:
        value = json.loads(text.decode(), object_pairs_hook=unique)
    except LaminaError:
        raise
    except (ValueError, RecursionError) as error:
        raise LaminaError(f"{path}: holds no valid JSON where it must: {error}") from error
    if not isinstance(value, dict):
        raise LaminaError(f"{path}: holds a JSON {type(value).__name__} where an object must stand")
    return value


def _check_entry(path: Path, name: str, entry: Any) -> tuple[int, int]:
    """The byte span of one tensor, once its type, shape and span agree."""
    where = f"{path}: tensor {shown(name)}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise LaminaError(f"{where} must be described by dtype, shape and data_offsets, and by nothing else")
    dtype, shape, span = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in PLAIN:
        raise LaminaError(f"{where} has dtype {shown(str(dtype))}; known: {', '.join(PLAIN)}")
    if not _is_sizes(shape):
        raise LaminaError(f"{where} has a shape that is not a list of integers, each 0 or more")
    if not _is_sizes(span) or len(span) != 2 or span[0] > span[1]:
        raise LaminaError(f"{where} has data_offsets that are not two integers, 0 <= begin <= end")
    needed = count_elements(where, tuple(shape)) * PLAIN[dtype].itemsize
    if span[1] - span[0] != needed:
        raise LaminaError(
            f"{where} takes {needed} bytes as {dtype} of shape {shape}, and has {span[1] - span[0]} by its data_offsets"
        )
    return span[0], span[1]


def _is_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 1 << 63 for size in value)


def _check_layout(path: Path, spans: dict[str, tuple[int, int]], size: int) -> None:
    """The spans must cover the data exactly: no overlap, no hole, nothing beyond either end."""
    end, previous = 0, "the header"
    for name, (first, last) in sorted(spans.items(), key=lambda item: item[1]):
        if first != end:
            fault = "overlaps" if first < end else "leaves a hole after"
            raise LaminaError(f"{path}: the data of tensor {shown(name)} {fault} that of {previous}")
        end, previous = last, shown(name)
    if end != size:
        fault = "is cut short" if end > size else "has bytes that no tensor uses"
        raise LaminaError(f"{path}: {fault}: its tensors take {end} bytes and {size} follow the header")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


# --------------------------------------------------------------------------------------------------- writing


def save_safetensors(
    tensors: Mapping[str, Source] | Iterable[tuple[str, Source]],
    path: str | Path,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write one file, one tensor at a time; it appears under its name only when it is whole.

    Units: metadata is {"format": "pt"} unless given, as transformers expects
    Raises: LaminaError if a type has no name in the format, a name stands twice, or the disk refuses
    """
    with _staged() as stage, _naming(Path(path)):
        _write_file(stage(Path(path)), _gathered(tensors), metadata)


def save_sharded(
    tensors: Mapping[str, Source] | Iterable[tuple[str, Source]],
    directory: str | Path,
    max_shard_bytes: float = 5e9,
    metadata: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write `model.safetensors`, or shards with their index if it would exceed `max_shard_bytes`.

    Nothing is visible before all of it is written; files of an earlier checkpoint of this naming are replaced
    or removed, so what `open_directory` finds is what was saved. A tensor is never split: one larger than the
    limit has a shard of its own. Returns the files written.
    Raises: as `save_safetensors`
    """
    directory = Path(directory)
    items = _gathered(tensors)
    shards: list[dict[str, Source]] = [{}]
    filled = 0
    for name, tensor in items.items():
        if shards[-1] and filled + _nbytes(tensor) > max_shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled += _nbytes(tensor)
    names = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    names = names if len(shards) > 1 else [SINGLE]
    with _naming(directory):
        directory.mkdir(parents=True, exist_ok=True)
        with _staged() as stage:
            for name, shard in zip(names, shards, strict=True):
                with _naming(directory / name):
                    _write_file(stage(directory / name), shard, metadata)
            if len(shards) > 1:
                places = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
                total = sum(_nbytes(tensor) for tensor in items.values())
                index = {"metadata": {"total_size": total}, "weight_map": places}
                stage(directory / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
                names.append(INDEX)
        for file in directory.iterdir():
            if _WRITTEN.fullmatch(file.name) and file.name not in names:
                file.unlink()
    return [directory / name for name in names]


def _gathered(tensors: Mapping[str, Source] | Iterable[tuple[str, Source]]) -> dict[str, Source]:
    """The tensors by name, each of a type that the format can name."""
    items: dict[str, Source] = {}
    pairs = cast("Iterable[tuple[str, Source]]", tensors.items() if isinstance(tensors, Mapping) else tensors)
    for name, tensor in pairs:
        if name in items or name == "__metadata__":
            raise LaminaError(f"tensor {shown(name)} cannot be saved: a name stands once, and is not __metadata__")
        if tensor.dtype not in _FORMATS:
            raise LaminaError(f"tensor {shown(name)} has type {tensor.dtype}; known: {', '.join(PLAIN)}")
        items[name] = tensor
    return items


def _write_file(path: Path, tensors: dict[str, Source], metadata: Mapping[str, str] | None) -> None:
    """Header, then data, widest types first so that every tensor is aligned to its own type."""
    header: dict[str, Any] = {"__metadata__": dict(metadata) if metadata is not None else {"format": "pt"}}
    order = sorted(tensors, key=lambda name: -tensors[name].dtype.itemsize)
    end = 0
    for name in order:
        start, end = end, end + _nbytes(tensors[name])
        tensor = tensors[name]
        header[name] = {
            "dtype": _FORMATS[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    with path.open("xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            _write_tensor(file, name, tensors[name])


def _write_tensor(file: IO[bytes], name: str, source: Source) -> None:
    tensor = source if isinstance(source, torch.Tensor) else source.read()
    if tensor.shape != source.shape or tensor.dtype != source.dtype:
        raise LaminaError(f"tensor {shown(name)} was promised as {source.dtype} {list(source.shape)} and is not")
    flat = tensor.detach().cpu().contiguous().view(-1)
    file.write(flat.view(torch.uint8).numpy().data)


def _nbytes(tensor: Source) -> int:
    return tensor.dtype.itemsize * torch.Size(tensor.shape).numel()


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into one sentence that names the file."""
    try:
        yield
    except OSError as error:
        raise LaminaError(f"{path}: cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def _staged() -> Iterator[Any]:
    """Give temporary names beside the final ones; rename all if the block succeeds, else remove all."""
    pending: list[tuple[Path, Path]] = []

    def stage(path: Path) -> Path:
        pending.append((path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp"), path))
        return pending[-1][0]

    try:
        yield stage
        for temporary, path in pending:
            os.replace(temporary, path)
    finally:
        for temporary, _ in pending:
            temporary.unlink(missing_ok=True)
