"""Rows of decoders that are Llama with one or two things of their own."""

from __future__ import annotations

from table import BASE, LLAMA3, WIDE, YARN, Row, row

GROWING = YARN | {"llama_4_scaling_beta": 0.3, "original_max_position_embeddings": 8}
MINISTRAL = WIDE | {"rope_parameters": GROWING}
LOCAL = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]

EACH = {key: value for key, value in BASE.items() if key != "num_key_value_heads"}
WHOLE = {"rope_type": "default", "rope_theta": 900.0, "partial_rotary_factor": 1.0}
HYBRID = ["hybrid_sliding", "hybrid", "hybrid_sliding"]
ZAYA = WIDE | {
    "moe_intermediate_size": 20,
    "num_experts": 5,
    "router_hidden_size": 14,
    "num_hidden_layers": 3,
    "tie_word_embeddings": False,
}
del ZAYA["intermediate_size"]
SHORTS = WIDE | {
    "vocab_size": 101,
    "unpadded_vocab_size": 97,
    "layer_types": HYBRID,
    "mlp_layer_types": ["dense", "sparse", "sparse"],
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 1,
    "swa_head_dim": 8,
    "moe_intermediate_size": 20,
    "n_routed_experts": 7,
    "num_experts_per_tok": 3,
    "n_shared_experts": 2,
    "sliding_window_size": 7,
    "d_rel": 5,
    "rel_extent": 11,
    "conv_kernel_size": 3,
}
SUMS = {key: value for key, value in SHORTS.items() if key not in ("mlp_layer_types", "n_shared_experts")} | {
    "num_hidden_layers": 5,
    "layer_types": [*HYBRID, "hybrid", "hybrid"],
    "n_layers_per_attn_res_block": 2,
    "log_scaling_n_floor": 6,
    "qk_l2_clip_threshold": 2.0,
    "rel_l2_clip_threshold": 1.5,
    "mlp_gate_softcap": 1.0,
    "mlp_up_softcap": 2.0,
}
del SUMS["intermediate_size"]

ROWS: list[Row] = [
    row("ministral3", "Ministral3", MINISTRAL),
    row("ministral3-windows", "Ministral3", MINISTRAL, sliding_window=7, tie_word_embeddings=True),
    row("seed-oss", "SeedOss", WIDE),
    row("seed-oss-biases", "SeedOss", WIDE, attention_bias=False, attention_out_bias=True, mlp_bias=True),
    row("exaone4", "Exaone4", WIDE, num_hidden_layers=4, sliding_window=7, rope_parameters=LLAMA3),
    row("exaone4-layers", "Exaone4", BASE, num_hidden_layers=4, sliding_window=7, layer_types=LOCAL),
    row("apertus", "Apertus", WIDE, attention_bias=True),
    row("apertus-llama3", "Apertus", BASE, rope_parameters=LLAMA3, tie_word_embeddings=True),
    row("nanochat", "NanoChat", WIDE, attention_bias=True),
    row("nanochat-uncapped", "NanoChat", BASE, final_logit_softcapping=None, hidden_act="silu"),
    row("zaya", "Zaya", ZAYA, cca_time0=3, attention_bias=True),
    row(
        "zaya-windows", "Zaya", ZAYA, sliding_window=7, layer_types=HYBRID, tie_word_embeddings=True, lm_head_bias=True
    ),
    row("persimmon", "Persimmon", EACH, hidden_act="gelu"),
    row("persimmon-without-norms", "Persimmon", EACH, qk_layernorm=False, tie_word_embeddings=True),
    row("persimmon-relu2", "Persimmon", EACH, num_attention_heads=4, rope_parameters=WHOLE),
    row("command-r", "Cohere", BASE, logit_scale=0.3),
    row("command-r-plus", "Cohere", BASE, use_qk_norm=True, attention_bias=True, tie_word_embeddings=True),
    Row("inkling", "InklingForCausalLM", "InklingTextConfig", SHORTS | {"log_scaling_n_floor": 6}),
    Row("inkling-unscaled", "InklingForCausalLM", "InklingTextConfig", SHORTS | {"unpadded_vocab_size": None}),
    Row("inkling2", "Inkling2ForCausalLM", "Inkling2TextConfig", SUMS),
    row("exaone4-unbounded", "Exaone4", BASE, sliding_window=None, layer_types=["full_attention"] * 3),
]
