"""How weights are stored: their bytes, format by format."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamina.checkpoint.headers.files import LocalFile
from lamina.checkpoint.headers.safetensors import INDEX, read_header, read_index, read_shards, weights_in
from lamina.checkpoint.headers.table import PLAIN, Header
from lamina.errors import LaminaError


@dataclass(frozen=True)
class Stored:
    """The weights of a checkpoint as they are stored.

    Units: bytes, and bytes by format, the largest first; weights are values, None where a format may hold several
        in one integer
    """

    bytes: int
    formats: dict[str, int]
    weights: int | None = None

    @property
    def bits_per_weight(self) -> float | None:
        return 8 * self.bytes / self.weights if self.weights else None

    def as_json(self) -> dict[str, Any]:
        return {"bytes": self.bytes, "formats": self.formats, "bits_per_weight": self.bits_per_weight}


def stored(headers: Iterable[Header]) -> Stored:
    """What the files of one checkpoint hold together."""
    nbytes: Counter[str] = Counter()
    values: Counter[str] = Counter()
    for header in headers:
        for entry in header.tensors.values():
            nbytes[entry.format] += entry.nbytes
            values[entry.format] += math.prod(entry.shape)
    return _stored(nbytes, values)


def stored_in(directory: Path) -> Stored | None:
    """What a directory holds, or None if it holds no safetensors.

    Where shards are missing, the size that their index states is all that is known.
    Raises: LaminaError if a file is there and is not what it should be
    """
    try:
        path = weights_in(directory)
    except LaminaError:
        return None
    if path.name != INDEX:
        return stored([read_header(LocalFile(path))])
    places, metadata = read_index(path)
    if all(os.path.isfile(directory / shard) for shard in set(places.values())):
        return stored(read_shards(path, places, lambda shard: read_header(LocalFile(shard))))
    size = metadata.get("total_size")
    return Stored(int(size), {}) if isinstance(size, int | float) and 0 < size < 1 << 63 else None


def stored_counts(values: Mapping[str, Any]) -> Stored | None:
    """From how many values there are of each plain format, as a hub says it; None if it says anything else."""
    if not values or not all(name in PLAIN and type(count) is int and count >= 0 for name, count in values.items()):
        return None
    return _stored(Counter({name: count * PLAIN[name] for name, count in values.items()}), Counter(values))


def _stored(nbytes: Counter[str], values: Counter[str]) -> Stored:
    packed = any(name[0] in "IU" and name in PLAIN for name in values)  # integers: the weights of MXFP4 or GPTQ files
    return Stored(nbytes.total(), dict(nbytes.most_common()), None if packed else values.total())
