"""Quantised checkpoints, whole: written here in each format, and against the reference with the values they hold."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
import transformers
from compressed_tensors.compressors.naive_quantized.base import IntQuantizationCompressor
from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8
from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

import lamina
from lamina.checkpoint.gguf import open_gguf
from lamina.errors import LaminaError
from lamina.ops.packed import Packed
from tests.reference import ids, randomise, relative

LLAMA = {
    "vocab_size": 97,
    "hidden_size": 160,
    "intermediate_size": 288,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
MOE = LLAMA | {"moe_intermediate_size": 96, "num_experts": 5, "num_experts_per_tok": 2}
Quantised = tuple[dict[str, Tensor], Tensor]
"""The tensors that take the place of `weight` by what follows the module's name, and the values they stand for."""


# ---------------------------------------------------------------------------------------------------- the formats


def wide(grid: Tensor, tile: tuple[int, int], shape: torch.Size) -> Tensor:
    return grid.repeat_interleave(tile[0], 0).repeat_interleave(tile[1], 1)[: shape[0], : shape[1]]


def fp8(weight: Tensor, tile: tuple[int, int] = (128, 128), power: bool = False, name: str = "_inv") -> Quantised:
    rows, columns = (-(-n // t) for n, t in zip(weight.shape, tile, strict=True))
    padded = torch.zeros(rows * tile[0], columns * tile[1])
    padded[: weight.shape[0], : weight.shape[1]] = weight
    scale = padded.view(rows, tile[0], columns, tile[1]).abs().amax((1, 3)) / 448
    scale = scale.log2().ceil().exp2() if power else scale
    codes = (weight / wide(scale, tile, weight.shape)).to(torch.float8_e4m3fn)
    values = codes.float() * wide(scale, tile, weight.shape)
    stored = scale.to(torch.float8_e8m0fnu) if power else scale
    return {"weight": codes, f"weight_scale{name}": stored, "input_scale": torch.ones(1)}, values


def fp8_whole(weight: Tensor) -> Quantised:
    tensors, values = fp8(weight, tuple(weight.shape), name="")
    return tensors | {"weight_scale": tensors["weight_scale"].view(())}, values


def compressed(compressor: Any, group: int | None, bits: int, symmetric: bool, dtype: torch.dtype) -> Callable:
    strategy = {"strategy": "group", "group_size": group} if group else {"strategy": "channel"}
    args = QuantizationArgs(num_bits=bits, type="int", symmetric=symmetric, **strategy)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)

    def quantise(weight: Tensor) -> Quantised:
        grouped = weight.unflatten(1, (-1, group or weight.shape[1]))
        scale = (grouped.abs().amax(-1) / (1 << (bits - 1))).to(dtype)
        points = torch.zeros_like(scale, dtype=torch.int8)
        if not symmetric:
            points[:, ::2] = 3
        state = {"weight": weight, "weight_scale": scale, "weight_zero_point": points}
        state = compressor.compress(state, scheme)
        exact = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
        return state, compressor.decompress(exact, scheme)["weight"]

    return quantise


def e2m1(weight: Tensor) -> Tensor:
    """The nearest of the sixteen numbers, packed by twos."""
    known = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    known = torch.cat([known, -known])
    nearest = (weight[..., None] - known).abs().argmin(-1).byte()
    return nearest[..., ::2] | nearest[..., 1::2] << 4


def nvfp4(weight: Tensor, old: bool = False) -> Quantised:
    whole = 448 * 6 / weight.abs().max()
    grid = (weight.unflatten(1, (-1, 16)).abs().amax(-1) / 6 * whole).to(torch.float8_e4m3fn)
    step = grid.float() / whole
    packed = e2m1(weight / step.repeat_interleave(16, 1))
    numbers = unpack_fp4_from_uint8(packed, *weight.shape, dtype=torch.float32)
    if old:
        tensors = {"weight": packed, "weight_scale": grid, "weight_scale_2": 1 / whole}
        return tensors, numbers * (grid.float() * (1 / whole)).repeat_interleave(16, 1)
    tensors = {"weight_packed": packed, "weight_scale": grid, "weight_global_scale": whole.view(1)}
    return tensors | {"input_global_scale": torch.ones(1)}, numbers * step.repeat_interleave(16, 1)


def mxfp4(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Blocks and exponents of a matrix or a stack, and the values they stand for. Shapes: [... O I]"""
    power = (weight.unflatten(-1, (-1, 32)).abs().amax(-1) / 6).log2().ceil()
    blocks = e2m1(weight / power.exp2().repeat_interleave(32, -1)).unflatten(-1, (-1, 16))
    exponents = (power + 127).byte()
    stack = (blocks, exponents) if weight.ndim == 3 else (blocks[None], exponents[None])
    values = convert_moe_packed_tensors(*stack, dtype=torch.float32).mT
    return blocks, exponents, values if weight.ndim == 3 else values[0]


def mxfp4_packed(weight: Tensor) -> Quantised:
    blocks, exponents, values = mxfp4(weight)
    return {"weight_packed": blocks.flatten(1), "weight_scale": exponents}, values


def fours_beside_eights(weight: Tensor) -> Quantised:
    blocks, exponents, values = mxfp4(weight)
    scale = exponents.view(torch.float8_e8m0fnu)
    return {"weight": blocks.flatten(1).view(torch.int8), "scale": scale}, values


INT, PACK = IntQuantizationCompressor, PackedQuantizationCompressor
GROUPS = {"config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "group_size": 32}}}}
COMPRESSED = {"quant_method": "compressed-tensors", "ignore": ["lm_head"], "kv_cache_scheme": None}
FORMATS: dict[str, tuple[Callable[[Tensor], Quantised], dict[str, Any]]] = {
    "fp8": (fp8, {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}),
    "fp8-ue8m0": (lambda w: fp8(w, power=True), {"quant_method": "fp8", "weight_block_size": [128, 128]}),
    "fp8-small": (lambda w: fp8(w, (48, 36)), {"quant_method": "fp8", "weight_block_size": [48, 36]}),
    "fp8-one": (fp8_whole, {"quant_method": "fp8", "weight_block_size": None}),
    "fp8-rows": (lambda w: fp8(w, (1, w.shape[1]), name=""), {"quant_method": "fbgemm_fp8"}),
    "float": (lambda w: fp8(w, (1, w.shape[1]), name=""), COMPRESSED | GROUPS | {"format": "float-quantized"}),
    "int4": (compressed(PACK, 32, 4, True, torch.bfloat16), COMPRESSED | GROUPS | {"format": "pack-quantized"}),
    "int4-zeros": (compressed(PACK, 16, 4, False, torch.float32), COMPRESSED | {"format": "pack-quantized"}),
    "int8-packed": (compressed(PACK, None, 8, True, torch.float32), COMPRESSED | {"format": "pack-quantized"}),
    "int8": (compressed(INT, None, 8, True, torch.float32), COMPRESSED | {"format": "int-quantized"}),
    "int8-zeros": (compressed(INT, None, 8, False, torch.float32), COMPRESSED | {"format": "int-quantized"}),
    "nvfp4": (nvfp4, COMPRESSED | {"format": "nvfp4-pack-quantized"}),
    "nvfp4-old": (lambda w: nvfp4(w, True), {"quant_method": "modelopt", "quant_algo": "NVFP4"}),
    "mxfp4": (mxfp4_packed, COMPRESSED | {"format": "mxfp4-pack-quantized"}),
    "fp4-fp8": (fours_beside_eights, {"quant_method": "fp8", "weight_block_size": [128, 128]}),
}


def rewrite(directory: Path, tensors: dict[str, Tensor], **config: Any) -> Path:
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return directory


@dataclass
class Case:
    """A quantised checkpoint, its tensors, and the reference with their values."""

    directory: Path
    tensors: dict[str, Tensor]
    values: dict[str, Tensor]
    model: torch.nn.Module


@functools.cache
def case(root: Path, kind: str, name: str) -> Case:
    quantise, said = FORMATS[name]
    config = getattr(transformers, f"{kind}Config")(**(MOE if "Moe" in kind else LLAMA))
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    randomise(model)
    dense, packed = root / f"{kind}-{name}-dense", root / f"{kind}-{name}"
    model.save_pretrained(dense)
    shutil.copytree(dense, packed)
    values, tensors = load_file(dense / "model.safetensors"), {}
    for key in list(values):
        if not key.endswith("_proj.weight"):
            tensors[key] = values[key]
            continue
        found, values[key] = quantise(values[key])
        tensors |= {key.removesuffix("weight") + leaf: part.contiguous() for leaf, part in found.items()}
    values = {key: value.contiguous() for key, value in values.items()}
    rewrite(dense, values)
    rewrite(packed, tensors, quantization_config=said)
    model = type(model).from_pretrained(dense, dtype=torch.float32).eval()
    return Case(packed, tensors, values, model)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("quantised")


def kept(model: torch.nn.Module) -> dict[str, Packed]:
    return {name: module for name, module in model.named_modules() if isinstance(module, Packed)}


def fails(directory: Path, *words: str) -> None:
    with pytest.raises(LaminaError) as caught:
        lamina.load(directory)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value), (word, str(caught.value))


# --------------------------------------------------------------------------------------------------- whole models


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["Llama", "Qwen3Moe"])
@pytest.mark.parametrize("name", FORMATS)
def test_logits_are_those_of_the_values(root, name, kind):
    c = case(root, kind, name)
    model, x = lamina.load(c.directory), ids(2, 19)
    matrices = [key for key in c.values if key.endswith("_proj.weight")]
    found = kept(model)
    assert sum(len(one) if one.ndim == 3 else 1 for one in found.values()) == len(matrices)
    skipped = ("input_scale", "input_global_scale", "_shape")
    stored = sum(t.nbytes for key, t in c.tensors.items() if "_proj" in key and not key.endswith(skipped))
    assert abs(sum(one.nbytes for one in found.values()) - stored) <= 0.05 * stored  # zeros take a byte, not four bits
    expected = c.model(x, use_cache=False).logits
    assert relative(model(x), expected) <= 1e-5
    state = model.init_state(2, 32)
    parts = [model(part, state) for part in x.split([11, 1, 2, 5], 1)]
    assert relative(torch.cat(parts, 1), expected) <= 1e-5
    assert (model.dtype, model.device.type) == (torch.float32, "cpu")


@torch.inference_mode()
@pytest.mark.parametrize("name", FORMATS)
def test_expanded_weights_are_the_values(root, name):
    c = case(root, "Llama", name)
    model = lamina.load(c.directory, expand=True)
    assert not kept(model)
    assert torch.equal(model.blocks[1].feed_forward.op.down_proj.weight + 0.0, c.values[DOWN] + 0.0)
    assert relative(model(ids(2, 9)), c.model(ids(2, 9), use_cache=False).logits) <= 1e-5
    half = lamina.load(c.directory, dtype="bfloat16")
    packed = half.blocks[1].feed_forward.op.down_proj.weight
    assert torch.equal(packed.dense() + 0.0, c.values[DOWN].bfloat16() + 0.0)
    assert half.dtype == torch.bfloat16
    assert 1e-5 < relative(half(ids(2, 9)), model(ids(2, 9))) < 0.1


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["Llama", "Qwen3Moe"])
def test_saved_weights_are_expanded(root, kind, tmp_path):
    c = case(root, kind, "fp8")
    lamina.save(lamina.load(c.directory), tmp_path / "saved")
    assert "quantization_config" not in json.loads((tmp_path / "saved" / "config.json").read_text())
    tensors = load_file(tmp_path / "saved" / "model.safetensors")
    assert tensors.keys() == c.values.keys()
    assert all(torch.equal(tensors[key], value) for key, value in c.values.items())


def test_what_was_passed_over_is_said(root):
    model = lamina.load(case(root, "Llama", "fp8").directory)
    assert model.ignored["model.layers.1.mlp.down_proj.input_scale"] == "activations are computed in full precision"
    assert "quantization_config" not in model.ignored


def test_progress_adds_up(root):
    seen: list[tuple[int, int]] = []
    model = lamina.load(case(root, "Llama", "int4").directory, progress=lambda *now: seen.append(now))
    sizes = sum(p.nbytes for p in model.parameters()) + sum(one.nbytes for one in kept(model).values())
    assert seen[-1] == (sizes, sizes)
    assert seen == sorted(set(seen))


def test_a_model_is_trained_around_packed_weights(root):
    """Gradients reach what is learned, through what is not."""
    c = case(root, "Llama", "fp8")
    model, x = lamina.load(c.directory), ids(2, 9)
    model(x).square().sum().backward()
    c.model.zero_grad()
    c.model(x, use_cache=False).logits.square().sum().backward()
    ours, theirs = model.embedding.table.grad, c.model.get_input_embeddings().weight.grad
    assert relative(ours, theirs) <= 1e-4
    assert (
        relative(model.blocks[0].mixer.before.weight.grad, c.model.model.layers[0].input_layernorm.weight.grad) <= 1e-4
    )


def test_fused_rows_are_taken_apart(tmp_path):
    """q, k and v in one tensor, cut within a tile of scales."""
    config = transformers.Phi3Config(**LLAMA, pad_token_id=0, partial_rotary_factor=1.0)
    model = transformers.Phi3ForCausalLM(config).eval()
    randomise(model)
    model.save_pretrained(tmp_path)
    tensors, values = {}, load_file(tmp_path / "model.safetensors")
    for key, value in list(values.items()):
        if key.endswith("_proj.weight"):
            found, values[key] = fp8(value, (48, 36))
            tensors |= {key.removesuffix("weight") + leaf: part for leaf, part in found.items()}
    model.load_state_dict(values)
    rewrite(tmp_path, values | tensors, quantization_config=FORMATS["fp8-small"][1])
    ours, x = lamina.load(tmp_path), ids(2, 9)
    assert len(kept(ours)) == 2 * 7
    with torch.inference_mode():
        assert relative(ours(x), model(x, use_cache=False).logits) <= 1e-5


@torch.inference_mode()
def test_stacks_of_experts_in_blocks(tmp_path):
    """gpt-oss: rows of two projections in turn, a stack whose values the reference holds the other way round."""
    config = transformers.GptOssConfig(
        **LLAMA | {"intermediate_size": 96, "num_local_experts": 5, "num_experts_per_tok": 2, "sliding_window": 7},
        attn_implementation="eager",
    )  # fmt: skip
    model = transformers.GptOssForCausalLM(config).eval()
    randomise(model)
    model.save_pretrained(tmp_path)
    values, tensors = load_file(tmp_path / "model.safetensors"), {}
    for key, value in list(values.items()):
        if key.endswith(("experts.gate_up_proj", "experts.down_proj")):
            tensors[key + "_blocks"], tensors[key + "_scales"], stack = mxfp4(value.mT)
            values[key] = stack.mT.contiguous()
        else:
            tensors[key] = value
    model.load_state_dict(values)
    rewrite(tmp_path, tensors, quantization_config={"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]})
    ours, x = lamina.load(tmp_path), ids(2, 19)
    assert len(kept(ours)) == 2 * 3
    assert relative(ours(x), model(x, use_cache=False).logits) <= 1e-5
    assert relative(lamina.load(tmp_path, expand=True)(x), model(x, use_cache=False).logits) <= 1e-5
    lamina.save(ours, tmp_path / "saved")
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert all(torch.equal(saved[key] + 0.0, value + 0.0) for key, value in values.items())


def test_gguf_stacks(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "any")
    values = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(0)).numpy()
    data = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("stack", data, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    stored = open_gguf(tmp_path / "a.gguf").tensors["stack"]
    packed = stored.packed(torch.float32)
    assert packed is not None
    assert packed.shape == (3, 5, 64)
    assert packed.nbytes == stored.nbytes == 3 * 5 * 2 * 34
    expected = torch.from_numpy(gguf.quants.dequantize(data, gguf.GGMLQuantizationType.Q8_0))
    assert torch.equal(packed.dense(), expected)
    assert torch.equal(packed[1].rows(2, 4), expected[1, 2:4])


# ---------------------------------------------------------------------------------------------------------- memory

MEASURE = """
import sys, threading, lamina
from pathlib import Path

def private():
    line = next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("RssAnon"))
    return int(line.split()[1]) * 1024

lamina.load(sys.argv[1])  # imports and what is made once
most = before = private()
def look(*_):
    global most
    most = max(most, private())
model = lamina.load(sys.argv[2], progress=look)
after = private()
print(max(most, after) - before, after - before)
"""


@pytest.mark.parametrize("kind", ["Llama", "Qwen3Moe"])
def test_loading_takes_the_bytes_of_the_file(root, kind, tmp_path):
    """Private memory, looked at after each tensor; pages of the file itself are the system's to drop."""
    sizes = LLAMA | {"hidden_size": 1024, "intermediate_size": 2048, "num_hidden_layers": 4}
    more = {"moe_intermediate_size": 512, "num_experts": 16, "num_experts_per_tok": 2}
    config = getattr(transformers, f"{kind}Config")(**sizes, **(more if "Moe" in kind else {}))
    with torch.device("meta"):
        model = getattr(transformers, f"{kind}ForCausalLM")(config)
    config.save_pretrained(tmp_path)
    tensors: dict[str, Tensor] = {}
    for key, value in published(model):
        if key.endswith("_proj.weight"):
            tensors[key] = torch.zeros(value, dtype=torch.float8_e4m3fn)
            tensors[key + "_scale_inv"] = torch.ones([-(-n // 128) for n in value])
        else:
            tensors[key] = torch.ones(value, dtype=torch.bfloat16)
    rewrite(tmp_path, tensors, quantization_config=FORMATS["fp8"][1])
    size = (tmp_path / "model.safetensors").stat().st_size
    assert size > 25e6
    small = case(root, kind, "fp8").directory
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(small), str(tmp_path)], capture_output=True, text=True, check=True
    )
    most, after = map(int, done.stdout.split())
    assert 0.9 * size < after <= most <= 1.1 * size


def published(model: torch.nn.Module) -> list[tuple[str, list[int]]]:
    """Names and shapes as a checkpoint has them: experts one by one."""
    found = []
    for key, value in model.state_dict().items():
        if value.ndim == 3:
            stem, leaf = key.rsplit(".", 1)
            names = ("gate_proj", "up_proj") if leaf == "gate_up_proj" else ("down_proj",)
            shape = [value.shape[1] // len(names), value.shape[2]]
            found += [(f"{stem}.{e}.{name}.weight", shape) for e in range(len(value)) for name in names]
        else:
            found.append((key, list(value.shape)))
    return found


# ------------------------------------------------------------------------------------------------------- bad inputs

DOWN = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture
def spoilt(root, tmp_path):
    """A copy of a checkpoint with tensors replaced (None removes one), and its quantization_config."""

    def spoil(name: str, said: Any = None, **changes: Tensor | None) -> Path:
        c = case(root, "Llama", name)
        directory = Path(shutil.copytree(c.directory, tmp_path / "spoilt", dirs_exist_ok=True))
        tensors = c.tensors | {DOWN.removesuffix("weight") + leaf: tensor for leaf, tensor in changes.items()}
        said = FORMATS[name][1] if said is None else said
        return rewrite(directory, {k: t for k, t in tensors.items() if t is not None}, quantization_config=said)

    return spoil


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", None, 3])
def test_a_method_that_is_not_known(spoilt, method):
    fails(spoilt("fp8", {"quant_method": method, "bits": 4}), "config.json", "quant_method", "fp8, modelopt")


def test_a_format_that_is_not_known(spoilt):
    fails(spoilt("int4", COMPRESSED | {"format": "marlin-24"}), "config.json", "'marlin-24'", "pack-quantized")
    fails(spoilt("int4", COMPRESSED | {"sparsity_config": {"format": "sparse-24-bitmask"}}), "'sparse-24-bitmask'")
    fails(spoilt("int4", "int4"), "config.json", "quantization_config", "an object")


@pytest.mark.parametrize(
    ("name", "gone"),
    [("fp8", "_scale_inv"), ("fp8-one", "_scale"), ("int4", "_scale"), ("int4", "_shape"), ("nvfp4", "_scale")],
)
def test_numbers_without_their_scale(spoilt, name, gone):
    fails(
        spoilt(name, **{"weight" + gone: None}),
        "model.safetensors",
        f"{DOWN}{gone}",
        "missing" if "fp8" not in name else "no scale",
    )


def test_numbers_without_a_scale_and_without_a_word(spoilt):
    fails(spoilt("fp8", {}, weight_scale_inv=None), DOWN, "F8_E4M3", "no scale")


@pytest.mark.parametrize(
    ("name", "leaf", "tensor", "words"),
    [
        ("fp8", "weight_scale_inv", torch.ones(2, 2), ("[2, 2]", "[160, 288]", "128 x 128")),
        ("fp8", "weight_scale_inv", torch.ones(2, 3, dtype=torch.int32), ("I32",)),
        ("fp8", "weight_scale_inv", torch.ones(3), ("[3]", "[160, 288]")),
        ("fp8", "weight", torch.ones(160, dtype=torch.float8_e4m3fn), ("[160]", "a matrix")),
        ("fp8", "weight", torch.ones(160, 287, dtype=torch.float8_e4m3fn), ("[160, 287]", "[160, 288]")),
        ("int4", "weight_scale", torch.ones(160, 7), ("[160, 7]", "[160, 288]")),
        ("int4", "weight_shape", torch.tensor([160, 300]), ("36 words", "300")),
        ("int4", "weight_shape", torch.tensor([161, 288]), ("[161, 288]",)),
        ("fp8", "weight", torch.ones(160, 0, dtype=torch.float8_e4m3fn), ("[160, 0]", "a matrix")),
        ("fp8", "weight", torch.ones(160, 288), ("weight_scale_inv", "left over")),
        ("int4", "weight_shape", torch.tensor([160]), ("I64 [1]", "2 whole numbers")),
        ("int4", "weight_shape", torch.tensor(160), ("I64 []", "whole numbers")),
        ("int4", "weight_shape", torch.tensor([160.0, 288.0]), ("F32 [2]", "whole numbers")),
        ("int4", "weight_g_idx", torch.arange(288), ("weight_g_idx", "actorder")),
        ("int4-zeros", "weight_zero_point", torch.ones(20, 17, dtype=torch.int32), ("[20, 17]",)),
        ("int8-zeros", "weight_zero_point", torch.ones(7, 1, dtype=torch.int8), ("[7, 1]",)),
        ("nvfp4", "weight_scale", torch.ones(160, 17), ("[160, 17]", "[160, 288]")),
        ("nvfp4", "weight_scale", torch.ones(160, 1), ("[160, 1]", "[160, 288]", "1 x 16")),
        ("mxfp4", "weight_scale", torch.ones(160, 36, dtype=torch.uint8), ("[160, 36]", "[160, 288]")),
        ("nvfp4", "weight_global_scale", torch.ones(3), ("[3]",)),
        ("nvfp4", "weight_packed", torch.ones(160, 144), ("F32 [160, 144]", "two numbers a byte")),
        ("nvfp4", "weight_packed", torch.ones(160, dtype=torch.uint8), ("[160]", "a matrix")),
        ("nvfp4-old", "weight", torch.tensor(3, dtype=torch.uint8), ("U8 []", "two numbers a byte")),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_tensors_that_do_not_fit(spoilt, name, leaf, tensor, words):
    fails(spoilt(name, **{leaf: tensor}), "model.safetensors", "mlp.down_proj", *words)
