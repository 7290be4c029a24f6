"""Hybrids and recurrent models, read: Qwen3-Next to Qwen4-Exp, OLMo Hybrid, LFM, Nemotron-H, Granite 4, Mamba.

The reference is built on the meta device, its text part alone. Routing biases, which it keeps as buffers, count here
as ours do; hash numbers of Qwen4-Exp's n-gram memory, which follow from the config, do not.
"""

from __future__ import annotations

import copy
import json
import math
from collections import Counter
from typing import Any

import pytest
import torch
import transformers

from lamina.arch import (
    Architecture,
    Attention,
    GatedDeltaNet,
    GatedStreams,
    Mamba,
    Mamba2,
    MoE,
    Parallel,
    PooledIndexer,
    ShortConvolution,
)
from lamina.arch.bill import lines
from lamina.arch.ngram_memory import primes
from lamina.catalog import config, source
from lamina.errors import LaminaError
from lamina.families import read_config

HASHES = ("layer_multipliers", "ngram_heads_vocab_sizes", "ngram_heads_offsets")
SMALL: dict[str, Any] = {  # no two sizes alike
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_hidden_layers": 5,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
DELTA = {"linear_num_key_heads": 2, "linear_num_value_heads": 6, "linear_key_head_dim": 10, "linear_value_head_dim": 14}
DELTA |= {"linear_conv_kernel_dim": 3}
EXPERTS = {"num_experts": 7, "num_experts_per_tok": 3, "moe_intermediate_size": 20}
SHARED = {"shared_expert_intermediate_size": 28}
MAMBA2 = {"mamba_n_heads": 12, "mamba_d_state": 9, "mamba_n_groups": 3, "mamba_d_conv": 5, "mamba_proj_bias": True}
TINY: dict[str, dict[str, Any]] = {
    "qwen3_next": SMALL | DELTA | EXPERTS | SHARED | {"head_dim": 16, "mlp_only_layers": [1]}
    | {"full_attention_interval": 3},
    "qwen3_5_text": SMALL | DELTA | {"head_dim": 16, "tie_word_embeddings": True},
    "qwen3_5_moe_text": SMALL | DELTA | EXPERTS | SHARED | {"head_dim": 16},
    "qwen4_exp_text": SMALL | DELTA | EXPERTS | SHARED | {"head_dim": 16, "hc_count": 3, "hc_lowrank": 11}
    | {"indexer_n_heads": 5, "indexer_kv_heads": 1, "indexer_head_dim": 18, "indexer_budget": 12}
    | {"indexer_compress_ratio": 3, "ple_layer_ids": [3, 1], "ple_embed_dim": 24, "ngram_size": 4}
    | {"heads_per_ngram": 2, "ngram_vocab_size_base": 30, "make_ngram_vocab_size_divisible_by": 16}
    | {"output_gate_type": "sigmoid", "rope_parameters": {"rope_theta": 1e6, "partial_rotary_factor": 0.25}},
    "olmo_hybrid": SMALL | DELTA | {"attention_bias": True},
    "lfm2": SMALL | {"intermediate_size": 300, "full_attn_idxs": [1, 3], "conv_L_cache": 5, "conv_bias": True}
    | {"block_multiple_of": 24},
    "lfm2_moe": SMALL | EXPERTS | {"conv_bias": True, "num_dense_layers": 1}
    | {"layer_types": ["conv", "conv", "full_attention", "conv", "full_attention"]},
    "lfm3": SMALL | {"head_dim": 12, "conv_bias": True, "attention_bias": True, "bos_token_id": 1},
    "nemotron_h": {k: v for k, v in SMALL.items() if k != "num_hidden_layers"}
    | {"hybrid_override_pattern": "ME*-M*E", "head_dim": 12, "ssm_state_size": 9, "mamba_num_heads": 6}
    | {"mamba_head_dim": 10, "n_groups": 3, "n_routed_experts": 7, "num_experts_per_tok": 3, "moe_latent_size": 16}
    | {"moe_intermediate_size": 20, "moe_shared_expert_intermediate_size": 28, "use_bias": True},
    "granitemoehybrid": SMALL | MAMBA2 | {"num_local_experts": 7, "num_experts_per_tok": 3}
    | {"shared_intermediate_size": 28, "attention_bias": True, "position_embedding_type": "rope"}
    | {"layer_types": ["mamba", "attention", "mamba", "mamba", "attention"]},
    "bamba": SMALL | MAMBA2 | {"attn_layer_indices": [1, 3], "attention_bias": True, "mlp_bias": True},
    "falcon_h1": SMALL | MAMBA2 | {"mamba_d_ssm": 60, "head_dim": 14, "mamba_rms_norm": True, "projectors_bias": True}
    | {"mlp_bias": True, "ssm_multipliers": [0.5, 0.6, 0.7, 0.8, 0.9], "mlp_multipliers": [0.4, 0.3]}
    | {"key_multiplier": 0.2, "attention_in_multiplier": 1.5, "attention_out_multiplier": 0.25},
    "jamba": SMALL | {"num_experts": 4, "attn_layer_period": 3, "attn_layer_offset": 1, "mamba_d_state": 9}
    | {"mamba_dt_rank": 7, "mamba_proj_bias": True},
    "mamba": {"vocab_size": 97, "hidden_size": 48, "state_size": 9, "num_hidden_layers": 3, "expand": 3}
    | {"use_bias": True, "time_step_rank": 7},
    "falcon_mamba": {"vocab_size": 97, "hidden_size": 48, "state_size": 9, "num_hidden_layers": 3}
    | {"tie_word_embeddings": False},
    "mamba2": {"vocab_size": 97, "hidden_size": 48, "state_size": 9, "num_hidden_layers": 3, "num_heads": 12}
    | {"head_dim": 8, "n_groups": 3, "use_bias": True},
}  # fmt: skip
ENTRIES = {  # and the biases of routing among the parameters: blocks with experts times experts
    "qwen3-next-80b-a3b": 0,
    "qwen3.5-35b-a3b": 0,
    "qwen3.5-122b-a10b": 0,
    "qwen3.5-397b-a17b": 0,
    "qwen3.6-35b-a3b": 0,
    "qwen3.8-27b": 0,
    "qwen3.8-max": 0,
    "qwen3.8-flash-next": 0,
    "olmo-hybrid-7b": 0,
    "lfm2-8b-a1b": 22 * 32,
    "lfm3-1.7b": 0,
    "nemotron-3-nano-30b-a3b": 23 * 128,
    "nemotron-3-super-120b-a12b": 40 * 512,
    "nemotron-3.5-lightning-30b-a3b": 23 * 128,
    "granite-4.0-h-tiny": 0,
}


def tiny(name: str, **more: Any) -> dict[str, Any]:
    return {"model_type": name} | copy.deepcopy(TINY[name]) | more


def reference(data: dict[str, Any]) -> torch.nn.Module:
    """The reference's causal text decoder, without memory."""
    kept = {k: v for k, v in copy.deepcopy(data).items() if k != "quantization_config"}
    text = transformers.AutoConfig.for_model(**kept).get_text_config()
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(text)


def rows(found: Counter[tuple[int, ...]], shape: tuple[int, ...], times: int = 1) -> None:
    """Adds the rows of a weight to those of its width, so that it does not matter which matrices are packed in one."""
    if len(shape) == 1:
        found[(-1, *shape)] += times
    else:
        found[(*shape[:-2], shape[-1])] += times * shape[-2]


def theirs(model: torch.nn.Module) -> Counter[tuple[int, ...]]:
    found: Counter[tuple[int, ...]] = Counter()
    tied = model.config.tie_word_embeddings
    for name, tensor in model.state_dict().items():
        if not name.endswith(HASHES) and not (tied and name == "lm_head.weight"):
            rows(found, tuple(tensor.shape))
    return found


def ours(arch: Architecture) -> Counter[tuple[int, ...]]:
    found: Counter[tuple[int, ...]] = Counter()
    for line in lines(arch):
        for shape in line.weights.values():
            rows(found, shape, line.times)
    return found


@pytest.mark.parametrize("name", TINY)
def test_small_ones_have_the_weights_of_the_reference(name: str) -> None:
    arch, model = read_config(tiny(name)), reference(tiny(name))
    assert ours(arch) == theirs(model)
    assert Architecture.from_json(arch.to_json()) == arch
    written = json.loads(model.config.to_json_string(use_diff=False))  # with every default of the reference
    assert read_config(written) == arch


@pytest.mark.parametrize("name", ENTRIES)
def test_published_ones_have_the_weights_of_the_reference(name: str) -> None:
    arch = read_config(config(name))
    assert ours(arch.replace(encoders=())) == theirs(reference(config(name)))
    assert arch.parameters().total == source(name)["counted_parameters"] + ENTRIES[name]


def bytes_a_token(arch: Architecture) -> int:
    """As published: attention at full length in two bytes, indexer keys left out."""
    kept = (kept for op in arch.ops() for kept in op.keeps(arch.width))
    return 2 * sum(k.numbers for k in kept if k.each == "token" and k.kind != "index")


@pytest.mark.parametrize("name", [name for name in ENTRIES if source(name)["state_bytes_per_token"]])
def test_the_state_of_a_token_is_the_published_one(name: str) -> None:
    assert bytes_a_token(read_config(config(name))) == source(name)["state_bytes_per_token"]


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("qwen3.5-122b-a10b", 10e9),
        ("qwen3.5-397b-a17b", 17e9),
        ("qwen3.8-max", 95e9),
        ("lfm2-8b-a1b", 1.5e9),
        ("nemotron-3-super-120b-a12b", 12e9),
    ],
)
def test_active_parameters_are_those_published(name: str, published: float) -> None:
    """Published with the embedding or without it."""
    arch = read_config(config(name))
    active, table = arch.parameters().active, arch.vocab * arch.width
    assert min(abs(active - published), abs(active - table - published)) < 0.04 * published


