"""Models in the layout of flash-linear-attention, whose kernels no CPU runs: against forward passes written by hand.

What each layer does is said by its own files (layers/delta_net.py, layers/gated_deltanet.py, layers/attn.py), and its
arithmetic by ops/delta_rule/naive.py and ops/gated_delta_rule/naive.py.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import lamina
from lamina.arch import GLU, Attention, DeltaNet, GatedDeltaNet
from lamina.errors import LaminaError
from lamina.families import read_config
from tests.reference import changes_nothing, ids, relative, saves_what_it_read

D, F_, VOCAB, LAYERS, EPS = 48, 40, 97, 4, 1e-2
COMMON: dict[str, Any] = {
    "hidden_size": D,
    "intermediate_size": F_,
    "vocab_size": VOCAB,
    "num_hidden_layers": LAYERS,
    "norm_eps": EPS,
    "max_position_embeddings": 128,
}
RUNNING = {
    "attn_mode": "chunk",
    "fuse_norm": True,
    "fuse_swiglu": True,
    "fuse_cross_entropy": True,
    "hidden_act": "swish",
}
ATTENDS = {"layers": [2], "num_heads": 6, "num_kv_heads": 2, "qkv_bias": True, "window_size": 7, "rope_theta": 900.0}
PLAIN = COMMON | {"model_type": "delta_net", "num_heads": 3, "expand_k": 1.25, "expand_v": 0.5, "conv_size": 3}
GATED = COMMON | {"model_type": "gated_deltanet", "num_heads": 2, "num_v_heads": 6, "head_dim": 20, "expand_v": 0.7}
CONFIGS: dict[str, dict[str, Any]] = {
    "delta-net": PLAIN | RUNNING,
    "delta-net-hybrid": PLAIN | {"attn": ATTENDS, "use_gate": True, "allow_neg_eigval": True},
    "delta-net-sums": PLAIN | {"qk_norm": "sum", "qk_activation": "elu", "tie_word_embeddings": True},
    "delta-net-relu": PLAIN | {"qk_activation": "relu", "use_beta": False},
    "delta-net-bare": PLAIN | {"use_short_conv": False, "use_output_norm": True},
    "delta-net-bare-features": PLAIN | {"use_short_conv": False, "qk_activation": "identity", "allow_neg_eigval": True},
    "gated-deltanet": GATED | RUNNING,
    "gated-deltanet-hybrid": GATED
    | {"attn": [ATTENDS, {"layers": [0, 3], "num_heads": 4}], "output_gate_activation": "sigmoid"},
    "gated-deltanet-ungated": GATED | {"use_gate": False, "allow_neg_eigval": True, "num_v_heads": None},
}


# -- what a checkpoint holds


def attending(config: dict[str, Any], layer: int) -> dict[str, Any] | None:
    said = config.get("attn") or []
    return next((one for one in (said if isinstance(said, list) else [said]) if layer in one["layers"]), None)


def mixer(config: dict[str, Any]) -> tuple[int, int, int, int, dict[str, tuple[int, ...]]]:
    """Heads of keys and values, their sizes, and the shapes of the tensors."""
    gated = config["model_type"] == "gated_deltanet"
    heads = config["num_heads"]
    values = (config["num_v_heads"] or heads) if gated else heads
    key = config["head_dim"] if gated else int(D * config["expand_k"]) // heads
    value = int(key * config["expand_v"]) if gated else int(D * config["expand_v"]) // heads
    wide = {"q": heads * key, "k": heads * key, "v": values * value}
    made: dict[str, tuple[int, ...]] = {f"{name}_proj.weight": (rows, D) for name, rows in wide.items()}
    if config.get("use_short_conv", True):
        made |= {f"{name}_conv1d.weight": (rows, 1, config.get("conv_size", 4)) for name, rows in wide.items()}
    if config.get("use_beta", True):
        made["b_proj.weight"] = (values, D)
    if gated:
        made |= {"a_proj.weight": (values, D), "A_log": (values,), "dt_bias": (values,)}
    if config.get("use_gate", gated):
        made["g_proj.weight"] = (values * value, D)
    return heads, values, key, value, made | {"o_norm.weight": (value,), "o_proj.weight": (D, values * value)}


def attention_shapes(spec: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    keys = spec.get("num_kv_heads", spec["num_heads"]) * D // spec["num_heads"]
    made: dict[str, tuple[int, ...]] = {"q_proj.weight": (D, D), "o_proj.weight": (D, D)}
    made |= {"k_proj.weight": (keys, D), "v_proj.weight": (keys, D)}
    return made | (
        {"q_proj.bias": (D,), "k_proj.bias": (keys,), "v_proj.bias": (keys,)} if spec.get("qkv_bias") else {}
    )


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"model.embeddings.weight": (VOCAB, D), "model.norm.weight": (D,)}
    found |= {} if config.get("tie_word_embeddings") else {"lm_head.weight": (VOCAB, D)}
    for i in range(LAYERS):
        spec = attending(config, i)
        here = attention_shapes(spec) if spec else mixer(config)[-1]
        here = {f"attn.{name}": shape for name, shape in here.items()}
        here |= {"attn_norm.weight": (D,), "mlp_norm.weight": (D,), "mlp.gate_proj.weight": (F_, D)}
        here |= {"mlp.up_proj.weight": (F_, D), "mlp.down_proj.weight": (D, F_)}
        found |= {f"model.layers.{i}.{name}": shape for name, shape in here.items()}
    return found


def checkpoint(directory: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    random, tensors = torch.Generator().manual_seed(3), {}
    for name, shape in shapes(config).items():
        noise = torch.randn(shape, generator=random)
        tensors[name] = noise * 1.2 / shape[-1] ** 0.5 if len(shape) > 1 else 0.3 * noise + ("norm" in name)
    directory.mkdir()
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(config))
    return tensors


# -- what is made of it, token by token


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return weight * x / torch.sqrt((x * x).mean(-1, keepdim=True) + EPS)


def convolved(x: Tensor, w: dict[str, Tensor], name: str, config: dict[str, Any]) -> Tensor:
    """Each channel over the last few tokens, and a SiLU where there is one."""
    activated = name == "v" or config.get("qk_activation", "silu") == "silu"
    if config.get("use_short_conv", True):
        kernel = w[f"{name}_conv1d.weight"][:, 0]
        before = torch.cat([torch.zeros(kernel.shape[1] - 1, x.shape[1]), x])
        x = torch.stack([(before[t : t + kernel.shape[1]].T * kernel).sum(1) for t in range(len(x))])
    return x * torch.sigmoid(x) if activated else x


def delta(x: Tensor, w: dict[str, Tensor], config: dict[str, Any]) -> Tensor:
    heads, values, key, value, _ = mixer(config)
    q, k, v = (convolved(x @ w[f"{name}_proj.weight"].T, w, name, config) for name in "qkv")
    q, k, v = q.view(-1, heads, key), k.view(-1, heads, key), v.view(-1, values, value)
    features = {"relu": torch.relu, "elu": lambda x: F.elu(x) + 1}.get(config.get("qk_activation", ""), lambda x: x)
    q, k = features(q), features(k)
    if config.get("qk_norm") == "sum":
        q, k = (x / x.abs().sum(-1, keepdim=True).clamp(min=1e-6) for x in (q, k))
    else:
        q, k = (x / torch.sqrt((x * x).sum(-1, keepdim=True) + 1e-6) for x in (q, k))
    b = torch.sigmoid(x @ w["b_proj.weight"].T) if "b_proj.weight" in w else torch.ones(len(x), values)
    b = b * (2 if config.get("allow_neg_eigval") else 1)
    fade = torch.ones(len(x), values)
    if "A_log" in w:
        fade = torch.exp(-torch.exp(w["A_log"]) * F.softplus(x @ w["a_proj.weight"].T + w["dt_bias"]))
    out = torch.zeros(len(x), values, value)
    for h in range(values):
        state, g = torch.zeros(key, value), h * heads // values
        for t in range(len(x)):
            state = fade[t, h] * state
            state = state + torch.outer(k[t, g], b[t, h] * (v[t, h] - k[t, g] @ state))
            out[t, h] = q[t, g] @ state / math.sqrt(key)
    out = rms(out, w["o_norm.weight"])
    if "g_proj.weight" in w:
        gate = (x @ w["g_proj.weight"].T).view_as(out)
        out = out * (torch.sigmoid(gate) if config.get("output_gate_activation") == "sigmoid" else F.silu(gate))
    return out.flatten(1) @ w["o_proj.weight"].T


def turned(x: Tensor, position: int, base: float) -> Tensor:
    """One head at one position: pairs of i and i + K / 2."""
    half, out = len(x) // 2, x.clone()
    for i in range(half):
        angle = position * base ** (-i / half)
        out[i] = x[i] * math.cos(angle) - x[i + half] * math.sin(angle)
        out[i + half] = x[i] * math.sin(angle) + x[i + half] * math.cos(angle)
    return out


def attention(x: Tensor, w: dict[str, Tensor], spec: dict[str, Any]) -> Tensor:
    heads, base, window = spec["num_heads"], spec.get("rope_theta", 10000.0), spec.get("window_size") or len(x)
    dim = D // heads
    q, k, v = (x @ w[f"{p}_proj.weight"].T + w.get(f"{p}_proj.bias", torch.zeros(())) for p in "qkv")
    q, k, v = (part.view(len(x), -1, dim) for part in (q, k, v))
    out = torch.zeros(len(x), heads, dim)
    for t in range(len(x)):
        for h in range(heads):
            g, seen = h * k.shape[1] // heads, range(max(0, t - window + 1), t + 1)
            query = turned(q[t, h], t, base)
            scores = torch.stack([query @ turned(k[s, g], s, base) for s in seen]) / math.sqrt(dim)
            out[t, h] = scores.softmax(0) @ v[list(seen), g]
    return out.flatten(1) @ w["o_proj.weight"].T


def forward(tensors: dict[str, Tensor], config: dict[str, Any], tokens: list[int]) -> Tensor:
    x = tensors["model.embeddings.weight"][tokens]
    for i in range(LAYERS):
        w = {name.split(f"layers.{i}.")[1]: t for name, t in tensors.items() if f"layers.{i}." in name}
        own = {name.removeprefix("attn."): t for name, t in w.items() if name.startswith("attn.")}
        read, spec = rms(x, w["attn_norm.weight"]), attending(config, i)
        x = x + (attention(read, own, spec) if spec else delta(read, own, config))
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
        assert relative(ours(x)[0], forward(tensors, config, x[0].tolist())) <= 1e-5


def test_a_state_changes_nothing(made):
    changes_nothing(made[2])


def test_counts_and_round_trip(made, tmp_path):
    tensors, config, ours = made
    assert ours.init_state(3, 17).nbytes == ours.arch.state_bytes(17, 3, "float32")
    saves_what_it_read(ours, tensors, tmp_path / "saved")
    assert ours.arch == read_config(config)


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name, config in CONFIGS.items() if "attn" not in config])
def test_flops_are_those_counted(name):
    model = lamina.build(read_config(CONFIGS[name]))
    solved = {torch.ops.aten.linalg_solve_triangular: lambda a, b, *_, **__: math.prod(b) * a[-1]}  # n^2 a column
    for rows, tokens in ((1, 1), (1, 2), (2, 63), (1, 65), (1, 131)):
        with FlopCounterMode(display=False, custom_mapping=solved) as counter:
            model(ids(rows, tokens))
        assert counter.get_total_flops() == rows * model.arch.flops(tokens)


def test_everything_learns():
    for name in ("delta-net-sums", "delta-net-hybrid"):
        model = lamina.build(read_config(CONFIGS[name]))
        model(ids(1, 9)).square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_a_glu_whose_inputs_are_one_tensor(tmp_path):
    config = CONFIGS["delta-net"]
    tensors = checkpoint(tmp_path / "made", config)
    ours = lamina.load(tmp_path / "made")
    for i in range(LAYERS):
        stem = f"model.layers.{i}.mlp."
        both = torch.cat([tensors[stem + "gate_proj.weight"], tensors.pop(stem + "up_proj.weight")])
        tensors[stem + "gate_proj.weight"] = both
    save_file(tensors, tmp_path / "made" / "model.safetensors")
    assert torch.equal(lamina.load(tmp_path / "made")(ids(1, 9)), ours(ids(1, 9)))


def test_defaults():
    arch = read_config({"model_type": "delta_net"})
    net, gated = next(iter(arch.ops())), next(iter(read_config({"model_type": "gated_deltanet"}).ops()))
    glu = next(op for op in arch.ops() if isinstance(op, GLU))
    assert net == DeltaNet(heads=16, key_dim=128, value_dim=128)
    assert gated == GatedDeltaNet(key_heads=6, value_heads=6, key_dim=256, value_dim=512)
    assert (arch.width, len(arch.blocks), arch.vocab, glu.inner) == (2048, 24, 32000, 5632)
    hybrid = read_config({"model_type": "delta_net", "attn": {"layers": [1], "num_heads": 8}})
    assert [type(next(iter(block.ops()))) for block in hybrid.blocks[:3]] == [DeltaNet, Attention, DeltaNet]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"attn": {"layers": [4], "num_heads": 6}}, r"attn: layers are \[4\] of 6 heads; expected are numbers"),
        ({"attn": [ATTENDS, ATTENDS]}, r"attn\[1\]: layers are \[2\]"),
        ({"attn": {"layers": [1], "num_heads": 5}}, "heads that divide 48"),
        ({"attn": {"layers": [1]}}, "attn: the key 'num_heads' is missing"),
        ({"attn": {"layers": [1], "num_heads": 6, "x": 1}}, r"attn: the key 'x' \(1\) is not understood"),
        ({"attn": 3}, "attn: an object"),
        ({"expand_k": 1.3}, "expand_k makes 62.4 of hidden_size, which 3 heads do not divide"),
        ({"expand_v": 1.0, "num_heads": 5}, "expand_v makes 48 of hidden_size, which 5"),
        ({"qk_activation": "tanh"}, "'qk_activation' is 'tanh'; known: 'silu', 'relu', 'elu', 'identity'"),
        ({"attnres_block_size": 4}, "attnres_block_size is 4; only null is known"),
        ({"hidden_act": "powlu"}, "'hidden_act' is 'powlu'"),
    ],
)
def test_what_is_not_understood(change, says):
    with pytest.raises(LaminaError, match=says):
        read_config(PLAIN | change)
