"""Rows of families whose reference is an image-text class, read without images: Step 3.7, Muse."""

from __future__ import annotations

from typing import Any

from table import LLAMA3, WIDE, Row

STEP = WIDE | {
    "num_hidden_layers": 5,
    "sliding_window": 7,
    "layer_types": ["full_attention", *["sliding_attention"] * 3, "full_attention"],
    "num_sliding_attention_heads": 8,
    "mlp_layer_types": ["dense", "sparse", "sparse", "dense", "sparse"],
    "n_routed_experts": 10,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 20,
    "share_expert_dim": 28,
    "pad_token_id": 0,
}
STEP_SEES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "mlp_ratio": 1.0}
SLIDING = {"rope_type": "default", "rope_theta": 90.0}
PARTIAL = LLAMA3 | {"partial_rotary_factor": 0.5}


def step(name: str, tied: bool = False, **more: Any) -> Row:
    config = {"text_config": STEP | more, "vision_config": STEP_SEES, "tie_word_embeddings": tied}
    return Row(name, "Step3p7ForConditionalGeneration", "Step3p7Config", config)


MUSE = WIDE | {
    "num_hidden_layers": 5,
    "sliding_window": 7,
    "pad_token_id": 0,
    "qk_scale_factor": 1.3,
    "output_multiplier": 0.7,
    "final_logit_softcapping": 3.0,
}
SPARK = MUSE | {
    "num_hidden_layers": 4,
    "num_local_experts": 10,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 20,
    "moe_hidden_size": 28,
    "routed_scaling_factor": 1.5,
    "residual_gate_temperature": 1.1,
}
MUSE_SEES = {
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "pos_emb_height": 2,
    "pos_emb_width": 2,
}
MUSE_HEARS = {"patch_sizes": [4], "hidden_sizes": [8], "depths": [1], "num_hidden_layers": 1, "out_hidden_size": 48}


def muse(name: str, kind: str, text: dict[str, Any], tied: bool = False, **more: Any) -> Row:
    config = {"text_config": text | more, "vision_config": MUSE_SEES, "out_hidden_size": 64}
    config |= {"projector_hidden_size": 20, "tie_word_embeddings": tied}
    if kind == "Spark":
        config["audio_config"] = MUSE_HEARS
    return Row(name, f"Muse{kind}ForConditionalGeneration", f"Muse{kind}Config", config)


ROWS: list[Row] = [
    step(
        "step-3.5-flash",
        rope_parameters={"full_attention": PARTIAL, "sliding_attention": SLIDING},
        swiglu_limits=[0.0, 0.0, 0.9, 0.0, 0.7],
        swiglu_limits_shared=[0.3, 0.0, 0.5, 0.6, 0.0],
        moe_router_scaling_factor=2.5,
    ),
    step("step-3.7-biases", attention_bias=True, mlp_bias=True, query_pre_attn_scalar=9, tied=True),
    muse("muse-glimmer", "Glimmer", MUSE),
    muse("muse-glimmer-tied", "Glimmer", MUSE, tied=True, attention_bias=True, layer_rope_theta=[0, 1e4, 0, 1e4, 1e4]),
    muse("muse-spark", "Spark", SPARK),
    muse("muse-spark-dense", "Spark", SPARK, mlp_layer_types=["dense", "sparse", "sparse", "dense"]),
]
