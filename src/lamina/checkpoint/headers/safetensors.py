"""The headers of safetensors: one file, a sharded checkpoint, and which of them a directory holds.

A file is 8 bytes of header length (little endian), a JSON header, and the data without holes. Everything the
header claims is compared with the file before memory is taken.
Source: https://github.com/huggingface/safetensors (the format), huggingface_hub (names of shards and index)
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from lamina.checkpoint.headers.files import HEADER_LIMIT, File, LocalFile, Prefix
from lamina.checkpoint.headers.table import PLAIN, Entry, Header, count_bytes, shown
from lamina.errors import LaminaError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PLAIN_NAME = "weights.safetensors"  # what checkpoints that are no Hugging Face model are often called
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def read_header(file: File, formats: Collection[str] = PLAIN) -> Header:
    """What one file says of its tensors; its metadata are strings.

    Raises: LaminaError if it is not a whole and consistent safetensors file, or holds a tensor in none of `formats`
    """
    header, start = _read_json(file)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise LaminaError(f"{file.name}: __metadata__ must map names to strings")
    spans = {name: _check_entry(file.name, name, entry, formats) for name, entry in header.items()}
    _check_layout(file.name, spans, file.size - start)
    tensors = {
        name: Entry(name, tuple(header[name]["shape"]), header[name]["dtype"], start + first, start + last, file)
        for name, (first, last) in spans.items()
    }
    return Header(file, tensors, metadata)


def _read_json(file: File) -> tuple[dict[str, Any], int]:
    """The header, and where the data begins."""
    prefix = Prefix(file)
    if not prefix.reach(8):
        raise LaminaError(
            f"{file.name}: has {prefix.size} bytes; a safetensors file begins with 8 bytes of header length"
        )
    length = int.from_bytes(prefix.bytes[:8], "little")
    if length > file.limit or not prefix.reach(8 + length):
        raise LaminaError(
            f"{file.name}: claims a header of {length} bytes; accepted are at most {file.limit},"
            f" and the file has {prefix.size - 8} after its first 8 (is it a safetensors file, and complete?)"
        )
    return parse_object(file.name, bytes(prefix.bytes[8 : 8 + length])), 8 + length


def parse_object(name: str, text: bytes) -> dict[str, Any]:
    """A JSON object in which no key stands twice.

    Raises: LaminaError if it is anything else
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))
            raise LaminaError(f"{name}: {shown(twice)} stands twice in its JSON")
        return result

    if len(text) > HEADER_LIMIT:
        raise LaminaError(f"{name}: is larger than {HEADER_LIMIT} bytes, the most that is accepted for an index")
    try:
        value = json.loads(text.decode(), object_pairs_hook=unique)
    except LaminaError:
        raise
    except (ValueError, RecursionError) as error:
        raise LaminaError(f"{name}: holds no valid JSON where it must: {error}") from error
    if not isinstance(value, dict):
        raise LaminaError(f"{name}: holds a JSON {type(value).__name__} where an object must stand")
    return value


def _check_entry(file: str, name: str, entry: Any, formats: Collection[str]) -> tuple[int, int]:
    """The byte span of one tensor, once its type, shape and span agree."""
    where = f"{file}: tensor {shown(name)}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise LaminaError(f"{where} must be described by dtype, shape and data_offsets, and by nothing else")
    dtype, shape, span = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in formats:
        raise LaminaError(f"{where} has dtype {shown(str(dtype))}; known: {', '.join(formats)}")
    if not _is_sizes(shape):
        raise LaminaError(f"{where} has a shape that is not a list of integers, each 0 or more")
    if not _is_sizes(span) or len(span) != 2 or span[0] > span[1]:
        raise LaminaError(f"{where} has data_offsets that are not two integers, 0 <= begin <= end")
    needed = count_bytes(where, tuple(shape), dtype)
    if span[1] - span[0] != needed:
        raise LaminaError(
            f"{where} takes {needed} bytes as {dtype} of shape {shape}, and has {span[1] - span[0]} by its data_offsets"
        )
    return span[0], span[1]


