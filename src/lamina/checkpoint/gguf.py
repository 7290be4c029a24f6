"""GGUF files, opened: metadata and tensors in one file, as llama.cpp and its relatives store models."""

from __future__ import annotations

from pathlib import Path

from lamina.checkpoint.headers.gguf import TYPES, read_header
from lamina.checkpoint.tensors import PLAIN, TensorFile, opened
from lamina.ops.blocks import BLOCKS

FORMATS = {number: name for number, name in TYPES.items() if name in PLAIN or name in BLOCKS}


def open_gguf(path: str | Path) -> TensorFile:
    """Open one file. Metadata become Python values, arrays lists; tensor shapes are in torch order.

    Raises: LaminaError if it is not a whole and consistent GGUF file of version 2 or 3, is one of many parts, or
        holds a tensor in a format that cannot be unpacked
    """
    return opened(Path(path), lambda file: read_header(file, FORMATS.values()))
