"""Lineages of one or two models each: small configs, and the text decoders that the reference builds of configs.

Where the reference has no causal class of a text decoder, encoders and projectors are left out of the image-text class.
"""

from __future__ import annotations

import copy
import math
import re
from collections import Counter
from typing import Any

import torch
import transformers

from lamina.arch import Architecture
from lamina.arch.bill import lines
from lamina.catalog import config
from lamina.families import read_config
from tests.families.shapes import SMALL

DENSE = [
    *("command-r", "ministral-3-8b", "emu3", "fuyu-8b", "llava-1.5-7b", "pixtral-12b", "muse-glimmer-30b"),
    *("qwen2-vl-7b", "qwen2-vl-72b", "molmo2-8b"),
]
ROUTED = [
    *("step-3.5-flash", "hy3-preview", "hy4-preview", "laguna-xs-2", "solar-open-100b", "command-a-plus"),
    *("north-mini-code", "mellum2-12b", "inkling", "inkling-2-small", "muse-spark-open"),
]
WHOLE = {  # no causal class of the text decoder
    "step3p5": ("Step3p7Config", "Step3p7ForConditionalGeneration"),
    "qwen2_vl_text": ("Qwen2VLConfig", "Qwen2VLForConditionalGeneration"),
    "molmo2_text": ("Molmo2Config", "Molmo2ForConditionalGeneration"),
    "muse_glimmer_text": ("MuseGlimmerConfig", "MuseGlimmerForConditionalGeneration"),
    "muse_spark_text": ("MuseSparkConfig", "MuseSparkForConditionalGeneration"),
}
NAMED = {
    "inkling_text": "InklingForCausalLM",
    "inkling2_text": "Inkling2ForCausalLM",
    "emu3_text_model": "Emu3ForCausalLM",
}
PLAIN = {key: value for key, value in SMALL.items() if key != "head_dim"} | {"hidden_size": 48}
EXPERTS = {"num_experts_per_tok": 3, "moe_intermediate_size": 20}
MIXED = {"layer_types": [*["sliding_attention", "full_attention"] * 2, "sliding_attention"], "sliding_window": 9}
HYBRID = {"layer_types": [*["hybrid_sliding", "hybrid"] * 2, "hybrid_sliding"], "sliding_window_size": 9}
OWN = {"swa_num_attention_heads": 10, "swa_num_key_value_heads": 5, "swa_head_dim": 14, "d_rel": 3, "rel_extent": 11}
SPARSE = {"mlp_layer_types": ["dense", "sparse", "dense", "sparse", "sparse"]}
LATENT = {"q_lora_rank": 18, "kv_lora_rank": 22, "qk_nope_head_dim": 10, "qk_rope_head_dim": 6, "v_head_dim": 14}
TINY: dict[str, dict[str, Any]] = {
    "cohere": PLAIN | {"use_qk_norm": True, "attention_bias": True, "tie_word_embeddings": False},
    "apertus": PLAIN | {"attention_bias": True},
    "exaone4": PLAIN | {"sliding_window": 9, "sliding_window_pattern": 2},
    "seed_oss": SMALL | {"attention_out_bias": True, "mlp_bias": True},
    "ministral3": SMALL | {"sliding_window": 9},
    "persimmon": {key: value for key, value in PLAIN.items() if key != "num_key_value_heads"},
    "emu3_text_model": PLAIN,
    "qwen2_vl_text": PLAIN
    | {"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0, "mrope_section": [1, 1, 2]}}
    | {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 3},
    "molmo2_text": SMALL
    | {"qk_norm_type": "olmo", "norm_after": True, "additional_vocab_size": 7, "rope_scaling_layers": [1, 3]}
    | {"rope_parameters": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 2.0}, "attention_bias": True},
    "solar_open": SMALL | EXPERTS | {"n_routed_experts": 8, "n_group": 4, "topk_group": 2, "n_shared_experts": 3},
    "mellum": SMALL | EXPERTS | MIXED | SPARSE | {"num_experts": 7, "attention_bias": True},
    "laguna": SMALL
    | EXPERTS
    | MIXED
    | SPARSE
    | {"num_experts": 7, "shared_expert_intermediate_size": 24, "num_attention_heads_per_layer": [8, 6, 8, 6, 10]}
    | {"gating": "per-element", "moe_router_logit_softcapping": 3.0, "moe_routed_scaling_factor": 2.5},
    "cohere2_moe": SMALL
    | MIXED
    | SPARSE
    | {"num_experts": 7, "num_experts_per_tok": 3, "num_shared_experts": 3, "prefix_dense_intermediate_size": 64}
    | {"expert_selection_fn": "sigmoid", "rms_norm_eps": 1e-6, "norm_topk_prob": False},
    "hy_v3": SMALL | EXPERTS | SPARSE | {"num_experts": 7, "num_shared_experts": 3, "attention_bias": True},
    "hy_v4": SMALL
    | EXPERTS
    | LATENT
    | SPARSE
    | {"num_key_value_heads": 6, "n_routed_experts": 7, "n_shared_experts": 3, "hc_mult": 3, "hc_magnitude": 1.5}
    | {
        "index_n_heads": 5,
        "index_head_dim": 16,
        "index_topk": 4,
        "indexer_types": ["full", "shared", "full"] + ["shared"] * 2,
    },
    "step3p5": SMALL
    | EXPERTS
    | MIXED
    | SPARSE
    | {"n_routed_experts": 7, "share_expert_dim": 24, "num_sliding_attention_heads": 10, "query_pre_attn_scalar": 9}
    | {
        "swiglu_limits": [0, 0, 0, 5.0, 0],
        "swiglu_limits_shared": [0, 3.0, 0, 0, 6.0],
        "moe_router_scaling_factor": 3.0,
    },
    "muse_glimmer_text": SMALL | {"hidden_size": 42, "sliding_window": 9},
    "muse_spark_text": SMALL
    | EXPERTS
    | SPARSE
    | {"hidden_size": 42, "sliding_window": 9, "num_local_experts": 7, "moe_hidden_size": 26, "attention_bias": True},
    "inkling_text": SMALL
    | EXPERTS
    | HYBRID
    | OWN
    | SPARSE
    | {"n_routed_experts": 7, "n_shared_experts": 3, "unpadded_vocab_size": 91, "log_scaling_n_floor": 5},
    "inkling2_text": {key: value for key, value in SMALL.items() if key != "intermediate_size"}
    | EXPERTS
    | HYBRID
    | OWN
    | {"n_routed_experts": 7, "unpadded_vocab_size": 91, "n_layers_per_attn_res_block": 2, "conv_kernel_size": 3},
}
DRAWN_TOGETHER = ("persimmon", "inkling_text", "inkling2_text")  # some matrices of ours are one in the reference


