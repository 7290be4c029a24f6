"""Lamina: a workbench for language-model architectures, where an architecture is a value.

What is named here is stable. Importing this package does not import torch; building, loading and running do.
"""

from __future__ import annotations

import importlib
from typing import Any

from lamina.arch import Architecture
from lamina.arch.diff import diff
from lamina.catalog import names
from lamina.errors import LaminaError
from lamina.lookup import architecture

__version__ = "0.1.0"

_LATER = {
    "build": "lamina.nn.build",
    "load": "lamina.checkpoint.load",
    "save": "lamina.checkpoint.save",
    "generate": "lamina.generation",
    "Tokenizer": "lamina.tokenizer",
}
"""Names that need torch or are slow to import, and where they are: imported when first used."""

__all__ = ["Architecture", "LaminaError", "architecture", "diff", "names", *_LATER]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'lamina' has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)
