"""Lineages of one or two models each: their mechanisms in plain arithmetic, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

from lamina.arch import GLU, Attention, Clamp, MoE, RelativeAttention
from lamina.arch.bill import lines
from lamina.catalog import config, source
from lamina.errors import LaminaError
from lamina.families import read_config
from tests.families.lineages import TINY, entry, tiny


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        *(("step-3.5-flash", 11), ("hy3-preview", 21), ("hy4-preview", 49), ("laguna-xs-2", 3), ("inkling", 41)),
        *(("command-a-plus", 25), ("north-mini-code", 3), ("mellum2-12b", 2.5)),
    ],
)
def test_active_parameters_are_near_the_published_ones(name: str, billions: float) -> None:
    """Published figures are rounded, and some leave the embedding or the head out."""
    arch = entry(name)
    ends = 2 * arch.embedding.vocab * arch.width
    assert arch.parameters().active - ends < (billions + 0.5) * 1e9
    assert arch.parameters().active > (billions - 0.5) * 1e9


def test_grok_by_hand() -> None:
    arch, d = entry("grok-2.5"), 8192
    attention = d * 128 * (64 + 8 + 8 + 64)
    experts, beside = 3 * 16384 * d, 3 * 32768 * d
    a_block = attention + 8 * experts + 8 * d + beside + 4 * d
    assert arch.parameters().total == 64 * a_block + 2 * 131072 * d + d
    assert arch.parameters().total == pytest.approx(270e9, rel=0.005)
    assert arch.parameters().active == arch.parameters().total - 64 * 6 * experts
    assert arch.state_bytes(1000) == 1000 * source("grok-2.5")["state_bytes_per_token"]
    moe = next(op for op in arch.ops() if isinstance(op, MoE))
    assert moe.scale == pytest.approx(1 / math.sqrt(2))
    warmer = next(op.temperature for op in arch.ops() if isinstance(op, Attention))
    assert warmer is not None
    assert 1 + warmer.scale * math.log(4096 / warmer.floor) == pytest.approx(math.log2(4096) / math.log2(1024))


def test_step_by_hand() -> None:
    """Sliding layers have 96 heads of 128 and a window of 512; a gate for each head; experts from layer 3 on."""
    arch, d = entry("step-3.5-flash"), 4096
    full, local = arch.blocks[4].branches[0].op, arch.blocks[5].branches[0].op
    assert full.parameters(d) == d * (64 * 128 * 2 + 2 * 8 * 128 + 64) + 2 * 128
    assert local.parameters(d) == d * (96 * 128 * 2 + 2 * 8 * 128 + 96) + 2 * 128
    assert arch.state_bytes(10_000) == 2 * 2 * 8 * 128 * (12 * 10_000 + 33 * 512)
    held = [arch.blocks[i].branches[1].op for i in (2, 42, 43)]
    assert held[0] == GLU(inner=11264)
    assert [op.expert.clamp for op in held[1:]] == [None, Clamp(limit=7.0, after=True)]  # type: ignore[union-attr]
    assert held[2].shared.clamp == Clamp(limit=16.0, after=True)  # type: ignore[union-attr]
    turned = {(op.rotary.base, op.rotary.dim) for op in (full, local)}  # type: ignore[union-attr]
    assert turned == {(5e6, 64), (1e4, 128)}


def test_relative_attention_by_hand() -> None:
    arch, tokens = tiny("inkling2_text"), 30
    full, local = arch.blocks[1].branches[0].op, arch.blocks[0].branches[0].op
    assert isinstance(full, RelativeAttention)
    assert isinstance(local, RelativeAttention)
    q, kv, r = 6 * 12, 2 * 12, 6 * 3
    plain = 40 * (q + kv + kv + q + r + q + 6)  # q, k, v, o, relative states, gate, sinks
    filters = 2 * (kv * 3 + 2 * 3 * 40)
    assert full.parameters(40) == plain + filters + 3 * 11 + q + r
    seen = tokens * (tokens + 1) // 2
    near = sum(min(p + 1, 11) for p in range(tokens))
    pairs = 4 * 6 * 12 * seen + 2 * 6 * 3 * near
    assert full.flops(40, tokens, 0) == tokens * 2 * (plain + filters) + pairs
    assert local.state_bytes(40, 100, 2) == 2 * (2 * 5 * 14 * 9 + 2 * 5 * 14 * 2)


def test_streams_of_inkling_2_by_hand() -> None:
    """A score vector for each branch but the first and for the end; two more, and two norms, where layers see all."""
    parts = [line for line in lines(tiny("inkling2_text")) if line.path.startswith("stream.")]
    assert sum(line.parameters for line in parts) == 40 * (2 * 5 - 1 + 1 + 2 * (2 + 2))
    filters = sum(line.parameters for line in lines(tiny("inkling2_text")) if line.path.endswith(".filter"))
    assert filters == 2 * 5 * 40 * 3


def test_streams_of_hunyuan_4_by_hand() -> None:
    """To read and to write: 2 N numbers made from N streams, with biases and two factors, around every branch."""
    parts = [line for line in lines(tiny("hy_v4")) if line.path.startswith("stream.")]
    around, joining = 6 * 3 * 40 + 6 + 2, 3 * 3 * 40 + 3 + 1
    assert sum(line.parameters for line in parts) == 2 * 5 * around + joining


def test_latent_experts_of_muse_spark_by_hand() -> None:
    arch = tiny("muse_spark_text")
    moe = next(op for op in arch.ops() if isinstance(op, MoE))
    one = 3 * 26 * 20
    assert moe.parameters(42) == 7 * one + 7 * 42 + 7 + 2 * 42 * 26 + 26 + 26
    assert moe.active_parameters(42) == moe.parameters(42) - 4 * one
    gates = [line.parameters for line in lines(arch) if line.path.endswith(".residual")]
    assert sum(gates) == 2 * 5 * 42


def test_positions_only_where_a_window_is() -> None:
    exaone = [op.rotary is not None for op in tiny("exaone4").ops() if isinstance(op, Attention)]
    assert exaone == [True, False, True, False, True]
    north = [op for op in entry("north-mini-code").ops() if isinstance(op, Attention)]
    assert [(op.rotary is not None, op.window) for op in north[:5]] == [(True, None)] + [(True, 4096)] * 3 + [
        (False, None)
    ]
    muse = [op for op in entry("muse-glimmer-30b").ops() if isinstance(op, Attention)]
    assert all((op.rotary is None) == (op.window is None) for op in muse)


def test_sections_of_image_positions() -> None:
    assert {op.rotary.sections for op in entry("qwen2-vl-7b").ops() if isinstance(op, Attention) and op.rotary} == {
        (16, 24, 24)
    }


@pytest.mark.parametrize(
    ("kind", "changed", "message"),
    [
        ("seed_oss", {"q_lora_rank": 3}, "the key 'q_lora_rank' \\(3\\) is not understood"),
        ("exaone4", {"sliding_window_pattern": "LLX"}, "sliding_window_pattern is 'LLX'; a period or letters L and G"),
        ("exaone4", {"sliding_window": None, "layer_types": ["sliding_attention"] * 5}, "so sliding_window is needed"),
        ("qwen2_vl_text", {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1]}}, "must add up to the 4 pairs"),
        ("qwen2_vl_text", {"head_dim": 10}, "head_dim \\(10\\) must be hidden_size / num_attention_heads"),
        ("molmo2_text", {"qkv_bias": False}, "'attention_bias' is True and 'qkv_bias' is False"),
        ("molmo2_text", {"rope_scaling_layers": [9]}, "rope_scaling_layers must be numbers of the 5 layers"),
        ("persimmon", {"num_key_value_heads": 2}, "'num_key_value_heads' is 2; only 6 is known"),
        (
            "mellum",
            {"rope_parameters": {"full_attention": {"rope_theta": 1.0}}},
            "rope_parameters lacks sliding_attention",
        ),
        ("laguna", {"num_attention_heads_per_layer": [6]}, "num_attention_heads_per_layer needs 5 whole numbers"),
        ("laguna", {"gating": "per-token"}, "gating is 'per-token'; known: true, 'per-head', 'per-element'"),
        ("laguna", {"moe_apply_router_weight_on_input": True}, "'moe_apply_router_weight_on_input' is True"),
        ("solar_open", {"topk_group": 5}, "active_groups \\(5\\) are used|must fall into groups"),
        (
            "cohere2_moe",
            {"expert_selection_fn": "relu"},
            "'expert_selection_fn' is 'relu'; known: 'softmax', 'sigmoid'",
        ),
        ("hy_v3", {"expert_hidden_dim": 24}, "'expert_hidden_dim' is 24; only 20 is known"),
        ("hy_v4", {"indexer_types": ["shared"] * 5}, "indexer_types needs 5 entries"),
        ("step3p5", {"moe_top_k": 4}, "'num_experts_per_tok' is 3 and 'moe_top_k' is 4"),
        ("step3p5", {"rope_theta": [1.0, 2.0, 3.0, 2.0, 1.0]}, "one number is needed for each kind of layer"),
        ("step3p5", {"sliding_window": None}, "so sliding_window is needed"),
        (
            "muse_glimmer_text",
            {"layer_rope_theta": [0, 1, 2, 3, 4]},
            "layer_rope_theta needs 5 entries, each 0 or rope_theta",
        ),
        ("inkling_text", {"unpadded_vocab_size": 98}, "unpadded_vocab_size \\(98\\) exceeds vocab_size \\(97\\)"),
        ("inkling_text", {"sconv_kernel_size": 3, "conv_kernel_size": 4}, "they mean the same"),
        ("inkling2_text", {"layer_types": ["hybrid"] * 5}, "the first layer must have a window"),
        ("inkling2_text", {"scoring_func": "softmax"}, "'scoring_func' is 'softmax'"),
    ],
)
def test_what_contradicts_or_is_unknown_is_refused(kind: str, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(LaminaError, match=message):
        tiny(kind, **changed)


def test_old_flat_configs_read_as_nested_ones() -> None:
    """Fuyu and Qwen2-VL were first published with the decoder's keys beside the encoder's."""
    for name, beside in (("fuyu-8b", {"image_size": 300}), ("qwen2-vl-72b", {"vision_config": {"depth": 32}})):
        nested = config(name)
        flat = {**nested["text_config"], "model_type": nested["model_type"], **beside}
        assert read_config(flat) == read_config(nested)
    sections = {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}, "rope_parameters": None}
    old = read_config({"model_type": "qwen2_vl", **TINY["qwen2_vl_text"], "rope_theta": 5000.0, **sections})
    assert old == tiny("qwen2_vl_text")
