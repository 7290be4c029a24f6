"""Ling 2.5 against a forward pass written by hand, token by token and head by head, after the publisher's code.

The rule is unrolled: what a token reads is a sum over all tokens before it, with no state and no chunks.
"""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import silu

import lamina
from lamina.errors import LaminaError
from tests.reference import changes_nothing, ids, relative, saves_what_it_read

D, H, K, V, PLAIN, TURNED, LATENT, QUERIES = 40, 6, 12, 7, 8, 6, 10, 14
LAYERS, GROUP, F, FE, E, SHARED, VOCAB = 8, 3, 56, 20, 8, 2, 97
CONFIG: dict[str, Any] = {
    "architectures": ["BailingMoeV2_5ForCausalLM"],
    "model_type": "bailing_hybrid",
    "vocab_size": VOCAB,
    "hidden_size": D,
    "intermediate_size": F,
    "moe_intermediate_size": FE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": H,
    "num_key_value_heads": H,
    "head_dim": K,
    "num_experts": E,
    "num_experts_per_tok": 3,
    "num_shared_experts": SHARED,
    "n_group": 4,
    "topk_group": 2,
    "routed_scaling_factor": 2.5,
    "first_k_dense_replace": 1,
    "layer_group_size": GROUP,
    "group_norm_size": 3,
    "use_qk_norm": True,
    "q_lora_rank": QUERIES,
    "kv_lora_rank": LATENT,
    "qk_rope_head_dim": TURNED,
    "qk_nope_head_dim": PLAIN,
    "v_head_dim": V,
    "partial_rotary_factor": 0.5,
    "rope_theta": 500.0,
    "rope_scaling": None,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 128,
}


def attends(i: int) -> bool:
    """Every third layer, and those behind the last whole three."""
    return (i + 1) % GROUP == 0 or i >= LAYERS // GROUP * GROUP


def of_block(i: int, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = dict.fromkeys(("input_layernorm", "post_attention_layernorm"), (D,))
    if attends(i):
        queries = {"q_a_proj": (QUERIES, D), "q_a_layernorm": (QUERIES,), "q_b_proj": (H * (PLAIN + TURNED), QUERIES)}
        queries = queries if config["q_lora_rank"] else {"q_proj": (H * (PLAIN + TURNED), D)}
        queries |= {"kv_a_proj_with_mqa": (LATENT + TURNED, D), "kv_a_layernorm": (LATENT,)}
        queries |= {"kv_b_proj": (H * (PLAIN + V), LATENT), "dense": (D, H * V)}
        found |= {f"attention.{name}": shape for name, shape in queries.items()}
    else:
        found |= {"attention.query_key_value": (3 * H * K, D), "attention.dense": (D, H * K)}
        found |= {"attention.g_proj": (H * K, D), "attention.g_norm": (H * K,)}
        if config["use_qk_norm"]:
            found |= {"attention.query_layernorm": (K,), "attention.key_layernorm": (K,)}
    for place, inner in glus(i).items():
        found |= {f"mlp.{place}gate_proj": (inner, D), f"mlp.{place}up_proj": (inner, D)}
        found |= {f"mlp.{place}down_proj": (D, inner)}
    return found if i < 1 else found | {"mlp.gate": (E, D)}


def glus(i: int) -> dict[str, int]:
    experts = {f"experts.{e}.": FE for e in range(E)}
    return {"": F} if i < 1 else experts | {"shared_experts.": SHARED * FE}


def checkpoint(directory, config: dict[str, Any]) -> dict[str, Tensor]:
    names: dict[str, tuple[int, ...]] = {"model.word_embeddings": (VOCAB, D), "model.norm": (D,), "lm_head": (VOCAB, D)}
    for i in range(LAYERS):
        names |= {f"model.layers.{i}.{name}": shape for name, shape in of_block(i, config).items()}
    random, tensors = torch.Generator().manual_seed(3), {}
    for name, shape in names.items():
        noise = torch.randn(shape, generator=random)
        tensors[f"{name}.weight"] = 1 + 0.3 * noise if len(shape) == 1 else noise * 0.5 / shape[-1] ** 0.5
    for i in range(1, LAYERS):
        tensors[f"model.layers.{i}.mlp.gate.expert_bias"] = 0.1 * torch.randn(E, generator=random)
    directory.mkdir()
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(config))
    return tensors


