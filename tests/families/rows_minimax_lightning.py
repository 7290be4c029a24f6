"""Rows of MiniMax-Text-01: lightning attention in most layers."""

from __future__ import annotations

from table import WIDE, Row, row

SIZES = WIDE | {"num_local_experts": 7, "num_experts_per_tok": 3, "intermediate_size": 20, "block_size": 8}
FULL, LINEAR = "full_attention", "linear_attention"
ALPHAS = {"full_attn_alpha_factor": 1.7, "linear_attn_alpha_factor": 1.4, "mlp_alpha_factor": 1.2}
BETAS = {"full_attn_beta_factor": 0.8, "linear_attn_beta_factor": 0.9, "mlp_beta_factor": 0.7}
ODD = {"num_attention_heads": 5, "num_key_value_heads": 5}
ROWS: list[Row] = [
    row("minimax", "MiniMax", SIZES, num_hidden_layers=4, layer_types=[LINEAR, LINEAR, LINEAR, FULL]),
    row("minimax-factors", "MiniMax", SIZES | ALPHAS | BETAS, tie_word_embeddings=True),
    row("minimax-linear-last", "MiniMax", SIZES | ALPHAS, num_hidden_layers=4, hidden_act="gelu"),
    row("minimax-linear-alone", "MiniMax", SIZES | ODD, layer_types=[LINEAR] * 3),
    row("minimax-windows", "MiniMax", SIZES, layer_types=[LINEAR, FULL, FULL], sliding_window=7),
]
