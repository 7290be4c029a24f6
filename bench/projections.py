"""How fast the projections of a small model read their weights, for a few tokens on a CPU, in one run.

python bench/projections.py [--threads 2] [--rounds 9] [--json FILE]

All projections of SmolLM2-135M in float32, each with a weight of its own: they are read from memory, as in decoding,
and not from a cache. Three ways take turns, and medians are compared: `torch` is F.linear, `batch` is a product for
each thread's share of the outputs (torch.bmm), `native` is lamina.ops.linear.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from lamina.ops import backend
from lamina.ops.linear import FEW, linear

SHAPES = 30 * [*2 * [(576, 576), (192, 576), (1536, 576)], (576, 1536)] + [(49152, 576)]


def batch(x: Tensor, weight: Tensor) -> Tensor:
    pieces, (outputs, inputs) = torch.get_num_threads(), weight.shape
    if outputs % pieces:
        return F.linear(x, weight)
    parts = torch.bmm(x.expand(pieces, -1, -1), weight.view(pieces, -1, inputs).transpose(1, 2))
    return parts.transpose(0, 1).reshape(len(x), outputs)


WAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"torch": F.linear, "batch": batch, "native": linear}


@torch.inference_mode()
def measure(weights: list[Tensor], tokens: int, rounds: int) -> dict[str, float]:
    """Median seconds for all the weights, each way."""
    inputs, times = {n: torch.randn(tokens, n) for n in (576, 1536)}, {name: [] for name in WAYS}
    for weight in weights[-8:]:  # a layer and the head
        exact = F.linear(inputs[weight.shape[1]].double(), weight.double())
        for name, way in WAYS.items():
            error = (way(inputs[weight.shape[1]], weight) - exact).abs().max() / exact.abs().max()
            assert error < 1e-5, f"{name} computes something else"
    for turn in range(rounds + 1):
        for name, way in WAYS.items():
            start = time.perf_counter()
            for weight in weights:
                way(inputs[weight.shape[1]], weight)
            times[name] += [time.perf_counter() - start] if turn else []  # the first round warms up
    return {name: statistics.median(taken) for name, taken in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    assert backend()["cpu"] == "native", backend()["cpu"]
    weights = [torch.randn(shape) for shape in SHAPES]
    size = sum(weight.nbytes for weight in weights)
    rows = {tokens: measure(weights, tokens, options.rounds) for tokens in range(1, FEW + 1)}
    print(f"{size / 1e6:.0f} MB of weights, {options.threads} threads; milliseconds, GB/s")
    print(f"{'tokens':6} " + " ".join(f"{name:>16}" for name in WAYS) + f" {'native':>8}")
    for tokens, row in rows.items():
        cells = " ".join(f"{seconds * 1e3:8.1f} {size / seconds / 1e9:7.1f}" for seconds in row.values())
        print(f"{tokens:6} {cells} {row['torch'] / row['native']:7.2f}x")
    if options.json:
        versions = {"torch": torch.__version__, "threads": options.threads}
        options.json.write_text(json.dumps({"versions": versions, "bytes": size, "seconds": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
