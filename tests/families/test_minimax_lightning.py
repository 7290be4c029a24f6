"""MiniMax-Text-01 and M1 in the publisher's own words, which say more than the reference's."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from table import ROWS

import lamina
from lamina.arch import Attention
from lamina.errors import LaminaError
from lamina.families import family_named
from tests.reference import ids, reference, relative

ROW = next(row for row in ROWS if row.name == "minimax-factors")
PLACES = {"linear_attn": "layernorm_linear_attention", "full_attn": "layernorm_full_attention", "mlp": "layernorm_mlp"}


def published(directory, where, **more):
    """The reference's checkpoint with a config as MiniMax-M1's is."""
    shutil.copytree(directory, where)
    data = json.loads((where / "config.json").read_text())
    kinds = [int(kind == "full_attention") for kind in data.pop("layer_types")]
    for place, theirs in PLACES.items():
        for ours, said in (("alpha_factor", "alpha"), ("beta_factor", "beta")):
            data[f"{theirs}_{said}"] = data.pop(f"{place}_{ours}")
    data |= {"model_type": "minimax_m1", "architectures": ["MiniMaxM1ForCausalLM"], "attn_type_list": kinds}
    data |= {"postnorm": True, "rotary_dim": 12, "rope_theta": data.pop("rope_parameters")["rope_theta"]} | more
    (where / "config.json").write_text(json.dumps(data))
    return where


@torch.inference_mode()
def test_the_publishers_words_mean_the_same(tmp_path):
    theirs, directory = reference(ROW)
    ours = lamina.load(published(directory, tmp_path / "published"))
    x = ids(2, 19)
    assert relative(ours(x), theirs(x, use_cache=False).logits) <= 1e-5


@pytest.mark.parametrize("more", [{"rotary_dim": 6}, {"postnorm": False}])
@torch.inference_mode()
def test_what_the_reference_cannot_say_is_saved_as_published(tmp_path, more):
    _, directory = reference(ROW)
    plain, ours = lamina.load(directory), lamina.load(published(directory, tmp_path / "published", **more))
    x = ids(2, 19)
    assert relative(ours(x), plain(x)) > 1e-3
    lamina.save(ours, tmp_path / "saved")
    again = lamina.load(tmp_path / "saved")
    assert again.arch == ours.arch
    assert torch.equal(again(x), ours(x))
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["model_type"] == "minimax_m1"


def test_minimax_m1_is_written_as_it_was_published():
    arch = lamina.architecture("minimax-m1")
    written = family_named("minimax").written(arch)
    said = {"attn_type_list": [0, 0, 0, 0, 0, 0, 0, 1] * 10, "num_local_experts": 32, "layernorm_mlp_beta": 1.0}
    assert said.items() <= written.items()
    (attention,) = {op for op in arch.ops() if isinstance(op, Attention)}
    assert attention.rotary
    assert attention.rotary.dim == 64
    assert lamina.architecture(written).replace(name=arch.name) == arch
    layout = family_named("minimax").layout_of(arch)
    assert "follow" in str(layout.reason_to_skip("model.layers.0.self_attn.slope_rate"))
    assert layout.reason_to_skip("model.layers.0.self_attn.qkv_proj.weight") is None


def test_a_list_of_kinds_has_one_for_each_layer(tmp_path):
    _, directory = reference(ROW)
    with pytest.raises(LaminaError, match="attn_type_list needs 3 entries"):
        lamina.load(published(directory, tmp_path / "published", attn_type_list=[0, 1]))