def _is_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 1 << 63 for size in value)


def _check_layout(file: str, spans: dict[str, tuple[int, int]], size: int) -> None:
    """The spans must cover the data exactly: no overlap, no hole, nothing beyond either end."""
    end, previous = 0, "the header"
    for name, (first, last) in sorted(spans.items(), key=lambda item: item[1]):
        if first != end:
            fault = "overlaps" if first < end else "leaves a hole after"
            raise LaminaError(f"{file}: the data of tensor {shown(name)} {fault} that of {previous}")
        end, previous = last, shown(name)
    if end != size:
        fault = "is cut short" if end > size else "has bytes that no tensor uses"
        raise LaminaError(f"{file}: {fault}: its tensors take {end} bytes and {size} follow the header")


# ------------------------------------------------------------------------------------------------- several files


class _Table(Protocol):
    """A header, or a file that was opened: what a shard is read as."""

    @property
    def tensors(self) -> Mapping[str, Any]: ...


T = TypeVar("T", bound=_Table)


def read_index(index: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """What an index says: the shard of each tensor, and its metadata.

    Raises: LaminaError if it is none, or names something else than a .safetensors file beside it
    """
    file = LocalFile(index)
    content = parse_object(file.name, file.read(0, min(file.size, HEADER_LIMIT + 1)))
    places, metadata = content.get("weight_map"), content.get("metadata", {})
    if not isinstance(places, dict) or not places or not isinstance(metadata, dict):
        raise LaminaError(f"{index}: needs weight_map, which maps each tensor's name to the file that holds it")
    for name, shard in places.items():
        if not isinstance(shard, str) or not re.fullmatch(r"[^/\\\0:]+\.safetensors", shard):
            raise LaminaError(
                f"{index}: tensor {shown(name)} is placed in {shown(str(shard))};"
                " only the name of a .safetensors file beside the index is accepted"
            )
    return places, metadata


def read_shards(index: Path, places: Mapping[str, str], read: Callable[[Path], T]) -> list[T]:
    """Each shard that the index names, as `read` gives it.

    Raises: LaminaError if a shard is missing or not whole, a tensor stands in two of them, or is not where the
        index places it
    """
    found: dict[str, str] = {}
    shards: list[T] = []
    for shard in dict.fromkeys(places.values()):
        if not os.path.isfile(index.parent / shard):  # also false where the name is one no disk takes
            raise LaminaError(f"{index}: shard {shown(shard)} is missing from {index.parent}")
        shards.append(read(index.parent / shard))
        for name in shards[-1].tensors:
            if name in found:
                raise LaminaError(
                    f"{index.parent}: tensor {shown(name)} stands twice, in {found[name]!r} and in {shard!r}"
                )
            found[name] = shard
    for name, shard in places.items():
        if found.get(name) != shard:
            raise LaminaError(f"{index}: tensor {shown(name)} is placed in {shard!r}, which does not hold it")
    return shards


def weights_in(path: Path) -> Path:
    """The file or index of a directory: `model.safetensors`, its index, `weights.safetensors`, or its only such file.

    Raises: LaminaError if there are none, or several and no index; pickle files are named and never read
    """
    if not path.is_dir():
        raise LaminaError(f"{path}: no such directory")
    for name in (SINGLE, INDEX, PLAIN_NAME):
        if (path / name).is_file():
            return path / name
    names = sorted(file.name for file in path.iterdir() if file.is_file())
    found = [name for name in names if name.endswith(".safetensors")]
    if len(found) == 1:
        return path / found[0]
    accepted = f"accepted are {SINGLE}, {INDEX} with its shards, {PLAIN_NAME}, or a single .safetensors file"
    if found:
        raise LaminaError(f"{path}: holds {len(found)} files ({_listed(found)}) and no index; {accepted}")
    pickles = [name for name in names if name.endswith(_PICKLES)]
    if pickles:
        raise LaminaError(f"{path}: holds only pickle files ({_listed(pickles)}), which are never read; {accepted}")
    raise LaminaError(f"{path}: holds no weights; {accepted}")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
