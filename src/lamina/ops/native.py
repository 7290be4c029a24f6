"""The C functions of this folder, compiled once on this machine; torch does the same where there is no compiler.

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
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

CHUNK, SIDE = 64, 16
"""Tokens that a recurrence takes at a time, and columns that it keeps beside each other: as in strips.h."""
PLAIN = (Tensor, torch.nn.Parameter)
SOURCES = [
    Path(__file__).with_name(f"{name}.c")
    for name in (
        "native",
        "packed",
        "experts",
        "latent",
        "delta_rule",
        "linear_attention",
        "selective_scan",
        "short_convolution",
    )
]
HEADERS = [Path(__file__).with_name(name) for name in ("dots.h", "exponential.h", "strips.h")]
FLAGS = "-O3 -march=native -ffp-contract=fast -fopenmp -shared -fPIC -std=c11"
_P, _L, _F, _I = ctypes.c_void_p, ctypes.c_long, ctypes.c_float, ctypes.c_int
SIGNATURES = {
    "few_tokens": (_P, _P, _P, _L, _L, _L, _I),
    "rms_norm": (_P, _P, _P, _L, _L, _F, _F, _I),
    "rotate": (_P, _P, _P, _P, _L, _L, _L, _L, _L, _L, _L, _L, _I, _I),
    "packed_rows": (_P, _P, _L, _L, _P, _I),
    "packed_few_tokens": (_P, _P, _P, _L, _L, _I),
    "packed_experts": (_P, _P, _P, _P, _P, _L, _L, _I),
    "experts_linear": (_P, _P, _P, _P, _P, _L, _L, _L, _I),
    "experts_glu": (*9 * (_P,), *5 * (_L,), _I),
    "attend_all": (_P, _P, _P, _P, _P, _L, _L, _L, _L, _L, _L, _L, _F, _I),
    "attend_latent": (_P, _P, _P, _P, _L, _L, _L, _L, _L, _L, _F, _I),
    "delta_rule": (*10 * (_P,), *9 * (_L,), _I),
    "linear_attention": (*9 * (_P,), *7 * (_L,), _I),
    "selective_scan": (*9 * (_P,), *5 * (_L,), _I),
    "short_convolution": (*6 * (_P,), *6 * (_L,), _I, _I),
}
CODES = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "MXFP4",
         "e4m3", "e5m2", "e2m1", "uint4", "uint8", "int8")  # fmt: skip
"""What numbers may be stored as, as packed.c counts them."""


class Weight(ctypes.Structure):
    """`struct weight` of packed.c."""

    _fields_ = [
        *((name, _P) for name in ("codes", "scales", "zeros", "factor")),
        *((name, _L) for name in ("inputs", "row_bytes", "first", "rows", "columns", "scale_columns")),
        *((name, _I) for name in ("code", "scale", "divided")),
    ]


def _machine() -> str:
    """What the compiled code may not outlive: processor, compiler flags, source."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        processor = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        processor = platform.processor()
    sources = "".join(file.read_text(encoding="utf-8") for file in (*SOURCES, *HEADERS))
    text = f"{platform.machine()} {processor} {FLAGS} {sources}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _compiler() -> list[str]:
    """`$CC`, else the first of the usual ones that is here."""
    if chosen := os.environ.get("CC"):
        return shlex.split(chosen)
    built_with = (sysconfig.get_config_var("CC") or "cc").split()[0]
    return [next(filter(shutil.which, (built_with, "cc", "gcc", "clang")), "cc")]


def _functions(file: Path) -> ctypes.CDLL:
    """Raises: OSError if this is no library, AttributeError if it lacks a function."""
    loaded = ctypes.CDLL(str(file))
    for name, arguments in SIGNATURES.items():
        getattr(loaded, name).argtypes, getattr(loaded, name).restype = arguments, None
    return loaded


