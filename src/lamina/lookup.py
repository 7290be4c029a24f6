"""From what a user names to an architecture."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from lamina import catalog
from lamina.arch import Architecture
from lamina.errors import LaminaError, closest
from lamina.families import read_config

_EDITED = re.compile(r"(?P<source>.+?):(?P<edits>[A-Za-z_]\w*(\[[^\]=]*\])?(\.[^=:]*)?=.*)")
_CONFIG_LIMIT = 16 << 20  # bytes; a config.json is a few kilobytes


def read_json(path: Path) -> Any:
    """A JSON file of bounded size.

    Raises: LaminaError if it is missing, too large, or not JSON.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_CONFIG_LIMIT + 1)
    except OSError as error:
        raise LaminaError(f"{path}: cannot be read ({error.strerror or error})") from None
    if len(data) > _CONFIG_LIMIT:
        raise LaminaError(f"{path}: more than {_CONFIG_LIMIT >> 20} MB, which is no config")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise LaminaError(f"{path}: not JSON ({error})") from None


def architecture(source: str | os.PathLike[str] | dict[str, Any] | Architecture) -> Architecture:
    """The architecture that `source` names, without reading any weights.

    `source` is a catalog name, the path of a config.json or of a directory that holds one, a .gguf file, a
    config as a dict, or an architecture (returned as it is). A name or path may be followed by edits:
    `qwen3-0.6b:blocks[*].mixer=gated_deltanet@3:1` (see `lamina.arch.edit.edited`).

    Raises: LaminaError, naming what is wrong and what would be accepted.
    """
    if isinstance(source, Architecture):
        return source
    if isinstance(source, dict):
        return read_config(source, "the given config")
    name = os.fspath(source)
    if isinstance(source, str) and (match := _EDITED.fullmatch(source)):
        from lamina.arch.edit import edited

        return edited(architecture(match["source"]), match["edits"]).replace(name=source)
    if (known := catalog.canonical(name)) is not None:
        return read_config(catalog.config(known), known, known)
    path = Path(name).expanduser()
    if not path.exists():
        raise LaminaError(
            f"{name!r} is neither a file or directory nor a name in the catalog; {closest(name, catalog.names())}"
        )
    if path.suffix == ".gguf":
        from lamina.checkpoint.gguf import open_gguf
        from lamina.published.gguf import read_gguf

        return read_gguf(open_gguf(path)).arch
    if path.is_dir():
        path = path / "config.json"
    elif path.suffix == ".safetensors":
        path = path.with_name("config.json")
    return read_config(read_json(path), str(path), path.resolve().parent.name)
