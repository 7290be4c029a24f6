"""The safetensors format: one file, a sharded checkpoint, a directory; reading and writing."""

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

from lamina.checkpoint.headers.safetensors import INDEX, SINGLE, read_header, read_index, read_shards, weights_in
from lamina.checkpoint.headers.table import shown
from lamina.checkpoint.tensors import PLAIN, TensorFile, opened
from lamina.errors import LaminaError

_WRITTEN = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")
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
    return opened(Path(path), lambda file: read_header(file, PLAIN))


def open_sharded(path: str | Path) -> TensorFile:
    """Open a sharded checkpoint by its index, or by the directory that holds `model.safetensors.index.json`.

    Raises: LaminaError if the index is not one, a shard is missing or not whole, a tensor stands in two
        shards, or a shard lacks a tensor that the index places there
    """
    index = Path(path) / INDEX if Path(path).is_dir() else Path(path)
    places, metadata = read_index(index)
    shards = read_shards(index, places, open_safetensors)
    return TensorFile(index.parent, {name: t for shard in shards for name, t in shard.tensors.items()}, metadata)


def open_directory(path: str | Path) -> TensorFile:
    """Open what a directory holds: `model.safetensors`, shards, `weights.safetensors`, or its only such file.

    Raises: LaminaError if there are none, or several and no index; pickle files are named and never read
    """
    found = weights_in(Path(path))
    return open_sharded(found) if found.name == INDEX else open_safetensors(found)


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
