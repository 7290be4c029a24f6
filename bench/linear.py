"""How fast recurrent mixers run on a CPU, against what transformers falls back to without special kernels, in one run.

python bench/linear.py [--threads 2] [--tokens 2048] [--rounds 5] [--only NAME] [--json FILE]

A mixer of each kind with the same weights in float32 on random input: a prompt, and a training step (forward and
backward, gradients of all weights and of the input). Both take turns, so that what else the machine does hits both
alike; medians are compared. Projections are the same products in both, so each mixer is also measured `alone`: its
projections give what they gave before, at no cost. Of delta rules the `rule` is compared too, from what projections and
convolutions give to what the norm reads, and softmax attention stands beside for orientation. Peak memory is what a
training step adds to a fresh process. Each pair is first checked to compute the same.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.models.kimi_linear.modeling_kimi_linear import chunk_kimi_delta_attention
from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule

import lamina
from lamina.nn.basic import Linear
from lamina.nn.state import Fresh
from lamina.nn.step import Step
from lamina.ops.delta_rule import gated_delta_rule
from lamina.ops.vector_delta_rule import vector_delta_rule

SMALL = {
    "vocab_size": 64,
    "pad_token_id": None,
    "num_hidden_layers": 1,
    "intermediate_size": 64,
    "max_position_embeddings": 65536,
}
HEADS = {"num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 128, "hidden_size": 2048}
EXPERTS = {
    "num_experts": 2,
    "num_experts_per_tok": 1,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
LINEAR = {"linear_num_key_heads": 16, "linear_num_value_heads": 16, "linear_key_head_dim": 128}
KDA = {"linear_num_heads": 16, "linear_head_dim": 128, "first_k_dense_replace": 1, "n_shared_experts": 1}
LATENT = {"q_lora_rank": None, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16}


@dataclass(frozen=True)
class Layer:
    """A mixer: the reference's model of one layer, where in it the mixer is, and what it is called with besides x.

    `training` is how many tokens a training step has at most, and `rounds` how often all is timed: where the reference
    takes many seconds, or minutes for more.
    """

    model: str
    config: dict[str, Any]
    path: str
    given: tuple[str, ...] = ()
    training: int = 1 << 20
    rounds: int = 100


LAYERS = {
    "gated-deltanet": Layer(
        "Qwen3Next",
        SMALL | HEADS | EXPERTS | LINEAR | {"linear_value_head_dim": 128, "layer_types": ["linear_attention"]},
        "model.layers.0.linear_attn",
    ),
    "kimi-delta-attention": Layer(
        "KimiLinear",
        SMALL | HEADS | KDA | LATENT | {"layer_types": ["linear_attention"]},
        "model.layers.0.self_attn",
        training=256,
        rounds=3,
    ),
    "mamba-2": Layer(
        "Mamba2",
        {"vocab_size": 64, "num_hidden_layers": 1, "hidden_size": 1024, "num_heads": 32, "head_dim": 64},
        "backbone.layers.0.mixer",
    ),
    "mamba": Layer(
        "Mamba",
        {"vocab_size": 64, "num_hidden_layers": 1, "hidden_size": 512},
        "backbone.layers.0.mixer",
        training=256,
        rounds=3,
    ),
    "lightning-attention": Layer(
        "MiniMax",
        SMALL | HEADS | {"num_local_experts": 2, "num_experts_per_tok": 1, "layer_types": ["linear_attention"]},
        "model.layers.0.self_attn",
        ("position_embeddings", "attention_mask"),
    ),
    "attention": Layer("Qwen3", SMALL | HEADS, "model.layers.0.self_attn", ("position_embeddings", "attention_mask")),
}
RULES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "gated-deltanet rule": (torch_chunk_gated_delta_rule, gated_delta_rule),
    "kimi-delta-attention rule": (chunk_kimi_delta_attention, vector_delta_rule),
}
RULE, ALONE = " rule", " alone"
NAMES = [*RULES, *(f"{name}{what}" for name in LAYERS for what in ("", ALONE))]


def pair(name: str) -> dict[str, Callable[[Tensor], Tensor]]:
    """The mixer of each, with the same weights."""
    layer = LAYERS[name]
    config = getattr(transformers, f"{layer.model}Config")(**layer.config)
    torch.manual_seed(0)
    model = getattr(transformers, f"{layer.model}ForCausalLM")(config).eval().float()
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        module = lamina.load(directory).blocks[0].mixer.op
    theirs = model.get_submodule(layer.path)
    rotary = getattr(getattr(model, "model", None), "rotary_emb", None)

    def reference(x: Tensor) -> Tensor:
        positions = torch.arange(x.shape[1])[None]
        more = {"position_embeddings": rotary(x, positions) if rotary else None, "attention_mask": None}
        out = theirs(x, **{key: more[key] for key in layer.given})
        return out[0] if isinstance(out, tuple) else out

    def ours(x: Tensor) -> Tensor:
        ids = torch.zeros(x.shape[:2], dtype=torch.long)
        return module(x, Step(ids, x.dtype, lambda _: Fresh(), [0] * len(x), None))

    reference.module, ours.module = theirs, module  # type: ignore[attr-defined]
    return {"transformers": reference, "lamina": ours}


def alone(call: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[Tensor], Tensor]:
    """The mixer with projections that give again what they gave for x, but for the last, which gives what it is given.

    Gradients reach what they gave.
    """
    module: nn.Module = call.module  # type: ignore[attr-defined]
    gave: dict[nn.Module, Tensor] = {}  # in order
    for part in [part for part in module.modules() if isinstance(part, nn.Linear | Linear)]:
        part.register_forward_hook(lambda part, _, y: gave.update({part: y.detach().clone()}))
    call(x)
    for part, y in gave.items():
        part._forward_hooks.clear()
        part.requires_grad_(False)
        part.given = nn.Parameter(y.clone())  # in place of its weights
        part.forward = (lambda z: z) if part is list(gave)[-1] else lambda *_, part=part: part.given

    @torch.no_grad()
    def restore() -> None:
        """What is computed in place of the projections' output is as before."""
        for part, y in gave.items():
            part.given.copy_(y)

    call.restore = restore  # type: ignore[attr-defined]
    return call


