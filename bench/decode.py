"""What one more token costs after 1k to 64k others, and what is held then: attention against recurrences, in one run.

python bench/decode.py [--threads 2] [--layers 4] [--rounds 7] [--contexts 1024 ...] [--device cpu] [--json FILE]

Models of Qwen3-0.6B's width and few layers, random weights in float32, that differ in their mixers alone. What the
earlier tokens left is random too, since only decoding is timed. Models and contexts take turns in every round, so that
what else the machine does hits all alike; medians are compared. A recurrent model's time at the longest context may be
at most 1.1 times that at the shortest: it ends with 1 where one is slower. `make docs` draws it as docs/decode.svg.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

import lamina
from lamina.nn.state import FullCache

MODELS = {
    "attention": "qwen3-0.6b",
    "three Gated DeltaNet, one attention": "qwen3-0.6b:blocks[*].mixer=gated_deltanet@3:1",
    "Gated DeltaNet": "qwen3-0.6b:blocks[*].mixer=gated_deltanet",
    "Mamba-2": "qwen3-0.6b:blocks[*].mixer=mamba2",
}
RECURRENT, MOST = ("Gated DeltaNet", "Mamba-2"), 1.1
VOCAB, STEPS, PIECE = 1024, 8, 1024


def fill(state: Any, held: int) -> None:
    """Random numbers in the place of what `held` tokens would have left."""
    random = torch.Generator().manual_seed(held)
    for layer in state.layers:
        parts = [layer.kept] if isinstance(layer.kept, torch.Tensor) else list(layer.kept)
        for part in parts:
            if isinstance(layer, FullCache):
                noise = torch.randn(*part.shape[:2], PIECE, part.shape[3], generator=random).to(part)
                for start in range(0, held, PIECE):
                    part[:, :, start : start + PIECE] = noise[:, :, : min(PIECE, part.shape[2] - start)]
            else:
                part.copy_(torch.randn(part.shape, generator=random))


class Subject:
    """A model, and one state that holds what the longest context left: of shorter ones, its beginning."""

    def __init__(self, source: str, layers: int, longest: int, device: str) -> None:
        whole = lamina.architecture(source)
        embedding = whole.embedding.replace(vocab=VOCAB)
        self.arch = whole.replace(blocks=whole.blocks[:layers], embedding=embedding, context=longest + STEPS)
        self.model = lamina.build(self.arch, device=device)
        self.state = self.model.init_state(1, longest + STEPS)
        fill(self.state, longest)
        self.times: dict[int, list[float]] = {}

    def decode(self, context: int) -> None:
        self.state.lengths = [context]
        ids = torch.full((1, 1), 7, device=self.model.device)
        _wait(self.model.device)
        start = time.perf_counter()
        for _ in range(STEPS):
            ids = self.model(ids, self.state)[:, -1].argmax(-1, keepdim=True)
        _wait(self.model.device)
        self.times.setdefault(context, []).append((time.perf_counter() - start) / STEPS)

    def held(self, context: int) -> int:
        """Bytes of the live state of so many tokens, which the formula says too."""
        held = self.model.init_state(1, context).nbytes
        assert held == self.arch.state_bytes(context, 1, "float32")
        return held


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.inference_mode()
def measured(options: argparse.Namespace) -> dict[str, Any]:
    subjects = {
        name: Subject(source, options.layers, max(options.contexts), options.device) for name, source in MODELS.items()
    }
    for turn in range(options.rounds + 1):
        for context in options.contexts:
            for subject in subjects.values():
                subject.decode(context)
        if not turn:  # whatever is set up once
            for subject in subjects.values():
                subject.times.clear()
    return {
        name: {
            "parameters": subject.arch.parameters().total,
            "milliseconds": [1e3 * statistics.median(subject.times[context]) for context in options.contexts],
            "state_bytes": [subject.held(context) for context in options.contexts],
        }
        for name, subject in subjects.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--contexts", type=int, nargs="+", default=[1024 << i for i in range(7)])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "decode.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    models = measured(options)
    print(f"{options.layers} layers, {options.threads} threads, {options.device}: milliseconds a token, MB of state")
    print(f"{'context':>8}" + "".join(f"{name:>38}" for name in models))
    for i, context in enumerate(options.contexts):
        row = (f"{m['milliseconds'][i]:>28.2f}{m['state_bytes'][i] / 1e6:>10.2f}" for m in models.values())
        print(f"{context:>8}" + "".join(row))
    ratios = {name: m["milliseconds"][-1] / m["milliseconds"][0] for name, m in models.items()}
    print(f"{'ratio':>8}" + "".join(f"{ratio:>28.2f}{'':>10}" for ratio in ratios.values()))
    versions = {"torch": torch.__version__, "threads": options.threads, "device": options.device}
    result = {"versions": versions | {"layers": options.layers}, "contexts": options.contexts, "models": models}
    options.json.parent.mkdir(exist_ok=True)
    options.json.write_text(json.dumps(result | {"ratios": ratios}, indent=1) + "\n")
    slower = {name: round(ratios[name], 3) for name in RECURRENT if ratios[name] > MOST}
    raise SystemExit(f"slower at the longest context than {MOST} times the shortest: {slower}" if slower else 0)


if __name__ == "__main__":
    main()
