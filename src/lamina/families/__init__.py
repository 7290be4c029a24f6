"""Families: published layouts, read and written. A module here with FAMILIES is registered by existing."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any

from lamina.arch import Architecture
from lamina.errors import LaminaError, closest
from lamina.published.common import Family
from lamina.published.config import Config, shown

_LONGEST = 600  # characters of a message about a value that may be of any size


@functools.cache
def families() -> dict[str, Family]:
    """Every family, by each `model_type` it reads."""
    return {kind: family for name in _texts() for family in _module(name) for kind in family.model_types}


@functools.cache
def reader(model_type: str) -> Family | None:
    """The family that reads a `model_type`; None if there is none."""
    return next((family for family in _naming(model_type) if model_type in family.model_types), None)


def _naming(word: str) -> Iterator[Family]:
    """The families whose module names a word.

    Only those modules are imported: all of them take longer than everything else there is to do.
    """
    return (family for name, text in _texts().items() if f'"{word}"' in text for family in _module(name))


@functools.cache
def _of_class(name: str) -> Family | None:
    """The family that reads the configs of a class whatever their model_type is."""
    return next((family for family in _naming(name) if name in family.classes), None)


@functools.cache
def _texts() -> dict[str, str]:
    """The source of every module here, by name."""
    files = (entry for entry in resources.files(__name__).iterdir() if entry.name.endswith(".py"))
    return {entry.name[:-3]: entry.read_text(encoding="utf-8") for entry in files if not entry.name.startswith("_")}


def _module(name: str) -> Sequence[Family]:
    return getattr(importlib.import_module(f"{__name__}.{name}"), "FAMILIES", ())


def family_named(name: str) -> Family:
    """The family that `Architecture.family` names.

    Raises: LaminaError if there is none.
    """
    known = {family.name: family for family in families().values()}
    if name not in known:
        raise LaminaError(f"family {name!r} is not known; {closest(name, known)}")
    return known[name]


def read_config(data: Any, where: str = "config.json", name: str = "") -> Architecture:
    """A published config.json as a value.

    Raises: LaminaError, naming the file and the key, if the model_type is unknown, a key is missing, wrong or
    not understood, or the values contradict each other.
    """
    return read(Config(data, where), name)


def family_of(config: Config) -> Family:
    """The family whose layout a config is in: by its class, its model_type, or a key that only that family has.

    Raises: LaminaError if there is none.
    """
    kind = config.str("model_type", None)
    if kind is None:
        signed = (f.model_types[0] for f in families().values() if f.signature and f.signature in config.data)
        kind = next(signed, None) or config.str("model_type")
    listed = config.data.get("architectures")
    for name in listed if isinstance(listed, list) else ():
        if isinstance(name, str) and (family := _of_class(name)):
            return family
    if (family := reader(kind) or families().get(kind)) is None:
        raise LaminaError(f"{config.where}: model_type {shown(kind)} is not known; {closest(kind, families())}")
    return family


def read(config: Config, name: str = "") -> Architecture:
    """As `read_config`; afterwards `config.ignored` says what was passed over and why."""
    family = family_of(config)
    try:
        arch = family.read(config)
    except LaminaError as error:
        message = str(error)
        message = message if len(message) <= _LONGEST else message[: _LONGEST - 3] + "..."
        raise LaminaError(message if message.startswith(config.where) else f"{config.where}: {message}") from None
    except RecursionError:
        raise LaminaError(f"{config.where}: nested too deeply to be a config") from None
    except (OverflowError, ZeroDivisionError, ValueError, TypeError) as error:
        raise LaminaError(f"{config.where}: the values contradict each other ({error})") from None
    return arch.replace(name=name)
