"""Rows of Mamba-2 and of hybrids of it and attention: Bamba, Granite 4, Falcon-H1."""

from __future__ import annotations

from table import BASE, WIDE, Row, row

MAMBA2 = {"vocab_size": 97, "hidden_size": 48, "state_size": 17, "num_hidden_layers": 3, "num_heads": 12, "head_dim": 8}
MAMBA2 |= {"n_groups": 3, "chunk_size": 7, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
HYBRID = {"mamba_n_heads": 12, "mamba_d_state": 17, "mamba_n_groups": 3, "mamba_d_conv": 5, "mamba_chunk_size": 7}
BAMBA = BASE | HYBRID | {"num_hidden_layers": 4, "attn_layer_indices": [1, 3]}
GRANITE = BASE | HYBRID | {"num_hidden_layers": 4, "layer_types": ["mamba", "attention", "mamba", "attention"]}
GRANITE |= {"embedding_multiplier": 6.0, "attention_multiplier": 0.2, "residual_multiplier": 0.3, "logits_scaling": 7.0}
GRANITE |= {"shared_intermediate_size": 28, "num_local_experts": 7, "num_experts_per_tok": 3}
FALCON = WIDE | HYBRID | {"mamba_d_ssm": 60, "mamba_d_head": 5}
MULTIPLIERS = {"ssm_multipliers": [0.5, 0.6, 0.7, 0.8, 0.9], "ssm_in_multiplier": 1.25, "ssm_out_multiplier": 0.7}
MULTIPLIERS |= {"attention_in_multiplier": 1.3, "attention_out_multiplier": 0.9375, "key_multiplier": 0.390625}
MULTIPLIERS |= {"mlp_multipliers": [0.4, 0.3], "embedding_multiplier": 5.656854, "lm_head_multiplier": 0.039}
BIASES = {"mamba_proj_bias": True, "projectors_bias": True, "mlp_bias": True}
ROWS: list[Row] = [
    row("mamba2", "Mamba2", MAMBA2),
    row(
        "mamba2-biases", "Mamba2", MAMBA2, use_bias=True, conv_kernel=3, tie_word_embeddings=True, expand=3, head_dim=12
    ),
    row("mamba2-limits", "Mamba2", MAMBA2, use_conv_bias=False, n_groups=1, time_step_limit=(0.2, 0.9)),
    row("bamba", "Bamba", BAMBA),
    row(
        "bamba-biases", "Bamba", BAMBA, mamba_proj_bias=True, attention_bias=True, mlp_bias=True, mamba_conv_bias=False
    ),
    row("bamba-limits", "Bamba", BAMBA, mamba_n_groups=1, time_step_limit=(0.2, 0.9), tie_word_embeddings=True),
    row("granite-hybrid", "GraniteMoeHybrid", GRANITE),
    row("granite-hybrid-dense", "GraniteMoeHybrid", GRANITE, num_local_experts=0, tie_word_embeddings=True),
    row(
        "granite-hybrid-rope",
        "GraniteMoeHybrid",
        GRANITE,
        position_embedding_type="rope",
        attention_bias=True,
        mamba_proj_bias=True,
    ),
    row("granite-hybrid-alone", "GraniteMoeHybrid", GRANITE, layer_types=["mamba"] * 4),
    row("falcon-h1", "FalconH1", FALCON),
    row("falcon-h1-multipliers", "FalconH1", FALCON, **MULTIPLIERS),
    row("falcon-h1-norm", "FalconH1", FALCON, mamba_rms_norm=True, mamba_norm_before_gate=True, **BIASES),
    row(
        "falcon-h1-norm-after",
        "FalconH1",
        FALCON,
        mamba_rms_norm=True,
        mamba_norm_before_gate=False,
        mamba_d_ssm=None,
        mamba_d_head="auto",
        tie_word_embeddings=True,
    ),
]