def rules(name: str) -> dict[str, Callable[..., Tensor]]:
    """A delta rule alone; tokens before heads."""
    theirs, our = RULES[name]

    def ours(*given: Tensor) -> Tensor:
        return our(*(x.transpose(1, 2) for x in given))[0].transpose(1, 2)

    def reference(*given: Tensor) -> Tensor:
        return theirs(*given, use_qk_l2norm_in_kernel=True)[0]

    return {"transformers": reference, "lamina": ours}


def stepped(call: Callable[..., Tensor], inputs: list[Tensor], weights: list[nn.Parameter]) -> None:
    """A forward and a backward pass."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    torch.autograd.grad(call(*leaves).square().mean(), [*leaves, *weights], allow_unused=True)


def layer_of(name: str) -> Layer:
    return LAYERS[name.removesuffix(ALONE).removesuffix(RULE)]


def trained(name: str, inputs: list[Tensor]) -> list[Tensor]:
    """The inputs of a training step."""
    return [x[:, : layer_of(name).training] for x in inputs]


def compared(name: str, inputs: list[Tensor], rounds: int) -> dict[str, Any]:
    """Median seconds of a prompt and of a training step, for each way."""
    ways = ways_of(name, inputs)
    with torch.inference_mode():
        exact = ways["transformers"](*inputs)
        worst = float((ways["lamina"](*inputs) - exact).abs().max() / exact.abs().max())
    assert worst <= 1e-4, f"they compute different things, {worst:.1e} apart"
    times: dict[str, dict[str, list[float]]] = {kind: {way: [] for way in ways} for kind in ("prefill", "training")}
    shorter = trained(name, inputs)
    stepping = ways if shorter[0].shape == inputs[0].shape else ways_of(name, shorter)
    for turn in range(rounds + 1):
        for way, call in ways.items():
            restored(call)
            start = time.perf_counter()
            with torch.inference_mode():
                call(*inputs)
            prefill = time.perf_counter() - start
            restored(stepping[way])
            start = time.perf_counter()
            stepped(stepping[way], shorter, weights_of(stepping[way]))
            if turn:
                times["prefill"][way].append(prefill)
                times["training"][way].append(time.perf_counter() - start)
    return {kind: {way: statistics.median(t) for way, t in taken.items()} for kind, taken in times.items()}


def restored(call: Callable[..., Tensor]) -> None:
    getattr(call, "restore", lambda: None)()


def inputs_of(name: str, tokens: int) -> list[Tensor]:
    random = torch.Generator().manual_seed(1)
    if name in RULES:
        q, k, v, g = (torch.randn(1, tokens, 16, 128, generator=random) for _ in range(4))
        g = g if name.startswith("kimi") else g[..., 0]
        return [q, k, v, -g.abs(), torch.rand(1, tokens, 16, generator=random)]
    return [torch.randn(1, tokens, layer_of(name).config["hidden_size"], generator=random)]


def ways_of(name: str, inputs: list[Tensor]) -> dict[str, Callable[..., Tensor]]:
    if name in RULES:
        return rules(name)
    ways = pair(name.removesuffix(ALONE))
    return {way: alone(call, inputs[0]) for way, call in ways.items()} if name.endswith(ALONE) else ways


def weights_of(call: Callable[..., Tensor]) -> list[nn.Parameter]:
    return [p for p in call.module.parameters() if p.requires_grad] if hasattr(call, "module") else []  # type: ignore[attr-defined]


def peak(name: str, way: str, tokens: int) -> int:
    """Bytes that a training step adds to a process at its peak; run in one of its own."""
    inputs = trained(name, inputs_of(name, tokens))
    few = [x[:, :8] for x in inputs]
    stepped(warm := ways_of(name, few)[way], few, weights_of(warm))  # whatever is loaded and set up once
    call = ways_of(name, inputs)[way]
    weights = weights_of(call)
    before = _memory("VmRSS")
    stepped(call, inputs, weights)
    return _memory("VmHWM") - before


def _memory(key: str) -> int:
    """Bytes held now (VmRSS), or at most since the process began (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=NAMES)
    parser.add_argument("--peak", nargs=2, metavar=("NAME", "WAY"), help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "linear.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak:
        print(peak(*options.peak, options.tokens))
        return
    print(f"{options.tokens} tokens, {options.threads} threads; transformers / lamina")
    rows = {}
    for name in [options.only] if options.only else NAMES:
        rounds = min(options.rounds, layer_of(name).rounds)
        row = compared(name, inputs_of(name, options.tokens), rounds)
        row["peak"] = {way: _peak(name, way, options) for way in ("transformers", "lamina")}
        rows[name] = row
        for kind, unit in (("prefill", 1e-3), ("training", 1e-3), ("peak", 1e6)):
            theirs, ours = row[kind]["transformers"], row[kind]["lamina"]
            said = "MB" if kind == "peak" else "ms"
            print(
                f"{name:28} {kind:9} {theirs / unit:9.1f} {ours / unit:9.1f} {said} {theirs / ours:7.2f}x", flush=True
            )
    if not options.only:
        versions = {"torch": torch.__version__, "transformers": transformers.__version__, "threads": options.threads}
        record = {"versions": versions, "tokens": options.tokens, "rows": rows}
        options.json.write_text(json.dumps(record, indent=1) + "\n")


def _peak(name: str, way: str, options: argparse.Namespace) -> int:
    command = [sys.executable, __file__, "--peak", name, way, "--tokens", str(options.tokens)]
    done = subprocess.run([*command, "--threads", str(options.threads)], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