def rms(x: Tensor, weight: Tensor, eps: float = CONFIG["rms_norm_eps"]) -> Tensor:
    return weight * x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps)


def turned(x: Tensor, position: int, neighbours: bool) -> Tensor:
    """The first numbers of one head: pairs of i and i + 1, or of i and the half's distance."""
    out = x.clone()
    for i in range(TURNED // 2):
        a, b = (2 * i, 2 * i + 1) if neighbours else (i, i + TURNED // 2)
        angle = position * CONFIG["rope_theta"] ** (-2 * i / TURNED)
        out[a] = x[a] * math.cos(angle) - x[b] * math.sin(angle)
        out[b] = x[b] * math.cos(angle) + x[a] * math.sin(angle)
    return out


def slopes(heads: int) -> list[float]:
    """As ALiBi has them: those of the power of two below, then every other one of its double."""
    power = 2 ** math.floor(math.log2(heads))
    own = [2 ** (-8 * (h + 1) / power) for h in range(power)]
    return (
        own
        if power == heads
        else own + [2 ** (-8 * (h + 1) / (2 * power)) for h in range(0, 2 * power, 2)][: heads - power]
    )


def lightning(x: Tensor, w: dict[str, Tensor], i: int, config: dict[str, Any]) -> Tensor:
    q, k, v = (x @ w["attention.query_key_value"].T).view(len(x), 3, H, K).unbind(1)
    if config["use_qk_norm"]:
        q, k = rms(q, w["attention.query_layernorm"]), rms(k, w["attention.key_layernorm"])
    out = torch.zeros(len(x), H, K)
    for h in range(H):
        rate = slopes(H)[h] * (1 - (i - 1) / (LAYERS - 1) + 1e-5)
        keys = [turned(k[s, h], s, neighbours=False) for s in range(len(x))]
        for t in range(len(x)):
            query = turned(q[t, h], t, neighbours=False) / math.sqrt(K)
            out[t, h] = sum(math.exp(-rate * (t - s)) * (query @ keys[s]) * v[s, h] for s in range(t + 1))
    groups = config["group_norm_size"]
    normed = rms(out.view(len(x), groups, -1), w["attention.g_norm"].view(groups, -1)).flatten(1)
    return (normed * torch.sigmoid(x @ w["attention.g_proj"].T)) @ w["attention.dense"].T


def latent(x: Tensor, w: dict[str, Tensor], config: dict[str, Any]) -> Tensor:
    if config["q_lora_rank"]:
        low = rms(x @ w["attention.q_a_proj"].T, w["attention.q_a_layernorm"], 1e-6)
        q = low @ w["attention.q_b_proj"].T
    else:
        q = x @ w["attention.q_proj"].T
    q = q.view(len(x), H, PLAIN + TURNED)
    kept, key = (x @ w["attention.kv_a_proj_with_mqa"].T).split([LATENT, TURNED], 1)
    plain = (rms(kept, w["attention.kv_a_layernorm"], 1e-6) @ w["attention.kv_b_proj"].T).view(len(x), H, PLAIN + V)
    out = torch.zeros(len(x), H, V)
    for t in range(len(x)):
        for h in range(H):
            rotated = turned(q[t, h, PLAIN:], t, neighbours=True)
            scores = [
                q[t, h, :PLAIN] @ plain[s, h, :PLAIN] + rotated @ turned(key[s], s, neighbours=True)
                for s in range(t + 1)
            ]
            weights = torch.softmax(torch.stack(scores) / math.sqrt(PLAIN + TURNED), 0)
            out[t, h] = weights @ plain[: t + 1, h, PLAIN:]
    return out.flatten(1) @ w["attention.dense"].T


def glu(x: Tensor, w: dict[str, Tensor], place: str) -> Tensor:
    gate, up, down = (w[f"mlp.{place}{p}_proj"] for p in ("gate", "up", "down"))
    return down @ (silu(gate @ x) * (up @ x))


def mixture(x: Tensor, w: dict[str, Tensor], config: dict[str, Any]) -> Tensor:
    """Of one token: two of four groups by the sum of their two best, then three experts of those."""
    scores = torch.sigmoid(w["mlp.gate"] @ x)
    biased = scores + w["mlp.gate.expert_bias"]
    groups = biased.view(config["n_group"], -1)
    best = groups.sort(descending=True).values[:, :2].sum(1).argsort(descending=True)[: config["topk_group"]].tolist()
    allowed = [e for e in range(E) if e // groups.shape[1] in best]
    chosen = sorted(allowed, key=lambda e: -float(biased[e]))[: config["num_experts_per_tok"]]
    total = sum(scores[e] for e in chosen)
    routed = sum(scores[e] / total * glu(x, w, f"experts.{e}.") for e in chosen)
    return config["routed_scaling_factor"] * routed + glu(x, w, "shared_experts.")


def forward(tokens: Tensor, tensors: dict[str, Tensor], config: dict[str, Any]) -> Tensor:
    """Logits of one row."""
    x = tensors["model.word_embeddings.weight"][tokens]
    for i in range(LAYERS):
        start = f"model.layers.{i}."
        w = {n.removeprefix(start).removesuffix(".weight"): t for n, t in tensors.items() if n.startswith(start)}
        z = rms(x, w["input_layernorm"])
        x = x + (latent(z, w, config) if attends(i) else lightning(z, w, i, config))
        z = rms(x, w["post_attention_layernorm"])
        x = x + torch.stack([mixture(t, w, config) if i else glu(t, w, "") for t in z])
    return rms(x, tensors["model.norm.weight"]) @ tensors["lm_head.weight"].T


@pytest.fixture(params=[{}, {"q_lora_rank": None, "use_qk_norm": False}], ids=["ling-2.5", "ling-plain"])
def pair(request, tmp_path):
    """The config, the tensors, and ours loaded from them."""
    config = CONFIG | request.param
    tensors = checkpoint(tmp_path / "published", config)
    return config, tensors, lamina.load(tmp_path / "published")


@torch.inference_mode()
def test_logits_equal_the_forward_pass_by_hand(pair):
    config, tensors, ours = pair
    exact = {name: tensor.double() for name, tensor in tensors.items()}
    for batch, tokens in ((2, 13), (1, 1), (1, 29)):
        x = ids(batch, tokens)
        torch.set_default_dtype(torch.float64)
        expected = torch.stack([forward(row, exact, config) for row in x])
        torch.set_default_dtype(torch.float32)
        assert relative(ours(x).double(), expected) <= 1e-5


def test_states_and_padding_change_nothing(pair):
    changes_nothing(pair[2])


def test_saved_is_what_was_published(pair, tmp_path):
    config, tensors, ours = pair
    written = saves_what_it_read(ours, tensors, tmp_path / "saved")
    assert {key: written[key] for key in config} == config


def test_the_class_tells_it_from_ling_3():
    """Both call themselves bailing_hybrid."""
    assert lamina.architecture(CONFIG).family == "bailing_linear"
    assert lamina.architecture("ling-3.0-flash").family == "bailing_hybrid"
    with pytest.raises(LaminaError, match="'group_norm_size' is 3; only 1"):
        lamina.architecture(CONFIG | {"architectures": ["BailingMoeV3ForCausalLM"]})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("linear_silu", True, "'linear_silu' is True; only False"),
        ("qk_rope_head_dim", 4, "partial_rotary_factor of a head of 12 is 6; qk_rope_head_dim is 4"),
        ("group_norm_size", 4, r"heads \(6\) must be a multiple of norm_groups \(4\)"),
        ("moe_shared_expert_intermediate_size", 21, "only 20"),
    ],
)
def test_what_it_does_not_know_is_refused(key, value, message):
    with pytest.raises(LaminaError, match=message):
        lamina.architecture(CONFIG | {key: value})


def test_seven_to_one_at_full_size():
    """80 layers, seven of lightning attention to one that attends: matrices and latents are kept."""
    sizes = {"hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 64}
    sizes |= {"head_dim": 128, "group_norm_size": 8, "layer_group_size": 8, "kv_lora_rank": 512, "qk_rope_head_dim": 64}
    arch = lamina.architecture(CONFIG | sizes)
    kinds = ["lightning_attention"] * 7 + ["latent_attention"]
    assert [op.kind for op in arch.ops() if op.kind in kinds] == kinds * 10
    assert arch.state_bytes(1000, 1, "bfloat16") == 70 * 64 * 128 * 128 * 4 + 10 * 1000 * (512 + 64) * 2
