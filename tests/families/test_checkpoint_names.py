"""Checkpoints that the publishers name otherwise than the reference saves them, and tables that name no expert."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from table import ROWS

import lamina
from lamina.errors import LaminaError
from tests.reference import reference

PUBLISHED = {
    "deepseek-v4": {
        r"^model\.embed_tokens\.": "embed.",
        r"^model\.hc_head\.hc_": "hc_head_",
        r"^model\.": "",
    },
    "hy4": {
        r"hc_pre\.hc_attn_layer\.hc_": "attn_hc.",
        r"hc_pre\.hc_mlp_layer\.hc_": "ffn_hc.",
        r"model\.hc_pre\.hc_head\.hc_head_": "model.hc_head.hc_",
        r"linear_gate": "gate_proj",
        r"learnable_sink_param": "sinks",
    },
}
"""Patterns within the names that the reference saves, and what stands there instead."""


def saved(name: str, directory: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A copy of a row's checkpoint, and its tensors."""
    _, origin = reference(next(row for row in ROWS if row.name == name))
    shutil.copytree(origin, directory / name)
    return directory / name, load_file(origin / "model.safetensors")


@pytest.mark.parametrize("name", PUBLISHED)
def test_other_names_hold_the_same(name: str, tmp_path: Path) -> None:
    path, tensors = saved(name, tmp_path)
    expected = lamina.load(path)
    renamed = {}
    for old, tensor in tensors.items():
        new = old
        for pattern, other in PUBLISHED[name].items():
            new = re.sub(pattern, other, new)
        renamed[new] = tensor
    assert len(renamed) == len(tensors)
    assert set(renamed) != set(tensors)
    save_file(renamed, path / "model.safetensors", {"format": "pt"})
    found = lamina.load(path)
    left, right = expected.state_dict(), found.state_dict()
    assert left.keys() == right.keys()
    assert all(torch.equal(left[key], right[key]) for key in left)


def test_a_table_of_experts_that_there_are_not(tmp_path: Path) -> None:
    path, tensors = saved("deepseek-v4", tmp_path)
    key = "model.layers.0.ffn.gate.tid2eid"
    tensors[key][3, 1] = 9
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    with pytest.raises(LaminaError, match=r"blocks\.0\.feed_forward\.op\.router\.by_token must hold experts, 0 to 8"):
        lamina.load(path)