def _compiled(target: Path) -> ctypes.CDLL:
    """Compile into a directory of its own; what loads is kept, in one step, so that two at once do no harm."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        made = Path(scratch) / target.name
        command = [*_compiler(), *FLAGS.split(), *map(str, SOURCES), "-o", str(made), "-lm"]
        quiet = {"stdin": subprocess.DEVNULL, "capture_output": True, "errors": "replace"}
        subprocess.run(command, check=True, timeout=60, **quiet)
        loaded = _functions(made)
        os.replace(made, target)
    return loaded


@functools.cache
def library() -> ctypes.CDLL | str:
    """The compiled functions, or why there are none."""
    from lamina.checkpoint.registry import cache_directory

    if os.environ.get("LAMINA_NATIVE") == "0":
        return "turned off by LAMINA_NATIVE=0"
    try:
        target = cache_directory() / "native" / f"{_machine()}.so"
        try:
            return _functions(target)
        except (OSError, AttributeError):  # not there, or damaged
            return _compiled(target)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines()
        return f"not compiled ({next((line for line in lines if 'error' in line), error)})"
    except (OSError, subprocess.SubprocessError, AttributeError, ValueError, RuntimeError) as error:
        return f"not compiled ({error})"


def usable(*tensors: Tensor) -> ctypes.CDLL | None:
    """The functions, if these tensors are dense float32 on a CPU, of one width, and it is only values that are wanted.

    Gradients, a compiler, a counter of FLOPs and the like see torch operations only, and a tensor that is not
    plain (fake, sharded) may have no memory to point at.
    """
    if torch.is_grad_enabled():
        return None
    width = tensors[0].size(-1)
    if any(tensor.dtype != torch.float32 or tensor.size(-1) != width for tensor in tensors):
        return None
    return reachable(*tensors)


def reachable(*tensors: Tensor) -> ctypes.CDLL | None:
    """The functions, if these tensors are plain memory of a CPU, and nothing watches torch's operations."""
    if torch.compiler.is_compiling() or is_in_torch_dispatch_mode():
        return None
    for tensor in tensors:
        if not tensor.is_cpu or not tensor.is_contiguous() or type(tensor) not in PLAIN:
            return None
    found = library()
    return None if isinstance(found, str) else found


def recurrence(
    name: str,
    more: Sequence[int],
    states: tuple[Tensor, ...],
    parts: Sequence[Tensor],
    before: list[tuple[Tensor, ...]] | None = None,
    *,
    backwards: bool = False,
) -> tuple[Tensor, tuple[Tensor, ...]] | None:
    """Outputs [B H T V] and state of a function that takes chunks of the tokens of q, k, v, g and others, if it can.

    It is for values of float32 on a CPU and for more than one token; rows are read where they lie, from the last token
    to the first if wanted. The states before each chunk are appended to `before`.
    """
    (state,) = states
    v, plain = parts[2], all(type(x) in PLAIN and x.is_cpu and x.dtype == torch.float32 for x in (*parts, state))
    if torch.is_grad_enabled() or not plain or v.shape[2] == 1 or any(x.ndim == 4 and x.stride(3) != 1 for x in parts):
        return None
    after = state.clone(memory_format=torch.contiguous_format)
    if (native := reachable(after)) is None:
        return None
    (batch, heads, tokens, value_dim), (_, groups, _, key_dim) = v.shape, parts[1].shape
    out = v.new_empty(batch, tokens, heads, value_dim).transpose(1, 2)  # a token's heads beside each other
    first, step = (tokens - 1, -1) if backwards else (0, 1)
    places = [x.data_ptr() + first * x.stride(2) * x.element_size() for x in (*parts, out)]
    strides = torch.tensor([(x.stride(0), x.stride(1), step * x.stride(2)) for x in (*parts, out)])
    threads, wide, deep = torch.get_num_threads(), -(-value_dim // SIDE) * SIDE, -(-key_dim // 8) * 8
    each = 2 * deep + CHUNK * (2 * CHUNK + 2 + 4 * deep + 2 * wide)
    room = v.new_zeros(threads * each + batch * heads * deep * wide)
    kept = None if before is None else v.new_empty(-(-tokens // CHUNK), *state.shape)
    places += [x.data_ptr() for x in (after, room)] + [0 if kept is None else kept.data_ptr(), strides.data_ptr()]
    getattr(native, name)(*places, batch, groups, heads, tokens, key_dim, value_dim, *more, each, threads)
    if before is not None and kept is not None:
        before += [(held,) for held in kept]
    return out, (after,)
