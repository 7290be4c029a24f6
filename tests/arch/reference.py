"""The reference's text decoder of a catalog entry, built at full size on the meta device."""

from __future__ import annotations

import copy
import importlib
from typing import Any, NamedTuple

import torch
import transformers

from lamina import catalog
from lamina.arch import Architecture

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


class Counted(NamedTuple):
    """Numbers of a model: all its parameters, and what it learns (see HELD and CONSTANT)."""

    parameters: int
    learned: int


def text_of(arch: Architecture) -> Architecture:
    """An architecture without its encoders."""
    return arch.replace(encoders=()) if arch.encoders else arch


def text_decoder(name: str) -> Counted:
    """The text decoder of an entry as the reference counts it."""
    data = _known(catalog.config(name))
    whole = transformers.AutoConfig.for_model(**data)
    text = whole.get_text_config()
    if text is not whole and "tie_word_embeddings" in data:
        text.tie_word_embeddings = data["tie_word_embeddings"]
    with torch.device("meta"):
        model, headless = _built(text)
    found = {key: parameter.numel() for key, parameter in model.named_parameters()}
    if headless and not getattr(text, "tie_word_embeddings", False):
        found["lm_head.weight"] = text.vocab_size * text.hidden_size
    if name == "longcat-flash":  # gate and up rows of experts that return what they read
        found = {key: _without_identities(text, key, numbers) for key, numbers in found.items()}
    held = sum(buffer.numel() for key, buffer in model.named_buffers() if key.endswith(HELD))
    constant = sum(numbers for key, numbers in found.items() if key.endswith(CONSTANT))
    return Counted(sum(found.values()), sum(found.values()) + held - constant)


def _without_identities(text: Any, key: str, numbers: int) -> int:
    every = text.n_routed_experts + text.zero_expert_num
    return numbers * text.n_routed_experts // every if key.endswith("experts.gate_up_proj") else numbers


def with_encoders(name: str) -> int:
    """Parameters of the whole multimodal model of an entry."""
    with torch.device("meta"):
        whole = transformers.AutoConfig.for_model(**_known(catalog.config(name)))
        model = getattr(transformers, catalog.source(name)["counted_with"])(whole)
    return sum(parameter.numel() for parameter in model.parameters())


def _built(text: Any) -> tuple[torch.nn.Module, bool]:
    """The model of a text config; whether the library has it within a multimodal model only, and so without a head."""
    if type(text) in transformers.AutoModelForCausalLM._model_mapping:
        return transformers.AutoModelForCausalLM.from_config(text), False
    module = importlib.import_module(type(text).__module__.replace("configuration", "modeling"))
    stem = type(text).__name__.removesuffix("Config").removesuffix("Text")
    causal = getattr(module, f"{stem}ForCausalLM", None)
    return (causal or getattr(module, f"{stem}TextModel"))(text), causal is None
