"""Kimi K3, which the reference has no class of: its equations over the tensors of a checkpoint, by published names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

import lamina
from lamina.catalog import config
from tests.reference import ids, randomise, relative

KDA = [1, 2, 4, 5, 7]
SIZES = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 56,
    "num_hidden_layers": 7,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "q_lora_rank": 22,
    "kv_lora_rank": 18,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 6,
    "v_head_dim": 14,
    "moe_intermediate_size": 20,
    "routed_expert_hidden_size": 28,
    "num_experts": 9,
    "num_experts_per_token": 3,
    "routed_scaling_factor": 1.3,
    "attn_res_block_size": 3,
    "activation_situ_beta": 1.5,
    "activation_situ_linear_beta": 2.5,
    "linear_attn_config": {
        "head_dim": 20,
        "num_heads": 5,
        "short_conv_kernel_size": 4,
        "gate_lower_bound": -5.0,
        "use_full_rank_gate": True,
        "full_attn_layers": [3, 6],
        "kda_layers": KDA,
    },
}
PUBLISHED = config("kimi-k3")
TINY = PUBLISHED | {"text_config": PUBLISHED["text_config"] | SIZES}
TINY["text_config"].pop("quantization_config")
EVERY = (
    "input_layernorm post_attention_layernorm self_attention_res_norm self_attention_res_proj mlp_res_norm mlp_res_proj"
)
DELTA = "q_proj k_proj v_proj q_conv1d k_conv1d v_conv1d b_proj f_a_proj f_b_proj g_proj o_norm o_proj"
LATENT = "q_a_proj q_a_layernorm q_b_proj kv_a_proj_with_mqa kv_a_layernorm kv_b_proj g_proj o_proj"
MOE = "gate routed_expert_down_proj routed_expert_up_proj routed_expert_norm"


def rms(x: Tensor, weight: Tensor, eps: float = 1e-5) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


class Equations:
    """The forward pass, from arXiv 2607.24653 and what is public of the publisher's code."""

    def __init__(self, tensors: dict[str, Tensor], c: dict) -> None:
        self.t, self.c = tensors, c

    def __call__(self, tokens: Tensor) -> Tensor:
        now: Tensor | None = self.t["model.embed_tokens.weight"][tokens]
        closed: list[Tensor] = []
        for i in range(self.c["num_hidden_layers"]):
            at = f"model.layers.{i}."
            assert now is not None
            read = self.mixed(closed, now, at + "self_attention_res") if closed else now
            if i % self.c["attn_res_block_size"] == 0:
                closed, now = [*closed, now], None
            mixer = self.delta if i + 1 in KDA else self.latent
            out = mixer(at + "self_attn.", rms(read, self.t[at + "input_layernorm.weight"]))
            now = out if now is None else now + out
            h = rms(self.mixed(closed, now, at + "mlp_res"), self.t[at + "post_attention_layernorm.weight"])
            now = now + (self.experts(at + "block_sparse_moe.", h) if i else self.glu(at + "mlp.", h))
        assert now is not None
        last = self.mixed(closed, now, "model.output_attn_res")
        return rms(last, self.t["model.norm.weight"]) @ self.t["lm_head.weight"].T

    def of(self, name: str, x: Tensor) -> Tensor:
        return x @ self.t[f"{name}.weight"].T

    def mixed(self, closed: list[Tensor], now: Tensor, name: str) -> Tensor:
        values = torch.stack([*closed, now], -2)
        scores = self.of(f"{name}_proj", rms(values, self.t[f"{name}_norm.weight"]))
        return (scores.softmax(-2) * values).sum(-2)

    def delta(self, at: str, x: Tensor) -> Tensor:
        own = self.c["linear_attn_config"]
        q, k, v = (self.convolved(at + part, self.of(f"{at}{part}_proj", x)) for part in "qkv")
        raw = self.of(at + "f_b_proj", self.of(at + "f_a_proj", x)) + self.t[at + "dt_bias"]
        q, k, v, raw = (part.unflatten(-1, (-1, own["head_dim"])) for part in (q, k, v, raw))
        g = own["gate_lower_bound"] * torch.sigmoid(self.t[at + "A_log"].exp()[:, None] * raw)
        step = self.of(at + "b_proj", x).sigmoid()
        q, k = (part * torch.rsqrt(part.square().sum(-1, keepdim=True) + 1e-6) for part in (q, k))
        state, outs = torch.zeros(*q.shape[:1], *q.shape[2:], v.shape[-1], dtype=q.dtype), []
        for n in range(q.shape[1]):
            state = g[:, n].exp()[..., None] * state
            change = step[:, n, :, None] * (v[:, n] - (state * k[:, n, ..., None]).sum(-2))
            state = state + k[:, n, ..., None] * change[..., None, :]
            outs.append((state * q[:, n, ..., None]).sum(-2) * q.shape[-1] ** -0.5)
        out = rms(torch.stack(outs, 1), self.t[at + "o_norm.weight"]).flatten(2)
        return self.of(at + "o_proj", out * self.of(at + "g_proj", x).sigmoid())

    def convolved(self, at: str, x: Tensor) -> Tensor:
        weight = self.t[at + "_conv1d.weight"]
        return F.silu(F.conv1d(F.pad(x.mT, (weight.shape[-1] - 1, 0)), weight, groups=len(weight))).mT

    def latent(self, at: str, x: Tensor) -> Tensor:
        heads, rank, plain = self.c["num_attention_heads"], self.c["kv_lora_rank"], self.c["qk_nope_head_dim"]
        q = self.of(at + "q_b_proj", rms(self.of(at + "q_a_proj", x), self.t[at + "q_a_layernorm.weight"], 1e-6))
        made = self.of(at + "kv_a_proj_with_mqa", x)
        kv = self.of(at + "kv_b_proj", rms(made[..., :rank], self.t[at + "kv_a_layernorm.weight"], 1e-6))
        q, kv = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, kv))
        shared = made[:, None, :, rank:].expand(-1, heads, -1, -1)
        k, v = torch.cat([kv[..., :plain], shared], -1), kv[..., plain:]
        scores = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(
            torch.ones(q.shape[2], q.shape[2]).triu(1).bool(), float("-inf")
        )
        out = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        return self.of(at + "o_proj", out * self.of(at + "g_proj", x).sigmoid())

    def bent(self, gate: Tensor, up: Tensor) -> Tensor:
        a, b = self.c["activation_situ_beta"], self.c["activation_situ_linear_beta"]
        return a * torch.tanh(gate / a) * gate.sigmoid() * b * torch.tanh(up / b)

    def glu(self, at: str, x: Tensor, names: str = "gate_proj up_proj down_proj") -> Tensor:
        gate, up, down = (at + name for name in names.split())
        return self.of(down, self.bent(self.of(gate, x), self.of(up, x)))

    def experts(self, at: str, x: Tensor) -> Tensor:
        scores = self.of(at + "gate", x).sigmoid()
        chosen = (scores + self.t[at + "gate.e_score_correction_bias"]).topk(self.c["num_experts_per_token"]).indices
        weights = torch.zeros_like(scores).scatter(-1, chosen, scores.gather(-1, chosen))
        weights = weights / weights.sum(-1, keepdim=True) * self.c["routed_scaling_factor"]
        low = self.of(at + "routed_expert_down_proj", x)
        each = [self.glu(f"{at}experts.{e}.", low, "w1 w3 w2") for e in range(self.c["num_experts"])]
        given = rms((torch.stack(each, -1) * weights[..., None, :]).sum(-1), self.t[at + "routed_expert_norm.weight"])
        return self.of(at + "routed_expert_up_proj", given) + self.glu(at + "shared_experts.", x)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """What is published, of tiny sizes: names behind `language_model.`, rates with zeros behind them."""
    model = lamina.build(lamina.architecture(TINY))
    randomise(model)
    folder = tmp_path_factory.mktemp("kimi-k3")
    lamina.save(model, folder / "saved")
    tensors = load_file(folder / "saved" / "model.safetensors")
    padded = {n: F.pad(t, (0, 3)) if n.endswith("A_log") else t for n, t in tensors.items()}
    (folder / "published").mkdir()
    save_file({f"language_model.{n}": t for n, t in padded.items()}, folder / "published" / "model.safetensors")
    (folder / "published" / "config.json").write_text(json.dumps(TINY))
    return folder


