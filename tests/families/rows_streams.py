"""Rows of models with several residual streams, and of attention to compressed entries."""

from __future__ import annotations

from table import BASE, YARN, Row, row

SLIDING, SPARSE, HEAVY = "sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"
V4 = {key: value for key, value in BASE.items() if key != "intermediate_size"} | {
    "num_hidden_layers": 4,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "moe_intermediate_size": 20,
    "n_routed_experts": 9,
    "num_experts_per_tok": 3,
    "q_lora_rank": 22,
    "qk_rope_head_dim": 6,
    "o_groups": 3,
    "o_lora_rank": 10,
    "index_n_heads": 16,
    "index_head_dim": 12,
    "index_topk": 4,
    "sliding_window": 7,
    "hc_mult": 3,
    "layer_types": [SLIDING, SPARSE, HEAVY, SPARSE],
    "mlp_layer_types": ["hash_moe", "moe", "hash_moe", "moe"],
    "compress_rates": {SPARSE: 2, HEAVY: 5},
    "swiglu_limit": 1.5,
}
HY4 = {key: value for key, value in BASE.items() if key != "num_key_value_heads"} | {
    "num_hidden_layers": 4,
    "moe_intermediate_size": 20,
    "n_routed_experts": 12,
    "num_experts_per_tok": 3,
    "q_lora_rank": 22,
    "kv_lora_rank": 18,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 6,
    "v_head_dim": 14,
    "index_n_heads": 16,
    "index_head_dim": 9,
    "index_topk": 5,
    "hc_mult": 3,
    "swiglu_limit": 1.5,
    "mlp_layer_types": ["dense", "sparse", "sparse", "dense"],
    "indexer_types": ["full", "shared", "full", "shared"],
}
ROWS: list[Row] = [
    row("deepseek-v4", "DeepseekV4", V4, rope_scaling=YARN | {"original_max_position_embeddings": 16}),
    row(
        "deepseek-v4-ratios",
        "DeepseekV4",
        {key: value for key, value in V4.items() if key not in ("layer_types", "mlp_layer_types", "compress_rates")},
        num_hidden_layers=3,
        compress_ratios=[0, 4, 0],
        num_hash_layers=1,
        index_topk=3,
        scoring_func="sigmoid",
        hc_sinkhorn_iters=3,
        hc_eps=1e-3,
    ),
    row("hy4", "HYV4", HY4),
    row("hy4-other-streams", "HYV4", HY4, hc_mult=2, hc_magnitude=1.3, hc_eps=1e-2, n_group=4, topk_group=2),
]
