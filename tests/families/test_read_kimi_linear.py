"""Kimi Linear, Kimi K3 and Ling 3.0, read: as the reference builds them, and by hand where it has no class."""

from __future__ import annotations

import math

import pytest
from shapes import built, numbers, of_ours, of_reference

from lamina.arch import GLU, Architecture, AttentionResiduals, Clamp, KimiDeltaAttention, LatentAttention, MoE, Squash
from lamina.catalog import config, source
from lamina.errors import LaminaError
from lamina.families import read_config

SMALL = {  # no two sizes alike
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 56,
    "moe_intermediate_size": 20,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "kv_lora_rank": 18,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 6,
    "v_head_dim": 14,
    "num_experts": 16,
    "num_shared_experts": 3,
    "num_experts_per_token": 2,
    "num_expert_group": 4,
    "topk_group": 2,
    "pad_token_id": 0,
    "first_k_dense_replace": 2,
    "attention_bias": True,
}
LINEAR = {"head_dim": 8, "num_heads": 3, "short_conv_kernel_size": 5}
LAYERS = {"full_attn_layers": [2, 6], "kda_layers": [1, 3, 4, 5]}
KIMI = SMALL | {"model_type": "kimi_linear", "linear_attn_config": LINEAR | LAYERS}
LING = {k: v for k, v in SMALL.items() if k != "attention_bias"} | {
    "model_type": "bailing_hybrid",
    "head_dim": 8,
    "layer_group_size": 3,
    "short_conv_kernel_size": 5,
}
TINY = {
    "kimi": ("KimiLinearForCausalLM", KIMI),
    "kimi-query-latent": ("KimiLinearForCausalLM", KIMI | {"q_lora_rank": 22, "linear_attn_config": LINEAR}),
    "ling": ("BailingHybridForCausalLM", LING),
    "ling-unbounded": ("BailingHybridForCausalLM", LING | {"kda_safe_gate": False, "attention_bias": True}),
}
ENTRIES = {"kimi-linear-48b-a3b": "KimiLinearForCausalLM", "ling-3.0-flash": "BailingHybridForCausalLM"}
CORRECTIONS = {"kimi-linear-48b-a3b": 26 * 256, "ling-3.0-flash": 40 * 512, "kimi-k3": 92 * 896}


def entry(name: str) -> Architecture:
    return read_config(config(name), name)


def ops_of(arch: Architecture, kind: type) -> list:
    return [op for op in arch.ops() if isinstance(op, kind)]


@pytest.mark.parametrize("name", ENTRIES)
def test_every_weight_of_a_catalog_entry_is_the_references(name: str) -> None:
    arch = entry(name)
    state = of_reference(built(ENTRIES[name], config(name)))
    assert of_ours(arch) == state
    assert arch.parameters().total == numbers(state)


@pytest.mark.parametrize("name", TINY)
def test_every_weight_of_a_small_model_is_the_references(name: str) -> None:
    kind, data = TINY[name]
    model = built(kind, data)
    arch = read_config(data)
    assert of_ours(arch) == of_reference(model)
    assert read_config(model.config.to_dict()) == arch, "what the reference saves says the same"
    types = [
        "linear_attention" if isinstance(b.branches[0].op, KimiDeltaAttention) else "full_attention"
        for b in arch.blocks
    ]
    assert types == model.config.layer_types


@pytest.mark.parametrize("name", CORRECTIONS)
def test_the_catalogs_count_is_without_routing_corrections(name: str) -> None:
    assert entry(name).parameters().total - CORRECTIONS[name] == source(name)["counted_parameters"]


def test_kimi_k3_by_hand() -> None:
    """All 93 layers in plain arithmetic: 69 of delta rules, 24 of latent attention, 92 with experts."""
    d, inner, heads = 7168, 96 * 128, 96
    delta = 3 * d * inner + 3 * inner * 4 + d * heads + (d * 128 + 128 * inner) + heads + inner
    delta += d * inner + 128 + inner * d  # a gate as wide as the heads, the norm of a head, the output
    latent = d * 1536 + 1536 + 1536 * heads * 192 + d * (512 + 64) + 512 + 512 * heads * 256
    latent += d * inner + inner * d  # gate, output
    experts = 896 * 3 * 3584 * 3072 + 2 * d * 3584 + 3584 + 3 * d * 2 * 3072 + 896 * d + 896
    around = 93 * 2 * d + (93 * 2 + 1) * 2 * d + d  # norms; scores and norms of the sums read; the last norm
    total = 69 * delta + 24 * latent + 92 * experts + 3 * d * 33792 + around + 2 * 163840 * d
    arch = entry("kimi-k3")
    assert arch.parameters().total == total
    assert math.isclose(total, 2.78e12, rel_tol=1e-3)
    unused = 92 * (896 - 16) * 3 * 3584 * 3072
    assert arch.parameters().active == total - unused
    assert math.isclose(arch.parameters().active - 163840 * d, 104e9, rel_tol=5e-3), "published: 104B, one table aside"


