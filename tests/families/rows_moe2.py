"""Rows of further mixtures of experts: MiniMax-M2, Trinity, MiMo, Laguna, Command A+, Mellum, Solar Open."""

from __future__ import annotations

from table import LLAMA3, WIDE, YARN, Row, row

ROUTED = {"num_experts": 10, "num_experts_per_tok": 3}
LOCAL = {"num_local_experts": 10, "num_experts_per_tok": 3}
PICKED = {"n_routed_experts": 10, "num_experts_per_tok": 3, "moe_intermediate_size": 20}
KINDS = ["full_attention", "sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
SPARSE = ["dense", "sparse", "sparse", "dense", "sparse"]
FIVE = {"num_hidden_layers": 5, "layer_types": KINDS, "sliding_window": 7}
PARTIAL = {"rope_type": "default", "rope_theta": 700.0, "partial_rotary_factor": 0.5}
TURNED = {"full_attention": YARN | {"partial_rotary_factor": 0.5}, "sliding_attention": PARTIAL | {"rope_theta": 90.0}}
WHOLE = {"full_attention": YARN, "sliding_attention": {"rope_type": "default", "rope_theta": 90.0}}
BOTH = {"full_attention": PARTIAL, "sliding_attention": {"rope_type": "default", "rope_theta": 90.0}}
LAGUNA = WIDE | FIVE | ROUTED | {"moe_intermediate_size": 20, "shared_expert_intermediate_size": 28}
LAGUNA |= {"mlp_layer_types": SPARSE, "num_attention_heads_per_layer": [6, 8, 4, 6, 8]}
COHERE = WIDE | ROUTED | {"sliding_window": 7, "num_hidden_layers": 5}

ROWS: list[Row] = [
    row("minimax-m2", "MiniMaxM2", WIDE | LOCAL, rope_parameters=PARTIAL),
    row("minimax-m2-yarn", "MiniMaxM2", WIDE | LOCAL, rope_parameters=YARN, tie_word_embeddings=True),
    row(
        "trinity",
        "Afmoe",
        WIDE | ROUTED,
        num_hidden_layers=5,
        moe_intermediate_size=20,
        sliding_window=7,
        num_dense_layers=2,
        mup_enabled=True,
        route_scale=2.5,
    ),
    row(
        "trinity-biases",
        "Afmoe",
        WIDE | ROUTED | FIVE,
        moe_intermediate_size=20,
        num_shared_experts=1,
        attention_bias=True,
        rope_parameters=LLAMA3,
    ),
    row("mimo-v2-flash", "MiMoV2Flash", WIDE | PICKED | FIVE, v_head_dim=10, num_attention_heads=8),
    row(
        "mimo-v2-flash-groups",
        "MiMoV2Flash",
        WIDE | PICKED | FIVE,
        v_head_dim=14,
        num_attention_heads=8,
        n_group=5,
        topk_group=2,
        attention_bias=True,
        attention_value_scale=None,
        norm_topk_prob=False,
        routed_scaling_factor=1.5,
        mlp_layer_types=SPARSE,
        rope_parameters=BOTH,
    ),
    row("laguna", "Laguna", LAGUNA, rope_parameters=TURNED, moe_routed_scaling_factor=2.5),
    row("laguna-elements", "Laguna", LAGUNA, gating="per-element", moe_router_logit_softcapping=1.5),
    row("command-a-plus", "Cohere2Moe", COHERE, num_shared_experts=3, expert_selection_fn="sigmoid"),
    row(
        "command-a-plus-softmax",
        "Cohere2Moe",
        COHERE,
        num_shared_experts=2,
        shared_expert_combination_strategy="sum",
        attention_bias=True,
        logit_scale=0.3,
        tie_word_embeddings=False,
        first_k_dense_replace=2,
        prefix_dense_sliding_window_pattern=2,
        prefix_dense_intermediate_size=38,
    ),
    row(
        "north-mini-code",
        "Cohere2Moe",
        COHERE,
        rms_norm_eps=1e-5,
        first_k_dense_replace=1,
        prefix_dense_intermediate_size=38,
        expert_selection_fn="sigmoid",
        norm_topk_prob=False,
        layer_types=KINDS,
    ),
    row("mellum-2", "Mellum", WIDE | FIVE | ROUTED, moe_intermediate_size=20, rope_parameters=WHOLE),
    row(
        "mellum-2-dense",
        "Mellum",
        WIDE | FIVE | ROUTED,
        moe_intermediate_size=20,
        mlp_layer_types=SPARSE,
        norm_topk_prob=False,
        attention_bias=True,
    ),
    row("solar-open", "SolarOpen", WIDE | PICKED, n_shared_experts=2, rope_parameters=YARN),
    row("solar-open-groups", "SolarOpen", WIDE | PICKED, n_group=5, topk_group=2, attention_bias=True),
]
