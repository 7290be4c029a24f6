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
    """The entry that a name means: case, and a dash for a dot, do not matter; None if there is none.

    A model that shares an entry's architecture (its `also`) is known by its own name too.
    """
    plain = _plain(name)
    return _spellings().get(plain) or _also().get(plain)


@functools.cache
def _spellings() -> dict[str, str]:
    return {_plain(known): known for known in _entries()}


@functools.cache
def _also() -> dict[str, str]:
    return {_plain(other["name"]): name for name in _entries() for other in source(name).get("also") or ()}


def _plain(name: str) -> str:
    return name.lower().replace(".", "-")


def config(name: str) -> dict[str, Any]:
    """The config.json of a catalog entry, as published."""
    return json.loads((_entries()[name] / "config.json").read_text())


def source(name: str) -> dict[str, Any]:
    """What is known of a catalog entry beside its config.

    Keys: config (its kind and source), repository, released, licence, published_parameters and
    published_active_parameters, counted_parameters (by building the reference class `counted_with`),
    state_bytes_per_token (bfloat16), context, article, note, also (models of the same architecture); None where
    nothing is known.
    """
    return json.loads((_entries()[name] / "source.json").read_text())
