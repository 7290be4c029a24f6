"""Heads for later tokens in published checkpoints: read where they are, said where they are not, saved as they came."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from table import ROWS

import lamina
from lamina.errors import LaminaError
from tests.reference import ids, reference, relative

NAMES = ("deepseek-v3", "glm-4.5", "glm-4.7-flash", "deepseek-v3.2", "glm-5")
CHOSEN = [next(row for row in ROWS if row.name == name) for name in NAMES]
LAYER = ("enorm.weight", "hnorm.weight", "eh_proj.weight", "shared_head.norm.weight")


@pytest.fixture(params=CHOSEN, ids=str)
def published(request, tmp_path):
    """A tiny checkpoint with one more layer behind the last, as its publisher writes it, and one without."""
    _, plain = reference(request.param)
    config = json.loads((plain / "config.json").read_text())
    tensors = load_file(plain / "model.safetensors")
    layers, width = config["num_hidden_layers"], config["hidden_size"]
    random = torch.Generator().manual_seed(4)
    last = {name: t for name, t in tensors.items() if f"layers.{layers - 1}." in name}
    assert last
    head = {name.replace(f".{layers - 1}.", f".{layers}.", 1): t.flip(-1).contiguous() for name, t in last.items()}
    shapes = dict.fromkeys(LAYER, (width,)) | {"eh_proj.weight": (width, 2 * width)}
    for name, shape in shapes.items():
        head[f"model.layers.{layers}.{name}"] = torch.randn(shape, generator=random) * 0.2
    head[f"model.layers.{layers}.embed_tokens.weight"] = tensors["model.embed_tokens.weight"].clone()
    head[f"model.layers.{layers}.shared_head.head.weight"] = tensors["lm_head.weight"].clone()
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_nextn_predict_layers": 1}))
    save_file(tensors | head, tmp_path / "model.safetensors")
    return tmp_path, plain, head


def test_heads_are_loaded_and_draft(published, tmp_path):
    directory, plain, head = published
    ours, without = lamina.load(directory), lamina.load(plain)
    assert ours.arch.prediction
    own = sum(t.numel() for name, t in head.items() if "embed_tokens" not in name and "shared_head.head" not in name)
    assert ours.arch.prediction_parameters == own == sum(p.numel() for p in ours.prediction.parameters())
    layers = len(ours.arch.blocks)
    assert torch.equal(ours.prediction[0].joining.weight, head[f"model.layers.{layers}.eh_proj.weight"])
    x = ids(1, 13)
    with torch.inference_mode():
        assert relative(ours(x), without(x)) == 0.0
    prompt = x[0].tolist()
    plainly = list(lamina.generate(without, prompt, max_new_tokens=12))
    assert list(lamina.generate(ours, prompt, max_new_tokens=12, speculate=2)) == plainly
    lamina.save(ours, tmp_path / "saved")
    again = lamina.load(tmp_path / "saved")
    assert again.arch == ours.arch
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), ours.parameters(), strict=True))


def test_a_checkpoint_without_them_says_so(published):
    directory, plain, _ = published
    tensors = load_file(plain / "model.safetensors")
    save_file(tensors, directory / "model.safetensors")
    ours = lamina.load(directory)
    assert ours.arch.prediction is None
    assert "predict later tokens" in ours.ignored["prediction"]
    assert ours.arch == lamina.load(plain).arch


def test_a_head_that_is_not_whole_is_refused(published):
    directory, plain, head = published
    gone = next(name for name in head if name.endswith("hnorm.weight"))
    tensors = load_file(plain / "model.safetensors") | {name: t for name, t in head.items() if name != gone}
    save_file(tensors, directory / "model.safetensors")
    with pytest.raises(LaminaError, match=r"hnorm\.weight' is missing"):
        lamina.load(directory)
