"""Whole models from GGUF files, made here from tiny reference checkpoints the way llama.cpp's converter makes them.

In such files the rows of q and k of the llama architecture are ordered so that pairs which turn together are
neighbours, Gemma's norms have one added, and Llama 3's scaling is a tensor of divisors, `rope_freqs.weight`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

import lamina
from lamina.arch import LinearScaling, LongRopeScaling, Rotary, YarnScaling
from lamina.errors import LaminaError
from lamina.ops.rotary import frequencies
from tests.families.table import LLAMA3, YARN
from tests.reference import ids, randomise, relative

BASE = {
    "vocab_size": 97,
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 3e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
"""Rows of a multiple of 32, which Q8_0 needs."""
THETA = {"rope_type": "default", "rope_theta": 700.0}
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 700.0}


EQUAL = "the model the file was made from"
DIFFERENT = "another model: it passes over rope.scaling, rope_freqs.weight and Gemma's scale of scores"
FAILS = "no model: it takes Qwen3's key_length to be 128"


@dataclass(frozen=True)
class Case:
    """A reference model, the GGUF architecture it is stored as, and what transformers makes of that file."""

    name: str
    kind: str
    stem: str
    config: dict[str, Any] = field(hash=False)
    by_transformers: str = EQUAL

    def __str__(self) -> str:
        return self.name


def _case(name: str, kind: str, stem: str, by_transformers: str = EQUAL, **more: Any) -> Case:
    return Case(name, kind, stem, BASE | more, by_transformers)


CASES = [
    _case("llama", "llama", "Llama", rope_parameters=THETA, tie_word_embeddings=False),
    _case("llama-wide-heads", "llama", "Llama", head_dim=32, rope_parameters=THETA, tie_word_embeddings=True),
    _case("llama-3.2", "llama", "Llama", DIFFERENT, rope_parameters=LLAMA3, tie_word_embeddings=True),
    _case("llama-linear", "llama", "Llama", DIFFERENT, rope_parameters=LINEAR),
    _case("llama-yarn", "llama", "Llama", DIFFERENT, rope_parameters=YARN | {"rope_theta": 700.0}),
    _case("qwen2", "qwen2", "Qwen2", rope_parameters=THETA, tie_word_embeddings=True),
    _case("qwen2-yarn", "qwen2", "Qwen2", DIFFERENT, rope_parameters=YARN | {"rope_theta": 700.0}),
    _case("qwen3", "qwen3", "Qwen3", head_dim=128, rope_parameters=THETA, tie_word_embeddings=True),
    _case("qwen3-narrow-heads", "qwen3", "Qwen3", FAILS, head_dim=32, rope_parameters=THETA),
    _case(
        "gemma3",
        "gemma3",
        "Gemma3",
        head_dim=256,
        query_pre_attn_scalar=256,
        sliding_window=7,
        num_hidden_layers=7,
        rope_parameters={"full_attention": THETA, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}},
    ),
    _case(
        "gemma3-linear",
        "gemma3",
        "Gemma3",
        DIFFERENT,
        head_dim=32,
        query_pre_attn_scalar=32,
        sliding_window=7,
        num_hidden_layers=7,
        rope_parameters={"full_attention": LINEAR, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}},
    ),
]
TENSORS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
AFTER = {
    False: {"post_attention_layernorm": "ffn_norm"},
    True: {
        "post_attention_layernorm": "post_attention_norm",
        "pre_feedforward_layernorm": "ffn_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
    },
}


def reference(case: Case) -> torch.nn.Module:
    config_class = "Gemma3TextConfig" if case.stem == "Gemma3" else f"{case.stem}Config"
    config = getattr(transformers, config_class)(**case.config)
    config._attn_implementation = "eager"
    model = getattr(transformers, f"{case.stem}ForCausalLM")(config).eval()
    randomise(model)
    return model


def stored_name(name: str, sandwich: bool) -> str:
    if name in TENSORS:
        return TENSORS[name]
    _, _, block, part = name.split(".", 3)
    part, _, leaf = part.rpartition(".")
    return f"blk.{block}.{(PARTS | AFTER[sandwich])[part]}.{leaf}"


def neighbours(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Row i of a head's first half beside row i of its second half."""
    halves = rows.unflatten(0, (heads, 2, -1))
    return torch.stack([halves[:, 0], halves[:, 1]], 2).flatten(0, 2)


