"""Families beyond the usual decoder, read: Gemma 3n and 4, MiniMax-M1, xLSTM, ZAYA1, looped ones, HRM-Text.

The reference is built on the meta device, its text part alone. Persistent buffers that are learned and shipped (the
layer scalars of Gemma 4, the balancing biases of ZAYA1) count here; those that follow from the config do not, nor
does HRM-Text's `z_L_init`, which stays zero.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from typing import Any

import pytest
import torch
import transformers

from lamina.arch import (
    AltUp,
    Architecture,
    Attention,
    Causal,
    CompressedConvolutionalAttention,
    LightningAttention,
    MoE,
    Parallel,
    ScaledResidual,
)
from lamina.arch.bill import lines
from lamina.arch.measure import numbers
from lamina.catalog import config, source
from lamina.errors import LaminaError
from lamina.families import read_config
from tests.families.shapes import SMALL

COMPUTED = ("slope_rate", "query_decay", "key_decay", "diagonal_decay", "z_L_init")
FULL, SLIDING = "full_attention", "sliding_attention"
PER_LAYER = {"vocab_size_per_layer_input": 89, "hidden_size_per_layer_input": 10}
TINY: dict[str, dict[str, Any]] = {
    "gemma3n_text": SMALL
    | PER_LAYER
    | {
        "hidden_size": 42,
        "intermediate_size": [56, 56, 60, 60, 64],
        "layer_types": [SLIDING, FULL, SLIDING, FULL, SLIDING],
    }
    | {"activation_sparsity_pattern": [0.9, 0.9, 0.0, 0.0, 0.0], "num_kv_shared_layers": 2, "sliding_window": 9}
    | {"altup_num_inputs": 3, "altup_active_idx": 1, "laurel_rank": 7, "attention_bias": True},
    "gemma4_text": SMALL
    | {"hidden_size_per_layer_input": 0, "global_head_dim": 20, "num_global_key_value_heads": 3}
    | {"attention_k_eq_v": True, "enable_moe_block": True, "num_experts": 7, "top_k_experts": 3}
    | {"moe_intermediate_size": 18, "layer_types": [SLIDING, FULL, SLIDING, SLIDING, FULL], "sliding_window": 9},
    "gemma4_text with per-layer inputs": SMALL
    | PER_LAYER
    | {"model_type": "gemma4_text", "global_head_dim": 20, "num_kv_shared_layers": 2, "use_double_wide_mlp": True}
    | {"layer_types": [SLIDING, FULL, SLIDING, SLIDING, FULL], "sliding_window": 9, "attention_bias": True},
    "minimax": SMALL
    | {"num_local_experts": 7, "num_experts_per_tok": 3, "sliding_window": 9, "full_attn_beta_factor": 0.5}
    | {"layer_types": ["linear_attention", FULL, "linear_attention", "linear_attention", FULL]}
    | {"linear_attn_alpha_factor": 2.5, "mlp_alpha_factor": 1.5},
    "xlstm": {"vocab_size": 97, "hidden_size": 60, "num_hidden_layers": 3, "num_heads": 3}
    | {"qk_dim_factor": 0.4, "v_dim_factor": 0.8, "ffn_round_up_to_multiple_of": 8, "weight_mode": "fused"},
    "zaya": {key: value for key, value in SMALL.items() if key != "intermediate_size"}
    | {"num_experts": 7, "moe_intermediate_size": 20, "router_hidden_size": 14, "cca_time0": 3, "cca_time1": 4}
    | {"layer_types": ["hybrid", "hybrid_sliding", "hybrid", "hybrid", "hybrid_sliding"], "sliding_window": 9}
    | {"lm_head_bias": True, "attention_bias": True},
    "recurrent_gemma": {key: value for key, value in SMALL.items() if key != "head_dim"}
    | {"hidden_size": 48, "lru_width": 54, "conv1d_width": 3, "attention_window_size": 9},
    "hrm_text": {key: value for key, value in SMALL.items() if key != "num_key_value_heads"}
    | {"num_attention_heads": 5, "H_cycles": 3, "L_cycles": 2, "mlp_bias": True},
}
GRIFFIN = {  # RecurrentGemma 2B: the defaults of the reference
    "hidden_size": 2560,
    "intermediate_size": 7680,
    "num_hidden_layers": 26,
    "num_attention_heads": 10,
    "num_key_value_heads": 1,
}
MINIMAX = {"layernorm_full_attention_": "full_attn_", "layernorm_linear_attention_": "linear_attn_"}
ENTRIES = [
    *("gemma-3n-e4b-text", "gemma-4-26b-a4b", "gemma-4-31b", "gemma-4-e4b"),
    *("minimax-m1", "xlstm-7b", "zaya1-8b", "hrm-text-1b"),
]


def tiny(name: str) -> dict[str, Any]:
    return {"model_type": name} | copy.deepcopy(TINY[name])


def as_reference(data: dict[str, Any]) -> dict[str, Any]:
    """MiniMax-M1's config in the words of the reference's class, which calls kinds and factors otherwise."""
    if data["model_type"] != "minimax_m1":
        return data
    kinds = [FULL if kind else "linear_attention" for kind in data["attn_type_list"]]
    factors = {f"{place}{k}_factor": data[f"{key}{k}"] for key, place in MINIMAX.items() for k in ("alpha", "beta")}
    kept = {k: v for k, v in data.items() if not k.startswith(("layernorm", "auto_map", "attn_type", "post", "shared"))}
    return kept | factors | {"model_type": "minimax", "layer_types": kinds}


def reference(data: dict[str, Any]) -> torch.nn.Module:
    """The reference's causal text decoder, without memory."""
    kept = {k: v for k, v in copy.deepcopy(as_reference(data)).items() if k != "quantization_config"}
    text = transformers.AutoConfig.for_model(**kept).get_text_config()
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(text)


