"""Kernels of flash-linear-attention, if it is installed: what recurrences run with on CUDA in half precision.

They are written in Triton, forward and backward, and keep the state in float32. `pip install lamina[cuda]` brings them;
`LAMINA_FLA=0` turns them off, and `lamina.ops.backend()` says what is used and why. Float32 stays with torch, whose
products are exact where those kernels round to tf32.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import os
from typing import Any

import torch
from torch import Tensor

PACKAGE = "flash-linear-attention"


@functools.cache
def library() -> str | None:
    """Why the kernels cannot be used here, or nothing if they can."""
    if os.environ.get("LAMINA_FLA") == "0":
        return "turned off by LAMINA_FLA=0"
    if not torch.cuda.is_available():
        return "no CUDA device"
    try:
        importlib.import_module("fla.ops")
    except ImportError as error:
        return f"{PACKAGE} cannot be imported ({error}); pip install lamina[cuda]"
    return None


def version() -> str:
    return f"{PACKAGE} {importlib.metadata.version(PACKAGE)}"


def usable(x: Tensor) -> bool:
    return x.is_cuda and x.dtype in (torch.bfloat16, torch.float16) and library() is None


def fused(
    name: str, q: Tensor, k: Tensor, v: Tensor, *a_token: Tensor, state: Tensor, scale: float, **options: Any
) -> tuple[Tensor, Tensor] | None:
    """What a kernel of this name makes of sequences, with its state; nothing where torch is to do it.

    Shapes: q, k [B G T K]; v [B H T V]; each of `a_token` [B H T ...] -> [B H T V], [B H K V], both in float32
    """
    if not usable(v):
        return None
    form = "fused_recurrent" if v.shape[2] == 1 and not torch.is_grad_enabled() else "chunk"
    kernel = getattr(importlib.import_module(f"fla.ops.{name}"), f"{form}_{name}")
    sequences = [x.transpose(1, 2).contiguous() for x in (q, k, v, *a_token)]
    out, after = kernel(*sequences, scale=scale, initial_state=state, output_final_state=True, **options)
    return out.transpose(1, 2).float(), after
