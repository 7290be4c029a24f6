"""Checkpoints of Gemma 4 as they are published: with an encoder of images, and with what layers that share leave."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from table import ROWS

import lamina
from lamina.errors import LaminaError
from lamina.families import family_named, read_config
from tests.reference import ids, randomise, reference, relative

E_MODEL = next(row for row in ROWS if row.name == "gemma4-e")
VISION = {
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "patch_size": 4,
    "position_embedding_size": 64,
    "pooling_kernel_size": 2,
}


@torch.inference_mode()
def test_the_text_decoder_of_a_multimodal_checkpoint(tmp_path):
    tokens = dict(zip(("image_token_id", "video_token_id", "audio_token_id"), (95, 94, 93), strict=True))
    text = copy.deepcopy(E_MODEL.config) | {"pad_token_id": 0}
    config = transformers.Gemma4Config(text_config=text, vision_config=VISION, audio_config=None, **tokens)
    config._attn_implementation = "eager"
    theirs = transformers.Gemma4ForConditionalGeneration(config).eval()
    randomise(theirs)
    theirs.save_pretrained(tmp_path)
    ours, x = lamina.load(tmp_path), ids(2, 19, vocab=90)
    expected = theirs(input_ids=x, use_cache=False, mm_token_type_ids=torch.zeros_like(x)).logits
    assert relative(ours(x), expected) <= 1e-5
    skipped = {name for name, reason in ours.ignored.items() if "image encoder is not part" in reason}
    assert any(name.startswith("model.vision_tower.") for name in skipped)


@torch.inference_mode()
def test_unused_keys_and_values_are_passed_over(tmp_path):
    theirs, directory = reference(E_MODEL)
    stored = load_file(directory / "model.safetensors")
    unused = {f"model.layers.5.self_attn.{p}_proj.weight": torch.randn(24, 48) for p in "kv"}
    save_file(stored | unused, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((directory / "config.json").read_text())
    ours, x = lamina.load(tmp_path), ids(1, 9)
    assert relative(ours(x), theirs(x, use_cache=False).logits) <= 1e-5
    assert {ours.ignored[name] for name in unused} == {"the layer reads the keys and values of an earlier one"}
    own = {"model.layers.0.self_attn.k_proj_2.weight": torch.zeros(1)}
    save_file(stored | own, tmp_path / "model.safetensors")
    with pytest.raises(LaminaError, match=r"k_proj_2.weight' \[1\] is left over"):
        lamina.load(tmp_path)


def test_layers_that_say_their_own_sizes():
    """New configs list the larger heads layer by layer; both ways say the same, and nothing else is accepted."""
    arch = lamina.load(reference(E_MODEL)[1]).arch
    old = family_named("gemma4").write(arch)
    each = {"head_dim": old.pop("global_head_dim"), "num_key_value_heads": old.pop("num_global_key_value_heads")}
    full = [str(i) for i, kind in enumerate(old["layer_types"]) if kind == "full_attention"]
    assert read_config(old | {"per_layer_config": dict.fromkeys(full, each)}) == arch
    for wrong in ({"0": each}, dict.fromkeys(full[:1], each), {key: each if key == full[0] else {} for key in full}):
        with pytest.raises(LaminaError, match="per_layer_config must say the same of layers 1, 3, 5 alone"):
            read_config(old | {"per_layer_config": wrong})