def converted(case: Case, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of the file."""
    gemma, out, config = case.kind == "gemma3", {}, case.config
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for name, parameter in model.named_parameters():
        new, tensor = stored_name(name, gemma), parameter.detach().clone()
        part = new.split(".")[-2]
        if case.kind == "llama" and part in heads:
            tensor = neighbours(tensor, heads[part])
        if gemma and part.endswith("norm"):
            tensor = tensor + 1
        out[new] = tensor
    rope = config["rope_parameters"]
    if rope.get("rope_type") == "llama3":
        plain = 1 / rope["rope_theta"] ** (torch.arange(0, 16, 2).double() / 16)
        out["rope_freqs.weight"] = (plain / model.model.rotary_emb.inv_freq.double()).float()
    return out


def keys(writer: gguf.GGUFWriter, case: Case) -> None:
    """The metadata of the file."""
    c = case.config
    rope = c["rope_parameters"]
    rope = rope.get("full_attention", rope)
    writer.add_context_length(c["max_position_embeddings"])
    writer.add_embedding_length(c["hidden_size"])
    writer.add_block_count(c["num_hidden_layers"])
    writer.add_feed_forward_length(c["intermediate_size"])
    writer.add_head_count(c["num_attention_heads"])
    writer.add_head_count_kv(c["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(c["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_vocab_size(c["vocab_size"])
    head_dim = c.get("head_dim", 16)
    if case.kind == "llama":
        writer.add_rope_dimension_count(head_dim)
    if "head_dim" in c:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if "sliding_window" in c:
        writer.add_sliding_window(c["sliding_window"])
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])


Change = Callable[[gguf.GGUFWriter], None]


def write(
    path: Path, case: Case, tensors: dict[str, torch.Tensor], kind: str | None = None, change: Change | None = None
) -> Path:
    """The file; matrices in Q8_0 if that is the kind. `change` may spoil its metadata."""
    writer = gguf.GGUFWriter(path, case.kind)
    writer.add_name("a tiny model")
    keys(writer, case)
    if change:
        change(writer)
    for name, tensor in tensors.items():
        if kind and tensor.ndim == 2:
            data = gguf.quants.quantize(tensor.numpy(), gguf.GGMLQuantizationType[kind])
            writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType[kind])
        else:
            writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module", params=CASES, ids=str)
def made(request, tmp_path_factory):
    """The case, the reference model, and the file."""
    case, directory = request.param, tmp_path_factory.mktemp(request.param.name)
    model = reference(case)
    return case, model, write(directory / "tiny.gguf", case, converted(case, model))


def without(writer: gguf.GGUFWriter, key: str) -> None:
    for data in writer.kv_data:
        del data[key]


# ------------------------------------------------------------------------------------------------------ what is read


@torch.inference_mode()
def test_logits_equal_the_original_model(made):
    case, theirs, path = made
    ours = lamina.load(path)
    for batch, tokens in ((2, 19), (1, 1), (1, 61)):
        x = ids(batch, tokens)
        assert relative(ours(x), theirs(x, use_cache=False).logits) <= 1e-5
    state = ours.init_state(1, 61)
    pieces = torch.cat([ours(piece, state) for piece in x.split([17, 1, 1, 30, 12], 1)], 1)
    assert relative(pieces, theirs(x, use_cache=False).logits) <= 1e-5
    assert ours.arch.family == case.kind
    assert ours.arch.head.tied == ("output.weight" not in converted(case, theirs))


@torch.inference_mode()
def test_transformers_reads_the_same_file(made):
    """Where it can. Where its GGUF reader (5.23) cannot, that is checked too, so that a change is noticed."""
    case, theirs, path = made
    x = ids(2, 61)
    expected = theirs(x, use_cache=False).logits
    read = partial(transformers.AutoModelForCausalLM.from_pretrained, path.parent, gguf_file=path.name)
    if case.by_transformers == FAILS:
        with pytest.raises(RuntimeError, match="mismatched_sizes"):
            read()
        return
    logits = read(dtype=torch.float32).eval()(x, use_cache=False).logits
    if case.by_transformers == EQUAL:
        assert relative(logits, expected) <= 1e-5
        assert relative(lamina.load(path)(x), logits) <= 1e-5
    else:
        assert relative(logits, expected) > 0.1


@torch.inference_mode()
def test_saved_is_what_transformers_loads(made, tmp_path):
    """Rows of q and k go back to their order, and norms lose what was added, so weights are the original ones."""
    case, theirs, path = made
    lamina.save(lamina.load(path), tmp_path / "saved")
    name = f"{case.stem}ForCausalLM"
    back = getattr(transformers, name).from_pretrained(tmp_path / "saved", attn_implementation="eager")
    x = ids(2, 61)
    assert relative(back(x, use_cache=False).logits, theirs(x, use_cache=False).logits) <= 1e-5
    stored, original = load_file(tmp_path / "saved" / "model.safetensors"), dict(theirs.named_parameters())
    assert stored.keys() == original.keys()
    for key, tensor in stored.items():
        if case.kind == "gemma3" and "norm" in key:
            torch.testing.assert_close(tensor, original[key].data, rtol=0, atol=3e-7)  # 1 was added and taken away
        else:
            assert torch.equal(tensor, original[key])
    again = lamina.load(tmp_path / "saved")
    assert relative(again(x), theirs(x, use_cache=False).logits) <= 1e-5


@torch.inference_mode()
def test_quantised_matrices(made, tmp_path):
    """Q8_0: the model is the original one with each matrix rounded as the gguf package rounds it."""
    case, _, _ = made
    theirs = reference(case)
    path = write(tmp_path / "q8.gguf", case, converted(case, theirs), "Q8_0")
    x = ids(2, 19)
    before = theirs(x, use_cache=False).logits
    for parameter in theirs.parameters():
        if parameter.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            rounded = gguf.quants.dequantize(gguf.quants.quantize(parameter.numpy(), kind), kind)
            parameter.copy_(torch.from_numpy(np.array(rounded)))
    expected = theirs(x, use_cache=False).logits
    ours = lamina.load(path)
    assert relative(ours(x), expected) <= 1e-5
    assert relative(before, expected) > 1e-4
    lamina.save(ours, tmp_path / "saved")
    name = f"{case.stem}ForCausalLM"
    back = getattr(transformers, name).from_pretrained(tmp_path / "saved", attn_implementation="eager")
    assert relative(back(x, use_cache=False).logits, expected) <= 1e-5


def test_the_architecture_alone(made):
    case, theirs, path = made
    arch, model = lamina.architecture(path), lamina.load(path)
    assert arch == model.arch
    assert arch.name == "tiny"
    assert arch.parameters().total == sum(p.numel() for p in theirs.parameters())
    assert lamina.Architecture.from_json(arch.to_json()) == arch
    assert model.ignored["general.name"] == "provenance"
    assert not any(key.startswith(case.kind) for key in model.ignored)


def rotary_of(name: str, block: int, directory: Path) -> Rotary:
    case = next(case for case in CASES if case.name == name)
    path = write(directory / f"{name}.gguf", case, converted(case, reference(case)))
    return lamina.architecture(path).blocks[block].branches[0].op.rotary


def test_scalings(tmp_path):
    assert rotary_of("llama-linear", 0, tmp_path).scaling == LinearScaling(factor=4.0)
    assert rotary_of("gemma3-linear", 5, tmp_path).scaling == LinearScaling(factor=4.0)
    assert rotary_of("gemma3-linear", 0, tmp_path).scaling is None
    yarn = rotary_of("llama-yarn", 0, tmp_path).scaling
    assert isinstance(yarn, YarnScaling)
    assert (yarn.factor, yarn.original_context) == (4.0, 32)
    divided = rotary_of("llama-3.2", 1, tmp_path)
    assert isinstance(divided.scaling, LongRopeScaling)
    assert not divided.depends_on_length
    case = next(case for case in CASES if case.name == "llama-3.2")
    torch.testing.assert_close(frequencies(divided), reference(case).model.rotary_emb.inv_freq, rtol=1e-6, atol=0)


def test_only_the_header_is_read(tmp_path):
    """A file of 4 GB of nothing: its architecture is known at once."""
    case, path = CASES[0], tmp_path / "huge.gguf"
    big = case.config | {"vocab_size": 1 << 20, "hidden_size": 1 << 10, "num_hidden_layers": 1}
    writer = gguf.GGUFWriter(path, "llama")
    keys(writer, Case("huge", "llama", "Llama", big))
    shape = (1 << 20, 1 << 10)
    writer.add_tensor_info("token_embd.weight", shape, np.dtype(np.float32), 1 << 32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        file.truncate(file.seek(0, 2) + (1 << 32) + 64)
    arch = lamina.architecture(path)
    assert (arch.vocab, arch.width) == shape
    with pytest.raises(LaminaError, match=r"the tensor 'blk\.0\.attn_q\.weight' is missing"):
        lamina.load(path)


# --------------------------------------------------------------------------------------------------- what is wrong


def fails(path: Path, *words: str) -> None:
    for read in (lamina.architecture, lamina.load):
        with pytest.raises(LaminaError) as caught:
            read(path)
        message = str(caught.value)
        assert message.startswith(str(path)), message
        assert "\n" not in message
        assert len(message) < 500
        for word in words:
            assert word in message, (word, message)


LLAMA = CASES[0]


@pytest.fixture(scope="module")
def tensors():
    return converted(LLAMA, reference(LLAMA))


def test_an_unknown_architecture_names_those_that_are_known(tmp_path, tensors):
    for kind, hint in (("lama", "did you mean 'llama'"), ("mamba", "known: gemma3, gpt-oss, llama, qwen2, qwen2moe")):
        case = Case("x", kind, "Llama", LLAMA.config)
        fails(write(tmp_path / f"{kind}.gguf", case, tensors), f"general.architecture is {kind!r}", hint)
    path = write(tmp_path / "none.gguf", LLAMA, tensors, change=lambda w: without(w, "general.architecture"))
    fails(path, "general.architecture is None", "known: gemma3")

    def listed(writer: gguf.GGUFWriter) -> None:
        without(writer, "general.architecture")
        writer.add_array("general.architecture", ["llama", "x" * 10_000])

    fails(write(tmp_path / "list.gguf", LLAMA, tensors, change=listed), "general.architecture is ['llama'", "known")


@pytest.mark.parametrize(
    "key",
    [
        "llama.context_length",
        "llama.embedding_length",
        "llama.block_count",
        "llama.feed_forward_length",
        "llama.attention.head_count",
        "llama.attention.layer_norm_rms_epsilon",
    ],
)
def test_a_missing_key_is_named(tmp_path, tensors, key):
    path = write(tmp_path / "a.gguf", LLAMA, tensors, change=lambda w: without(w, key))
    fails(path, f"the key {key!r} is missing")


def test_a_key_that_is_not_understood(tmp_path, tensors):
    path = write(tmp_path / "a.gguf", LLAMA, tensors, change=lambda w: w.add_uint32("llama.attention.sinks", 4))
    fails(path, "the key 'llama.attention.sinks' (4) is not understood")
    wide = write(
        tmp_path / "b.gguf", LLAMA, tensors, change=lambda w: w.add_array("llama.attention.temper", [1.5] * 10_000)
    )
    fails(wide, "'llama.attention.temper'", "is not understood")


def changed(key: str, value: Any, kind: gguf.GGUFValueType) -> Change:
    def change(writer: gguf.GGUFWriter) -> None:
        without(writer, key)
        writer.add_key_value(key, value, kind)

    return change


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("llama.embedding_length", "96", gguf.GGUFValueType.STRING),
        ("llama.embedding_length", 96.0, gguf.GGUFValueType.FLOAT32),
        ("llama.embedding_length", 0, gguf.GGUFValueType.UINT32),
        ("llama.block_count", 2**32 - 1, gguf.GGUFValueType.UINT32),
        ("llama.block_count", 2**63, gguf.GGUFValueType.UINT64),
        ("llama.block_count", True, gguf.GGUFValueType.BOOL),
        ("llama.attention.head_count", 0, gguf.GGUFValueType.UINT32),
        ("llama.attention.head_count_kv", 4, gguf.GGUFValueType.UINT32),
        ("llama.attention.layer_norm_rms_epsilon", float("nan"), gguf.GGUFValueType.FLOAT32),
        ("llama.rope.freq_base", 0.0, gguf.GGUFValueType.FLOAT32),
        ("llama.rope.freq_base", float("inf"), gguf.GGUFValueType.FLOAT32),
    ],
    ids=str,
)
def test_a_value_that_cannot_be(tmp_path, tensors, key, value, kind):
    fails(write(tmp_path / "a.gguf", LLAMA, tensors, change=changed(key, value, kind)))


def test_key_heads_that_differ_from_layer_to_layer(tmp_path, tensors):
    def change(writer: gguf.GGUFWriter) -> None:
        without(writer, "llama.attention.head_count_kv")
        writer.add_head_count_kv([2, 3, 2])

    fails(write(tmp_path / "a.gguf", LLAMA, tensors, change=change), "[2, 3, 2]", "a whole number is expected")


@pytest.mark.parametrize(("kind", "said"), [("longrope", "short_factor"), ("none", None)])
def test_other_kinds_of_scaling(tmp_path, tensors, kind, said):
    def change(writer: gguf.GGUFWriter) -> None:
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(4.0)

    path = write(tmp_path / "a.gguf", LLAMA, tensors, change=change)
    if said:
        fails(path, said)
    else:
        assert lamina.architecture(path).blocks[0].branches[0].op.rotary.scaling is None


def test_missing_left_over_and_wrong_tensors(tmp_path, tensors):
    def spoilt(**more: Any) -> Path:
        return write(tmp_path / "a.gguf", LLAMA, {k: v for k, v in (tensors | more).items() if v is not None})

    fails(spoilt(**{"token_embd.weight": None}), "'token_embd.weight' of two dimensions is missing")
    fails(spoilt(**{"token_embd.weight": torch.zeros(97)}), "'token_embd.weight' of two dimensions is missing")
    for more, said in (
        ({"blk.1.ffn_up.weight": None}, "the tensor 'blk.1.ffn_up.weight' is missing"),
        ({"blk.1.attn_sinks.weight": torch.zeros(6)}, "'blk.1.attn_sinks.weight' [6] is left over"),
        ({"blk.3.attn_output.weight": torch.zeros(96, 96)}, "'blk.3.attn_output.weight' [96, 96] is left over"),
        ({"blk.3.attn_output.weight": torch.zeros(96, 96), "output.weight": None}, "is left over"),
        ({"blk.2.attn_k.weight": torch.zeros(31, 96)}, "'blk.2.attn_k.weight' has shape [31, 96]"),
    ):
        with pytest.raises(LaminaError) as caught:
            lamina.load(spoilt(**more))
        assert said in str(caught.value)
        assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    "factors",
    [torch.ones(7), torch.zeros(8), -torch.ones(8), torch.full((8,), float("nan")), torch.ones(3, 4), torch.ones(0)],
    ids=lambda f: f"{list(f.shape)}-{float(f.sum())}",
)
def test_divisors_that_cannot_be(tmp_path, tensors, factors):
    fails(write(tmp_path / "a.gguf", LLAMA, tensors | {"rope_freqs.weight": factors}), "rope_freqs.weight")
