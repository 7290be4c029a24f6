"""Checkpoints of families with latent attention as they are published: among encoders, with layers that draft."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from table import ROWS

import lamina
from lamina.arch import Rotary
from lamina.arch.edit import rewritten
from lamina.errors import LaminaError
from tests.reference import ids, reference, relative

BESIDE = {
    "vision_tower.patch_embed.proj.weight": torch.zeros(3, 2),
    "mm_projector.proj.0.weight": torch.zeros(2, 3),
}


def published(name, directory):
    """The tensors and config of a row's checkpoint, to be changed, and where to put them."""
    model, source = reference(next(row for row in ROWS if row.name == name))
    directory.mkdir()
    return model, load_file(source / "model.safetensors"), json.loads((source / "config.json").read_text())


def written(directory, tensors, config):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@torch.inference_mode()
def test_kimi_k2_5_is_read_among_its_encoder(tmp_path):
    model, tensors, config = published("kimi-k2", tmp_path / "kimi")
    tensors = {f"language_model.{name}": tensor for name, tensor in tensors.items()} | BESIDE
    text = config | {"model_type": "kimi_k2"}
    whole = {"model_type": "kimi_k25", "text_config": text, "tie_word_embeddings": False}
    ours = lamina.load(written(tmp_path / "kimi", tensors, whole))
    assert relative(ours(ids(1, 11)), model(ids(1, 11), use_cache=False).logits) <= 1e-5
    assert {*BESIDE} <= {*ours.ignored}


@pytest.mark.parametrize(("name", "root"), [("deepseek-v3", "model."), ("glm-4.7-flash", "model.")])
@torch.inference_mode()
def test_layers_that_draft_are_no_left_overs(tmp_path, name, root):
    """Those after the last block; one that is neither is still refused."""
    model, tensors, config = published(name, tmp_path / "later")
    after = config["num_hidden_layers"]
    again = {key: t.clone() for key, t in tensors.items() if key.startswith(f"{root}layers.{after - 1}.")}
    later = {key.replace(f"layers.{after - 1}.", f"layers.{after}."): tensor for key, tensor in again.items()}
    later |= {f"{root}layers.{after}.{part}.weight": torch.ones(48) for part in ("enorm", "hnorm", "shared_head.norm")}
    later[f"{root}layers.{after}.eh_proj.weight"] = torch.zeros(48, 96)
    ours = lamina.load(written(tmp_path / "later", tensors | later, config))
    assert relative(ours(ids(1, 11)), model(ids(1, 11), use_cache=False).logits) <= 1e-5
    with pytest.raises(LaminaError, match=r"mtp\.weight' \[1\] is left over"):
        lamina.load(written(tmp_path / "later", tensors | {"model.mtp.weight": torch.zeros(1)}, config))


@torch.inference_mode()
def test_identities_need_no_weights(tmp_path):
    """The reference allocates gates for them; without those a checkpoint is the same."""
    model, tensors, config = published("longcat-flash", tmp_path / "longcat")
    first = config["n_routed_experts"]
    beyond = [f".experts.{first + i}." for i in range(config["zero_expert_num"])]
    without = {name: t for name, t in tensors.items() if not any(part in name for part in beyond)}
    assert len(tensors) - len(without) == config["num_layers"] * 2 * config["zero_expert_num"]
    ours = lamina.load(written(tmp_path / "longcat", without, config))
    assert relative(ours(ids(1, 11)), model(ids(1, 11), use_cache=False).logits) <= 1e-5


def test_a_rotary_layout_that_a_family_cannot_say(tmp_path):
    """Latent rows are not put in another order in saving, so a layout that would be lost is refused."""
    arch = lamina.load(reference(next(row for row in ROWS if row.name == "deepseek-v2"))[1]).arch
    half = lamina.build(rewritten(arch, Rotary, lambda rotary: rotary.replace(layout="half")))
    for family, said in (("deepseek_v32", "it has no such parts"), ("deepseek_v2", "'half', and would become")):
        with pytest.raises(LaminaError, match=f"the {family} layout cannot express this architecture: .*{said}"):
            lamina.save(half, tmp_path / "saved", layout=family)
    assert not (tmp_path / "saved").exists()