def text_config(data: dict[str, Any]) -> Any:
    """The reference's config of the text decoder."""
    data = copy.deepcopy(data)
    if data["model_type"] == "inkling_mm_model":
        return transformers.InklingTextConfig(**data["text_config"])
    if data["model_type"] == "step3p5":
        return transformers.Step3p7Config(text_config=data).text_config
    return transformers.AutoConfig.for_model(**data).get_text_config()


def reference(their: Any) -> dict[str, torch.Tensor]:
    """The tensors of the reference's text decoder, without memory."""
    with torch.device("meta"):
        if their.model_type in WHOLE:
            outer, name = (getattr(transformers, part) for part in WHOLE[their.model_type])
            more = {"audio_config": {"out_hidden_size": their.hidden_size}} if "spark" in their.model_type else {}
            found = name(outer(text_config=their.to_dict(), **more)).state_dict()
        elif their.model_type in NAMED:
            found = getattr(transformers, NAMED[their.model_type])(their).state_dict()
        else:
            found = transformers.AutoModelForCausalLM.from_config(their).state_dict()
    return {
        name: t for name, t in found.items() if not re.search("visi|visual|audio|adapter|projector|multi_modal", name)
    }


def theirs(their: Any) -> Counter[tuple[int, ...]]:
    """Shapes of the reference's weights, how often each: gate and up, which it packs, taken apart."""
    found = Counter[tuple[int, ...]]()
    tied = getattr(their, "tie_word_embeddings", False) and their.model_type not in ("inkling_text", "inkling2_text")
    for name, tensor in reference(their).items():
        shape, packed = tuple(n for n in tensor.shape if n != 1), name.endswith("gate_up_proj")
        if packed:
            shape = (shape[0], shape[1] // 2, *shape[2:])
        if name.rsplit(".", 1)[-1] in ("beta", "eps"):
            continue  # constants of xIELU
        if not (tied and name == "lm_head.weight"):
            found[shape if their.model_type != "cohere" or "_norm" not in name else (math.prod(shape),)] += 1 + packed
    return found


def ours(arch: Architecture) -> Counter[tuple[int, ...]]:
    found: Counter[tuple[int, ...]] = Counter()
    for line in lines(arch):
        for shape in line.weights.values():
            found[tuple(n for n in shape if n != 1)] += line.times
    return found


def total(shapes: Counter[tuple[int, ...]]) -> int:
    return sum(times * math.prod(shape) for shape, times in shapes.items())


def entry(name: str) -> Architecture:
    """Its text decoder; tests/families/test_read_encoders.py compares what stands beside it."""
    return read_config(config(name), name).replace(encoders=())


def tiny(kind: str, **changed: Any) -> Architecture:
    return read_config({"model_type": kind, **TINY[kind], **changed})
