"""One parameter of ours that is published as several tensors: which rows each holds, filled and written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lamina.checkpoint.kept import keep
from lamina.checkpoint.load import _fill
from lamina.checkpoint.safetensors import open_safetensors
from lamina.checkpoint.save import _Pending
from lamina.checkpoint.tensors import StoredTensor
from lamina.errors import LaminaError
from lamina.nn.basic import Linear
from lamina.published.rules import Rule, entries

PARTS = {"q": "op.q_proj", "k": "op.k_proj", "v": "op.v_proj"}
RULES = (
    *(Rule(f"attn.{p}_proj", f"op.{p}_proj").within("layers.{i}.", "blocks.{i}.") for p in "qkv"),
    Rule("attn.{part}_conv1d", "op.convolution", parts=PARTS).within("layers.{i}.", "blocks.{i}."),
)
SIZES = {0: (2, 3, 5), 1: (3, 1, 4)}  # of q, k and v, other ones in each block
SHAPES: dict[str, tuple[int, ...]] = {}
for _i, _sizes in SIZES.items():
    SHAPES |= {f"blocks.{_i}.op.{p}_proj.weight": (n, 7) for p, n in zip("qkv", _sizes, strict=True)}
    SHAPES |= {
        f"blocks.{_i}.op.convolution.weight": (sum(_sizes), 1, 4),
        f"blocks.{_i}.op.convolution.bias": (10 - 2 * _i,),
    }


def test_each_tensor_has_the_rows_of_a_parameter():
    found = {name: (e.shape(SHAPES), e.ours, e.rows) for e in entries(RULES, SHAPES) for name in e.theirs}
    assert len(found) == 2 * (3 + 6)
    weight, bias = ("blocks.1.op.convolution.weight",), ("blocks.1.op.convolution.bias",)
    assert found["layers.1.attn.q_conv1d.weight"] == ((3, 1, 4), weight, (0, 3))
    assert found["layers.1.attn.k_conv1d.weight"] == ((1, 1, 4), weight, (3, 4))
    assert found["layers.1.attn.v_conv1d.weight"] == ((4, 1, 4), weight, (4, 8))
    assert found["layers.1.attn.v_conv1d.bias"] == ((4,), bias, (4, 8))
    assert found["layers.0.attn.k_conv1d.weight"][2] == (2, 5)
    assert found["layers.0.attn.k_proj.weight"] == ((3, 7), ("blocks.0.op.k_proj.weight",), None)


def test_a_dimension_of_one_that_is_published_otherwise():
    """[C K] tensors of a parameter [C 1 K]."""
    parts = {name: f"blocks.{{i}}.{path}" for name, path in PARTS.items()}
    rules = (*RULES[:3], Rule("{i}.{part}", "blocks.{i}.op.convolution", parts=parts, without=1))
    shapes = {name: shape for name, shape in SHAPES.items() if ".0." in name and not name.endswith("bias")}
    assert [e.shape(shapes) for e in entries(rules, shapes)][3:] == [(2, 4), (3, 4), (5, 4)]


def test_rows_that_do_not_add_up():
    with pytest.raises(KeyError, match="covers 10 of the 11 rows of blocks"):
        entries(RULES, SHAPES | {"blocks.0.op.convolution.weight": (11, 1, 4)})


def test_filled_and_written(tmp_path: Path):
    random = torch.Generator().manual_seed(0)
    theirs = {name: torch.randn(e.shape(SHAPES), generator=random) for e in entries(RULES, SHAPES) for name in e.theirs}
    save_file(theirs, tmp_path / "model.safetensors")
    file = open_safetensors(tmp_path / "model.safetensors")
    ours = {name: torch.full(shape, float("nan")) for name, shape in SHAPES.items()}
    for entry in entries(RULES, SHAPES):
        _fill(ours, entry, 0, file.tensors[entry.theirs[0]])
    for kind in ("weight", "bias"):
        names = [f"layers.0.attn.{p}_conv1d.{kind}" for p in "qkv"]
        assert torch.equal(ours[f"blocks.0.op.convolution.{kind}"], torch.cat([theirs[name] for name in names]))
    for entry in entries(RULES, SHAPES):
        written = _Pending([(ours[name], None) for name in entry.ours], entry, entry.shape(SHAPES), 0)
        assert torch.equal(written.read(), theirs[entry.theirs[0]])
        assert written.shape == tuple(theirs[entry.theirs[0]].shape)


def test_a_quantised_part_is_expanded():
    """One parameter cannot be kept as stored in several places."""
    rule = Rule("{part}", "whole", parts={"a": "first", "b": "second"})
    module = torch.nn.ModuleDict({"first": Linear(32, 2), "second": Linear(32, 3), "whole": Linear(32, 5)})
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
    rules = (Rule("first", "first"), Rule("second", "second"), rule)
    first, second = (e for e in entries(rules, shapes) if e.rows)
    random = torch.Generator().manual_seed(1)
    codes = torch.randint(-100, 100, (3, 32), generator=random, dtype=torch.int8)
    scales = torch.full((3, 1), 0.5, dtype=torch.float16)
    raw = torch.cat([scales.view(torch.uint8), codes.view(torch.uint8)], 1).flatten()
    stored = StoredTensor("b.weight", (3, 32), "Q8_0", Path("x.gguf"), raw)
    assert not keep(module, second, [stored], torch.float32, torch.device("cpu"))
    assert keep(
        module, first._replace(ours=("second.weight",), rows=None), [stored], torch.float32, torch.device("cpu")
    )
    whole = {"whole.weight": torch.zeros(5, 32)}
    _fill(whole, second, 0, stored)
    assert torch.equal(whole["whole.weight"], torch.cat([torch.zeros(2, 32), codes * 0.5]))


def test_zeros_behind_the_rows(tmp_path: Path):
    shapes = {"rate": (3,)}
    (entry,) = entries([Rule("A_log", "rate").padded()], shapes)
    assert entry.shape(shapes) == (3,)
    fits = [entry.fits(found, (3,)) for found in ((3,), (4,), (2,), (4, 1), ())]
    assert fits == [True, True, False, False, False]
    assert not entry._replace(padded=False).fits((4,), (3,))
    save_file(
        {"A_log": torch.tensor([1.0, 2.0, 3.0, 0.0, 0.0]), "other": torch.tensor([1.0, 2.0, 3.0, 0.5])},
        tmp_path / "x.safetensors",
    )
    tensors = open_safetensors(tmp_path / "x.safetensors").tensors
    ours = {"rate": torch.zeros(3)}
    _fill(ours, entry, 0, tensors["A_log"])
    assert ours["rate"].tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(LaminaError, match="'other' holds more than zeros behind its first 3 rows"):
        _fill(ours, entry, 0, tensors["other"])
