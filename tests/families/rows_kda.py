"""Rows of the families with Kimi Delta Attention."""

from __future__ import annotations

from typing import Any

from table import BASE, Row, row

MLA = {
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "kv_lora_rank": 18,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 6,
    "v_head_dim": 14,
}
EXPERTS = {"moe_intermediate_size": 20, "num_experts": 16, "num_experts_per_token": 2, "num_shared_experts": 3}
KDA = {"head_dim": 8, "num_heads": 3, "short_conv_kernel_size": 5, "full_attn_layers": [2, 4], "kda_layers": [1, 3]}
KIMI = BASE | MLA | EXPERTS | {"num_hidden_layers": 4, "linear_attn_config": KDA, "pad_token_id": 0}
GROUPS = {"num_expert_group": 4, "topk_group": 2}
LAYERS = {"num_hidden_layers": 4, "head_dim": 20, "layer_group_size": 3}
LING = BASE | MLA | EXPERTS | GROUPS | LAYERS | {"hidden_size": 64, "pad_token_id": 0, "rms_norm_eps": 1e-2}
"""Channels and an epsilon that keep random weights well-conditioned: delta rules multiply differences."""
GLM = (
    BASE
    | MLA
    | {
        "hidden_size": 64,
        "num_hidden_layers": 5,
        "q_lora_rank": 22,
        "qk_rope_head_dim": 0,
        "moe_intermediate_size": 20,
        "n_routed_experts": 12,
        "n_shared_experts": 2,
        "num_experts_per_tok": 3,
        "mlp_layer_types": ["dense", "dense", "sparse", "sparse", "sparse"],
        "layer_types": [
            "linear_attention",
            "linear_attention",
            "indexed_attention",
            "linear_attention",
            "indexed_attention",
        ],
        "index_n_heads": 16,
        "index_head_dim": 9,
        "index_topk": 8,
        "index_kpool": 4,
        "hc_mult": 3,
        "hc_sinkhorn_iters": 4,
        "swiglu_limit": 0.9,
        "linear_num_heads": 3,
        "linear_head_dim": 24,
        "linear_conv_kernel_dim": 3,
        "pad_token_id": 0,
    }
)
SEES = {"hidden_size": 16, "intermediate_size": 20, "depth": 1, "num_heads": 2, "image_size": 28, "patch_size": 14}
SEES |= {"out_hidden_size": 64}
OTHER = [f"{kind}_attention" for kind in ("full", "linear", "linear", "full")]


def glm(name: str, **more: Any) -> Row:
    config = {"text_config": GLM | more, "vision_config": SEES}
    return Row(name, "Glm5NextForConditionalGeneration", "Glm5NextConfig", config)


ROWS: list[Row] = [
    row("kimi-linear", "KimiLinear", KIMI, num_experts_per_token=3),
    row("kimi-linear-groups", "KimiLinear", KIMI, **GROUPS, q_lora_rank=22, attention_bias=True, moe_renormalize=False),
    row("kimi-linear-dense-between", "KimiLinear", KIMI, mlp_layer_types=["dense", "sparse", "dense", "sparse"]),
    glm("glm-5.3"),
    glm("glm-5.3-unbounded", linear_lower_bound=None, linear_conv_kernel_dim=4),
    row("ling-3", "BailingHybrid", LING, short_conv_kernel_size=5, rope_theta=300.0),
    row("ling-3-unbounded", "BailingHybrid", LING, kda_safe_gate=False, attention_bias=True, first_k_dense_replace=1),
    row("ling-3-other-layers", "BailingHybrid", LING, layer_types=OTHER, kda_lower_bound=-2.0, moe_renormalize=False),
]
