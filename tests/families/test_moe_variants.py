"""What the table cannot hold of mixtures of experts: other spellings, tensors passed over, angles beyond a context."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from table import BASE, ROWS, VISION

import lamina
from lamina.arch import Attention, QKNorm
from lamina.errors import LaminaError
from lamina.families import read_config
from lamina.published.config import LATER
from tests.reference import ids, randomise, relative

TINY = {row.name: row.config for row in ROWS}


def saved(model: Any, directory: Any) -> Any:
    randomise(model)
    model.save_pretrained(directory)
    return lamina.load(directory)


@torch.inference_mode()
@pytest.mark.parametrize("old_names", [False, True])
def test_llama4_text_within_a_multimodal_checkpoint(tmp_path, old_names):
    projected = {"vision_output_dim": 20, "projector_input_dim": 20, "projector_output_dim": 20}
    sizes: dict[str, Any] = {**VISION, **projected, "intermediate_size": 64}
    config = transformers.Llama4Config(
        text_config=transformers.Llama4TextConfig(**TINY["llama-4-maverick"]).to_dict(),
        vision_config=transformers.Llama4VisionConfig(**sizes).to_dict(),
    )
    theirs = transformers.Llama4ForConditionalGeneration(config).eval()
    ours = saved(theirs, tmp_path / "published")
    path = tmp_path / "published" / "model.safetensors"
    names = load_file(path)
    assert any(name.startswith("language_model.model.layers") for name in names)
    if old_names:  # as newer multimodal checkpoints begin them
        other = {n.replace("language_model.model.", "model.language_model."): t.clone() for n, t in names.items()}
        other = {n.removeprefix("language_model."): t for n, t in other.items()}
        save_file(other, path, metadata={"format": "pt"})
        ours = lamina.load(tmp_path / "published")
    x = ids(2, 19)
    assert relative(ours(x), theirs(x, use_cache=False).logits) <= 1e-5
    assert any("vision" in name for name in ours.ignored)
    lamina.save(ours, tmp_path / "text")
    back = transformers.Llama4ForCausalLM.from_pretrained(tmp_path / "text")
    assert relative(back(x, use_cache=False).logits, ours(x)) <= 1e-5


@torch.inference_mode()
@pytest.mark.parametrize(
    ("stem", "config", "later", "unknown"),
    [
        ("Glm4Moe", TINY["glm-4.5"], "model.layers.4.enorm.weight", "model.layers.3.enorm.weight"),
        ("Ernie4_5_Moe", TINY["ernie-4.5-moe"], "model.mtp_linear_proj.0.weight", "model.linear_proj.0.weight"),
    ],
    ids=["glm-4.5", "ernie-4.5"],
)
def test_what_predicts_later_tokens_is_passed_over(tmp_path, stem, config, later, unknown):
    theirs = getattr(transformers, f"{stem}ForCausalLM")(getattr(transformers, f"{stem}Config")(**config)).eval()
    ours = saved(theirs, tmp_path)
    path, x = tmp_path / "model.safetensors", ids(1, 9)
    names = load_file(path)
    save_file(names | {later: torch.ones(3)}, path, metadata={"format": "pt"})
    again = lamina.load(tmp_path)
    assert torch.equal(again(x), ours(x))
    assert again.ignored[later] == LATER
    save_file(names | {unknown: torch.ones(3)}, path, metadata={"format": "pt"})
    with pytest.raises(LaminaError, match=rf"{unknown}' \[3\] is left over"):
        lamina.load(tmp_path)


@torch.inference_mode()
def test_phi_beyond_its_original_context(tmp_path):
    """The reference keeps the short factors there, and is asked with the long ones in their place."""
    tiny = TINY["phi-3.5-moe"]
    long = tiny["rope_parameters"] | {"original_max_position_embeddings": 16}
    theirs = transformers.PhimoeForCausalLM(transformers.PhimoeConfig(**tiny | {"rope_parameters": long})).eval()
    ours = saved(theirs, tmp_path / "both")
    for tokens in (16, 17, 40):
        moved = long | {"short_factor": long["long_factor" if tokens > 16 else "short_factor"]}
        config = transformers.PhimoeConfig(**tiny | {"rope_parameters": moved})
        x, other = ids(1, tokens), transformers.PhimoeForCausalLM(config).eval()
        other.load_state_dict(theirs.state_dict())
        assert relative(ours(x), other(x, use_cache=False).logits) <= 1e-5
        state = ours.init_state(1, 40)
        pieces = torch.cat([ours(piece, state) for piece in x.split(7, 1)], 1)
        assert relative(pieces[:, -1], ours(x)[:, -1]) <= 1e-5


PUBLISHED: dict[str, Any] = {
    "model_type": "hunyuan_v1_dense",
    "architectures": ["HunYuanDenseV1ForCausalLM"],
    "attention_bias": False,
    "add_classification_head": False,
    "attention_dropout": 0.1,
    "attention_head_dim": 128,
    "cla_share_factor": 2,
    "class_num": 0,
    "dense_list": [4096, 0],
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "im_end_id": 5,
    "im_newline_id": 11,
    "im_start_id": 4,
    "intermediate_size": 14336,
    "mask_init_id": 12,
    "max_position_embeddings": 262144,
    "mlp_bias": False,
    "norm_type": "rms",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "org_vocab_size": 128167,
    "pad_id": 127961,
    "pool_type": "last",
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "vocab_size": 128256,
    "text_end_id": 7,
    "text_start_id": 6,
    "tie_word_embeddings": True,
    "use_cla": False,
    "use_qk_norm": True,
    "rope_scaling": {
        "alpha": 1000.0,
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "type": "dynamic",
    },
}
"""Of Hy-MT2-7B, as published."""


def test_a_published_hunyuan_config():
    arch = read_config(PUBLISHED)
    op = arch.blocks[0].branches[0].op
    assert isinstance(op, Attention)
    assert isinstance(op.qk_norm, QKNorm)
    assert op.qk_norm.after_rotary
    assert op.rotary is not None
    assert op.rotary.base == 10000.0 * 1000.0 ** (128 / 126)
    with pytest.raises(LaminaError, match="'use_cla' is True; only False is known"):
        read_config(PUBLISHED | {"use_cla": True})


def test_layers_of_hunyuan_that_differ_are_refused():
    config = BASE | {"model_type": "hunyuan_v1_moe", "num_experts": 5, "moe_topk": [2, 2, 3]}
    with pytest.raises(LaminaError, match=r"'moe_topk' is \[2, 2, 3\]; only one number for all layers is known"):
        read_config(json.loads(json.dumps(config)))


@pytest.mark.parametrize(
    ("row", "key", "layers"),
    [
        ("qwen3-moe", "mlp_only_layers", [99]),
        ("qwen3-moe", "mlp_only_layers", ["x"]),
        ("llama-4-scout", "moe_layers", [77]),
    ],
)
def test_layers_that_there_are_not(row, key, layers):
    """Said, for a layer that is named and passed over would be of the other kind in silence."""
    config = next(r for r in ROWS if r.name == row)
    data = json.loads(getattr(transformers, config.config_class)(**config.config).to_json_string()) | {key: layers}
    with pytest.raises(LaminaError, match=rf"{key} is .*; expected are numbers of layers, 0 to [24]$"):
        read_config(data)
