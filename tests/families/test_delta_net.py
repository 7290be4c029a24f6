"""Checkpoints of Gated DeltaNet's families that the reference's own saving does not show, or cuts otherwise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from table import ROWS, Row

import lamina
from lamina.errors import LaminaError
from tests.reference import ids, reference, relative

TABLE = "model.layers.2.ple.ple_embedding."


def row(name: str, **more: object) -> Row:
    found = next(row for row in ROWS if row.name == name)
    return Row(
        "-".join([name, *(f"{key}-{value}" for key, value in more.items())]),
        found.model_class,
        found.config_class,
        found.config | more,
    )


def copied(origin: Path, directory: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A copy of a checkpoint, and its tensors."""
    shutil.copytree(origin, directory / "copy")
    return directory / "copy", load_file(origin / "model.safetensors")


@torch.inference_mode()
def test_a_convolution_that_the_reference_cut_into_equal_parts() -> None:
    theirs, directory = reference(row("olmo-hybrid", linear_value_head_dim=21))
    shapes = {name: t.shape[0] for name, t in load_file(directory / "model.safetensors").items()}
    assert [shapes[f"model.layers.0.linear_attn.{part}_conv1d.weight"] for part in "qkv"] == [122, 122, 122]
    assert [shapes[f"model.layers.0.linear_attn.{part}_proj.weight"] for part in "qkv"] == [120, 120, 126]
    ours, x = lamina.load(directory), ids(2, 19)
    assert relative(ours(x), theirs(x, use_cache=False).logits) <= 1e-5


def test_a_convolution_whose_parts_are_too_few(tmp_path: Path) -> None:
    directory, tensors = copied(reference(row("olmo-hybrid"))[1], tmp_path)
    name = "model.layers.0.linear_attn.q_conv1d.weight"
    save_file(tensors | {name: tensors[name][:-1].clone()}, directory / "model.safetensors")
    with pytest.raises(LaminaError, match=r"q_conv1d\.weight' has shape \[119, 1, 3\].*needs \[120, 1, 3\]"):
        lamina.load(directory)


@torch.inference_mode()
def test_norms_as_olmo_hybrid_is_published(tmp_path: Path) -> None:
    theirs, origin = reference(row("olmo-hybrid"))
    directory, tensors = copied(origin, tmp_path)
    old, new = "model.layers.3.feedforward_layer_norm.weight", "model.layers.3.post_attention_layernorm.weight"
    tensors[new] = tensors.pop(old)
    save_file(tensors, directory / "model.safetensors")
    assert relative(lamina.load(directory)(ids(1, 9)), theirs(ids(1, 9), use_cache=False).logits) <= 1e-5


@torch.inference_mode()
def test_a_table_in_many_tensors(tmp_path: Path) -> None:
    cut, whole = (reference(row("qwen4-exp", split_ngram_parts=parts))[1] for parts in (5, 1))
    held = {name for name in load_file(cut / "model.safetensors") if "shard_" in name}
    assert len(held) == 10
    first, second = lamina.load(cut), lamina.load(whole)
    assert torch.equal(first(ids(1, 9)), second(ids(1, 9)))
    directory, tensors = copied(cut, tmp_path)
    del tensors[TABLE + "ngram_embedding.shard_4.weight"]
    save_file(tensors, directory / "model.safetensors")
    with pytest.raises(LaminaError, match=r"the 4 tensors '.*shard_\{shard\}\.weight' have \d+ rows together"):
        lamina.load(directory)


def test_hashes_that_do_not_follow_from_the_config(tmp_path: Path) -> None:
    directory, tensors = copied(reference(row("qwen4-exp"))[1], tmp_path)
    name = TABLE + "layer_multipliers"
    assert lamina.load(directory).ignored[name] == "follows from the config"
    save_file(tensors | {name: tensors[name] + 2}, directory / "model.safetensors")
    with pytest.raises(LaminaError, match=r"layer_multipliers' holds \[\d+.*and the config says otherwise"):
        lamina.load(directory)


@pytest.mark.parametrize("name", ["qwen3.5", "qwen3.5-moe", "qwen4-exp", "qwen3-next"])
def test_published_beside_an_image_encoder_and_later_layers(name: str, tmp_path: Path) -> None:
    directory, tensors = copied(reference(row(name))[1], tmp_path)
    plain = lamina.load(directory)
    other = {key.replace("model.", "model.language_model.", 1): tensor for key, tensor in tensors.items()}
    extra = dict.fromkeys(("model.visual.patch_embed.proj.weight", "mtp.fc.weight"), torch.zeros(3))
    save_file({key: t.clone() for key, t in (other | extra).items()}, directory / "model.safetensors")
    text = json.loads((directory / "config.json").read_text())
    config = {"model_type": text["model_type"].removesuffix("_text"), "text_config": text}
    if name != "qwen3-next":
        (directory / "config.json").write_text(json.dumps(config))
    ours = lamina.load(directory)
    assert set(extra) <= set(ours.ignored)
    assert torch.equal(ours(ids(1, 9)), plain(ids(1, 9)))


def test_what_ends_a_text_stays_what_the_memory_knows(tmp_path: Path) -> None:
    ours = lamina.load(reference(row("qwen4-exp"))[1])
    ours.token_ids = type(ours.token_ids)(eos=(5, 2))
    lamina.save(ours, tmp_path / "saved")
    again = lamina.load(tmp_path / "saved")
    assert again.arch == ours.arch
    assert again.token_ids.eos == (2, 5)
