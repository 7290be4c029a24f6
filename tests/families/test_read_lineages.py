"""Lineages of one or two models each, read: weights, angles and state as the reference has them.

Routing corrections, which the reference keeps as buffers, count: they are shipped.
"""

from __future__ import annotations

import json

import pytest
import torch
import transformers

from lamina.arch import Attention, MoE
from lamina.catalog import config, source
from lamina.families import read_config
from lamina.ops.rotary import frequencies
from tests.families.lineages import DENSE, DRAWN_TOGETHER, ROUTED, TINY, entry, ours, text_config, theirs, tiny, total


@pytest.mark.parametrize("name", DENSE + ROUTED)
def test_every_weight_of_a_catalog_entry_is_the_references(name: str) -> None:
    arch, their = entry(name), text_config(config(name))
    found = theirs(their)
    assert arch.parameters().total == total(found)
    if their.model_type not in DRAWN_TOGETHER:
        assert ours(arch) == found


@pytest.mark.parametrize("kind", TINY)
def test_every_weight_of_small_models_is_the_references(kind: str) -> None:
    found = theirs(text_config({"model_type": kind, **TINY[kind]}))
    assert tiny(kind).parameters().total == total(found)
    if kind not in DRAWN_TOGETHER:
        assert ours(tiny(kind)) == found


@pytest.mark.parametrize("kind", TINY)
def test_what_the_reference_saves_reads_the_same(kind: str) -> None:
    """Its defaults, written out, are ours."""
    saved = json.loads(text_config({"model_type": kind, **TINY[kind]}).to_json_string(use_diff=False))
    assert read_config(saved) == tiny(kind)


@pytest.mark.parametrize("name", [name for name in DENSE + ROUTED if source(name)["state_bytes_per_token"]])
def test_state_of_a_token_is_the_published_one(name: str) -> None:
    """Published: every attention layer at full length, in bfloat16; what filters keep is of no token."""
    arch = entry(name)
    kept = [k for op in arch.ops() for k in op.keeps(arch.width) if k.each == "token" and k.kind != "index"]
    assert 2 * sum(k.numbers for k in kept) == source(name)["state_bytes_per_token"]


@pytest.mark.parametrize(
    "name",
    [
        *(kind for kind in TINY if "inkling" not in kind and kind != "hy_v4"),
        "laguna-xs-2",
        "mellum2-12b",
        "solar-open-100b",
    ],
)
def test_angles_are_the_references(name: str) -> None:
    their = text_config({"model_type": name, **TINY[name]} if name in TINY else config(name))
    arch = tiny(name) if name in TINY else entry(name)
    module = transformers.models
    kind = str(their.model_type)
    lineage = {"step3p5": "step3p7", "emu3_text_model": "emu3"}.get(kind, kind.removesuffix("_text"))
    modeling = getattr(getattr(module, lineage), f"modeling_{lineage}")
    rotary = next(
        getattr(modeling, part) for part in dir(modeling) if part.endswith("RotaryEmbedding") and "Vision" not in part
    )
    embedding = rotary(their)
    buffers = dict(embedding.named_buffers())
    turned = [op for op in arch.ops() if isinstance(op, Attention) and op.rotary and op.rotary.scaling is not None]
    turned = turned or [op for op in arch.ops() if isinstance(op, Attention) and op.rotary]
    assert turned
    for op in turned:
        assert op.rotary is not None
        key = "inv_freq" if "inv_freq" in buffers else f"{'sliding' if op.window else 'full'}_attention_inv_freq"
        torch.testing.assert_close(frequencies(op.rotary, 1), buffers[key], rtol=2e-6, atol=0)
        prefix = key.removesuffix("inv_freq")
        scaling = getattr(embedding, f"{prefix}attention_scaling")
        assert getattr(op.rotary.scaling, "attention_factor", 1.0) == pytest.approx(scaling, rel=1e-12)


@pytest.mark.parametrize("name", DENSE + ROUTED)
def test_the_catalogs_count_is_without_buffers(name: str) -> None:
    corrections = [op.router for op in entry(name).ops() if isinstance(op, MoE) and op.router.correction]
    buffers = sum(router.experts for router in corrections) if name != "laguna-xs-2" else 0
    whole = read_config(config(name))  # with encoders
    assert whole.parameters().total - buffers == source(name)["counted_parameters"]
