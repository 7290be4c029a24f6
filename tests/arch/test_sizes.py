"""Every architecture of the catalog at its full size: formula = our modules = the reference's, on the meta device."""

from __future__ import annotations

import time

import pytest
import torch
import transformers

import lamina
from lamina import catalog

OUTSIDE = {"llada-8b", "trm"}
"""What the reference library does not have."""
CLASSES = {"mllama_text_model": "MllamaForCausalLM", "gemma3_text": "Gemma3ForCausalLM"}
"""Text decoders that its table of automatic classes leaves out, or hides in a multimodal class."""


def reference(name: str) -> torch.nn.Module:
    """The reference's causal language model, its text part if it reads images too."""
    config = catalog.config(name)
    whole = transformers.AutoConfig.for_model(**config)
    text = whole.get_text_config()
    if text is not whole:
        text.tie_word_embeddings = config.get("tie_word_embeddings", text.tie_word_embeddings)
    with torch.device("meta"):
        if text.model_type in CLASSES:
            return getattr(transformers, CLASSES[text.model_type])(text)
        return transformers.AutoModelForCausalLM.from_config(text)


@pytest.mark.parametrize("name", lamina.names())
def test_full_size(name):
    arch = lamina.architecture(name)
    before = time.perf_counter()
    ours = lamina.build(arch, device="meta")
    assert time.perf_counter() - before < 10
    assert all(p.device.type == "meta" for p in ours.parameters())
    total = sum(p.numel() for p in ours.parameters() if p.requires_grad)
    assert arch.parameters().total == total
    if name in OUTSIDE:
        model_type = catalog.config(name)["model_type"]
        assert model_type not in transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES
        return
    theirs = reference(name)
    assert sum(p.numel() for p in theirs.parameters()) == total
    shapes = sorted(tuple(p.shape) for p in theirs.parameters())
    fused = {"phi3", "gpt2"}  # one matrix for q, k and v
    assert arch.family in fused or sorted(tuple(p.shape) for p in ours.parameters()) == shapes


def test_enough_is_compared():
    compared = set(lamina.names()) - OUTSIDE
    assert len(compared) >= 28
    families = {lamina.architecture(name).family for name in compared}
    assert {"gpt2", "llama", "mistral", "qwen2", "qwen3", "olmo2", "olmo3"} <= families
    assert {"gemma2", "gemma3", "smollm3", "phi3", "cohere2", "cwm", "mllama"} <= families
