"""xLSTM: checkpoints whose projections are joined, and sizes that do not fit each other."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.initialization import no_init_weights

import lamina
from lamina import catalog
from lamina.arch import MLSTM
from lamina.errors import LaminaError
from lamina.families import family_named, read_config
from tests.families.table import ROWS
from tests.reference import ids, reference, relative

JOINED = {
    "mlstm_layer.qkv_opreact": ("mlstm_layer.q", "mlstm_layer.k", "mlstm_layer.v", "mlstm_layer.ogate_preact"),
    "mlstm_layer.ifgate_preact": ("mlstm_layer.igate_preact", "mlstm_layer.fgate_preact"),
    "ffn.proj_up_gate_z": ("ffn.proj_up_gate", "ffn.proj_up"),
}


def joined(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same weights, those that read the same input one behind the other."""
    made = dict(tensors)
    for block in range(3):
        for name, parts in JOINED.items():
            for kind in ("weight", "bias"):
                found = [made.pop(f"backbone.blocks.{block}.{part}.{kind}", None) for part in parts]
                there = [part for part in found if part is not None]
                if there:
                    made[f"backbone.blocks.{block}.{name}.{kind}"] = torch.cat(there)
    return made


@torch.inference_mode()
def test_joined_projections_load(tmp_path: Any) -> None:
    row = next(row for row in ROWS if row.name == "xlstm-caps")
    _, directory = reference(row)
    config = json.loads((directory / "config.json").read_text()) | {"weight_mode": "fused"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    tensors = joined(load_file(directory / "model.safetensors"))
    save_file(tensors, tmp_path / "model.safetensors")
    with no_init_weights():  # its own initialisation of joined projections fails
        theirs = transformers.xLSTMForCausalLM(transformers.xLSTMConfig(**row.config | {"weight_mode": "fused"})).eval()
    theirs.load_state_dict(tensors)
    ours, x = lamina.load(tmp_path), ids(2, 19)
    assert relative(ours(x), theirs(x, use_cache=False).logits) <= 1e-5
    assert torch.equal(ours(x), lamina.load(directory)(x))


@pytest.mark.parametrize(("key", "wide"), [("qk_dim_factor", 31), ("v_dim_factor", 47), ("qk_dim_factor", 0)])
def test_heads_that_are_not_filled(key: str, wide: int) -> None:
    config = {"model_type": "xlstm", "hidden_size": 100, "num_heads": 3, "qk_dim_factor": 0.3, "v_dim_factor": 0.9}
    mixer = next(read_config(config).ops())
    assert isinstance(mixer, MLSTM)
    assert mixer.key_dim == 10
    with pytest.raises(LaminaError, match=rf"{key} of the width 100 is {wide}, which must fill num_heads \(3\)"):
        read_config(config | {key: wide / 100})


PUBLISHED = {  # what older configs hold beside the catalog's entry
    "head_dim": 512,
    "cell_norm_eps": 1e-6,
    "igate_bias_init_range": -10.0,
    "mlstm_round_up_to_multiple_of": 64,
    "add_post_blocks_norm": True,
    "add_post_norm": False,
    "add_qk_norm": False,
    "add_embedding_dropout": False,
    "force_bos_token_insert": True,
    "add_forward_backend_padding": False,
    "step_kernel": "triton",
    "chunkwise_kernel": "chunkwise--triton_xl_chunk",
    "sequence_kernel": "native_sequence__triton",
}


def test_published_configs_hold_more() -> None:
    """Keys that are left from the authors' own code, and width and depth under their older names alone."""
    known = catalog.config("xlstm-7b")
    older = {key: value for key, value in known.items() if key not in ("hidden_size", "num_hidden_layers")}
    assert read_config(older | PUBLISHED) == read_config(known)
    with pytest.raises(LaminaError, match="'embedding_dim' is 'wide'; a whole number is expected"):
        read_config(older | {"embedding_dim": "wide"})


@pytest.mark.parametrize("width", [60, 4096, 2560, 999])
def test_factors_are_found_again(width: int) -> None:
    """Those of any sizes, though a product of a quotient need not be what was divided."""
    write, read = family_named("xlstm").written, read_config
    start = read({"model_type": "xlstm", "hidden_size": width, "num_heads": 1, "vocab_size": 97})
    block = start.blocks[0]
    mixer, glu = block.branches
    for keys, values, inner in ((7, 1003, 4099), (width - 1, width + 1, 3 * width + 1), (49, 98, 64)):
        op = mixer.op.replace(key_dim=keys, value_dim=values)
        branches = mixer.replace(op=op), glu.replace(op=glu.op.replace(inner=inner))
        arch = start.replace(blocks=(block.replace(branches=branches),) * 2)
        assert read(write(arch)) == arch