def theirs(data: dict[str, Any]) -> Counter[tuple[int, ...]]:
    """Shapes of the reference's weights, how often each, with those that it packs taken apart."""
    model, found = reference(data), Counter()
    for name, tensor in model.state_dict().items():
        if name.endswith(COMPUTED) or (model.config.tie_word_embeddings and name == "lm_head.weight"):
            continue
        for shape in unpacked(name, tuple(tensor.shape), data):
            found[tuple(n for n in shape if n != 1)] += 1
    return found


def unpacked(name: str, shape: tuple[int, ...], data: dict[str, Any]) -> list[tuple[int, ...]]:
    if "experts.gate_up_proj" in name:
        return [(shape[0], shape[1] // 2, shape[2])] * 2
    if "self_attn.qkv_proj.weight" in name:
        return [(shape[0] // 3, shape[1])] * 3
    if "proj_up_gate_z" in name or "ifgate_preact" in name:
        return [(shape[0] // 2, *shape[1:])] * 2
    if "qkv_opreact" in name:
        keys, values = (int(data["hidden_size"] * data[key]) for key in ("qk_dim_factor", "v_dim_factor"))
        return [(rows, shape[1]) for rows in (keys, keys, values, values)]
    return [shape]


def ours(arch: Architecture) -> Counter[tuple[int, ...]]:
    found: Counter[tuple[int, ...]] = Counter()
    for line in lines(arch):
        for shape in line.weights.values():
            found[tuple(n for n in shape if n != 1)] += line.times
    return found


@pytest.mark.parametrize("name", TINY)
def test_small_ones_have_the_shapes_of_the_reference(name: str) -> None:
    data = tiny(name)
    arch = read_config(data)
    assert ours(arch) == theirs(data)
    assert Architecture.from_json(arch.to_json()) == arch


@pytest.mark.parametrize("name", ENTRIES)
def test_published_ones_have_the_shapes_of_the_reference(name: str) -> None:
    data = config(name)
    arch = read_config(data)
    assert ours(arch.replace(encoders=())) == theirs(data)
    counted = source(name)["counted_parameters"]
    others = {
        "gemma-4-26b-a4b": 30 + 2 * 1152,
        "gemma-4-31b": 60 + 2 * 1152,
        "gemma-4-e4b": 42,
        "zaya1-8b": 40 * 17,
        "hrm-text-1b": -1536,
    }
    assert counted
    assert arch.parameters().total == counted + others.get(name, 0)


def test_looped_ones_have_llamas_weights_and_a_few_more() -> None:
    for name, more in (("nanbeige-4.2-3b", 0), ("ouro-2.6b", 48 * 2 * 2048 + 2048 + 1)):
        data = config(name)
        llama = {k: v for k, v in data.items() if k not in ("model_type", "auto_map")} | {"model_type": "llama"}
        counted = sum(p.numel() for p in reference(llama).parameters())
        assert read_config(data).parameters().total == counted + more


def test_active_parameters_are_those_published() -> None:
    """Published without embeddings where they are much of it; ZAYA1's without counting on skipped experts."""
    for name, published, without in (
        ("gemma-4-26b-a4b", 3.8e9, False),
        ("minimax-m1", 45.9e9, True),
    ):
        arch = read_config(config(name))
        table = arch.vocab * arch.width * (2 - arch.head.tied)
        assert abs(arch.parameters().active - without * table - published) < 0.01 * published, name
    zaya = read_config(config("zaya1-8b"))
    skipped = 40 * 3 * 2048 * 2048 / 17  # one of 17 choices is to skip
    assert abs(zaya.parameters().active + skipped - 262272 * 2048 - 760e6) < 0.01 * 760e6


# -- closed forms


def bytes_a_token(arch: Architecture) -> int:
    """As published: each attention layer at full length, in two bytes."""
    kept = (kept for op in arch.ops() for kept in op.keeps(arch.width) if kept.each == "token")
    return 2 * arch.loops * sum(k.numbers for k in kept)


@pytest.mark.parametrize("name", ["gemma-4-26b-a4b", "zaya1-8b", "ouro-2.6b"])
def test_the_state_of_a_token_is_the_published_one(name: str) -> None:
    assert bytes_a_token(read_config(config(name))) == source(name)["state_bytes_per_token"]


def test_gemma_4_keeps_one_tensor_where_keys_are_values() -> None:
    arch, context = read_config(config("gemma-4-26b-a4b")), 5000
    windows = 25 * 1024 * 8 * 256 * 2  # of 30 layers, 25 have a window; keys and values
    assert arch.state_bytes(context) == 2 * (windows + 5 * context * 2 * 512)


def test_gemma_4_shares_keys_and_values_and_widens_what_shares() -> None:
    arch = read_config(tiny("gemma4_text with per-layer inputs"))
    attention = [op for op in arch.ops() if isinstance(op, Attention)]
    assert [op.kv_from for op in attention] == [None, None, None, 2, 1]
    assert [op.inner for op in arch.ops() if op.role == "feed_forward"] == [56, 56, 56, 112, 112]
    assert attention[1].rotary is not None
    assert (attention[1].rotary.dim, attention[1].rotary.turning, attention[1].head_dim) == (20, 2, 20)
    full = attention[1].heads, attention[1].kv_heads
    assert full == (6, 2)  # more groups only where keys are the values
    assert arch.state_bytes(50) == 2 * (2 * 9 * 2 * 2 * 12 + 50 * 2 * 2 * 20)


def test_gemma_4_has_experts_beside_the_dense_layer() -> None:
    arch = read_config(config("gemma-4-26b-a4b"))
    branch = arch.blocks[0].branches[1]
    assert isinstance(branch.op, Parallel)
    glu, moe = branch.op.ops
    assert isinstance(moe, MoE)
    assert (glu.kind, moe.expert.inner, moe.router.active) == ("glu", 704, 8)
    assert math.isclose(moe.router.logit_scale, 2816**-0.5)
    assert set(branch.norms) == {"after", "feed_forward.before", "feed_forward.after", "feed_forward_2.after"}
    d, e, f = 2816, 128, 704
    router = d + e * d + e  # its norm, the matrix, a scale for each expert
    assert moe.parameters(d) == router + d + e * 3 * d * f


def test_gemma_3n_streams_weigh_and_do_what_they_should() -> None:
    arch, n, d = read_config(config("gemma-3n-e4b-text")), 4, 2048
    assert isinstance(arch.stream, AltUp)
    parts = list(arch.stream.parts(d, [3] * 35))
    block = n * d + d + n**3 + n**2 + d  # router and its norm, two rules, the scale of the output
    assert sum(p.times * numbers(p.weights.values()) for p in parts) == 35 * block + 2 * (n - 1) * d * d
    token = 2 * (2 * n * d + n**3 + n**2 + n * n * d + n * d)  # the router twice, both rules, mixing and adding
    assert sum(p.times * p.flops for p in parts) == 35 * token + 2 * 2 * (n - 1) * d * d
    inputs = 262144 * 35 * 256 + 35 * 256 * d + 256  # table, projection, norm
    assert arch.parameters().embedding == 262400 * d + inputs
    assert arch.parameters().total - arch.parameters().active == (262144 - 1) * 35 * 256
    sparse = [op.sparsity for op in arch.ops() if op.kind == "glu"]  # type: ignore[attr-defined]
    assert sparse == [0.95] * 10 + [None] * 25


def test_lightning_attention_keeps_and_does_what_it_should() -> None:
    arch, d, h, k = read_config(config("minimax-m1")), 6144, 64, 128
    mixer = next(op for op in arch.ops() if isinstance(op, LightningAttention))
    assert mixer.parameters(d) == 5 * d * h * k + h * k
    assert mixer.flops(d, 1, 999) == 2 * 5 * d * h * k + h * 4 * k * k
    matrices = 70 * h * k * k * 4
    assert arch.state_bytes(3000) == matrices + 10 * 3000 * 2 * 8 * k * 2
    for branch in arch.blocks[0].branches:
        assert isinstance(branch.residual, ScaledResidual)
        assert branch.residual.normed
        assert math.isclose(branch.residual.scale, (2 * 80) ** 0.25)
    attention = next(op for op in arch.ops() if isinstance(op, Attention))
    assert attention.rotary is not None
    assert attention.rotary.dim == 64  # half of the head


def test_mlstm_keeps_and_does_what_it_should() -> None:
    arch, d, h, k, v = read_config(config("xlstm-7b")), 4096, 8, 256, 512
    mixer = next(arch.ops())
    assert mixer.parameters(d) == 2 * d * h * k + 3 * d * h * v + 2 * (d * h + h) + h * v
    assert mixer.flops(d, 1, 7) == 2 * (2 * d * h * k + 3 * d * h * v + 2 * d * h) + h * (4 * k * v + 2 * k)
    assert arch.state_bytes(10) == arch.state_bytes(10_000) == 32 * h * (k * v + k + 1) * 4


def test_compressed_convolution_keeps_and_does_what_it_should() -> None:
    arch, d, h, g, k = read_config(config("zaya1-8b")), 2048, 8, 2, 128
    mixer = next(arch.ops())
    assert isinstance(mixer, CompressedConvolutionalAttention)
    channels = (h + g) * k
    projections = d * (h * k + g * k + g * k) + h * k * d
    convolutions = channels * 2 + channels + channels * k * 2 + channels
    assert mixer.parameters(d) == projections + convolutions + g
    pairs = 4 * h * k * 1000
    assert mixer.flops(d, 1, 999) == 2 * projections + 2 * channels * (2 + 2 * k) + pairs
    tail = channels * 2 + g * k // 2
    assert arch.state_bytes(300) == 40 * 2 * (300 * 2 * g * k + tail)
    carried = [op.router.mlp.carried for op in arch.ops() if isinstance(op, MoE) and op.router.mlp]
    assert carried == [False] + [True] * 39


def test_loops_repeat_the_stack_and_its_state() -> None:
    arch = read_config(config("ouro-2.6b"))
    once = arch.replace(loops=1, exit_gate=False)
    head, gate = 2 * 2048 * 49152, 2 * 2048
    assert arch.flops(1, 77) - head == 4 * (once.flops(1, 77) - head + gate)
    assert arch.state_bytes(77) == 4 * once.state_bytes(77)
    assert arch.parameters().total == once.parameters().total + 2049


def test_hrm_text_keeps_a_state_for_every_pass() -> None:
    arch = read_config(config("hrm-text-1b"))
    assert arch.objective == Causal(prefix=True)
    assert arch.recursion is not None
    assert (arch.recursion.low_cycles, arch.recursion.high_cycles, arch.recursion.gradient) == (3, 2, (1, 2))
    passes = 2 * (3 + 1) * 16
    assert arch.state_bytes(11) == passes * 11 * 2 * 1536 * 2
    block = 2 * (5 * 1536 * 1536 + 3 * 1536 * 4096)
    assert arch.flops(1, 10) == passes * (block + 4 * 1536 * 11) + 2 * 1536 * 151808


def test_hrm_is_its_two_stacks_and_the_ends() -> None:
    arch = read_config(config("hrm"))
    ends = 2 * 11 * 512 + 512 + 2 * 512 + 2  # two tables, the puzzle's vector, the halting head
    assert arch.parameters().total == 8 * (4 * 512**2 + 3 * 512 * 1536) + ends
    assert source("hrm")["counted_parameters"] == 8 * (4 * 512**2 + 3 * 512 * 1536)


def test_rg_lru_keeps_and_does_what_it_should() -> None:
    arch, d, w, h = read_config({"model_type": "recurrent_gemma"} | GRIFFIN), 2560, 2560, 10
    mixer = next(arch.ops())
    each = w // h
    assert mixer.parameters(d) == 3 * d * w + 2 * w + d + 4 * w + w + w + 2 * (w * each + w)
    assert mixer.flops(d, 1, 7) == 2 * (3 * d * w + 2 * w * each + 4 * w)
    windows = 8 * 2048 * 2 * 256 * 2  # every third of 26 layers, one head of keys and values
    assert arch.state_bytes(100_000) == windows + 18 * (4 * w + 2 * 3 * w)
    assert arch.embedding.scale == 50.5  # sqrt(2560) is 50.596
    published = {"_block_types": ["recurrent", "recurrent", "attention"], "embeddings_scale_by_sqrt_dim": True}
    assert read_config({"model_type": "recurrent_gemma"} | GRIFFIN | published) == arch


# -- what is refused


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("gemma3n_text", {"num_kv_shared_layers": 4}, "leaves a layer type nothing to share"),
        ("gemma3n_text", {"intermediate_size": [56, 60]}, "intermediate_size needs a number, or one for each of the 5"),
        ("gemma3n_text", {"altup_active_idx": 3}, r"active \(3\) must be one of the 3 streams"),
        ("gemma3n_text", {"audio_gain": 2}, "the key 'audio_gain' .* is not understood"),
        (
            "gemma4_text",
            {"use_bidirectional_attention": "all"},
            "'use_bidirectional_attention' is 'all'; only 'vision'",
        ),
        ("gemma4_text", {"num_experts": None}, "the key 'num_experts' is missing"),
        ("minimax", {"shared_intermediate_size": 8}, "'shared_intermediate_size' is 8; only 0"),
        ("minimax", {"attn_type_list": [0, 1, 2, 0, 1]}, "attn_type_list needs 5 entries of 0"),
        ("xlstm", {"use_bias": True}, "'use_bias' is True; only False"),
        ("xlstm", {"num_blocks": 4}, "'num_blocks' is 4; only 3"),
        ("zaya", {"num_experts_per_tok": 2}, "'num_experts_per_tok' is 2; only 1"),
        ("zaya", {"sliding_window": None}, "sliding_window is needed"),
        ("zaya", {"rope_parameters": {"full_attention": {}}}, "rope_parameters holds 'full_attention'"),
        ("recurrent_gemma", {"block_types": ["mamba"]}, r"layer_types\[0\] is 'mamba'; known: 'recurrent'"),
        ("recurrent_gemma", {"lru_width": 55}, r"inner \(55\) must be a multiple of heads \(6\)"),
        ("hrm_text", {"num_layers_per_stack": 2}, "num_hidden_layers is 5, and 3 cycles of 2 [+] 1 passes of 2 layers"),
        ("hrm_text", {"attention_bias": True}, "'attention_bias' is True; only False"),
    ],
)
def test_contradictions_and_unknown_keys_are_named(name: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(LaminaError, match=message):
        read_config(tiny(name) | change)


def test_looped_ones_refuse_what_is_not_known() -> None:
    for name, change, message in (
        ("ouro-2.6b", {"early_exit_threshold": 0.7}, "'early_exit_threshold' is 0.7; only 1.0"),
        ("nanbeige-4.2-3b", {"skip_loop_final_norm": True}, "'skip_loop_final_norm' is True; only False"),
        ("nanbeige-4.2-3b", {"enable_mhc": True}, "the key 'enable_mhc' .* is not understood"),
    ):
        with pytest.raises(LaminaError, match=message):
            read_config(config(name) | change)
