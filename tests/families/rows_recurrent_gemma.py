"""Rows of RecurrentGemma."""

from __future__ import annotations

from table import BASE, Row, row

GRIFFIN = BASE | {"num_hidden_layers": 4, "attention_window_size": 7, "lru_width": 54, "logits_soft_cap": 3.0}
ROWS: list[Row] = [
    row("recurrent-gemma", "RecurrentGemma", GRIFFIN),
    row(
        "recurrent-gemma-biases",
        "RecurrentGemma",
        GRIFFIN,
        block_types=["attention", "recurrent", "recurrent"],
        attention_bias=True,
        num_key_value_heads=1,
        conv1d_width=3,
        lru_width=None,
        hidden_activation="silu",
        rope_parameters={"rope_type": "default", "rope_theta": 300.0, "partial_rotary_factor": 0.25},
    ),
]
