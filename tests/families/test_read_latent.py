"""Families with latent attention, read: weights, scales and choices as the reference builds them (on the meta device).

The reference keeps routing corrections (and Mistral Large 4's learned frequencies) as persistent buffers. They are
learned and shipped, so they count here; catalog totals counted without them differ by so much.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
import transformers

from lamina.arch import (
    Architecture,
    Indexer,
    KeyPool,
    KimiDeltaAttention,
    LatentAttention,
    LearnedTemperature,
    LengthTemperature,
    MoE,
    Router,
)
from lamina.arch.bill import lines
from lamina.catalog import config, source
from lamina.errors import LaminaError
from lamina.families import read_config

ENTRIES = {
    "deepseek-v3": "DeepseekV3ForCausalLM",
    "deepseek-r1": "DeepseekV3ForCausalLM",
    "deepseek-v3.2": "DeepseekV32ForCausalLM",
    "kimi-k2": "DeepseekV3ForCausalLM",
    "kimi-k2.5": "DeepseekV3ForCausalLM",
    "sarvam-105b": "DeepseekV3ForCausalLM",
    "glm-4.7-flash": "Glm4MoeLiteForCausalLM",
    "glm-5": "GlmMoeDsaForCausalLM",
    "glm-5.2": "GlmMoeDsaForCausalLM",
    "mistral-large-3": "Mistral4ForCausalLM",
    "mistral-small-4": "Mistral4ForCausalLM",
    "mistral-large-4": "MistralLarge4ForConditionalGeneration",
    "glm-5.3-flash": "Glm5NextForConditionalGeneration",
}
WHOLE = ("mistral-large-4", "glm-5.3-flash")  # no class for their text alone: the encoder is left out of the count
SMALL = {  # no two sizes alike
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 56,
    "moe_intermediate_size": 20,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "kv_lora_rank": 18,
    "q_lora_rank": 22,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 6,
    "v_head_dim": 14,
    "n_routed_experts": 16,
    "n_shared_experts": 3,
    "num_experts_per_tok": 2,
    "n_group": 4,
    "topk_group": 2,
    "attention_bias": True,
    "pad_token_id": 0,
}
INDEX = {"index_n_heads": 5, "index_head_dim": 12, "index_topk": 8}
FIRST = {"first_k_dense_replace": 2}
TINY = {
    "deepseek_v2": ("DeepseekV2ForCausalLM", SMALL | FIRST),
    "deepseek_v2_plain": ("DeepseekV2ForCausalLM", SMALL | {"q_lora_rank": None, "attention_bias": False}),
    "deepseek_v3": ("DeepseekV3ForCausalLM", SMALL | FIRST),
    "deepseek_v3_plain": ("DeepseekV3ForCausalLM", SMALL | FIRST | {"q_lora_rank": None}),
    "deepseek_v32": ("DeepseekV32ForCausalLM", SMALL | INDEX | FIRST),
    "glm4_moe_lite": ("Glm4MoeLiteForCausalLM", SMALL),
    "glm_moe_dsa": ("GlmMoeDsaForCausalLM", SMALL | INDEX | FIRST | {"index_topk_freq": 2}),
    "mistral4": ("Mistral4ForCausalLM", SMALL | FIRST),
    "mistral_large4_text": (
        "MistralLarge4TextModel",
        {k: v for k, v in SMALL.items() if k != "q_lora_rank"} | INDEX | FIRST | {"kv_source_layers": [0, 0, 2, 3, 2]},
    ),
    "glm5_next_text": (
        "Glm5NextTextModel",
        SMALL
        | INDEX
        | {"qk_rope_head_dim": 0, "linear_num_heads": 3, "linear_head_dim": 8, "linear_conv_kernel_dim": 5}
        | {"hc_mult": 3, "index_kpool": 4},
    ),
}


def reference(name: str, data: dict) -> Any:
    """The reference's model, without memory."""
    kind = getattr(transformers, name, None) or _inner(name)
    values = {key: value for key, value in data.items() if key not in ("model_type", "quantization_config")}
    with torch.device("meta"):
        return kind(kind.config_class(**values))


def _inner(name: str) -> type:
    models = transformers.models
    module = models.mistral_large4.modeling_mistral_large4 if "Large4" in name else models.glm5_next.modeling_glm5_next
    return getattr(module, name)


