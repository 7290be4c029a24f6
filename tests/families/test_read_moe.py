"""Families of softmax attention and experts, read: weights, angles and costs as the reference has them.

The reference is built on the meta device. It keeps most routing corrections as persistent buffers; they are learned
and shipped, so they count here, and catalog totals counted without buffers differ by so much.
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

from lamina.arch import Architecture, Attention, BlockIndexer, Clamp, LengthTemperature, MoE, QKNorm, RMSNorm, Router
from lamina.arch.bill import lines
from lamina.catalog import config, source
from lamina.errors import LaminaError
from lamina.families import read_config
from lamina.ops.rotary import frequencies
from tests.families import shapes

ENTRIES = [
    *("qwen3-235b-a22b", "qwen3-30b-a3b", "gpt-oss-20b", "gpt-oss-120b", "glm-4.5", "glm-4.5-air", "sarvam-30b"),
    *("minimax-m2.5", "minimax-m3", "llama-4-maverick", "llama-4-scout", "trinity-large", "mimo-v2-flash"),
]
SMALL = shapes.SMALL | {"num_experts_per_tok": 3}
FEW = SMALL | {"num_local_experts": 5}
PLAIN = {key: value for key, value in SMALL.items() if key != "head_dim"} | {"hidden_size": 48, "num_experts": 7}
ROUTED = SMALL | {"moe_intermediate_size": 20, "n_routed_experts": 8}
SPARSE_M3 = {"index_n_heads": 2, "index_head_dim": 16, "index_block_size": 4, "index_topk_blocks": 3}
TINY: dict[str, dict[str, Any]] = {
    "mixtral": FEW | {"sliding_window": 9},
    "qwen2_moe": PLAIN
    | {"moe_intermediate_size": 20, "shared_expert_intermediate_size": 28, "decoder_sparse_step": 2}
    | {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 3},
    "qwen3_moe": SMALL
    | {"num_experts": 7, "moe_intermediate_size": 20, "mlp_only_layers": [1], "attention_bias": True}
    | {"use_sliding_window": True, "sliding_window": 11},
    "gpt_oss": FEW | {"sliding_window": 9},
    "glm4_moe": ROUTED
    | {"n_group": 4, "topk_group": 2, "n_shared_experts": 3, "first_k_dense_replace": 2, "use_qk_norm": True}
    | {"attention_bias": True, "routed_scaling_factor": 2.5},
    "dots1": ROUTED | {"n_shared_experts": 2, "first_k_dense_replace": 1, "sliding_window": 9, "max_window_layers": 3},
    "minimax_m2": FEW | {"rotary_dim": 6},
    "minimax_m3_vl_text": FEW
    | SPARSE_M3
    | {"dense_intermediate_size": 64, "shared_intermediate_size": 36, "partial_rotary_factor": 0.5, "rotary_dim": 6}
    | {"moe_layer_freq": [0, 1, 1, 0, 1], "layer_types": ["full_attention", *["minimax_m3_sparse"] * 4]},
    "llama4_text": FEW | {"intermediate_size_mlp": 64, "interleave_moe_layer_step": 2, "attention_chunk_size": 7},
    "afmoe": SMALL
    | {"num_experts": 7, "moe_intermediate_size": 20, "num_shared_experts": 3, "num_dense_layers": 2}
    | {"sliding_window": 9, "mup_enabled": True, "route_scale": 2.5},
    "mimo_v2_flash": ROUTED | {"num_attention_heads": 8, "v_head_dim": 10, "attention_bias": True},
    "olmoe": PLAIN | {"attention_bias": True},
    "ernie4_5_moe": {key: value for key, value in SMALL.items() if key != "num_experts_per_tok"}
    | {"moe_num_experts": 7, "moe_k": 3, "moe_num_shared_experts": 3, "moe_intermediate_size": 20, "use_bias": True}
    | {"moe_layer_end_index": 3},
    "granitemoe": FEW
    | {"attention_multiplier": 0.2, "residual_multiplier": 0.3, "embedding_multiplier": 5.0, "logits_scaling": 4.0},
    "phimoe": {k: v for k, v in PLAIN.items() if k != "num_experts"}
    | {"num_local_experts": 5, "lm_head_bias": True, "attention_bias": True, "num_experts_per_tok": 2},
}
TRANSPOSED = ("gpt_oss", "llama4_text")  # columns first, in the reference's experts


def text_config(data: dict[str, Any]) -> Any:
    """The reference's config of the text decoder."""
    kept = {key: value for key, value in copy.deepcopy(data).items() if key not in ("quantization_config", "auto_map")}
    return transformers.AutoConfig.for_model(**kept).get_text_config()


