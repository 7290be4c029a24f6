"""The reference's text decoder of a catalog entry, built at full size on the meta device."""

from __future__ import annotations

import copy
import importlib
import math
from typing import Any

import torch
import transformers

from lamina import catalog

HELD = ("e_score_correction_bias", "expert_bias", "balancing_biases", "layer_scalar", "rotary_emb.alpha")
"""What the reference keeps as buffers although it is learned and shipped: it counts here."""
CONSTANT = ("z_L_init",)
"""What it makes parameters of although it stays as it is (zero): it does not count."""
OUTSIDE = {
    "grok-2.5": "the library has no class of it",
    "hrm": "the library has no class of it; tests/families/test_recursive.py compares with its authors' code",
    "kimi-k3": "the library has no class of it",
    "llada-8b": "the library has no class of it",
    "longcat-flash-lite": "the library's LongCat has no n-gram tables",
    "nanbeige-4.2-3b": "the library has no class of it; its weights are Llama's",
    "ouro-2.6b": "the library has no class of it; its weights are Llama's and a few more",
    "trm": "the library has no class of it; tests/families/test_recursive.py compares with its authors' code",
}
"""Entries that the reference library cannot build, and why."""
MINIMAX = {"layernorm_full_attention_": "full_attn_", "layernorm_linear_attention_": "linear_attn_"}


def _known(data: dict[str, Any]) -> dict[str, Any]:
    """A config in the words of the library's class, where it calls the model or its keys otherwise."""
    kept = {key: value for key, value in copy.deepcopy(data).items() if key not in ("quantization_config", "auto_map")}
    if data["model_type"] == "kimi_k2":
        return kept | {"model_type": "deepseek_v3"}
    if data["model_type"] != "minimax_m1":
        return kept
    kinds = ["full_attention" if kind else "linear_attention" for kind in data["attn_type_list"]]
    factors = {f"{place}{k}_factor": data[f"{key}{k}"] for key, place in MINIMAX.items() for k in ("alpha", "beta")}
    kept = {key: value for key, value in kept.items() if not key.startswith(("layernorm", "attn_type", "post"))}
    return kept | factors | {"model_type": "minimax", "layer_types": kinds}


def text_decoder(name: str) -> dict[str, torch.Tensor]:
    """What it learns, by its names: parameters, the head once more only if it is not tied, and `HELD` buffers."""
    data = _known(catalog.config(name))
    whole = transformers.AutoConfig.for_model(**data)
    text = whole.get_text_config()
    if text is not whole and "tie_word_embeddings" in data:
        text.tie_word_embeddings = data["tie_word_embeddings"]
    with torch.device("meta"):
        model, headless = _built(text)
    found = {key: tensor for key, tensor in model.named_parameters() if not key.endswith(CONSTANT)}
    found |= {key: tensor for key, tensor in model.named_buffers() if key.endswith(HELD)}
    if headless and not getattr(text, "tie_word_embeddings", False):
        found["lm_head.weight"] = torch.empty(text.vocab_size, text.hidden_size, device="meta")
    if name == "longcat-flash":  # gate and up rows of experts that return what they read
        found = {
            key: tensor[: text.n_routed_experts] if "experts.gate_up" in key else tensor
            for key, tensor in found.items()
        }
    return found


def _built(text: Any) -> tuple[torch.nn.Module, bool]:
    """The model of a text config; whether the library has it within a multimodal model only, and so without a head."""
    if type(text) in transformers.AutoModelForCausalLM._model_mapping:
        return transformers.AutoModelForCausalLM.from_config(text), False
    module = importlib.import_module(type(text).__module__.replace("configuration", "modeling"))
    stem = type(text).__name__.removesuffix("Config").removesuffix("Text")
    causal = getattr(module, f"{stem}ForCausalLM", None)
    return (causal or getattr(module, f"{stem}TextModel"))(text), causal is None


def learned(tensors: dict[str, torch.Tensor]) -> int:
    return sum(math.prod(tensor.shape) for tensor in tensors.values())
