"""Rows of hybrids of Gated DeltaNet and attention: Qwen3-Next, Qwen3.5 and later."""

from __future__ import annotations

from typing import Any

from table import WIDE, YARN, Row, row

LINEAR, FULL = "linear_attention", "full_attention"
DELTA = {"linear_num_key_heads": 2, "linear_num_value_heads": 6, "linear_key_head_dim": 20, "linear_value_head_dim": 14}
DELTA |= {"linear_conv_kernel_dim": 3, "rms_norm_eps": 1e-2}
"""So large an epsilon bounds how much the norm of a head lifts what is near zero: ill-conditioned without."""
EXPERTS = {"num_experts": 10, "num_experts_per_tok": 3, "moe_intermediate_size": 20}
EXPERTS |= {"shared_expert_intermediate_size": 28}
HYBRID = WIDE | DELTA | {"head_dim": 16, "num_hidden_layers": 4}
OTHERS = {"rope_type": "default", "rope_theta": 900.0, "partial_rotary_factor": 0.5}
EVERY = {"linear_num_key_heads": 4, "linear_num_value_heads": 4, "linear_conv_kernel_dim": 4}

OLMO = WIDE | DELTA | {"num_hidden_layers": 4, "linear_key_head_dim": 60, "linear_value_head_dim": 20}
"""The reference cuts the convolution into three equal parts when it saves it: so many channels have q, k and v each."""

QWEN4 = EXPERTS | {
    "hc_count": 3,
    "hc_lowrank": 11,
    "ple_layer_ids": [1, 3],
    "ple_embed_dim": 24,
    "ngram_size": 4,
    "heads_per_ngram": 2,
    "ngram_vocab_size_base": 30,
    "make_ngram_vocab_size_divisible_by": 16,
    "split_ngram_parts": 1,
    "indexer_n_heads": 16,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 18,
    "indexer_budget": 6,
    "indexer_compress_ratio": 3,
    "output_gate_type": "sigmoid",
    "rope_parameters": {"rope_type": "default", "rope_theta": 900.0, "partial_rotary_factor": 0.25},
}
OTHER = {"ple_layer_ids": [], "indexer_compress_ratio": 2, "output_gate_type": None, "hc_count": 2}
OTHER |= {"layer_types": [LINEAR, FULL, LINEAR, FULL], "norm_topk_prob": False}


def text(name: str, stem: str, **more: Any) -> Row:
    """Of a model whose text decoder has a config of its own."""
    return Row(name, f"{stem}ForCausalLM", f"{stem}TextConfig", HYBRID | more)


ROWS: list[Row] = [
    row("qwen3-next", "Qwen3Next", HYBRID | EXPERTS),
    row(
        "qwen3-next-dense",
        "Qwen3Next",
        HYBRID | EXPERTS | EVERY,
        layer_types=[FULL, LINEAR, LINEAR, FULL],
        mlp_only_layers=[1, 3],
        norm_topk_prob=False,
        tie_word_embeddings=True,
        rope_parameters=YARN | {"partial_rotary_factor": 1.0},
    ),
    text("qwen3.5", "Qwen3_5"),
    text(
        "qwen3.5-tied", "Qwen3_5", tie_word_embeddings=True, rope_parameters=OTHERS, full_attention_interval=2, **EVERY
    ),
    text("qwen3.5-moe", "Qwen3_5Moe", **EXPERTS),
    text("qwen3.5-moe-other-layers", "Qwen3_5Moe", **EXPERTS, layer_types=[LINEAR, FULL, FULL, LINEAR]),
    row("olmo-hybrid", "OlmoHybrid", OLMO, rope_parameters={"rope_theta": None, "rope_type": "default"}),
    row(
        "olmo-hybrid-rotary",
        "OlmoHybrid",
        OLMO,
        attention_bias=True,
        linear_allow_neg_eigval=False,
        layer_types=[LINEAR, FULL, LINEAR, LINEAR],
    ),
    text("qwen4-exp", "Qwen4Exp", **QWEN4),
    text("qwen4-exp-others", "Qwen4Exp", **QWEN4 | OTHER),
]
