"""Rows of xLSTM: the reference goes token by token below `chunk_size`, and takes whole chunks together.

The norm of each head divides by how long its output is, which is near zero where a query and the keys before it are
nearly at right angles; a larger `norm_eps` keeps that in bounds.
"""

from __future__ import annotations

from table import Row

SMALL = {
    "vocab_size": 97,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_heads": 2,
    "ffn_round_up_to_multiple_of": 8,
    "pad_token_id": None,
}
CHUNKS = {"chunk_size": 8, "qk_dim_factor": 0.5, "ffn_proj_factor": 1.3}


def row(name: str, **more: object) -> Row:
    return Row(name, "xLSTMForCausalLM", "xLSTMConfig", SMALL | more)


CAPS = CHUNKS | {"gate_soft_cap": 3.0, "output_logit_soft_cap": 5.0, "eps": 0.1, "norm_eps": 0.1}
ROWS: list[Row] = [
    row("xlstm"),
    row("xlstm-wide-values", **CHUNKS, num_heads=4, v_dim_factor=1.5, norm_eps=1e-2),
    row("xlstm-caps", **CAPS, hidden_size=60, num_heads=3),
]