def test_the_names_are_the_published_ones(checkpoint):
    tensors = load_file(checkpoint / "saved" / "model.safetensors")
    for i, (own, fed) in {0: (DELTA, "mlp"), 1: (DELTA, "block_sparse_moe"), 2: (LATENT, "block_sparse_moe")}.items():
        expected = {f"{name}.weight" for name in EVERY.split()} | {f"self_attn.{name}.weight" for name in own.split()}
        expected |= {"self_attn.A_log", "self_attn.dt_bias"} if own == DELTA else set()
        inside = [f"{p}_proj" for p in ("gate", "up", "down")]
        if fed == "mlp":
            expected |= {f"mlp.{name}.weight" for name in inside}
        else:
            each = [f"experts.{e}.w{n}" for e in range(9) for n in (1, 2, 3)]
            names = [*MOE.split(), *each, *(f"shared_experts.{name}" for name in inside)]
            expected |= {f"{fed}.{name}.weight" for name in names} | {f"{fed}.gate.e_score_correction_bias"}
        at = f"model.layers.{i}."
        assert {name.removeprefix(at) for name in tensors if name.startswith(at)} == expected
    outside = {name for name in tensors if ".layers." not in name}
    names = ("model.embed_tokens", "model.norm", "lm_head", "model.output_attn_res_norm", "model.output_attn_res_proj")
    assert outside == {f"{name}.weight" for name in names}


@torch.inference_mode()
@pytest.mark.parametrize("form", ["saved", "published"])
def test_logits_are_those_of_the_equations(checkpoint, form):
    """In float64: seven layers of random weights multiply what float32 rounds by more than the table's bound allows."""
    model, x = lamina.load(checkpoint / form, dtype="float64"), ids(2, 19)
    tensors = load_file(checkpoint / "saved" / "model.safetensors")
    expected = Equations({name: t.double() for name, t in tensors.items()}, TINY["text_config"])(x)
    state = model.init_state(2, 23)
    for got in (model(x), torch.cat([model(part, state) for part in x.split([7, 1, 9, 1, 1], 1)], 1)):
        assert relative(got, expected) <= 1e-5


def test_zeros_only_stand_behind_the_rates(checkpoint, tmp_path):
    tensors = load_file(checkpoint / "published" / "model.safetensors")
    tensors["language_model.model.layers.0.self_attn.A_log"][-1] = 0.5
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    with pytest.raises(lamina.LaminaError, match=r"A_log' holds more than zeros behind its first 5 rows"):
        lamina.load(tmp_path)