def of_text(tensors: dict[str, torch.Tensor]) -> Counter[tuple[int, ...]]:
    """Shapes of the text decoder's tensors, how often each; gate and up of experts, which it packs, taken apart."""
    found: Counter[tuple[int, ...]] = Counter()
    for name, tensor in tensors.items():
        if any(part in name for part in ("visual", "vision_tower", "multi_modal_projector")):
            continue
        shape = tuple(tensor.shape)
        packed = name.endswith("experts.gate_up_proj")
        found[(shape[0], shape[1] // 2, shape[2]) if packed else shape] += 2 if packed else 1
    return found


def ours(arch: Architecture, head: bool = True) -> Counter[tuple[int, ...]]:
    found: Counter[tuple[int, ...]] = Counter()
    for line in lines(arch):
        for shape in line.weights.values() if head or line.path != "head" else ():
            found[shape] += line.times
    return found


def entry(name: str) -> Architecture:
    """Its text decoder; tests/families/test_read_encoders.py compares what stands beside it."""
    return read_config(config(name), name).replace(encoders=())


def attention(arch: Architecture, block: int = 0) -> LatentAttention:
    return next(op for op in arch.blocks[block].ops() if isinstance(op, LatentAttention))


def text_data(name: str) -> dict:
    data = config(name)
    return data if name in WHOLE else data.get("text_config", data)


@pytest.mark.parametrize("name", ENTRIES)
def test_every_weight_of_a_catalog_entry_is_the_references(name: str) -> None:
    arch, model = entry(name), reference(ENTRIES[name], text_data(name))
    state = of_text(dict(model.state_dict()))
    assert ours(arch) == state
    assert arch.parameters().total == sum(times * math.prod(shape) for shape, times in state.items())


@pytest.mark.parametrize("name", [n for n in ENTRIES if n not in (*WHOLE, "kimi-k2.5")])
def test_the_catalogs_count_is_without_routing_corrections(name: str) -> None:
    arch, counted = entry(name), source(name)["counted_parameters"]
    corrections = sum(op.router.experts for op in arch.ops() if isinstance(op, MoE) and op.router.correction)
    if counted is not None:
        assert arch.parameters().total - corrections == counted


@pytest.mark.parametrize("name", TINY)
def test_every_weight_of_small_models_is_the_references(name: str) -> None:
    kind, data = TINY[name]
    model_type = name.removesuffix("_plain")
    arch = read_config({"model_type": model_type, **data})
    assert ours(arch, head="Model" not in kind) == of_text(dict(reference(kind, data).state_dict()))


def _scores_scale(op: LatentAttention) -> float:
    return op.scale or op.head_dim**-0.5


@pytest.mark.parametrize("name", [n for n in ENTRIES if n not in WHOLE])
def test_scales_and_norms_are_the_references(name: str) -> None:
    arch, model = entry(name), reference(ENTRIES[name], {**text_data(name), "num_hidden_layers": 4} | _cut(name))
    op, theirs = attention(arch), model.model.layers[0].self_attn
    assert _scores_scale(op) == pytest.approx(theirs.scaling, rel=1e-12)
    assert op.norm.eps == theirs.kv_a_layernorm.variance_epsilon
    assert arch.norm is not None
    assert arch.norm.eps == model.model.norm.variance_epsilon
    assert op.rotary is not None
    factor = op.rotary.scaling.attention_factor if op.rotary.scaling else 1.0  # type: ignore[union-attr]
    assert factor == pytest.approx(model.model.rotary_emb.attention_scaling, rel=1e-12)
    if op.indexer:
        assert op.indexer.norm is not None
        assert op.indexer.norm.eps == theirs.indexer.k_norm.eps


def _cut(name: str) -> dict:
    lists = ("mlp_layer_types", "indexer_types")
    return {key: text_data(name)[key][:4] for key in lists if text_data(name).get(key)}


def test_the_yarn_scale_of_deepseek_v3_by_hand() -> None:
    op = attention(entry("deepseek-v3"))
    assert op.scale == pytest.approx((0.1 * math.log(40) + 1) ** 2 / math.sqrt(192), rel=1e-12)
    assert op.rotary is not None
    assert op.rotary.layout == "interleaved"


def test_latent_attention_of_deepseek_v3_by_hand() -> None:
    op = attention(entry("deepseek-v3"))
    queries = 7168 * 1536 + 1536 + 1536 * 128 * (128 + 64)
    keys = 7168 * (512 + 64) + 512 + 512 * 128 * (128 + 128)
    assert op.parameters(7168) == queries + keys + 128 * 128 * 7168 == 187_107_328
    products = 2 * (op.parameters(7168) - 1536 - 512)
    assert op.flops(7168, 1, 999) == products + 1000 * 2 * 128 * (512 + 64 + 512)  # absorbed
    assert op.flops(7168, 3, 0) == 3 * products + (1 + 2 + 3) * 2 * 128 * (192 + 128)  # expanded


@pytest.mark.parametrize("name", ["deepseek-v3", "mistral-large-3", "sarvam-105b"])
def test_state_of_a_token_is_the_published_one(name: str) -> None:
    arch, published = entry(name), source(name)["state_bytes_per_token"]
    a_token = arch.state_bytes(1000) / 1000
    assert a_token == len(arch.blocks) * (512 + 64) * 2
    assert f"{a_token / 1024:.1f}" == f"{published / 1024:.1f}"  # published in KiB, to one digit


def test_an_indexer_limits_what_is_read_and_scores_every_key() -> None:
    op = attention(entry("deepseek-v3.2"))
    assert op.indexer is not None
    assert op.indexer.rotary is not None
    assert op.rotary is not None
    assert (op.rotary.layout, op.indexer.rotary.layout) == ("interleaved", "half")
    kept = {kept.kind: (kept.numbers, kept.read) for kept in op.keeps(7168)}
    assert kept == {"latent": (576, 2048), "index": (128, None)}
    more = op.flops(7168, 1, 10_000) - op.flops(7168, 1, 9_999)
    assert more == 2 * 64 * (128 + 1)  # one key more to score, none more to attend to
    short = op.flops(7168, 1, 2047) - op.flops(7168, 1, 2046)
    assert short == 2 * 128 * (2 * 512 + 64)  # one more to attend to, none to score


def test_choices_are_shared_in_glm_5_2() -> None:
    arch = entry("glm-5.2")
    shared = [attention(arch, i).indexer.shared for i in range(12)]  # type: ignore[union-attr]
    assert [i for i in range(12) if not shared[i]] == [0, 1, 2, 6, 10]
    own = 6144 * 128 + 2 * 128 + 2048 * 32 * 128 + 6144 * 32
    assert attention(arch, 2).parameters(6144) - attention(arch, 3).parameters(6144) == own
    assert attention(arch, 3).flops(6144, 1, 5000) == attention(arch, 3).flops(6144, 1, 9000)


def test_mistral_temperatures() -> None:
    small = attention(entry("mistral-large-3"))
    assert small.temperature == LengthTemperature(floor=8192, scale=0.1, first=0)
    large = entry("mistral-large-4")
    turned = [attention(large, i).rotary is not None for i in range(8)]
    assert turned == [True, True, True, False] * 2
    first, fourth = attention(large), attention(large, 3)
    assert isinstance(first.temperature, LearnedTemperature)
    assert (first.plain_dim, first.rotary_dim, fourth.plain_dim, fourth.rotary_dim) == (64, 64, 128, 0)
    assert first.rotary is not None
    assert first.rotary.learned
    assert large.head.softcap == 30.0
    own = [line for line in lines(large) if line.path == "frequencies"]
    assert [line.parameters for line in own] == [32]


def test_latents_of_another_block() -> None:
    arch = read_config({"model_type": "mistral_large4_text", **TINY["mistral_large4_text"][1]})
    assert [attention(arch, i).kv_from for i in range(5)] == [None, 0, None, None, 2]
    assert {kept.kind for kept in attention(arch, 1).keeps(48)} == {"index"}


def test_glm_5_3_flash_by_hand() -> None:
    arch = entry("glm-5.3-flash")
    kinds = ["latent" if isinstance(next(block.ops()), LatentAttention) else "delta" for block in arch.blocks]
    assert kinds == [["delta", "delta", "delta", "latent"][i % 4] for i in range(45)]
    delta = next(arch.blocks[0].ops())
    assert isinstance(delta, KimiDeltaAttention)
    assert delta.decay_floor == -5.0
    op = attention(arch, 3)
    assert op.indexer is not None
    assert op.indexer.pool == KeyPool(size=16)
    latents, index = 16 * 1000 * 512, 1000 * 128 + 15 * 2 * 128
    assert op.state_bytes(4096, 16 * 1000, 2) == 2 * (latents + index)
    scored = op.flops(4096, 1, 16 * 1000 + 15) - op.flops(4096, 1, 16 * 1000 + 14)
    assert scored == 2 * 32 * (128 + 1)  # a pool is scored once its 16th token is there
    connections = [line for line in lines(arch) if line.path.startswith("stream")]
    assert [line.times for line in connections] == [90]
    assert connections[0].parameters == 90 * (24 * 4 * 4096 + 24 + 3)


@pytest.mark.parametrize(
    ("name", "published"), [("mistral-small-4", 6.63), ("mistral-large-4", 52), ("glm-5", 40), ("kimi-k2", 32)]
)
def test_active_parameters_are_near_the_published_ones(name: str, published: float) -> None:
    assert entry(name).parameters().active / 1e9 == pytest.approx(published, rel=0.05)


def test_groups_of_experts() -> None:
    v3 = next(op for op in entry("deepseek-v3").ops() if isinstance(op, MoE))
    assert v3.router == Router(
        experts=256, active=8, score="sigmoid", scale=2.5, correction=True, groups=8, active_groups=4, group_best=2
    )
    for method, groups in (("greedy", (1, 1, 1)), ("group_limited_greedy", (4, 2, 1))):
        arch = read_config({"model_type": "deepseek_v2", **SMALL, "topk_method": method})
        router = next(op for op in arch.ops() if isinstance(op, MoE)).router
        assert (router.groups, router.active_groups, router.group_best) == groups
        assert (router.score, router.normalise, router.correction) == ("softmax", False, False)


BAD = {
    "unknown": ({"model_type": "deepseek_v3", **SMALL, "sliding_window": 3}, "'sliding_window'"),
    "heads": ({"model_type": "deepseek_v3", **SMALL, "num_key_value_heads": 2}, "every head has keys and values"),
    "score": ({"model_type": "deepseek_v3", **SMALL, "scoring_func": "softmax"}, "known: 'sigmoid'"),
    "head": ({"model_type": "deepseek_v3", **SMALL, "qk_head_dim": 17}, "'qk_head_dim' is 17; only 16"),
    "active": ({"model_type": "deepseek_v3", **SMALL, "num_experts_per_tok": 9}, "experts of 2 groups"),
    "frequency": ({"model_type": "deepseek_v32", **SMALL, "layer_types": ["full_attention"] * 5}, r"layer_types\[0\]"),
    "layers": (
        {"model_type": "glm_moe_dsa", **SMALL, **FIRST, "mlp_layer_types": ["sparse"] * 5},
        "disagree on which layers are dense",
    ),
    "choices": (
        {"model_type": "glm_moe_dsa", **SMALL, "indexer_types": ["full"] * 5, "index_topk_freq": 2},
        "say otherwise",
    ),
    "first": (
        {"model_type": "glm_moe_dsa", **SMALL, "indexer_types": ["shared"] + ["full"] * 4},
        "the first 'full'",
    ),
    "source": (
        {"model_type": "mistral_large4_text", **TINY["mistral_large4_text"][1], "kv_source_layers": [0, 0, 2, 2, 2]},
        r"kv_source_layers\[3\]",
    ),
    "passed on": (
        {"model_type": "glm5_next_text", **TINY["glm5_next_text"][1], "index_topk_freq": 2},
        "a linear layer passes no choice on",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_contradicts_itself_raises(case: str) -> None:
    data, message = BAD[case]
    with pytest.raises(LaminaError, match=message):
        read_config(data)


def test_parts_contradict_themselves() -> None:
    with pytest.raises(LaminaError, match=r"multiple of pool\.size"):
        Indexer(heads=1, head_dim=8, top_k=10, pool=KeyPool(size=4))
