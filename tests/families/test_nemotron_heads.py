"""The head for later tokens of Nemotron 3: layers of their own in the checkpoint, which the reference passes over."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from table import ROWS

import lamina
from tests.reference import ids, reference, relative

ROW = next(row for row in ROWS if row.name == "nemotron-3-super")
AROUND = {
    "layers.0.enorm.weight": (48,),
    "layers.0.hnorm.weight": (48,),
    "layers.0.eh_proj.weight": (48, 96),
    "layers.1.final_layernorm.weight": (48,),
}


@pytest.fixture
def published(tmp_path):
    """A tiny checkpoint with a head of an attention and of experts, as its publisher writes it, and one without."""
    _, plain = reference(ROW)
    config, tensors = json.loads((plain / "config.json").read_text()), load_file(plain / "model.safetensors")
    kinds, random = config["layers_block_type"], torch.Generator().manual_seed(4)
    head = {}
    for layer, kind in enumerate(("full_attention", "moe")):
        stem = f"backbone.layers.{kinds.index(kind)}."
        found = {name: t for name, t in tensors.items() if name.startswith(stem)}
        head |= {name.replace(stem, f"mtp.layers.{layer}."): t.flip(-1).contiguous() for name, t in found.items()}
    head |= {f"mtp.{name}": torch.randn(shape, generator=random) * 0.2 for name, shape in AROUND.items()}
    told = {"num_nextn_predict_layers": 1, "mtp_hybrid_override_pattern": "*E"}
    written = {key: value for key, value in config.items() if key != "mtp_layers_block_type"} | told
    (tmp_path / "config.json").write_text(json.dumps(written))
    save_file(tensors | head, tmp_path / "model.safetensors")
    return tmp_path, plain, head


def test_a_head_is_loaded_drafts_and_is_saved(published, tmp_path):
    directory, plain, head = published
    ours, without = lamina.load(directory), lamina.load(plain)
    assert ours.arch.prediction
    assert [op.kind for op in ours.arch.prediction.blocks[0].ops()] == ["attention", "moe"]
    own = sum(t.numel() for t in head.values())
    assert ours.arch.prediction_parameters == own == sum(p.numel() for p in ours.prediction.parameters())
    assert torch.equal(ours.prediction[0].joining.weight, head["mtp.layers.0.eh_proj.weight"])
    assert torch.equal(ours.prediction[0].norm.weight, head["mtp.layers.1.final_layernorm.weight"])
    x = ids(1, 13)
    with torch.inference_mode():
        assert relative(ours(x), without(x)) == 0.0
    plainly = list(lamina.generate(without, x[0].tolist(), max_new_tokens=12))
    assert list(lamina.generate(ours, x[0].tolist(), max_new_tokens=12, speculate=2)) == plainly
    lamina.save(ours, tmp_path / "saved")
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert all(torch.equal(saved[name], t) for name, t in head.items())
    assert lamina.load(tmp_path / "saved").arch == ours.arch


def test_a_checkpoint_without_it_says_so_and_one_with_it_may_be_read_without(published):
    directory, plain, head = published
    save_file(load_file(plain / "model.safetensors"), directory / "model.safetensors")
    ours = lamina.load(directory)
    assert ours.arch == lamina.load(plain).arch
    assert "predict later tokens" in ours.ignored["prediction"]
    save_file(load_file(plain / "model.safetensors") | head, directory / "model.safetensors")
    (directory / "config.json").write_text((plain / "config.json").read_text())
    ours = lamina.load(directory)
    assert ours.arch.prediction is None
    assert "predict later tokens" in ours.ignored["mtp.layers.0.enorm.weight"]
