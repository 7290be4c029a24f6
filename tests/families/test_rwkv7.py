"""RWKV-7, which the reference library does not have: against a forward pass that is written by hand here.

It follows arXiv 2503.14456, section 4, a token and a head at a time, with the state as there: values by keys. Names of
tensors are those of flash-linear-attention, in which the authors publish converted checkpoints.
"""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import lamina
from lamina.arch import RWKV7
from lamina.errors import LaminaError
from lamina.families import read_config
from tests.reference import changes_nothing, ids, relative, saves_what_it_read

D, K, F, VOCAB, LAYERS, EPS = 40, 8, 56, 97, 3, 1e-4
H = D // K
CONFIG: dict[str, Any] = {
    "model_type": "rwkv7",
    "architectures": ["RWKV7ForCausalLM"],
    "vocab_size": VOCAB,
    "hidden_size": D,
    "num_hidden_layers": LAYERS,
    "head_dim": K,
    "decay_low_rank_dim": 6,
    "gate_low_rank_dim": 9,
    "a_low_rank_dim": 7,
    "v_low_rank_dim": 5,
    "intermediate_size": F,
    "hidden_act": "sqrelu",
    "max_position_embeddings": 128,
    "norm_first": True,
    "norm_bias": True,
    "norm_eps": EPS,
    "value_dim": [D] * LAYERS,
    "tie_word_embeddings": False,
}
OTHERS = {"value_dim": [2 * D] * LAYERS, "norm_first": False, "norm_bias": False, "hidden_act": "silu"}
OTHERS |= {"tie_word_embeddings": True}


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The published names, and the shape of each."""
    values, bias = config["value_dim"][0], config["norm_bias"]

    def norm(name: str, wide: int = D, biased: bool = bias) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (wide,)} | ({f"{name}.bias": (wide,)} if biased else {})

    def lora(name: str, rows: int, rank: int, biased: bool = True) -> dict[str, tuple[int, ...]]:
        low = {f"attn.{name}_lora.lora.0.weight": (rank, D), f"attn.{name}_lora.lora.2.weight": (rows, rank)}
        return low | ({f"attn.{name}_lora.lora.2.bias": (rows,)} if biased else {})

    found: dict[str, tuple[int, ...]] = {"model.embeddings.weight": (VOCAB, D)} | norm("model.norm")
    found |= {} if config["tie_word_embeddings"] else {"lm_head.weight": (VOCAB, D)}
    found |= norm("model.layers.0.pre_norm") if config["norm_first"] else {}
    for i in range(LAYERS):
        here: dict[str, tuple[int, ...]] = {f"attn.x_{x}": (1, 1, D) for x in "rwkvag"}
        here |= {"attn.k_k": (D,), "attn.k_a": (D,), "attn.r_k": (H, K), "attn.r_proj.weight": (D, D)}
        here |= {"attn.k_proj.weight": (D, D), "attn.v_proj.weight": (values, D), "attn.o_proj.weight": (D, values)}
        here |= lora("w", D, config["decay_low_rank_dim"]) | lora("a", D, config["a_low_rank_dim"])
        here |= lora("v", values, config["v_low_rank_dim"]) if i else {}
        here |= lora("g", values, config["gate_low_rank_dim"], False) | norm("attn.g_norm", values, True)
        here |= {"ffn.x_k": (D,), "ffn.key.weight": (F, D), "ffn.value.weight": (D, F)}
        here |= norm("attn_norm") | norm("ffn_norm")
        found |= {f"model.layers.{i}.{name}": shape for name, shape in here.items()}
    return found


def checkpoint(directory, config: dict[str, Any]) -> dict[str, Tensor]:
    random, tensors = torch.Generator().manual_seed(3), {}
    for name, shape in shapes(config).items():
        noise = torch.randn(shape, generator=random)
        matrix = len(shape) == 2 and "r_k" not in name
        tensors[name] = noise * 1.2 / shape[-1] ** 0.5 if matrix else 0.5 * noise + ("norm.weight" in name)
    directory.mkdir()
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(config))
    return tensors


def norm(x: Tensor, w: dict[str, Tensor], name: str, eps: float = EPS) -> Tensor:
    x = (x - x.mean()) / torch.sqrt(x.var(correction=0) + eps)
    return w[f"{name}.weight"] * x + w.get(f"{name}.bias", torch.zeros(()))


def lora(x: Tensor, w: dict[str, Tensor], name: str, inside=lambda x: x) -> Tensor:
    down, up = w[f"attn.{name}_lora.lora.0.weight"], w[f"attn.{name}_lora.lora.2.weight"]
    return up @ inside(down @ x) + w.get(f"attn.{name}_lora.lora.2.bias", torch.zeros(()))


def time_mix(rows: list[Tensor], w: dict[str, Tensor], first: list[Tensor]) -> list[Tensor]:
    """Of all tokens of a block; `first` are the values of the first block, which it leaves there."""
    out, before, leaves = [], torch.zeros(D), not first
    wide = len(w["attn.v_proj.weight"]) // H
    states = [torch.zeros(wide, K) for _ in range(H)]
    for t, x in enumerate(rows):
        r_, w_, k_, v_, a_, g_ = (x + (before - x) * w[f"attn.x_{name}"][0, 0] for name in "rwkvag")
        before = x
        r, k, v = (w[f"attn.{n}_proj.weight"] @ y for n, y in (("r", r_), ("k", k_), ("v", v_)))
        if leaves:
            first.append(v)
        else:
            v = v + (first[t] - v) * torch.sigmoid(lora(v_, w, "v"))
        decay = torch.exp(-math.exp(-0.5) * torch.sigmoid(lora(w_, w, "w", torch.tanh)))
        a, gate = torch.sigmoid(lora(a_, w, "a")), lora(g_, w, "g", torch.sigmoid)
        direction, k = k * w["attn.k_k"], k * (1 + (a - 1) * w["attn.k_a"])
        heads = []
        for h in range(H):
            at, vs = slice(h * K, (h + 1) * K), slice(h * wide, (h + 1) * wide)
            c = direction[at] / direction[at].norm()
            change = torch.diag(decay[at]) - torch.outer(c, a[at] * c)
            states[h] = states[h] @ change + torch.outer(v[vs], k[at])
            normed = states[h] @ r[at]
            normed = (normed - normed.mean()) / torch.sqrt(normed.var(correction=0) + K * EPS)
            normed = normed * w["attn.g_norm.weight"][vs] + w["attn.g_norm.bias"][vs]
            heads.append(normed + (r[at] * k[at] * w["attn.r_k"][h]).sum() * v[vs])
        out.append(w["attn.o_proj.weight"] @ (torch.cat(heads) * gate))
    return out


def channel_mix(rows: list[Tensor], w: dict[str, Tensor], act: str) -> list[Tensor]:
    out = []
    for before, x in zip([torch.zeros(D), *rows], rows, strict=False):
        y = w["ffn.key.weight"] @ (x + (before - x) * w["ffn.x_k"])
        out.append(w["ffn.value.weight"] @ (y.relu() ** 2 if act == "sqrelu" else y * torch.sigmoid(y)))
    return out


def forward(tokens: Tensor, tensors: dict[str, Tensor], config: dict[str, Any]) -> Tensor:
    """Logits of one row."""
    table = tensors["model.embeddings.weight"]
    rows, first = list(table[tokens]), []
    for i in range(LAYERS):
        start = f"model.layers.{i}."
        w = {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
        if "pre_norm.weight" in w:
            rows = [norm(x, w, "pre_norm") for x in rows]
        mixed = time_mix([norm(x, w, "attn_norm") for x in rows], w, first)
        rows = [x + y for x, y in zip(rows, mixed, strict=True)]
        mixed = channel_mix([norm(x, w, "ffn_norm") for x in rows], w, config["hidden_act"])
        rows = [x + y for x, y in zip(rows, mixed, strict=True)]
    head = table if config["tie_word_embeddings"] else tensors["lm_head.weight"]
    return torch.stack([head @ norm(x, tensors, "model.norm") for x in rows])


@pytest.fixture(params=[{}, OTHERS], ids=["rwkv7", "rwkv7-others"])
def pair(request, tmp_path):
    """The config, the tensors, and ours loaded from them."""
    config = CONFIG | request.param
    tensors = checkpoint(tmp_path / "published", config)
    return config, tensors, lamina.load(tmp_path / "published")


@torch.inference_mode()
def test_logits_equal_the_forward_pass_by_hand(pair):
    config, tensors, ours = pair
    for batch, tokens in ((2, 19), (1, 1), (1, 37), (1, 83)):
        x = ids(batch, tokens)
        assert relative(ours(x), torch.stack([forward(row, tensors, config) for row in x])) <= 1e-5


@torch.inference_mode()
def test_greedy_continuation_equals_the_forward_pass_by_hand(pair):
    config, tensors, ours = pair
    x = ids(1, 13)
    state = ours.init_state(1, 13 + 20)
    logits, expected, got = ours(x, state), x[0], []
    for _ in range(20):
        expected = torch.cat([expected, forward(expected, tensors, config)[-1:].argmax(-1)])
        got.append(int(logits[0, -1].argmax()))
        logits = ours(torch.tensor([got[-1:]]), state)
    assert got == expected[13:].tolist()


def test_states_and_padding_change_nothing(pair):
    changes_nothing(pair[2])


def test_saved_is_what_was_published(pair, tmp_path):
    config, tensors, ours = pair
    written = saves_what_it_read(ours, tensors, tmp_path / "saved")
    assert {key: written[key] for key in config} == config


def test_older_checkpoints_hold_the_shares_of_the_token_before_in_one_tensor(tmp_path):
    tensors = checkpoint(tmp_path / "published", CONFIG)
    expected = lamina.load(tmp_path / "published")
    for i in range(LAYERS):
        shares = [tensors.pop(f"model.layers.{i}.attn.x_{x}")[0, 0] for x in "rwkvag"]
        tensors[f"model.layers.{i}.attn.x_x"] = torch.stack(shares)
    save_file(tensors, tmp_path / "published" / "model.safetensors")
    ours = lamina.load(tmp_path / "published")
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), expected.parameters(), strict=True))


PUBLISHED = [  # width, layers, the ranks of w, a, v and g, and parameters
    (768, 12, 64, 64, 32, 128, 191_034_624),
    (1024, 24, 64, 64, 32, 128, 450_767_872),
    (2048, 24, 96, 96, 64, 256, 1_527_404_544),
    (2560, 32, 96, 96, 64, 320, 2_947_735_040),
]


@pytest.mark.parametrize("sizes", PUBLISHED)
def test_full_sizes_have_the_published_counts(sizes):
    """arXiv 2503.14456, the models of 0.19 to 2.9 B, and the formula that it gives for them."""
    width, layers, *ranks, counted = sizes
    keys = ("decay_low_rank_dim", "a_low_rank_dim", "v_low_rank_dim", "gate_low_rank_dim")
    config = {"model_type": "rwkv7", "hidden_size": width, "num_hidden_layers": layers, "vocab_size": 65536}
    arch = read_config(config | dict(zip(keys, ranks, strict=True)))
    outside = 2 * width * 65536 + 4 * width - (2 * width * ranks[2] + width)
    assert counted == outside + layers * width * (12 * width + 2 * sum(ranks) + 19)
    assert arch.parameters().total == counted
    heads = width // 64
    assert arch.state_bytes(1) == arch.state_bytes(10**6) == layers * (heads * 64 * 64 * 4 + 2 * width * 2)


def test_sizes_that_are_left_out():
    plain = {"model_type": "rwkv7", "hidden_size": 1024, "num_hidden_layers": 2}
    nulls = dict.fromkeys(("decay_low_rank_dim", "a_low_rank_dim", "v_low_rank_dim", "gate_low_rank_dim"))
    usual, grown = (list(read_config(plain | more).ops())[2] for more in ({}, nulls | {"head_dim": 128}))
    assert isinstance(usual, RWKV7)
    assert isinstance(grown, RWKV7)
    ranks = ("decay_rank", "step_rank", "value_rank", "gate_rank")
    assert [getattr(usual, name) for name in ranks] == [64, 64, 16, 128]
    assert [getattr(grown, name) for name in ranks] == [160, 160, 96, 160]
    by_count = next(read_config(plain | {"head_dim": None, "num_heads": 32}).ops())
    assert isinstance(by_count, RWKV7)
    assert (by_count.heads, by_count.key_dim) == (32, 32)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"head_dim": 7}, r"heads of 7 \(head_dim\) must fill hidden_size and value_dim evenly"),
        ({"value_dim": [D, 2 * D, D]}, "value_dim must hold one number, the same for each of 3 layers"),
        ({"value_dim": [D]}, "value_dim must hold one number, the same for each of 3 layers"),
        ({"attn": {"layers": [1]}}, "'attn' is .*; only None is known"),
        ({"hidden_act": "gelu"}, "'hidden_act' is 'gelu'; known: 'sqrelu'"),
    ],
)
def test_what_is_refused(wrong, said):
    with pytest.raises(LaminaError, match=said):
        read_config(CONFIG | wrong)


def test_values_are_mixed_with_those_of_an_earlier_block():
    arch = read_config(CONFIG)
    with pytest.raises(LaminaError, match=r"^blocks\[0\]\.mixer\.value_rank \(5 where no block before leaves as many"):
        lamina.build(arch.replace(blocks=arch.blocks[1:]), device="meta")
