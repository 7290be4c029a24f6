"""The catalog: published full-size configs by name, each with the source it was taken from and what is known of it."""

from __future__ import annotations

import functools
import json
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any


@functools.cache
def _entries() -> dict[str, Traversable]:
    root = resources.files(__name__) / "configs"
    return {entry.name: entry for entry in sorted(root.iterdir(), key=lambda e: e.name) if entry.is_dir()}


def names() -> list[str]:
    """The names of the catalog's architectures, in order."""
    return list(_entries())


def canonical(name: str) -> str | None:
    """The catalog's own spelling of a name: case, and a dash for a dot, do not matter; None if it has no such entry."""
    return {_plain(known): known for known in _entries()}.get(_plain(name))


def _plain(name: str) -> str:
    return name.lower().replace(".", "-")


def config(name: str) -> dict[str, Any]:
    """The config.json of a catalog entry, as published."""
    return json.loads((_entries()[name] / "config.json").read_text())


def source(name: str) -> dict[str, Any]:
    """What is known of a catalog entry beside its config.

    Keys: config (its kind and source), repository, released, published_parameters, counted_parameters (by
    building the reference class `counted_with`), state_bytes_per_token (bfloat16), context, article, note;
    None where nothing is known.
    """
    return json.loads((_entries()[name] / "source.json").read_text())
