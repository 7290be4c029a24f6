"""Rows of DiffLlama: differential attention."""

from __future__ import annotations

from table import BASE, LLAMA3, Row, row

PAIRS = BASE | {"num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 10}
ROWS: list[Row] = [
    row("diffllama", "DiffLlama", PAIRS),
    row("diffllama-biases", "DiffLlama", PAIRS, attention_bias=True, tie_word_embeddings=True, rope_parameters=LLAMA3),
    row("diffllama-mha", "DiffLlama", BASE, num_key_value_heads=6, num_hidden_layers=5, rms_norm_eps=1e-3),
]
