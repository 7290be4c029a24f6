"""Rows of families with latent attention."""

from __future__ import annotations

from table import BASE, Row, row

SIZES = {  # no two sizes alike; rows of 12 experts fall into 4 groups
    "num_key_value_heads": 6,
    "kv_lora_rank": 18,
    "q_lora_rank": 22,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 6,
    "v_head_dim": 14,
}
MOE = {
    "moe_intermediate_size": 20,
    "n_routed_experts": 12,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
}
GROUPS = {"n_group": 4, "topk_group": 2}
ONE_GROUP = {"n_group": 1, "topk_group": 1}
YARN = {"rope_type": "yarn", "rope_theta": 900.0, "factor": 4.0, "original_max_position_embeddings": 32}
ALL_DIM = YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}
OTHER = YARN | {"mscale": 0.707, "mscale_all_dim": 0.5, "beta_fast": 8.0, "beta_slow": 2.0}
GLM = BASE | SIZES | MOE
SMALL = GLM | {"first_k_dense_replace": 1}
LONGER = YARN | {"llama_4_scaling_beta": 0.3, "original_max_position_embeddings": 11, "factor": 8.0}
MISTRAL = SMALL | ONE_GROUP | {"n_shared_experts": 1}
LONGCAT = SIZES | {
    "vocab_size": 97,
    "hidden_size": 48,
    "num_layers": 3,
    "num_attention_heads": 6,
    "max_position_embeddings": 128,
    "head_dim": 6,
    "ffn_hidden_size": 56,
    "expert_ffn_hidden_size": 20,
    "n_routed_experts": 7,
    "zero_expert_num": 4,
    "moe_topk": 4,
}
LARGE = {key: value for key, value in MISTRAL.items() if key not in ("q_lora_rank", "first_k_dense_replace")} | {
    "num_hidden_layers": 5,
    "index_n_heads": 16,  # with a few, scores of zero tie
    "index_head_dim": 12,
    "pad_token_id": 0,
}
SHARING = {
    "num_hidden_layers": 8,
    "kv_source_layers": [0, 0, 2, 3, 2, 5, 5, 3],
    "indexer_types": ["full", "shared", "full", "full", "full", "shared", "full", "full"],
    "no_rope_layer_interval": 4,
    "first_k_dense_replace": 2,
}
SEES = {
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


def large(name: str, **more: object) -> Row:
    """Mistral Large 4, which has no class for its text alone."""
    classes = "MistralLarge4ForConditionalGeneration", "MistralLarge4Config"
    return Row(name, *classes, {"text_config": LARGE | more, "vision_config": SEES, "tie_word_embeddings": False})


CLASSES = "LongcatFlashForCausalLM", "LongcatFlashConfig"
IDENTITIES = 3 * 4 * 2 * 20 * 48
"""Gates and ups of experts that return what they read."""

ROWS: list[Row] = [
    row("deepseek-v3", "DeepseekV3", SMALL | GROUPS, rope_parameters=ALL_DIM),
    row("deepseek-v3-biases", "DeepseekV3", SMALL | GROUPS, attention_bias=True, norm_topk_prob=False),
    row("deepseek-v3-half", "DeepseekV3", SMALL | GROUPS, rope_interleave=False, rope_parameters=OTHER),
    row("kimi-k2", "DeepseekV3", SMALL | ONE_GROUP, rms_norm_eps=1e-5, n_shared_experts=1, rope_parameters=ALL_DIM),
    row("sarvam-105b", "DeepseekV3", SMALL | ONE_GROUP, q_lora_rank=None, rope_parameters=ALL_DIM),
    row("deepseek-v2", "DeepseekV2", SMALL | GROUPS, topk_method="group_limited_greedy", rope_parameters=OTHER),
    row("deepseek-v2-lite", "DeepseekV2", SMALL, q_lora_rank=None, topk_method="greedy", routed_scaling_factor=2.0),
    row("deepseek-v2-biases", "DeepseekV2", SMALL, attention_bias=True, rope_parameters=ALL_DIM),
    row("glm-4.7-flash", "Glm4MoeLite", GLM | ONE_GROUP, mlp_layer_types=["dense", "sparse", "sparse"]),
    row(
        "glm-4.7-flash-wide-values",
        "Glm4MoeLite",
        GLM | GROUPS,
        v_head_dim=26,
        attention_bias=True,
        rope_interleave=False,
        mlp_layer_types=["sparse", "dense", "sparse"],
    ),
    row("mistral-large-3", "Mistral4", MISTRAL, rope_parameters=LONGER | {"mscale": 1.0, "mscale_all_dim": 1.0}),
    row("mistral-small-4", "Mistral4", MISTRAL, first_k_dense_replace=0, rope_parameters=LONGER),
    Row("longcat-flash", *CLASSES, LONGCAT, unread=IDENTITIES),
    Row("longcat-flash-yarn", *CLASSES, LONGCAT | {"attention_bias": True, "rope_parameters": ALL_DIM}, IDENTITIES),
    large("mistral-large-4", index_topk=7, rope_parameters=YARN | {"attention_factor": 1.0}),
    large("mistral-large-4-shared", index_topk=9, **SHARING),
]
