"""What a token of sparse latent attention costs as its history grows, on a CPU, in one run.

python bench/sparse.py [--threads 1] [--rounds 9] [--top-k 2048] [--json FILE]

One layer of latent attention (16 heads, latents of 512 numbers, width 2048) in float32, with an indexer (16 heads of
128) and without, after histories of random latents and keys. `decode` is one token more, `prefill` a token of a chunk
of 32. Of the layer with an indexer, `choosing` is what scores and chooses, which grows with the history; `beyond` is
all the rest, which must not: the target is a ratio of at most 1.3 from 8k to 32k tokens. Histories take turns, and
medians are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

import lamina
from lamina.arch import Architecture, Block, Branch, Embedding, Indexer, LatentAttention, RMSNorm, Rotary
from lamina.nn import indexer

HISTORIES = 4096, 8192, 16384, 32768
CHUNK = 32
TURN = Rotary(dim=64)
DENSE = LatentAttention(
    heads=16, latent=512, query_latent=1536, plain_dim=128, rotary_dim=64, value_dim=128, rotary=TURN
)


class Layer:
    """A model of one layer and its state, and the seconds that its indexer takes to score and choose."""

    def __init__(self, op: LatentAttention, history: int) -> None:
        block, embedding = Block(branches=(Branch(op=op, before=RMSNorm()),)), Embedding(vocab=7, width=2048)
        arch = Architecture(family="deepseek_v32", embedding=embedding, blocks=(block,), context=history + CHUNK)
        self.model, self.history, self.choosing = lamina.build(arch), history, 0.0
        self.state = self.model.init_state(1, history + CHUNK)
        for layer in self.state.layers:
            for kept in layer.kept:
                kept.normal_()

    def seconds(self, tokens: int) -> tuple[float, float]:
        """Of all, and of choosing; the state is as before."""
        self.state.lengths, self.choosing = [self.history], 0.0
        indexer.choose_runs = partial(self._timed, indexer.choose_runs)
        ids = torch.ones(1, tokens, dtype=torch.long)
        try:
            start = time.perf_counter()
            self.model(ids, self.state)
            return time.perf_counter() - start, self.choosing
        finally:
            indexer.choose_runs = indexer.choose_runs.args[0]  # type: ignore[attr-defined]

    def _timed(self, choose: Any, *given: Any) -> Any:
        start = time.perf_counter()
        try:
            return choose(*given)
        finally:
            self.choosing += time.perf_counter() - start


@torch.inference_mode()
def measure(layers: dict[tuple[str, int], Layer], tokens: int, rounds: int) -> list[dict[str, Any]]:
    """Median milliseconds a token, by history."""
    taken: dict[tuple[str, int], list[tuple[float, float]]] = {key: [] for key in layers}
    for turn in range(rounds + 1):
        for key, layer in layers.items():
            measured = layer.seconds(tokens)
            taken[key] += [measured] if turn else []  # the first round warms up
    rows = []
    for history in HISTORIES:
        sparse, dense = taken["sparse", history], taken["dense", history]
        row = {
            "all": statistics.median(all_ for all_, _ in sparse),
            "choosing": statistics.median(choosing for _, choosing in sparse),
            "beyond": statistics.median(all_ - choosing for all_, choosing in sparse),
            "dense": statistics.median(all_ for all_, _ in dense),
        }
        rows.append({"history": history} | {name: 1e3 * seconds / tokens for name, seconds in row.items()})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--top-k", type=int, default=2048)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sparse = DENSE.replace(indexer=Indexer(heads=16, head_dim=128, top_k=options.top_k, rotary=TURN))
    kinds = {"sparse": sparse, "dense": DENSE}
    layers = {(kind, history): Layer(op, history) for history in HISTORIES for kind, op in kinds.items()}
    found = {
        "decode": measure(layers, 1, options.rounds),
        "prefill": measure(layers, CHUNK, max(1, options.rounds // 3)),
    }
    for name, rows in found.items():
        print(f"{name}, {options.threads} threads, top-k {options.top_k}; milliseconds a token")
        print(f"{'history':>8} {'all':>8} {'choosing':>9} {'beyond':>8} {'dense':>8}")
        for row in rows:
            print(
                f"{row['history']:8} {row['all']:8.2f} {row['choosing']:9.2f} {row['beyond']:8.2f} {row['dense']:8.2f}"
            )
    beyond = {row["history"]: row["beyond"] for row in found["decode"]}
    ratio = beyond[32768] / beyond[8192]
    print(f"a decoded token beyond the indexer, 32k against 8k: {ratio:.2f} (target: at most 1.3)")
    if options.json:
        versions = {"torch": torch.__version__, "threads": options.threads, "top_k": options.top_k}
        options.json.write_text(json.dumps({"versions": versions, "ratio": ratio} | found, indent=1) + "\n")


if __name__ == "__main__":
    main()
