"""Rows of families whose attention is sparse: choices are far fewer than the 37 tokens of the longest prompt."""

from __future__ import annotations

from rows_latent import ALL_DIM, ONE_GROUP, SMALL
from rows_latent import GROUPS as FOUR
from table import WIDE, Row, row

BLOCKS = {  # 2 indexer heads choose for 3 heads of attention each
    "index_n_heads": 2,
    "index_head_dim": 10,
    "index_block_size": 4,
    "index_topk_blocks": 3,
    "index_local_blocks": 1,
    "num_hidden_layers": 4,
    "layer_types": ["full_attention", "minimax_m3_sparse", "minimax_m3_sparse", "full_attention"],
    "mlp_layer_types": ["dense", "sparse", "sparse", "dense"],
    "dense_intermediate_size": 56,
    "intermediate_size": 20,
    "shared_intermediate_size": 28,
    "num_local_experts": 10,
    "num_experts_per_tok": 3,
    "rotary_dim": 6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 900.0, "partial_rotary_factor": 0.5},
}
M3 = WIDE | BLOCKS
GROUPS = {"num_attention_heads": 12, "num_key_value_heads": 4, "index_n_heads": 6}

CLASSES = "MiniMaxM3VLForCausalLM", "MiniMaxM3VLTextConfig"

DSA = SMALL | FOUR | {"index_n_heads": 16, "index_head_dim": 9, "index_topk": 5}

DSA_ONE = DSA | ONE_GROUP
SHARED_CHOICES = DSA_ONE | {
    "num_hidden_layers": 5,
    "indexer_types": ["full", "shared", "full", "shared", "shared"],
}

POOLS = DSA_ONE | {
    "qk_rope_head_dim": 0,
    "index_topk": 8,
    "index_kpool": 4,
    "layer_types": ["indexed_attention"] * 3,
    "mlp_layer_types": ["dense", "sparse", "sparse"],
    "hc_mult": 3,
    "hc_sinkhorn_iters": 4,
    "swiglu_limit": 0.9,
    "pad_token_id": 0,
}
SEES = {"hidden_size": 16, "intermediate_size": 20, "depth": 1, "num_heads": 2, "image_size": 28, "patch_size": 14}
WITH_IMAGES = {"text_config": POOLS, "vision_config": SEES | {"out_hidden_size": 48}}

ROWS: list[Row] = [
    row("deepseek-v3.2", "DeepseekV32", DSA, rope_parameters=ALL_DIM),
    row("deepseek-v3.2-biases", "DeepseekV32", DSA, attention_bias=True, index_topk=11, qk_rope_head_dim=4),
    row("glm-5", "GlmMoeDsa", DSA_ONE, rms_norm_eps=1e-5),
    row("glm-5.2", "GlmMoeDsa", SHARED_CHOICES, rope_parameters=ALL_DIM),
    Row("glm-5.3-attention", "Glm5NextForConditionalGeneration", "Glm5NextConfig", WITH_IMAGES),
    Row("minimax-m3", *CLASSES, M3),
    Row("minimax-m3-shares", *CLASSES, M3 | GROUPS | {"index_local_blocks": 2, "index_topk_blocks": 2}),
    Row("minimax-m3-no-local", *CLASSES, M3 | {"index_local_blocks": 0, "tie_word_embeddings": True}),
]
