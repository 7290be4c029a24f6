"""DeepSeek V4, read: as the reference builds it, and what its attention costs by hand."""

from __future__ import annotations

import math

import pytest
from shapes import built, numbers, of_ours, of_reference

from lamina.arch import Architecture, Clamp, CompressedAttention, HyperConnections, MoE, Router, YarnScaling
from lamina.arch.bill import lines
from lamina.catalog import config, source
from lamina.errors import LaminaError
from lamina.families import read_config

SLIDING, SPARSE, HEAVY = "sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"
TINY = {  # no two sizes alike
    "model_type": "deepseek_v4",
    "vocab_size": 97,
    "hidden_size": 48,
    "moe_intermediate_size": 20,
    "num_hidden_layers": 5,
    "num_attention_heads": 6,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "q_lora_rank": 22,
    "qk_rope_head_dim": 6,
    "n_routed_experts": 9,
    "num_experts_per_tok": 2,
    "o_groups": 3,
    "o_lora_rank": 10,
    "index_n_heads": 7,
    "index_head_dim": 12,
    "index_topk": 5,
    "sliding_window": 11,
    "hc_mult": 3,
    "compress_ratios": [0, 4, 128, 4, 128, 0],
    "num_hash_layers": 2,
}
NAMED = {k: v for k, v in TINY.items() if k not in ("compress_ratios", "num_hash_layers")} | {
    "layer_types": [HEAVY, SLIDING, SPARSE, HEAVY, SPARSE],
    "mlp_layer_types": ["moe", "hash_moe", "moe", "moe", "moe"],
    "compress_rates": {SPARSE: 2, HEAVY: 8},
}
FLASH = "deepseek-v4-flash"


def flash() -> Architecture:
    return read_config(config(FLASH), FLASH)


@pytest.mark.parametrize("data", [TINY, NAMED, config(FLASH)], ids=["small", "named", FLASH])
def test_every_weight_is_the_references(data: dict) -> None:
    model, arch = built("DeepseekV4ForCausalLM", data), read_config(data)
    state = of_reference(model)
    assert of_ours(arch) == state
    assert arch.parameters().total == numbers(state)


@pytest.mark.parametrize("data", [TINY, NAMED], ids=["small", "named"])
def test_what_the_reference_saves_says_the_same(data: dict) -> None:
    model = built("DeepseekV4ForCausalLM", data)
    assert read_config(model.config.to_dict()) == read_config(data)


def test_the_catalogs_counts() -> None:
    """Without routing corrections, of 40 layers: the first three choose by token id, and have none."""
    arch, facts = flash(), source(FLASH)
    assert arch.parameters().total - 40 * 256 == facts["counted_parameters"]
    assert math.isclose(arch.parameters().active - 129280 * 4096, 13e9, rel_tol=0.03), "published: 13B"
    a_token = 21 * 512 * 2 / 4 + 20 * 512 * 2 / 128  # entries alone, as published: 5.4 KiB
    index = 21 * 128 * 2 / 4
    assert round(a_token / 1024, 1) == round(facts["state_bytes_per_token"] / 1024, 1)
    assert arch.state_bytes(2048) - arch.state_bytes(1024) == 1024 * (a_token + index)


def test_what_it_says_of_its_arithmetic() -> None:
    arch = flash()
    plain, sparse, heavy = (arch.blocks[i].branches[0].op for i in (0, 2, 3))
    assert (plain.compressor, plain.rotary.base, plain.rotary.scaling) == (None, 10000.0, None)
    assert (sparse.compressor.stride, sparse.compressor.overlap, sparse.indexer.top_k) == (4, True, 512)
    assert (heavy.compressor.stride, heavy.compressor.overlap, heavy.indexer) == (128, False, None)
    for op in (sparse, heavy):
        assert (op.rotary.base, op.rotary.dim, op.rotary.layout) == (160000.0, 64, "interleaved")
        assert isinstance(op.rotary.scaling, YarnScaling)
        assert op.rotary.scaling.attention_factor == 1.0
    by_id, by_score = (next(op for op in arch.blocks[i].ops() if isinstance(op, MoE)) for i in (2, 3))
    shared = {"experts": 256, "active": 6, "score": "sqrt_softplus", "scale": 1.5}
    assert by_score.router == Router(**shared, correction=True)
    assert by_id.router == Router(**shared, hashed=True)
    assert by_score.expert.clamp == by_score.shared.clamp == Clamp(limit=10.0)
    stream = arch.stream
    assert isinstance(stream, HyperConnections)
    assert (stream.count, stream.iterations, stream.eps) == (4, 20, 1e-6)
    assert not stream.norm.weight
    assert not stream.norm.weights(4)


def test_attention_to_entries_by_hand() -> None:
    """One more token after 1000, and a prompt: whole runs of four are seen, the best five of them at most."""
    arch = read_config(TINY)
    op = arch.blocks[1].branches[0].op
    assert isinstance(op, CompressedAttention)
    d, heads, k = 48, 6, 16
    products = d * 22 + 22 * heads * k + d * k + 3 * 10 * (heads * k // 3) + 30 * d
    products += 2 * d * 2 * k + (22 * 7 * 12 + d * 7 + 2 * d * 2 * 12)
    one = 2 * products + 4 * heads * k * (11 + 5) + 2 * 7 * (12 + 1) * (1001 // 4)
    assert op.flops(d, 1, 1000) == one
    window = sum(min(p + 1, 11) for p in range(37))
    chosen = sum(min((p + 1) // 4, 5) for p in range(37))
    scored = sum((p + 1) // 4 for p in range(37))
    prompt = 37 * 2 * products + 4 * heads * k * (window + chosen) + 2 * 7 * (12 + 1) * scored
    assert op.flops(d, 37, 0) == prompt
    pending = 3 * 2 * (16 + 12) * 4
    assert op.state_bytes(d, 39, 2) == 2 * (11 * 16 + 9 * 16 + 9 * 12) + pending


def test_hyper_connections_by_hand() -> None:
    arch = read_config(TINY)
    of_stream = [line for line in lines(arch) if line.path.startswith("stream.")]
    n, d, branches = 3, 48, 10
    made = 2 * n + n * n
    assert sum(line.parameters for line in of_stream) == branches * (made * n * d + made + 3) + (n * n * d + n + 1)
    flops = branches * 2 * (made * n * d + (2 * n + n * n) * d) + 2 * (n * n * d + n * d)
    assert arch.flops(1) - arch.replace(stream=None).flops(1) == flops
    assert Architecture.from_json(arch.to_json()) == arch


WRONG = {
    "compress_ratios needs 5 entries, each of 0, 4, 128": TINY | {"compress_ratios": [0, 4, 8, 4, 4]},
    "layer_types and compress_ratios disagree": TINY | {"layer_types": [SLIDING] * 5},
    "'num_key_value_heads' is 2": TINY | {"num_key_value_heads": 2},
    "compress_rates: the key 'sliding_attention'": TINY | {"compress_rates": {SLIDING: 1}},
    "heads (6) must be a multiple of output_groups (4)": TINY | {"o_groups": 4},
    "'hc_sinkhorn_iters' is 1000000000; a whole number from 1 to 1000": TINY | {"hc_sinkhorn_iters": 10**9},
    "'norm_topk_prob' is False": TINY | {"norm_topk_prob": False},
    "the key 'index_skip' (2) is not understood": TINY | {"index_skip": 2},
}


@pytest.mark.parametrize("message", WRONG)
def test_configs_that_contradict_themselves(message: str) -> None:
    with pytest.raises(LaminaError) as error:
        read_config(WRONG[message])
    assert message in str(error.value)
