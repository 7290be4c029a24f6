"""Rows of Mamba, Falcon-Mamba, and the hybrid of Mamba, attention and experts, Jamba."""

from __future__ import annotations

from table import BASE, Row, row

MAMBA = {"vocab_size": 97, "hidden_size": 48, "state_size": 9, "num_hidden_layers": 3, "bos_token_id": 1}
MAMBA |= {"eos_token_id": 2, "pad_token_id": None, "layer_norm_epsilon": 1.0}
JAMBA = BASE | {"num_hidden_layers": 4, "num_experts": 7, "num_experts_per_tok": 3, "mamba_d_state": 9}
JAMBA |= {"attn_layer_period": 3, "attn_layer_offset": 1, "rms_norm_eps": 1.0}
"""So large an epsilon bounds how much a norm lifts of what is nearly zero: random products of so many factors are
ill-conditioned without (perturbed by 1e-7, the weights move the reference's logits by 1e-5 to 5e-5; so, by 1e-6)."""

ROWS: list[Row] = [
    row("mamba", "Mamba", MAMBA),
    row("mamba-biases", "Mamba", MAMBA, use_bias=True, expand=3, conv_kernel=5, time_step_rank=7),
    row("mamba-untied", "Mamba", MAMBA, use_conv_bias=False, tie_word_embeddings=False, time_step_rank=1),
    row("falcon-mamba", "FalconMamba", MAMBA, tie_word_embeddings=False, time_step_rank=7, mixer_rms_eps=1e-3),
    row("falcon-mamba-inner", "FalconMamba", MAMBA, expand=16, intermediate_size=70, use_bias=True),
    row("jamba", "Jamba", JAMBA),
    row("jamba-biases", "Jamba", JAMBA, mamba_proj_bias=True, mamba_conv_bias=False, mamba_expand=3, mamba_dt_rank=7),
    row("jamba-dense", "Jamba", JAMBA, num_experts=1, tie_word_embeddings=True, mamba_d_conv=3, attn_layer_period=2),
    row("jamba-experts-first", "Jamba", JAMBA, expert_layer_period=3, expert_layer_offset=0),
]
