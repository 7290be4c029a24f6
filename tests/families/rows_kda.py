"""Rows of the families with Kimi Delta Attention."""

from __future__ import annotations

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
LING = (
    BASE
    | {"hidden_size": 72}
    | MLA
    | EXPERTS
    | GROUPS
    | {"num_hidden_layers": 4, "head_dim": 16, "layer_group_size": 3, "pad_token_id": 0}
)
OTHER = [f"{kind}_attention" for kind in ("full", "linear", "linear", "full")]
ROWS: list[Row] = [
    row("kimi-linear", "KimiLinear", KIMI, num_experts_per_token=3),
    row("kimi-linear-groups", "KimiLinear", KIMI, **GROUPS, q_lora_rank=22, attention_bias=True, moe_renormalize=False),
    row("kimi-linear-dense-between", "KimiLinear", KIMI, mlp_layer_types=["dense", "sparse", "dense", "sparse"]),
    row("ling-3", "BailingHybrid", LING, short_conv_kernel_size=5, rope_theta=300.0),
    row("ling-3-unbounded", "BailingHybrid", LING, kda_safe_gate=False, attention_bias=True, first_k_dense_replace=1),
    row("ling-3-other-layers", "BailingHybrid", LING, layer_types=OTHER, kda_lower_bound=-2.0, moe_renormalize=False),
]
