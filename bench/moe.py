"""How fast a mixture of experts runs on a CPU, against every implementation that transformers has, in one run.

python bench/moe.py [--threads 2] [--rounds 15] [--json FILE]

64 SwiGLU experts of inner width 256 at model width 512, of which the router takes 8 a token, in float32: the whole
block, router included, on random tokens. All ways have the same weights and take turns, so that what else the machine
does hits all alike; medians are compared. Prints how many times faster Lamina is than the fastest of the others.
Of more than 16 tokens `batched_mm` is left out: it copies the weights of every choice, 3 GB for 256 tokens.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
import transformers
from torch import nn
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

from lamina.arch import GLU, MoE, Router
from lamina.nn.moe import MoE as Module
from lamina.ops import backend

WIDTH, INNER, EXPERTS, ACTIVE = 512, 256, 64, 8
TOKENS = (1, 4, 16, 64, 256)
WAYS = ("eager", "grouped_mm", "batched_mm")


def reference(way: str) -> nn.Module:
    """The block of transformers, with one of its implementations of the experts."""
    config = transformers.Qwen3MoeConfig(
        hidden_size=WIDTH,
        moe_intermediate_size=INNER,
        num_experts=EXPERTS,
        num_experts_per_tok=ACTIVE,
        norm_topk_prob=True,
    )
    config._experts_implementation = way
    block, random = Qwen3MoeSparseMoeBlock(config).eval(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.05)
    return block


def ours(block: nn.Module) -> nn.Module:
    """Lamina's, with the weights of that block."""
    value = MoE(router=Router(experts=EXPERTS, active=ACTIVE), expert=GLU(inner=INNER))
    module, experts = Module(value, WIDTH).eval(), block.experts
    gate, up = experts.gate_up_proj.chunk(2, 1)
    pairs = {"gate_proj": gate, "up_proj": up, "down_proj": experts.down_proj}
    with torch.no_grad():
        module.router.gate.weight.copy_(block.gate.weight)
        for name, weight in pairs.items():
            module.experts.get_submodule(name).weight.copy_(weight)
    return module


@torch.inference_mode()
def measure(blocks: dict[str, nn.Module], tokens: int, rounds: int) -> dict[str, float]:
    """Median seconds of each way."""
    times: dict[str, list[float]] = {name: [] for name in blocks}
    for turn in range(rounds + 1):
        x = torch.randn(1, tokens, WIDTH)
        exact = blocks["eager"](x)
        for name, block in blocks.items():
            start = time.perf_counter()
            y = block(x)
            times[name] += [time.perf_counter() - start] if turn else []  # the first round warms up
            assert (y - exact).abs().max() <= 1e-5 * exact.abs().max(), f"{name} computes something else"
    return {name: statistics.median(taken) for name, taken in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "moe.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    assert backend()["cpu"] == "native", backend()["cpu"]
    blocks = {way: reference(way) for way in WAYS}
    blocks["lamina"] = ours(blocks["eager"])
    print(f"milliseconds, {options.threads} threads")
    print(f"{'tokens':6} " + " ".join(f"{name:>11}" for name in blocks) + f" {'faster':>8}")
    rows = {}
    for tokens in TOKENS:
        taking_turns = {name: block for name, block in blocks.items() if tokens <= 16 or name != "batched_mm"}
        rows[tokens] = row = measure(taking_turns, tokens, options.rounds * (4 if tokens < 16 else 1))
        faster = min(row[way] for way in WAYS if way in row) / row["lamina"]
        cells = (f"{row[name] * 1e3:11.2f}" if name in row else f"{'':>11}" for name in blocks)
        print(f"{tokens:6} {' '.join(cells)} {faster:7.2f}x", flush=True)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "threads": options.threads}
    sizes = {"width": WIDTH, "inner": INNER, "experts": EXPERTS, "active": ACTIVE}
    options.json.write_text(json.dumps({"versions": versions, "sizes": sizes, "seconds": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