# -- Gated DeltaNet


def test_gated_deltanet_weighs_keeps_and_does_what_it_should() -> None:
    arch, d, h, g, k, v = read_config(config("qwen3-next-80b-a3b")), 2048, 32, 16, 128, 128
    net = next(op for op in arch.ops() if isinstance(op, GatedDeltaNet))
    channels = 2 * g * k + h * v
    maps = d * (channels + h * v + 2 * h) + h * v * d  # q, k, v, gate, step and decay; out
    assert net.parameters(d) == maps + 4 * channels + 2 * h + v
    assert net.flops(d, 1, 9999) == 2 * maps + 2 * 4 * channels + h * 6 * k * v
    attention = 12 * 2 * 2 * 256 * 2  # keys and values of two heads in bfloat16
    recurrent = 36 * (h * k * v * 4 + 3 * channels * 2)
    assert arch.state_bytes(0) == recurrent
    assert arch.state_bytes(5000) == recurrent + 5000 * attention


def test_qwen_next_is_arranged_as_published() -> None:
    arch = read_config(config("qwen3-next-80b-a3b"))
    kinds = [next(block.ops()).kind for block in arch.blocks]
    assert kinds == (["gated_deltanet"] * 3 + ["attention"]) * 12
    attention = next(op for op in arch.ops() if isinstance(op, Attention))
    assert attention.rotary is not None
    assert attention.qk_norm is not None
    assert (attention.gate, attention.rotary.dim, attention.rotary.base) == ("elementwise", 64, 1e7)
    norms = [*(branch.before for branch in arch.blocks[0].branches), arch.norm, attention.qk_norm.norm]
    assert {norm.offset for norm in norms if norm} == {1.0}
    net = next(op for op in arch.ops() if isinstance(op, GatedDeltaNet))
    assert (net.norm.offset, net.gate) == (0.0, "silu")
    assert read_config(tiny("qwen3_next", norm_topk_prob=False)).blocks[0].branches[1].op.router.normalise is False


