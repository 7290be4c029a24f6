"""Grok 2, which the reference library does not have: against a forward pass that is written by hand here.

Names of tensors are those of the public code that serves the published checkpoint (SGLang's grok.py).
"""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import gelu

import lamina
from lamina.errors import LaminaError
from tests.reference import changes_nothing, ids, relative, saves_what_it_read

D, H, G, K, F, FE, E, VOCAB, LAYERS = 24, 6, 2, 10, 28, 20, 5, 97, 3
CONFIG: dict[str, Any] = {
    "model_type": "git",
    "architectures": ["Grok1ForCausalLM"],
    "vocab_size": VOCAB,
    "hidden_size": D,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": H,
    "num_key_value_heads": G,
    "head_dim": K,
    "intermediate_size": F,
    "moe_intermediate_size": FE,
    "num_local_experts": E,
    "num_experts_per_tok": 2,
    "residual_moe": True,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-3,
    "embedding_multiplier_scale": 4.5,
    "output_multiplier_scale": 0.5,
    "final_logit_softcapping": 5.0,
    "attn_logit_softcapping": 3.0,
    "router_logit_softcapping": 1.5,
    "rope_theta": 900,
    "rope_type": "original",
    "attn_temperature_len": 6,
}


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The published names, and the shape of each."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, D), "model.norm.weight": (D,)}
    found["lm_head.weight"] = (VOCAB, D)
    for i in range(LAYERS):
        here = {"self_attn.q_proj": (H * K, D), "self_attn.k_proj": (G * K, D), "self_attn.v_proj": (G * K, D)}
        here |= {"self_attn.o_proj": (D, H * K), "block_sparse_moe.gate": (E, D)}
        for e in range(E):
            expert = f"block_sparse_moe.experts.{e}."
            here |= {expert + "w1": (FE, D), expert + "w2": (D, FE), expert + "w3": (FE, D)}
        if config["residual_moe"]:
            here |= {"mlp.gate_proj": (F, D), "mlp.up_proj": (F, D), "mlp.down_proj": (D, F)}
        norms = ("pre_attn_norm", "post_attn_norm", "pre_moe_norm", "post_moe_norm")
        here |= dict.fromkeys(norms, (D,))  # type: ignore[arg-type]
        found |= {f"model.layers.{i}.{name}.weight": shape for name, shape in here.items()}
    return found


def checkpoint(directory, config: dict[str, Any]) -> dict[str, Tensor]:
    random, tensors = torch.Generator().manual_seed(3), {}
    for name, shape in shapes(config).items():
        noise = torch.randn(shape, generator=random)
        tensors[name] = 1 + 0.3 * noise if len(shape) == 1 else noise * 1.2 / shape[-1] ** 0.5
    directory.mkdir()
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(config))
    return tensors


def cap(x: Tensor, limit: float) -> Tensor:
    return limit * torch.tanh(x / limit)


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return weight * x / torch.sqrt((x * x).mean(-1, keepdim=True) + CONFIG["rms_norm_eps"])


