"""Rows of LFM2 and LFM3: gated short convolutions beside attention."""

from __future__ import annotations

from table import BASE, WIDE, Row, row

KINDS = ["conv", "full_attention", "conv", "conv", "full_attention"]
MIXED = BASE | {"num_hidden_layers": 5, "layer_types": KINDS}
MOE = MIXED | {"moe_intermediate_size": 20, "num_experts": 10, "num_experts_per_tok": 3, "num_dense_layers": 1}
THREE = WIDE | {
    "num_hidden_layers": 5,
    "layer_types": ["conv", "conv", "full_attention", "conv", "sliding_attention"],
    "sliding_window": 7,
}
TURNED = {
    "full_attention": {"rope_type": "proportional", "rope_theta": 900.0, "partial_rotary_factor": 0.5},
    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
}
ROWS: list[Row] = [
    row("lfm2", "Lfm2", MIXED, block_auto_adjust_ff_dim=False),
    row("lfm2-adjusted", "Lfm2", MIXED, block_multiple_of=6, block_ffn_dim_multiplier=1.3, conv_bias=True),
    row("lfm2-untied", "Lfm2", BASE, full_attn_idxs=[1], conv_L_cache=5, tie_word_embeddings=False),
    row("lfm2-moe", "Lfm2Moe", MOE),
    row(
        "lfm2-moe-plain",
        "Lfm2Moe",
        MOE,
        use_expert_bias=False,
        norm_topk_prob=False,
        routed_scaling_factor=1.7,
        num_dense_layers=0,
        conv_bias=True,
        conv_L_cache=1,
    ),
    row("lfm3", "Lfm3", THREE, rope_parameters=TURNED),
    row("lfm3-biases", "Lfm3", THREE, attention_bias=True, conv_bias=True, tie_word_embeddings=False, conv_L_cache=4),
    row(
        "lfm3-plain",
        "Lfm3",
        THREE,
        use_sandwich_norm=False,
        use_attention_gate=False,
        rope_parameters=TURNED,
        layer_types=["sliding_attention", "conv", "full_attention", "conv", "conv"],
    ),
]
