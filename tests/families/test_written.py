"""What families write of whole catalog entries, and what they leave of what they are given."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

import lamina
from lamina import catalog
from lamina.arch import Architecture
from lamina.errors import LaminaError
from lamina.families import family_named, read_config
from lamina.nn.understood import not_understood
from lamina.published.common import factor

STEP = {
    "model_type": "step3p5",
    "vocab_size": 97,
    "hidden_size": 48,
    "num_hidden_layers": 5,
    "num_attention_heads": 6,
    "num_attention_groups": 2,
    "head_dim": 12,
    "intermediate_size": 56,
    "moe_num_experts": 7,
    "moe_top_k": 3,
    "moe_router_scaling_factor": 2.5,
}
"""In the words of the publisher."""


def text_of(name: str) -> Architecture:
    return lamina.architecture(name).replace(encoders=())


def test_a_catalog_entry_that_runs_is_written_as_it_was_read() -> None:
    found = {name: text_of(name) for name in lamina.names()}
    writing = {name: arch for name, arch in found.items() if family_named(arch.family).write}
    running = {name: arch for name, arch in writing.items() if not list(not_understood(arch))}
    assert len(running) >= 60
    for name, arch in running.items():
        written = json.loads(json.dumps(family_named(arch.family).written(arch)))
        assert read_config(written, name, name) == arch, name


@pytest.mark.parametrize("name", lamina.names())
def test_reading_changes_nothing_of_what_is_read(name: str) -> None:
    data = catalog.config(name)
    before = copy.deepcopy(data)
    read_config(data, name)
    assert data == before


def test_neither_do_other_spellings() -> None:
    data = dict(STEP)
    assert read_config(data).family == "step3p5"
    assert data == STEP


@pytest.mark.parametrize("listed", ["1,2,4", " 1, 2,4", [1, 2, 4], ["1", "2", "4"]])
def test_layers_with_experts_are_listed(listed: Any) -> None:
    kinds = [[op.kind for op in block.ops()][1] for block in read_config(STEP | {"moe_layers_enum": listed}).blocks]
    assert kinds == ["glu", "moe", "moe", "glu", "moe"]


@pytest.mark.parametrize("listed", ["1,x", "", [1.5], [None], [-1]])
def test_what_lists_no_layers_is_an_error(listed: Any) -> None:
    with pytest.raises(LaminaError, match=r"moe_layers_enum is .*; the numbers of layers are expected"):
        read_config(STEP | {"moe_layers_enum": listed})


@pytest.mark.parametrize(("outer", "inner", "tied"), [(True, False, True), (False, True, False), (None, True, True)])
@pytest.mark.parametrize("kind", ["step3p7", "muse_glimmer"])
def test_what_stands_outside_says_whether_embeddings_are_tied(kind: str, outer: Any, inner: bool, tied: bool) -> None:
    """As in the reference: rows that are tied are in rows_image_text.py."""
    text = {key: STEP[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")}
    text |= {"intermediate_size": 56, "num_key_value_heads": 2, "tie_word_embeddings": inner}
    data = {"model_type": kind, "text_config": text, "tie_word_embeddings": outer}
    assert read_config(data).head.tied is tied


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("step-3.5-flash", "model.layers.45.self_attn.q_proj.weight"),
        ("step-3.5-flash", "vit_large_projector.weight"),
        ("minimax-m2.5", "model.layers.62.block_sparse_moe.gate.weight"),
        ("mimo-v2-flash", "model.mtp.layers.0.self_attn.q_proj.weight"),
        ("mellum2-12b", "mtp.layers.0.mlp.gate.weight"),
        ("muse-spark-open", "model.audio_tower.norm.weight"),
    ],
)
def test_tensors_beside_the_decoder_are_passed_over_with_a_reason(name: str, tensor: str) -> None:
    arch = text_of(name)
    layout = family_named(arch.family).layout_of(arch)
    assert layout.reason_to_skip(tensor)
    last = len(arch.blocks) - 1
    assert layout.reason_to_skip(f"model.layers.{last}.self_attn.q_proj.weight") is None


def test_a_factor_is_found_as_it_was_written() -> None:
    for number in (3.87, 5.4730064863875, 2.0, 1 / 3):
        for size in (12, 64, 128):
            assert factor(number * size**-0.5, size**-0.5) == number
