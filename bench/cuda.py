"""Delta rules on a GPU, against the kernels of flash-linear-attention called directly, forward and backward.

python bench/cuda.py [--tokens 8192] [--rounds 20] [--device cpu] [--json FILE]

16 heads of 128 in bfloat16. `lamina` is the op as it chooses there (`lamina.ops.backend()` is printed), `torch` its
portable form, `fla` the package. They take turns, and medians are compared. On a device without the package only
`torch` runs, which shows that the script works.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from lamina.ops import backend, fla
from lamina.ops.delta_rule import gated_delta_rule
from lamina.ops.vector_delta_rule import vector_delta_rule

OPS = {"gated_delta_rule": gated_delta_rule, "kda": vector_delta_rule}


def inputs(name: str, tokens: int, device: str) -> list[Tensor]:
    """q, k, v, g, b, tokens before heads."""
    random = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, tokens, 16, 128, generator=random) for _ in range(3))
    g = -torch.rand(1, tokens, 16, *((128,) if name == "kda" else ()), generator=random)
    b = torch.rand(1, tokens, 16, generator=random)
    moved = [x.to(device, torch.bfloat16) for x in (q, k, v)]
    return [x.requires_grad_() for x in (*moved, g.to(device), b.to(device))]


def ways(name: str) -> dict[str, Callable[..., Tensor]]:
    def lamina(*given: Tensor) -> Tensor:
        return OPS[name](*(x.transpose(1, 2) for x in given))[0]

    def portable(*given: Tensor) -> Tensor:
        with mock.patch.object(fla, "usable", return_value=False):
            return lamina(*given)

    made: dict[str, Callable[..., Tensor]] = {"torch": portable}
    if fla.library() is None:
        import importlib

        kernel = getattr(importlib.import_module(f"fla.ops.{name}"), f"chunk_{name}")
        made |= {"lamina": lamina, "fla": lambda *given: kernel(*given, use_qk_l2norm_in_kernel=True)[0]}
    return made


def seconds(call: Callable[..., Tensor], given: list[Tensor], device: str, backward: bool) -> float:
    start = time.perf_counter()
    out = call(*given)
    if backward:
        torch.autograd.grad(out.float().square().mean(), given)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found = torch.cuda.is_available()
    parser.add_argument("--tokens", type=int, default=8192 if found else 512)
    parser.add_argument("--rounds", type=int, default=20 if found else 3)
    parser.add_argument("--device", default="cuda" if found else "cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(backend(), torch.__version__)
    rows: dict[str, dict[str, float]] = {}
    for name in OPS:
        given, calls = inputs(name, options.tokens, options.device), ways(name)
        for kind, backward in (("forward", False), ("forward and backward", True)):
            taken = {way: [] for way in calls}
            for turn in range(options.rounds + 2):
                for way, call in calls.items():
                    spent = seconds(call, given, options.device, backward)
                    taken[way] += [spent] if turn > 1 else []  # the first two compile and warm up
            rows[f"{name} {kind}"] = row = {way: statistics.median(times) for way, times in taken.items()}
            ratio = f"{row['fla'] / row['lamina']:6.2f}x its speed" if "fla" in row else ""
            print(f"{name:18} {kind:22}", *(f"{way} {t * 1e3:8.2f} ms" for way, t in row.items()), ratio, flush=True)
    if options.json:
        record = {"backend": backend(), "torch": torch.__version__, "tokens": options.tokens, "seconds": rows}
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
