"""Rows of mixtures of experts: Mixtral, gpt-oss, GLM-4.5, Llama 4, OLMoE, Granite, dots.llm1, ERNIE, Phi, Hunyuan."""

from __future__ import annotations

from table import BASE, LLAMA3, THEN_FULL, WIDE, YARN, Row, row

LOCAL = {"num_local_experts": 10, "num_experts_per_tok": 3}
GPT_OSS = WIDE | LOCAL | {"sliding_window": 7}
PICKED = WIDE | {"n_routed_experts": 12, "num_experts_per_tok": 3, "moe_intermediate_size": 20}
GLM4 = PICKED | {"use_qk_norm": True, "routed_scaling_factor": 2.5, "num_hidden_layers": 4}
DOTS = PICKED | {"n_shared_experts": 2, "first_k_dense_replace": 1}
FOUR = WIDE | {"num_hidden_layers": 5, "floor_scale": 4, "attn_scale": 0.3, "attention_chunk_size": 7}
FOUR |= {"num_local_experts": 10, "intermediate_size_mlp": 64}
BENT = LLAMA3 | {"low_freq_factor": 1.0, "high_freq_factor": 1.0}
OLMOE = BASE | {"num_experts": 10, "num_experts_per_tok": 3, "pad_token_id": 1}
MULTIPLIED = BASE | LOCAL | {"embedding_multiplier": 6.0, "attention_multiplier": 0.2, "residual_multiplier": 0.3}
ERNIE = {"moe_num_experts": 10, "moe_k": 3, "moe_intermediate_size": 20, "pad_token_id": 0}
PHI = BASE | {"num_local_experts": 10, "attention_bias": True, "lm_head_bias": True}
LONG = {"rope_type": "longrope", "rope_theta": 900.0, "original_max_position_embeddings": 64}
LONG |= {"short_factor": [1.0, 1.1, 1.3, 1.6], "long_factor": [1.5, 2.5, 4.0, 7.0]}
LONG |= {"short_mscale": 1.24, "long_mscale": 1.24}
HY3 = WIDE | {"num_experts": 10, "num_experts_per_tok": 3, "moe_intermediate_size": 20, "num_hidden_layers": 4}
ALPHA = {"rope_type": "dynamic", "rope_theta": 100.0, "alpha": 50.0, "factor": 1.0}
ALPHA |= {"beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0}
HUNYUAN = WIDE | {"pad_token_id": 0}


def llama4(name: str, **more: object) -> Row:
    return Row(name, "Llama4ForCausalLM", "Llama4TextConfig", FOUR | more)


ROWS: list[Row] = [
    row("mixtral", "Mixtral", WIDE | LOCAL, sliding_window=None, rms_norm_eps=1e-3),
    row("mixtral-window", "Mixtral", BASE | LOCAL, sliding_window=7, tie_word_embeddings=True),
    row("gpt-oss", "GptOss", GPT_OSS, rope_parameters=YARN | {"truncate": False}, swiglu_limit=1.0),
    row("gpt-oss-alpha", "GptOss", GPT_OSS, layer_types=THEN_FULL, swiglu_alpha=1.1, attention_bias=False),
    row("glm-4.5", "Glm4Moe", GLM4, attention_bias=True, first_k_dense_replace=2, pad_token_id=0),
    row(
        "glm-4.5-groups",
        "Glm4Moe",
        GLM4,
        use_qk_norm=False,
        n_group=4,
        topk_group=2,
        n_shared_experts=2,
        rope_parameters={"rope_theta": 900.0, "rope_type": "default", "partial_rotary_factor": 1.0},
        norm_topk_prob=False,
    ),
    row("dots1", "Dots1", DOTS, norm_topk_prob=True, routed_scaling_factor=2.5, num_hidden_layers=4),
    row("dots1-windows", "Dots1", DOTS, sliding_window=7, max_window_layers=1, attention_bias=True, n_group=3),
    llama4("llama-4-scout", rope_parameters=BENT, num_experts_per_tok=1),
    llama4("llama-4-maverick", interleave_moe_layer_step=2, use_qk_norm=False),
    llama4("llama-4-biases", num_experts_per_tok=3, attention_bias=True, moe_layers=[1, 2, 4]),
    llama4("llama-4-steady", attn_temperature_tuning=False, no_rope_layers=[0, 1, 0, 1, 1], tie_word_embeddings=True),
    row("olmoe", "Olmoe", OLMOE),
    row("olmoe-biases", "Olmoe", OLMOE, attention_bias=True, norm_topk_prob=True, rope_parameters=YARN),
    row("flex-olmo", "FlexOlmo", OLMOE),
    row("flex-olmo-biases", "FlexOlmo", OLMOE, attention_bias=True, norm_topk_prob=True),
    row("granite-moe", "GraniteMoe", MULTIPLIED, logits_scaling=7.0, attention_bias=True),
    row("granite-moe-tied", "GraniteMoe", MULTIPLIED, tie_word_embeddings=True, rope_parameters=LLAMA3),
    row("granite-moe-shared", "GraniteMoeShared", MULTIPLIED, shared_intermediate_size=28, logits_scaling=7.0),
    row("granite-moe-shared-none", "GraniteMoeShared", MULTIPLIED, shared_intermediate_size=0),
    row("ernie-4.5", "Ernie4_5", WIDE, pad_token_id=0),
    row("ernie-4.5-biases", "Ernie4_5", WIDE, pad_token_id=0, use_bias=True, tie_word_embeddings=False),
    row("ernie-4.5-moe", "Ernie4_5_Moe", BASE | ERNIE, moe_num_shared_experts=3),
    row(
        "ernie-4.5-moe-biases",
        "Ernie4_5_Moe",
        BASE | ERNIE,
        num_hidden_layers=6,
        use_bias=True,
        moe_layer_interval=2,
        moe_layer_start_index=2,
        moe_layer_end_index=4,
        tie_word_embeddings=False,
    ),
    row("ernie-4.5-moe-unshared", "Ernie4_5_Moe", BASE | ERNIE, moe_num_shared_experts=0, num_hidden_layers=4),
    row("phi-3.5-moe", "Phimoe", PHI, rope_parameters=LONG, router_jitter_noise=0.27, num_hidden_layers=4),
    row("phi-3.5-moe-plain", "Phimoe", PHI, attention_bias=False, lm_head_bias=False, sliding_window=7),
    row("hy3", "HYV3", HY3),
    row(
        "hy3-biases",
        "HYV3",
        HY3,
        attention_bias=True,
        num_shared_experts=2,
        router_scaling_factor=1.5,
        mlp_layer_types=["sparse", "dense", "sparse", "dense"],
    ),
    row("hunyuan", "HunYuanDenseV1", HUNYUAN, rope_parameters=ALPHA, tie_word_embeddings=True),
    row("hunyuan-biases", "HunYuanDenseV1", HUNYUAN, attention_bias=True),
    row("hunyuan-a13b", "HunYuanMoEV1", HUNYUAN, num_experts=10, moe_topk=3, rope_parameters=ALPHA),
    row("hunyuan-a13b-list", "HunYuanMoEV1", HUNYUAN, num_experts=10, moe_topk=[2, 2, 2], attention_bias=True),
]