def test_olmo_hybrid_has_no_positions_and_two_places_for_norms() -> None:
    arch = read_config(config("olmo-hybrid-7b"))
    linear, full = arch.blocks[2], arch.blocks[3]
    assert [set(branch.norms) for branch in (*linear.branches, *full.branches)] == [{"before"}] * 2 + [{"after"}] * 2
    net, attention = next(linear.ops()), next(full.ops())
    assert isinstance(net, GatedDeltaNet)
    assert isinstance(attention, Attention)
    assert (net.negative_eigenvalues, net.norm.eps, net.key_dim, net.value_dim) == (True, 1e-5, 96, 192)
    assert attention.rotary is None
    assert attention.qk_norm is not None
    assert attention.qk_norm.over == "width"
    assert next(read_config(tiny("olmo_hybrid", rope_theta=None)).blocks[3].ops()).rotary is None
    assert next(read_config(tiny("olmo_hybrid")).blocks[3].ops()).rotary is not None


# -- Qwen4-Exp


def test_an_n_gram_memory_has_as_many_rows_as_primes_say() -> None:
    assert primes(30, 4) == (31, 37, 41, 43)
    arch, d, n, e = read_config(config("qwen3.8-flash-next")), 2560, 4, 2560
    assert isinstance(arch.stream, GatedStreams)
    memory = arch.stream.memory
    assert memory is not None
    first = primes(20_000_000, 16)
    table = -(-sum(first) // 128) * 128 * 160
    maps = e * n * d + e * d
    weights = memory.weights(d, n, 0)
    line = next(line for line in lines(arch) if line.path == "stream.memory before blocks[1]")
    assert line.parameters == table + maps + 4 * n * d + 3 * n * d
    assert line.parameters - line.active == table - e
    assert line.flops(1, 99, causal=True) == 2 * maps + 2 * 4 * n * d
    assert line.state_bytes(99, 2) == 3 * 3 * n * d * 2 + 2 * 8  # nine inputs of the convolution, two tokens
    assert memory.weights(d, n, 1)["table"] != weights["table"]  # the next block's primes are the next ones


def test_gated_streams_and_a_pooled_indexer_weigh_and_do_what_they_should() -> None:
    arch, d, n, r = read_config(config("qwen3.8-flash-next")), 2560, 4, 320
    assert isinstance(arch.stream, GatedStreams)
    connections, joining, _ = arch.stream.parts(d, [2] * 48)
    reading = 2 * n * d * r
    assert sum(math.prod(shape) for shape in joining.weights.values()) == reading + n * d
    assert sum(math.prod(shape) for shape in connections.weights.values()) == reading + n * d + n * n * d
    assert (connections.times, connections.flops) == (96, 2 * (reading + n * n * d))
    attention = next(op for op in arch.ops() if isinstance(op, Attention))
    assert isinstance(attention.blocks, PooledIndexer)
    assert attention.blocks.reach == 2048 + 3
    pairs = 2 * 24 * 2 * 256 * 2051 + 2 * 4 * 128 * (10_001 // 4)  # chosen keys; scores of whole pools
    maps = d * (2 * 24 * 256 + 2 * 2 * 256) + 24 * 256 * d + d * 5 * 128
    assert attention.flops(d, 1, 10_000) == 2 * maps + pairs
    assert attention.state_bytes(d, 10_001, 2) == 2 * (10_001 * 2 * 2 * 256 + 2500 * 128 + 128)
    assert arch.norm is None
    assert not any(branch.norms for block in arch.blocks for branch in block.branches)


# -- LFM


def test_a_short_convolution_keeps_its_last_inputs() -> None:
    arch, d = read_config(config("lfm2-8b-a1b")), 2048
    mixer = next(arch.ops())
    assert isinstance(mixer, ShortConvolution)
    assert mixer.parameters(d) == 4 * d * d + 3 * d
    assert mixer.flops(d, 1, 7) == 2 * 4 * d * d + 2 * 3 * d
    assert arch.state_bytes(1000) == 18 * 2 * d * 2 + 6 * 1000 * 2 * 8 * 64 * 2


def test_lfm_inner_widths_gates_and_positions() -> None:
    assert read_config(tiny("lfm2")).blocks[0].branches[1].op.inner == 216  # 2/3 of 300, up to a multiple of 24
    assert read_config(tiny("lfm2", block_auto_adjust_ff_dim=False)).blocks[0].branches[1].op.inner == 300
    moe = read_config(config("lfm2-8b-a1b")).blocks[2].branches[1].op
    assert isinstance(moe, MoE)
    assert (moe.router.score, moe.router.correction, moe.router.normalise, moe.shared) == ("sigmoid", True, True, None)
    arch = read_config(config("lfm3-1.7b"))
    attention = [op for op in arch.ops() if isinstance(op, Attention)]
    assert [op.window for op in attention] == [None, 256] * 5 + [None]
    turning = {op.window: op.rotary and (op.rotary.base, op.rotary.dim, op.rotary.turning) for op in attention}
    assert turning == {None: (1e6, 128, 32), 256: (1e4, 128, None)}
    assert {op.gate for op in attention} == {"head"}
    assert all(set(branch.norms) == {"before", "after"} for block in arch.blocks for branch in block.branches)


# -- Mamba


def test_mamba2_weighs_keeps_and_does_what_it_should() -> None:
    arch, d, h, p, n, g = read_config(config("nemotron-3-super-120b-a12b")), 4096, 128, 64, 128, 8
    mixer = next(op for op in arch.ops() if isinstance(op, Mamba2))
    inner, channels = h * p, h * p + 2 * g * n
    maps = d * (inner + channels + h) + inner * d
    assert mixer.parameters(d) == maps + 5 * channels + 3 * h + inner
    assert mixer.flops(d, 1, 9999) == 2 * maps + 2 * 4 * channels + 4 * inner * n
    assert (mixer.norm_groups, mixer.norm_first, mixer.step_min) == (8, False, 0.001)
    assert arch.state_bytes(0) == 40 * (inner * n * 4 + 3 * channels * 2)
    kinds = Counter(op.kind for op in arch.ops())
    assert kinds == {"mamba2": 40, "moe": 40, "attention": 8}
    moe = next(op for op in arch.ops() if isinstance(op, MoE))
    assert moe.latent == 1024
    assert moe.one_expert(d) == 2 * 1024 * 2688
    assert (moe.expert.activation, moe.router.scale, moe.shared and moe.shared.inner) == ("relu2", 5.0, 5376)


def test_mamba_weighs_keeps_and_does_what_it_should() -> None:
    arch, d, f, n, r = read_config(tiny("mamba")), 48, 144, 9, 7
    mixer = next(arch.ops())
    assert isinstance(mixer, Mamba)
    maps = 2 * f * d + f * (r + 2 * n) + r * f + f * d
    assert mixer.parameters(d) == maps + (2 * f + d) + f + (4 * f + f) + f * n + f  # biases, convolution, decay, skip
    assert mixer.flops(d, 1, 9) == 2 * maps + 2 * 4 * f + 4 * f * n
    assert arch.state_bytes(1000) == 3 * (f * n * 4 + 3 * f * 2)
    falcon = next(read_config(tiny("falcon_mamba")).ops())
    assert isinstance(falcon, Mamba)
    assert falcon.norms is not None
    assert falcon.norms.weight is False


def test_what_published_configs_say_besides() -> None:
    """Falcon-Mamba 7B has an `expand` of 16 beside an inner width of twice its own, which is what counts."""
    says = {"expand": 16, "intermediate_size": 96, "time_step_rank": 5}
    falcon = read_config(tiny("falcon_mamba", **says))
    assert [(op.inner, op.rank) for op in falcon.ops() if isinstance(op, Mamba)] == [(96, 5)] * 3
    assert ours(falcon) == theirs(reference(tiny("falcon_mamba", **says)))
    dense = read_config(tiny("jamba", num_experts=1))  # and two active ones, where no key says how many
    assert {op.kind for op in dense.ops()} == {"mamba", "attention", "glu"}
    assert ours(dense) == theirs(reference(tiny("jamba", num_experts=1)))


def test_multipliers_of_falcon_h1_are_folded_where_maps_are_linear() -> None:
    arch = read_config(tiny("falcon_h1", mamba_proj_bias=False, ssm_in_multiplier=2.0, ssm_out_multiplier=0.75))
    both, feed_forward = arch.blocks[0].branches
    assert isinstance(both.op, Parallel)
    mamba, attention = both.op.ops
    assert mamba.multipliers == (1.0, 1.2, 1.4, 1.6, 1.8)
    assert math.isclose(attention.scale, 14**-0.5 * 1.5**2 * 0.2)
    assert both.op.multipliers == (0.75, 1.5 * 0.25)
    assert (feed_forward.op.gate_multiplier, feed_forward.multiplier) == (0.4, 0.3)
    plain = read_config(tiny("falcon_h1", mamba_rms_norm=False)).blocks[0].branches[0].op.ops[0]
    assert plain.norm is None


def test_granite_and_jamba_are_arranged_as_published() -> None:
    arch = read_config(config("granite-4.0-h-tiny"))
    assert [i for i, block in enumerate(arch.blocks) if isinstance(next(block.ops()), Attention)] == [5, 15, 25, 35]
    attention = next(op for op in arch.ops() if isinstance(op, Attention))
    assert (attention.rotary, attention.scale, arch.embedding.scale) == (None, 0.0078125, 12.0)
    assert math.isclose(arch.head.scale, 1 / 6)
    assert {branch.multiplier for block in arch.blocks for branch in block.branches} == {0.22}
    jamba = read_config(tiny("jamba"))
    ops = [tuple(op.kind for op in block.ops()) for block in jamba.blocks]
    assert ops == [("mamba", "glu"), ("attention", "moe"), ("mamba", "glu"), ("mamba", "moe"), ("attention", "glu")]
    assert jamba.blocks[1].branches[1].op.router.normalise is False
    dense = read_config(tiny("granitemoehybrid", num_local_experts=0))
    assert {op.kind for op in dense.ops()} == {"mamba2", "attention", "glu"}


# -- what is not understood


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("qwen3_next", {"attn_output_gate": False}, "'attn_output_gate' is False; only True is known"),
        ("qwen3_next", {"linear_num_value_heads": 5}, r"value_heads \(5\) must be a multiple of key_heads \(2\)"),
        ("qwen3_5_text", {"linear_gate": "none"}, "the key 'linear_gate' .* is not understood"),
        ("qwen3_5_moe_text", {"mamba_ssm_dtype": "bfloat16"}, "only 'float32' is known"),
        ("qwen4_exp_text", {"ple_layer_ids": [4]}, "ple_layer_ids holds 4, which is no layer of linear_attention"),
        ("qwen4_exp_text", {"indexer_budget": 10}, r"indexer_budget \(10\) must be a multiple"),
        ("olmo_hybrid", {"layer_types": ["conv"] * 5}, r"layer_types\[0\] is 'conv'"),
        ("lfm2", {"tie_embedding": True, "tie_word_embeddings": False}, "'tie_word_embeddings' is False; only True"),
        ("lfm2", {"conv_dim": 40}, "'conv_dim' is 40; only 48 is known"),
        ("lfm3", {"rope_parameters": {"full_attention": {}}}, "says nothing of sliding_attention"),
        ("nemotron_h", {"num_hidden_layers": 9}, "hybrid_override_pattern has 7 entries for 9 layers"),
        ("nemotron_h", {"hybrid_override_pattern": "MX"}, r"hybrid_override_pattern\[1\] is 'X'"),
        ("nemotron_h", {"tie_word_embeddings": True}, "'tie_word_embeddings' is True; only False is known"),
        ("nemotron_h", {"layers_block_type": ["mamba"]}, "layers_block_type and hybrid_override_pattern disagree"),
        ("granitemoehybrid", {"mamba_d_head": 9}, r"mamba_n_heads \(12\) of mamba_d_head \(9\) must make 96"),
        ("granitemoehybrid", {"time_step_limit": [0.0]}, "time_step_limit needs two numbers"),
        ("falcon_h1", {"mlp_multipliers": [1.0]}, "mlp_multipliers needs 2 numbers"),
        ("falcon_h1", {"attention_bias": True}, "attention_bias beside multipliers on attention is not known"),
        ("jamba", {"attn_layer_offset": 3}, r"attn_layer_offset \(3\) must be below attn_layer_period \(3\)"),
        ("mamba", {"d_inner": 100}, "'d_inner' is 100; only 144 is known"),
        ("mamba2", {"head_dim": 9}, r"num_heads \(12\) of head_dim \(9\) must make expand \* hidden_size"),
    ],
)
def test_what_contradicts_itself_or_is_not_understood_is_said(name: str, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(LaminaError, match=message):
        read_config(tiny(name, **wrong))