def glu(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return down @ (gelu(gate @ x, approximate="tanh") * (up @ x))


def turned(x: Tensor, position: int) -> Tensor:
    """One head at one position: pairs of i and i + K / 2."""
    out = x.clone()
    for i in range(K // 2):
        angle = position * CONFIG["rope_theta"] ** (-2 * i / K)
        a, b = x[i], x[i + K // 2]
        out[i] = a * math.cos(angle) - b * math.sin(angle)
        out[i + K // 2] = a * math.sin(angle) + b * math.cos(angle)
    return out


def attention(x: Tensor, w: dict[str, Tensor], config: dict[str, Any]) -> Tensor:
    """Token by token and head by head."""
    q, k, v = (torch.stack([w[f"self_attn.{p}_proj"] @ t for t in x]).unflatten(-1, (-1, K)) for p in "qkv")
    out = torch.zeros(len(x), H, K)
    length = config["attn_temperature_len"]
    for t in range(len(x)):
        warmth = math.log2(t) / math.log2(length) if length and t > length else 1.0
        for h in range(H):
            g, query = h * G // H, turned(q[t, h], t)
            scores = torch.stack([turned(k[s, g], s) @ query for s in range(t + 1)]) / math.sqrt(K)
            weights = (cap(scores, config["attn_logit_softcapping"]) * warmth).exp()
            out[t, h] = (weights / weights.sum()) @ v[: t + 1, g]
    return out.flatten(1) @ w["self_attn.o_proj"].T


def mixture(x: Tensor, w: dict[str, Tensor], config: dict[str, Any]) -> Tensor:
    """Of one token: weights are of a softmax over all experts, and stay as they are."""
    scores = cap(w["block_sparse_moe.gate"] @ x, config["router_logit_softcapping"]).exp()
    scores = scores / scores.sum()
    out = torch.zeros(D)
    for e in scores.argsort(descending=True)[: config["num_experts_per_tok"]].tolist():
        w1, w2, w3 = (w[f"block_sparse_moe.experts.{e}.w{n}"] for n in (1, 2, 3))
        out = out + scores[e] * glu(x, w1, w3, w2)
    if not config["residual_moe"]:
        return out
    return (out + glu(x, *(w[f"mlp.{p}_proj"] for p in ("gate", "up", "down")))) / math.sqrt(2)


def forward(tokens: Tensor, tensors: dict[str, Tensor], config: dict[str, Any]) -> Tensor:
    """Logits of one row."""
    x = tensors["model.embed_tokens.weight"][tokens] * config["embedding_multiplier_scale"]
    for i in range(LAYERS):
        start = f"model.layers.{i}."
        w = {n.removeprefix(start).removesuffix(".weight"): t for n, t in tensors.items() if n.startswith(start)}
        x = x + rms(attention(rms(x, w["pre_attn_norm"]), w, config), w["post_attn_norm"])
        given = torch.stack([mixture(t, w, config) for t in rms(x, w["pre_moe_norm"])])
        x = x + rms(given, w["post_moe_norm"])
    logits = rms(x, tensors["model.norm.weight"]) @ tensors["lm_head.weight"].T * config["output_multiplier_scale"]
    return logits if config["final_logit_softcapping"] is None else cap(logits, config["final_logit_softcapping"])


PLAIN = {"residual_moe": False, "final_logit_softcapping": None, "attn_temperature_len": None}


@pytest.fixture(params=[{}, PLAIN], ids=["grok-2.5", "grok-plain"])
def pair(request, tmp_path):
    """The config, the tensors, and ours loaded from them."""
    config = CONFIG | request.param
    tensors = checkpoint(tmp_path / "published", config)
    return config, tensors, lamina.load(tmp_path / "published")


@torch.inference_mode()
def test_logits_equal_the_forward_pass_by_hand(pair):
    config, tensors, ours = pair
    for batch, tokens in ((2, 19), (1, 1), (1, 37)):
        x = ids(batch, tokens)
        assert relative(ours(x), torch.stack([forward(row, tensors, config) for row in x])) <= 1e-5


def test_states_and_padding_change_nothing(pair):
    changes_nothing(pair[2])


def test_saved_is_what_was_published(pair, tmp_path):
    config, tensors, ours = pair
    written = saves_what_it_read(ours, tensors, tmp_path / "saved")
    if not config["residual_moe"]:
        written["intermediate_size"] = F  # of which nothing is made
    assert {key: written[key] for key in config} == config


def test_the_full_size_model_has_the_published_tensors():
    """The names of every block, at the published sizes, hold what the formula counts."""
    from lamina.families import family_named
    from lamina.nn.build import empty
    from lamina.published.rules import entries

    arch = lamina.architecture("grok-2.5")
    found = {name: tuple(p.shape) for name, p in empty(arch).named_parameters()}
    layout = family_named("grok").layout_of(arch)
    tensors = {name: e.shape(found) for e in entries(layout.rules, found) for name in e.theirs}
    assert len(tensors) == 3 + 64 * (4 + 1 + 8 * 3 + 3 + 4)
    assert sum(math.prod(shape) for shape in tensors.values()) == arch.parameters().total == 269_515_497_472
    assert tensors["model.layers.63.block_sparse_moe.experts.7.w2.weight"] == (8192, 16384)
    assert tensors["model.layers.0.mlp.down_proj.weight"] == (8192, 32768)


def test_pieces_of_experts_are_refused(tmp_path):
    """The published files hold an eighth of each expert under the same names."""
    checkpoint(tmp_path / "published", CONFIG)
    half = {
        n: t[: len(t) // 2].clone() if ".w1." in n else t
        for n, t in load_file(tmp_path / "published" / "model.safetensors").items()
    }
    save_file(half, tmp_path / "published" / "model.safetensors")
    with pytest.raises(LaminaError, match=r"experts\.0\.w1\.weight' has shape \[10, 24\].*needs \[20, 24\]"):
        lamina.load(tmp_path / "published")