def reference(data: dict[str, Any]) -> Any:
    """The reference's causal text decoder, without memory."""
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(text_config(data))


def theirs(data: dict[str, Any]) -> Counter[tuple[int, ...]]:
    """Shapes of the reference's weights, how often each: gate and up, which it packs, taken apart."""
    model, found = reference(data), Counter[tuple[int, ...]]()
    tied = model.config.tie_word_embeddings
    for name, tensor in model.state_dict().items():
        shape = tuple(n for n in tensor.shape if n != 1)
        if len(shape) == 3 and model.config.model_type in TRANSPOSED:
            shape = (shape[0], shape[2], shape[1])
        if "gate_up_proj" in name:
            axis = 0 if len(shape) == 2 and "bias" not in name else 1
            shape = tuple(n // 2 if i == axis else n for i, n in enumerate(shape))
        if not (tied and name == "lm_head.weight"):
            found[shape] += 2 if "gate_up_proj" in name else 1
    return found


def ours(arch: Architecture) -> Counter[tuple[int, ...]]:
    found: Counter[tuple[int, ...]] = Counter()
    for line in lines(arch):
        for shape in line.weights.values():
            found[tuple(n for n in shape if n != 1)] += line.times
    return found


def entry(name: str) -> Architecture:
    """Its text decoder; tests/families/test_read_encoders.py compares what stands beside it."""
    return read_config(config(name), name).replace(encoders=())


def tiny(kind: str, **changed: Any) -> Architecture:
    return read_config({"model_type": kind, **TINY[kind], **changed})


def attention(arch: Architecture, block: int = 0) -> Attention:
    return next(op for op in arch.blocks[block].ops() if isinstance(op, Attention))


def experts(arch: Architecture) -> MoE:
    return next(op for op in arch.ops() if isinstance(op, MoE))


@pytest.mark.parametrize("name", ENTRIES)
def test_every_weight_of_a_catalog_entry_is_the_references(name: str) -> None:
    arch, found = entry(name), theirs(config(name))
    assert ours(arch) == found
    assert arch.parameters().total == sum(times * math.prod(shape) for shape, times in found.items())


@pytest.mark.parametrize("name", [name for name in ENTRIES if name != "minimax-m3"])
def test_the_catalogs_count_is_without_buffers(name: str) -> None:
    moe = [op for op in entry(name).ops() if isinstance(op, MoE)]
    buffers = sum(op.router.experts for op in moe if op.router.correction and entry(name).family != "trinity")
    whole = read_config(config(name))  # with encoders
    assert whole.parameters().total - buffers == source(name)["counted_parameters"]


@pytest.mark.parametrize("kind", TINY)
def test_every_weight_of_small_models_is_the_references(kind: str) -> None:
    assert ours(tiny(kind)) == theirs({"model_type": kind, **TINY[kind]})


@pytest.mark.parametrize("kind", TINY)
def test_what_the_reference_saves_reads_the_same(kind: str) -> None:
    """Its defaults, written out, are ours; but it speaks of layers for later tokens that it never makes."""
    saved = text_config({"model_type": kind, **TINY[kind]}).to_json_string(use_diff=False)
    assert read_config(json.loads(saved)).replace(prediction=None) == tiny(kind)


@pytest.mark.parametrize(
    "name", [*TINY, "llama-4-scout", "gpt-oss-20b", "glm-4.5-air", "minimax-m2.5", "mimo-v2-flash"]
)
def test_angles_are_the_references(name: str) -> None:
    data = {"model_type": name, **TINY[name]} if name in TINY else config(name)
    arch, their = read_config(data), text_config(data)
    embedding = type(reference(data).model.rotary_emb)(their)
    found = dict(embedding.named_buffers())
    turned = [op for op in arch.ops() if isinstance(op, Attention) and op.rotary]
    assert turned
    for op in turned:
        assert op.rotary is not None
        key = f"{'sliding' if op.window else 'full'}_attention_inv_freq" if "inv_freq" not in found else "inv_freq"
        torch.testing.assert_close(frequencies(op.rotary, 1), found[key], rtol=2e-6, atol=0)
        scaling = getattr(op.rotary.scaling, "attention_factor", 1.0)
        assert scaling == pytest.approx(getattr(embedding, "attention_scaling", 1.0), rel=1e-12)


def test_gpt_oss_20b_by_hand() -> None:
    arch = entry("gpt-oss-20b")
    projections = 2880 * 64 * (64 + 8 + 8 + 64) + 64 * (64 + 8 + 8) + 2880 + 64  # and biases, and a sink a head
    one_expert = 3 * 2880 * 2880 + 3 * 2880
    a_layer = projections + 32 * one_expert + 32 * (2880 + 1) + 2 * 2880
    assert arch.parameters().total == 24 * a_layer + 2 * 201088 * 2880 + 2880
    assert arch.parameters().active == arch.parameters().total - 24 * (32 - 4) * one_expert
    assert [attention(arch, i).window for i in range(4)] == [128, None, 128, None]
    assert experts(arch).expert.clamp == Clamp(limit=7.0, shift=1.0, slope=1.702)  # type: ignore[union-attr]
    tokens, per_layer = 100_000, 2 * 8 * 64 * 2
    assert arch.state_bytes(tokens) == 12 * per_layer * 128 + 12 * per_layer * tokens


def test_sparse_blocks_of_minimax_m3_by_hand() -> None:
    arch = entry("minimax-m3")
    full, sparse = attention(arch, 2), attention(arch, 3)
    assert full.blocks is None
    assert sparse.blocks is not None
    assert sparse.replace(blocks=None) == full
    assert sparse.parameters(6144) - full.parameters(6144) == 6144 * (4 * 128 + 128) + 2 * 128
    kept = {kept.kind: (kept.numbers, kept.read) for kept in sparse.keeps(6144)}
    assert kept == {"full": (4 * 2 * 128, 16 * 128), "index": (128, None)}
    assert arch.state_bytes(1000) == 1000 * 2 * (60 * 4 * 2 * 128 + 57 * 128)
    scored, attended = 2 * 4 * 128, 2 * 64 * (128 + 128)
    one_more = [sparse.flops(6144, 1, n) - sparse.flops(6144, 1, n - 1) for n in (100, 2047, 2048, 900_000)]
    assert one_more == [attended, attended, 2049 * scored, scored]  # nothing is scored where all is read
    assert sparse.flops(6144, 3000, 0) == 3000 * 2 * (6144 * 128 * (64 + 4 + 4 + 64) + 6144 * 640) + scored * (
        3000 * 3001 - 2048 * 2049
    ) // 2 + attended * (2048 * 2049 // 2 + 952 * 2048)


def test_llama_4_by_hand() -> None:
    scout, maverick = entry("llama-4-scout"), entry("llama-4-maverick")
    near, far = attention(scout, 2), attention(scout, 3)
    assert (near.chunk, far.chunk, far.rotary, near.temperature) == (8192, None, None, None)
    assert far.temperature == LengthTemperature(floor=8192, scale=0.1)
    assert near.qk_norm == QKNorm(norm=RMSNorm(eps=1e-5, weight=False), after_rotary=True)
    assert (far.qk_norm, attention(maverick).qk_norm) == (None, None)
    assert near.rotary is not None
    assert near.rotary.layout == "interleaved"
    products = 2 * 5120 * 128 * (40 + 8 + 8 + 40)
    assert near.flops(5120, 1, 8192 + 99) == products + 100 * 2 * 40 * 256  # of the second chunk alone
    assert far.flops(5120, 1, 8192 + 99) == products + (8192 + 100) * 2 * 40 * 256
    routed = [i for i, block in enumerate(maverick.blocks) if any(isinstance(op, MoE) for op in block.ops())]
    assert routed == list(range(1, 48, 2))
    moe = experts(maverick)
    assert (moe.scaled, moe.router) == ("input", Router(experts=128, active=1, score="sigmoid", normalise=False))


def test_mimo_by_hand() -> None:
    arch = entry("mimo-v2-flash")
    full, near = attention(arch, 0), attention(arch, 1)
    assert (full.kv_heads, near.kv_heads, full.sinks, near.sinks) == (4, 8, False, True)
    assert (full.head_dim, full.values, full.value_scale, near.window) == (192, 128, 0.707, 129)
    full_layer, near_layer = 4 * (192 + 128) * 2, 8 * (192 + 128) * 2
    assert 9 * full_layer + 39 * near_layer == 217.5 * 1024  # a token, with every layer at full length
    assert arch.state_bytes(10_000) == 9 * full_layer * 10_000 + 39 * near_layer * 129


PUBLISHED_STATES = ["qwen3-30b-a3b", "gpt-oss-20b", "glm-4.5", "glm-4.5-air", "minimax-m2.5", "trinity-large"]


@pytest.mark.parametrize("name", PUBLISHED_STATES)
def test_state_of_a_token_is_the_published_one(name: str) -> None:
    """Before any window is full."""
    assert entry(name).state_bytes(100) == 100 * source(name)["state_bytes_per_token"]


TABLES_LEFT_OUT = {  # by who published the figure: none, the embedding, or the head too
    **dict.fromkeys(("gpt-oss-20b", "gpt-oss-120b"), 1),
    **dict.fromkeys(("glm-4.5", "glm-4.5-air", "sarvam-30b", "minimax-m2.5", "minimax-m3"), 2),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_active_parameters_are_the_published_ones(name: str) -> None:
    arch, published = entry(name), source(name)["published_active_parameters"].removesuffix("B")
    counted = arch.parameters().active - TABLES_LEFT_OUT.get(name, 0) * arch.vocab * arch.width
    assert abs(counted / 1e9 - float(published)) < 10 ** -len(published.partition(".")[2])  # rounded, or cut


def test_what_is_each_familys_own() -> None:
    trinity = entry("trinity-large")
    full, near = attention(trinity, 3), attention(trinity, 0)
    assert (full.rotary, full.window, near.window, near.gate) == (None, None, 4096, "elementwise")
    assert trinity.embedding.scale == math.sqrt(3072)
    assert all(branch.before and branch.after for branch in trinity.blocks[0].branches)
    assert [attention(tiny("dots1"), i).window for i in range(5)] == [None, None, None, 9, 9]
    assert [attention(tiny("qwen2_moe"), i).window for i in range(5)] == [9, None, 9, None, None]
    assert [any(isinstance(op, MoE) for op in block.ops()) for block in tiny("qwen2_moe").blocks] == [
        False,
        True,
    ] * 2 + [False]
    assert experts(tiny("qwen2_moe")).shared_gate
    assert experts(tiny("qwen3_moe")).shared is None
    assert attention(tiny("minimax_m2")).qk_norm == QKNorm(over="width")
    assert experts(tiny("glm4_moe")).router == Router(
        experts=8, active=3, score="sigmoid", scale=2.5, correction=True, groups=4, active_groups=2, group_best=2
    )
    ernie = experts(tiny("ernie4_5_moe"))
    assert (ernie.router.score, ernie.router.correction, ernie.expert.bias) == ("softmax", True, False)
    granite = tiny("granitemoe")
    assert (granite.embedding.scale, granite.head.scale, granite.blocks[0].branches[1].multiplier) == (5.0, 0.25, 0.3)
    assert experts(tiny("phimoe")).router.sparse_mixer == 0.01


def test_longrope_of_phi_moe_has_one_factor() -> None:
    ropes = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    ropes |= {"original_max_position_embeddings": 32, "short_mscale": 1.25, "long_mscale": 1.25}
    rotary = attention(tiny("phimoe", rope_parameters=ropes)).rotary
    assert rotary is not None
    assert rotary.scaling.attention_factor == 1.25  # type: ignore[union-attr]
    with pytest.raises(LaminaError, match=r"short_mscale \(1.25\) and long_mscale \(1.5\) must be one number"):
        tiny("phimoe", rope_parameters=ropes | {"long_mscale": 1.5})


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "unknown": ("mixtral", {"num_shared": 1}, "'num_shared'"),
    "score": ("minimax_m2", {"scoring_func": "softmax"}, "known: 'sigmoid'"),
    "activation": ("gpt_oss", {"hidden_act": "gelu"}, "only 'silu' is known"),
    "window": ("qwen2_moe", {"use_sliding_window": False, "layer_types": ["sliding_attention"] * 5}, "must be true"),
    "layers": ("glm4_moe", {"moe_layer_freq": [0, 1, 1, 1, 1]}, "disagree on which layers are dense"),
    "rotated": ("minimax_m3_vl_text", {"rotary_dim": 8}, "'rotary_dim' is 8; only 6"),
    "values": (
        "minimax_m3_vl_text",
        {"sparse_attention_config": {"sparse_disable_index_value": [1, 1, 1, 1, 0]}},
        "an indexer with values",
    ),
    "groups": ("minimax_m3_vl_text", {"index_n_heads": 4}, "a multiple of blocks.heads"),
    "local": ("minimax_m3_vl_text", {"index_local_blocks": 4}, r"local \(4\) blocks are among the top_k \(3\)"),
    "positions": ("llama4_text", {"no_rope_layers": [1, 0]}, "no_rope_layers needs 5 entries"),
    "chunk": ("llama4_text", {"attention_chunk_size": None}, "attention_chunk_size is needed"),
    "spellings": ("afmoe", {"n_shared_experts": 2}, "they mean the same"),
    "pattern": ("mimo_v2_flash", {"hybrid_layer_pattern": [0, 1, 2, 1, 1]}, "hybrid_layer_pattern needs 5 entries"),
    "size": ("mimo_v2_flash", {"sliding_window_size": 128, "sliding_window": 64}, "only 128 or 129"),
    "clip": ("olmoe", {"clip_qkv": 8.0}, "'clip_qkv'"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_contradicts_itself_raises(case: str) -> None:
    kind, changed, message = BAD[case]
    with pytest.raises(LaminaError, match=message):
        tiny(kind, **changed)


def test_an_indexers_own_fields_agree() -> None:
    blocks = BlockIndexer(heads=2, head_dim=4, block=8, top_k=3)
    plain = Attention(heads=6, kv_heads=2, head_dim=12)
    for changed, message in (
        ({"window": 9, "blocks": blocks}, "blocks exclude a window and a chunk"),
        ({"keys_as_values": True, "value_dim": 8}, "keys of 12 numbers cannot be values of 8"),
    ):
        with pytest.raises(LaminaError, match=message):
            plain.replace(**changed)
