"""Rows of Gemma 3n and Gemma 4."""

from __future__ import annotations

from table import THEN_FULL, WIDE, Row

WINDOWED = ["sliding_attention", "sliding_attention", "full_attention"]
GEMMA4 = WIDE | {
    "global_head_dim": 16,
    "sliding_window": 7,
    "num_hidden_layers": 4,
    "layer_types": [*THEN_FULL, "full_attention"],
    "hidden_size_per_layer_input": 0,
    "attention_bias": True,
}
SHARING = {
    "num_hidden_layers": 6,
    "layer_types": [*THEN_FULL, "full_attention", "sliding_attention", "full_attention"],
    "num_kv_shared_layers": 2,
    "hidden_size_per_layer_input": 10,
    "vocab_size_per_layer_input": 97,
}
EXPERTS = {"enable_moe_block": True, "num_experts": 9, "top_k_experts": 3, "moe_intermediate_size": 20}

GEMMA3N = WIDE | {
    "sliding_window": 7,
    "num_hidden_layers": 6,
    "layer_types": [*WINDOWED, *WINDOWED],
    "num_kv_shared_layers": 2,
    "hidden_size_per_layer_input": 10,
    "vocab_size_per_layer_input": 90,
    "intermediate_size": [56, 56, 40, 40, 56, 72],
    "activation_sparsity_pattern": [0.8, 0.8, 0.0, 0.0, 0.0, 0.0],
    "laurel_rank": 5,
}


def _gemma3n(name: str, **more: object) -> Row:
    return Row(name, "Gemma3nForCausalLM", "Gemma3nTextConfig", GEMMA3N | more)


def _gemma4(name: str, **more: object) -> Row:
    return Row(name, "Gemma4ForCausalLM", "Gemma4TextConfig", GEMMA4 | more)


ROWS: list[Row] = [
    _gemma3n("gemma3n", pad_token_id=0),
    _gemma3n("gemma3n-three-streams", altup_num_inputs=3, altup_active_idx=1, num_kv_shared_layers=0, pad_token_id=0),
    _gemma4("gemma4", final_logit_softcapping=9.0),
    _gemma4("gemma4-keys-as-values", attention_k_eq_v=True, num_global_key_value_heads=3, attention_bias=False),
    _gemma4("gemma4-e", **SHARING, use_double_wide_mlp=True),
    _gemma4("gemma4-e-keys-as-values", **SHARING, attention_k_eq_v=True, attention_bias=False),
    _gemma4("gemma4-moe", **EXPERTS),
    _gemma4("gemma4-moe-keys-as-values", **EXPERTS, attention_k_eq_v=True, num_global_key_value_heads=1),
]