def test_what_kimi_k3_says_of_its_arithmetic() -> None:
    arch = entry("kimi-k3")
    delta, latent = ops_of(arch, KimiDeltaAttention)[0], ops_of(arch, LatentAttention)[0]
    assert (delta.decay_rank, delta.gate_rank, delta.decay_floor) == (128, None, -5.0)
    assert (latent.gate, latent.rotary, latent.query_latent, latent.norm.eps) == ("elementwise", None, 1536, 1e-6)
    assert {op.squash for op in ops_of(arch, GLU)} == {Squash(gate=4.0, up=25.0)}
    moe = ops_of(arch, MoE)[0]
    assert (moe.router.score, moe.router.correction, moe.router.normalise) == ("sigmoid", True, True)
    assert moe.latent_norm is not None
    assert moe.expert.squash == moe.shared.squash == Squash(gate=4.0, up=25.0)
    assert isinstance(arch.stream, AttentionResiduals)
    read = [arch.stream.sums(block, branch) for block in (0, 1, 11, 12, 13, 92) for branch in (0, 1)]
    assert read == [1, 2, 2, 2, 2, 2, 2, 3, 3, 3, 9, 9]
    assert arch.stream.sums(93, 0) == 9, "eight closed sums with the embedding's, and the open one"


def test_reading_sums_costs_scores_and_a_mean() -> None:
    stream = AttentionResiduals(blocks=2)
    parts = list(stream.parts(10, [2, 2, 2]))
    assert sum(part.times * part.flops for part in parts) == 4 * 10 * (0 + 2 + 2 + 2 + 2 + 3 + 3)
    assert sum(part.times for part in parts) == 7
    assert all(len(part.weights) == 2 for part in parts)


def test_a_state_of_matrices_and_latents() -> None:
    """Of Kimi Linear: 20 layers of 32 matrices of 128 x 128 in float32, and 7 of 576 numbers a token."""
    arch = entry("kimi-linear-48b-a3b")
    fixed = 20 * (32 * 128 * 128 * 4 + 3 * 32 * 128 * 3 * 2)
    assert arch.state_bytes(1000) == fixed + 1000 * 7 * 576 * 2
    published = source("kimi-k3")["state_bytes_per_token"]
    assert entry("kimi-k3").state_bytes(1001) - entry("kimi-k3").state_bytes(1000) == published == 24 * 576 * 2
    ling = entry("ling-3.0-flash")
    assert ling.state_bytes(1001) - ling.state_bytes(1000) == 7 * 576 * 2  # published: 7.9 KiB
    assert round(7 * 576 * 2 / 1024, 1) == round(source("ling-3.0-flash")["state_bytes_per_token"] / 1024, 1)


def test_work_of_one_more_token_in_a_delta_rule() -> None:
    op = KimiDeltaAttention(heads=3, key_dim=8, value_dim=8, convolution=5, decay_rank=8, gate_rank=None)
    d, inner = 48, 24
    products = 3 * d * inner + d * 3 + (d * 8 + 8 * inner) + d * inner + inner * d
    assert op.flops(d, 1, 100) == 2 * products + 2 * 3 * inner * 5 + 3 * 6 * 8 * 8


def test_what_ling_says_of_its_arithmetic() -> None:
    arch = entry("ling-3.0-flash")
    delta, latent = ops_of(arch, KimiDeltaAttention)[0], ops_of(arch, LatentAttention)[0]
    assert (delta.decay_rank, delta.gate_rank, delta.decay_floor, delta.key_dim) == (None, None, -5.0, 128)
    assert (latent.gate, latent.rotary.layout, latent.rotary.dim, latent.rotary.base) == (
        "head",
        "interleaved",
        64,
        6e6,
    )
    gate = ops_of(arch, MoE)[0].router
    assert (gate.groups, gate.active_groups, gate.group_best, gate.scale, gate.correction) == (8, 4, 2, 2.5, True)
    assert math.isclose(arch.parameters().active - 157184 * 2560, 5.1e9, rel_tol=2e-3), "published: 5.1B, a table aside"
    unbounded = read_config(LING | {"kda_safe_gate": False})
    assert ops_of(unbounded, KimiDeltaAttention)[0].decay_floor is None


def test_limits_of_lings_late_experts() -> None:
    arch = read_config(
        LING | {"expert_swiglu_limit_list": [0, 0, 0, 0, 4, 4], "share_expert_swiglu_limit_list": [0, 0, 0, 5, 5, 7]}
    )
    moes = ops_of(arch, MoE)
    assert [moe.expert.clamp for moe in moes] == [None, None, Clamp(limit=4), Clamp(limit=4)]
    assert [moe.shared.clamp for moe in moes] == [None, Clamp(limit=5), Clamp(limit=5), Clamp(limit=7)]


WRONG = {
    "layer_types and linear_attn_config disagree": KIMI | {"layer_types": ["linear_attention"] * 6},
    "must hold each of 1 to 6 once": KIMI | {"linear_attn_config": LINEAR | LAYERS | {"kda_layers": [1, 2, 3, 4, 5]}},
    "linear_attn_config: the key 'heads'": KIMI | {"linear_attn_config": LINEAR | {"heads": 3}},
    "in latent attention every head has keys": KIMI | {"num_key_value_heads": 2},
    "'mla_use_nope' is False": KIMI | {"mla_use_nope": False},
    "'no_kda_lora' is False": LING | {"no_kda_lora": False},
    "partial_rotary_factor is 0.5; qk_rope_head_dim says 6 of 8": LING | {"partial_rotary_factor": 0.5},
    "the key 'layer_scale' (2.0) is not understood": LING | {"layer_scale": 2.0},
    "need a number for each of 6 layers": LING | {"expert_swiglu_limit_list": [4.0]},
}


@pytest.mark.parametrize("message", WRONG)
def test_configs_that_contradict_themselves(message: str) -> None:
    with pytest.raises(LaminaError) as error:
        read_config(WRONG[message])
    assert message in str(error.value)
