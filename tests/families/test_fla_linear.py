"""Linear attention, RetNet and GLA as flash-linear-attention writes them: against forward passes written by hand.

What each layer does is said by its own files (layers/linear_attn.py, layers/multiscale_retention.py, layers/gla.py),
and its arithmetic by the naive.py of each op.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

import lamina
from lamina.arch import GLU, GatedLinearAttention, LinearAttention, Retention, RMSNorm, Rotary
from lamina.errors import LaminaError
from lamina.families import read_config
from tests.reference import changes_nothing, ids, relative, saves_what_it_read

D, INNER, VOCAB, LAYERS, H, EPS = 48, 40, 97, 3, 3, 1e-2
COMMON: dict[str, Any] = {
    "hidden_size": D,
    "intermediate_size": INNER,
    "vocab_size": VOCAB,
    "num_hidden_layers": LAYERS,
    "num_heads": H,
    "norm_eps": EPS,
    "max_position_embeddings": 128,
}
LINEAR = COMMON | {"model_type": "linear_attn", "expand_k": 1.25, "expand_v": 0.5, "feature_map": "elu"}
RETNET = COMMON | {"model_type": "retnet", "expand_k": 0.5, "expand_v": 1.25}
GLA = COMMON | {"model_type": "gla", "expand_k": 0.25, "expand_v": 0.5}
RUNNING = {"attn_mode": "chunk", "fuse_norm": True, "fuse_swiglu": True, "hidden_act": "swish", "num_kv_heads": None}
CONFIGS = {
    "linear": LINEAR | RUNNING,
    "linear-divided": LINEAR | {"norm_feature_map": True},
    "linear-relu": LINEAR | {"feature_map": "relu", "norm_feature_map": True, "tie_word_embeddings": True},
    "linear-identity": LINEAR | {"feature_map": "identity"},
    "retnet": RETNET | RUNNING | {"use_short_conv": False, "conv_size": 4},
    "retnet-ungated": RETNET | {"use_output_gate": False},
    "gla": GLA | RUNNING | {"use_gk": True, "use_gv": False, "clamp_min": None},
    "gla-ungated": GLA | {"use_output_gate": False, "tie_word_embeddings": True},
}


def mixer(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    keys, values = int(D * config["expand_k"]), int(D * config["expand_v"])
    kind, gated = config["model_type"], config.get("use_output_gate", True)
    made: dict[str, tuple[int, ...]] = {"q_proj.weight": (keys, D), "k_proj.weight": (keys, D)}
    made |= {"v_proj.weight": (values, D), "o_proj.weight": (D, values)}
    if kind == "gla":
        made |= {"gk_proj.0.weight": (16, D), "gk_proj.1.weight": (keys, 16), "gk_proj.1.bias": (keys,)}
    if kind == "linear_attn":
        return made | {"norm.weight": (values // H,)}
    made |= {"g_proj.weight": (values, D)} if gated else {}
    return made | {"g_norm_swish_gate.weight" if gated else "g_norm.weight": (values // H,)}


def checkpoint(directory: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    found: dict[str, tuple[int, ...]] = {"model.embeddings.weight": (VOCAB, D), "model.norm.weight": (D,)}
    found |= {} if config.get("tie_word_embeddings") else {"lm_head.weight": (VOCAB, D)}
    for i in range(LAYERS):
        here = {f"attn.{name}": shape for name, shape in mixer(config).items()}
        here |= {"attn_norm.weight": (D,), "mlp_norm.weight": (D,), "mlp.gate_proj.weight": (INNER, D)}
        here |= {"mlp.up_proj.weight": (INNER, D), "mlp.down_proj.weight": (D, INNER)}
        found |= {f"model.layers.{i}.{name}": shape for name, shape in here.items()}
    random, tensors = torch.Generator().manual_seed(3), {}
    for name, shape in found.items():
        noise = torch.randn(shape, generator=random)
        tensors[name] = noise * 1.2 / shape[-1] ** 0.5 if len(shape) > 1 else 0.3 * noise + ("norm" in name)
    directory.mkdir()
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(config))
    return tensors


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return weight * x / torch.sqrt((x * x).mean(-1, keepdim=True) + EPS)


def turned(x: Tensor, position: int) -> Tensor:
    half, out = len(x) // 2, x.clone()
    for i in range(half):
        angle = position * 10000.0 ** (-i / half)
        out[i] = x[i] * math.cos(angle) - x[i + half] * math.sin(angle)
        out[i + half] = x[i] * math.sin(angle) + x[i + half] * math.cos(angle)
    return out


def attended(x: Tensor, w: dict[str, Tensor], config: dict[str, Any]) -> Tensor:
    """A state a head, token by token."""
    kind = config["model_type"]
    q, k, v = ((x @ w[f"{p}_proj.weight"].T).view(len(x), H, -1) for p in "qkv")
    key, value = k.shape[2], v.shape[2]
    if kind == "linear_attn":
        features = {"elu": lambda y: F.elu(y) + 1, "relu": torch.relu, "identity": lambda y: y}[config["feature_map"]]
        q, k = features(q), features(k)
    fade = torch.ones(len(x), H, key, dtype=x.dtype)
    if kind == "gla":
        raw = x @ w["gk_proj.0.weight"].T @ w["gk_proj.1.weight"].T + w["gk_proj.1.bias"]
        fade = torch.exp(torch.log(torch.sigmoid(raw)) / 16).view(len(x), H, key)
    out = torch.zeros(len(x), H, value, dtype=x.dtype)
    for h in range(H):
        state, total = torch.zeros(key, value, dtype=x.dtype), torch.zeros(key, dtype=x.dtype)
        for t in range(len(x)):
            a, b = (turned(part[t, h], t) if kind == "retnet" else part[t, h] for part in (q, k))
            decay = fade[t, h] if kind != "retnet" else torch.full((key,), 1 - 2.0 ** (-5 - h), dtype=x.dtype)
            state = decay[:, None] * state + torch.outer(b, v[t, h])
            total = total + b
            out[t, h] = a @ state / math.sqrt(key)
            if config.get("norm_feature_map"):
                out[t, h] /= a @ total / math.sqrt(key) + 1e-10
    normed = rms(out, next(w[name] for name in w if "norm" in name)).flatten(1)
    gate = F.silu(x @ w["g_proj.weight"].T) if "g_proj.weight" in w else 1.0
    return (normed * gate) @ w["o_proj.weight"].T


def forward(tensors: dict[str, Tensor], config: dict[str, Any], tokens: list[int]) -> Tensor:
    tensors = {name: tensor.double() for name, tensor in tensors.items()}
    x = tensors["model.embeddings.weight"][tokens]
    for i in range(LAYERS):
        w = {name.split(f"layers.{i}.")[1]: t for name, t in tensors.items() if f"layers.{i}." in name}
        own = {name.removeprefix("attn."): t for name, t in w.items() if name.startswith("attn.")}
        x = x + attended(rms(x, w["attn_norm.weight"]), own, config)
        read = rms(x, w["mlp_norm.weight"])
        gate = F.silu(read @ w["mlp.gate_proj.weight"].T)
        x = x + (gate * (read @ w["mlp.up_proj.weight"].T)) @ w["mlp.down_proj.weight"].T
    head = tensors.get("lm_head.weight", tensors["model.embeddings.weight"])
    return rms(x, tensors["model.norm.weight"]) @ head.T


@pytest.fixture(params=CONFIGS)
def made(request, tmp_path):
    config = CONFIGS[request.param]
    return checkpoint(tmp_path / "made", config), config, lamina.load(tmp_path / "made")


@torch.inference_mode()
def test_logits_are_those_by_hand(made):
    tensors, config, ours = made
    for tokens in (1, 19, 37):
        x = ids(1, tokens)
        assert relative(ours(x)[0].double(), forward(tensors, config, x[0].tolist())) <= 1e-5


def test_a_state_changes_nothing(made):
    changes_nothing(made[2])


def test_counts_and_round_trip(made, tmp_path):
    tensors, config, ours = made
    assert ours.init_state(3, 17).nbytes == ours.arch.state_bytes(17, 3, "float32")
    saves_what_it_read(ours, tensors, tmp_path / "saved")
    assert ours.arch == read_config(config)


@pytest.mark.parametrize("name", ["retnet", "gla"])
def test_the_norm_goes_by_two_names(name, tmp_path):
    """Where it is not computed together with the gate, it is not called after it."""
    tensors = checkpoint(tmp_path / "made", CONFIGS[name])
    ours = lamina.load(tmp_path / "made")
    plain = {key.replace("g_norm_swish_gate", "g_norm"): tensor for key, tensor in tensors.items()}
    save_file(plain, tmp_path / "made" / "model.safetensors")
    assert torch.equal(lamina.load(tmp_path / "made")(ids(1, 9)), ours(ids(1, 9)))


@torch.inference_mode()
@pytest.mark.parametrize("name", ["linear", "retnet", "gla"])
def test_with_attention_in_some_layers(name, tmp_path):
    """Saved and loaded again; what attention computes is seen in test_fla.py."""
    ours = lamina.build(read_config(CONFIGS[name] | {"attn": {"layers": [1], "num_heads": 6, "window_size": 7}}))
    lamina.save(ours, tmp_path / "saved")
    assert "model.layers.1.attn.q_proj.weight" in load_file(tmp_path / "saved" / "model.safetensors")
    back = lamina.load(tmp_path / "saved")
    assert back.arch == ours.arch
    assert torch.equal(back(ids(2, 9)), ours(ids(2, 9)))


def test_defaults():
    norm = RMSNorm(eps=1e-6)
    linear = read_config({"model_type": "linear_attn", "feature_map": "relu"})
    sizes = {"heads": 4, "key_dim": 512, "value_dim": 512}
    assert next(linear.ops()) == LinearAttention(**sizes, features="relu", normalise=False, eps=1e-10, norm=norm)
    retnet, gla = read_config({"model_type": "retnet"}), read_config({"model_type": "gla"})
    assert next(retnet.ops()) == Retention(heads=8, key_dim=256, value_dim=512, norm=norm, rotary=Rotary(dim=256))
    assert next(gla.ops()) == GatedLinearAttention(heads=4, key_dim=256, value_dim=512, norm=norm)
    inner = [op.inner for arch in (linear, retnet, gla) for op in arch.blocks[0].ops() if isinstance(op, GLU)]
    assert inner == [5632, 2816, 5632]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (LINEAR | {"feature_map": "hedgehog"}, "feature_map is 'hedgehog'; known: 'elu', 'relu', 'identity'"),
        ({"model_type": "linear_attn"}, "feature_map is 'elementwise_product'; known"),
        (LINEAR | {"norm_q": True}, "'norm_q' is True; only False"),
        (RETNET | {"num_kv_heads": 1}, "'num_kv_heads' is 1; only 3"),
        (RETNET | {"feature_map": "relu"}, "'feature_map' is 'relu'; only None"),
        (GLA | {"use_short_conv": True}, "'use_short_conv' is True; only False"),
        (GLA | {"clamp_min": -1.0}, "'clamp_min' is -1.0; only None"),
        (GLA | {"expand_k": 0.3}, "expand_k makes 14.4 of hidden_size, which 3 heads do not divide"),
    ],
)
def test_what_is_not_understood(config, says):
    with pytest.raises(LaminaError, match=says):
        read_config(config)
