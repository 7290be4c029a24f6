"""The C functions of native.c, compiled once on this machine; torch does the same where there is no compiler.

Decoding one token is thousands of tiny torch operations around a few megabytes of weights each; on a CPU their
dispatch costs as much as the reading (bench/generate.py). `LAMINA_NATIVE=0` turns this off, and
`lamina.ops.backend()` says what is used and why.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).with_suffix(".c")
FLAGS = "-O3 -march=native -fopenmp -shared -fPIC -std=c11"
_P, _L, _F, _I = ctypes.c_void_p, ctypes.c_long, ctypes.c_float, ctypes.c_int
SIGNATURES = {
    "few_tokens": (_P, _P, _P, _L, _L, _L, _I),
    "rms_norm": (_P, _P, _P, _L, _L, _F, _F),
    "attend_all": (_P, _P, _P, _P, _P, _L, _L, _L, _L, _L, _L, _L, _F, _I),
}


def _machine() -> str:
    """What the compiled code may not outlive: processor, compiler flags, source."""
    try:
        processor = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    except (OSError, StopIteration):
        processor = platform.processor()
    text = f"{platform.machine()} {processor} {FLAGS} {SOURCE.read_text()}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _compiled() -> Path:
    from lamina.checkpoint.registry import cache_directory

    target = cache_directory() / "native" / f"{_machine()}.so"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        compiler = os.environ.get("CC") or (sysconfig.get_config_var("CC") or "cc").split()[0]
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            made = Path(scratch) / target.name
            command = [*shlex.split(compiler), *FLAGS.split(), str(SOURCE), "-o", str(made), "-lm"]
            subprocess.run(command, check=True, capture_output=True, timeout=60)
            os.replace(made, target)
    return target


@functools.cache
def library() -> ctypes.CDLL | str:
    """The compiled functions, or why there are none."""
    if os.environ.get("LAMINA_NATIVE") == "0":
        return "turned off by LAMINA_NATIVE=0"
    try:
        loaded = ctypes.CDLL(str(_compiled()))
    except (OSError, subprocess.SubprocessError) as error:
        return f"not compiled ({error})"
    for name, arguments in SIGNATURES.items():
        getattr(loaded, name).argtypes, getattr(loaded, name).restype = arguments, None
    return loaded


def usable(*tensors: Tensor) -> ctypes.CDLL | None:
    """The functions, if these tensors are dense float32 on a CPU and no gradient is wanted."""
    if torch.is_grad_enabled():
        return None
    for tensor in tensors:
        if tensor.dtype != torch.float32 or not tensor.is_cpu or not tensor.is_contiguous():
            return None
    found = library()
    return None if isinstance(found, str) else found
