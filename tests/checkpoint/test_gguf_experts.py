"""Mixtures of experts from GGUF files, made here from tiny reference models: experts lie in one stack a projection."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers

import lamina
from lamina.errors import LaminaError
from lamina.ops.packed import Packed
from tests.checkpoint.test_gguf_models import BASE, neighbours
from tests.reference import ids, randomise, relative

YARN = {
    "rope_type": "yarn",
    "rope_theta": 700.0,
    "factor": 4.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 32,
}
THETA = {"rope_type": "default", "rope_theta": 700.0}
ROUTED = {"num_experts": 10, "num_experts_per_tok": 3, "moe_intermediate_size": 32}
LOCAL = {"num_local_experts": 10, "num_experts_per_tok": 3, "intermediate_size": 64, "sliding_window": None}


@dataclass(frozen=True)
class Case:
    """A reference model, and the GGUF architecture it is stored as."""

    kind: str
    stem: str
    config: dict[str, Any] = field(hash=False)

    def __str__(self) -> str:
        return f"{self.kind}-{self.stem}"


CASES = [
    Case("qwen3moe", "Qwen3Moe", ROUTED | {"head_dim": 32, "norm_topk_prob": True, "mlp_only_layers": [1]}),
    Case("qwen2moe", "Qwen2Moe", ROUTED | {"shared_expert_intermediate_size": 96, "norm_topk_prob": False}),
    Case("llama", "Mixtral", LOCAL | {"head_dim": 32}),
    Case("gpt-oss", "GptOss", LOCAL | {"head_dim": 32, "sliding_window": 7, "rope_parameters": YARN}),
]
NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn": "attn",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "mlp.router": "ffn_gate_inp",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
}
WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def reference(case: Case) -> torch.nn.Module:
    config = getattr(transformers, f"{case.stem}Config")(**BASE | {"rope_parameters": THETA} | case.config)
    config._attn_implementation = "eager"
    model = getattr(transformers, f"{case.stem}ForCausalLM")(config).eval()
    randomise(model)
    return model


def stacks(part: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """The stack of each projection, rows first, from what the reference holds gates and ups together in."""
    leaf, turned = ("bias", False) if part.endswith("_bias") else ("weight", part.endswith("@turned"))
    tensor = tensor.mT if turned else tensor
    if "gate_up" not in part:
        return {f"ffn_down_exps.{leaf}": tensor}
    if turned or leaf == "bias":  # gpt-oss: in turn
        return {f"ffn_gate_exps.{leaf}": tensor[:, ::2], f"ffn_up_exps.{leaf}": tensor[:, 1::2]}
    gate, up = tensor.chunk(2, 1)
    return {f"ffn_gate_exps.{leaf}": gate, f"ffn_up_exps.{leaf}": up}


def converted(case: Case, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of the file."""
    out, config = {}, model.config
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, parameter in model.named_parameters():
        stem, _, leaf = name.rpartition(".")
        if stem in WHOLE:
            out[f"{WHOLE[stem]}.{leaf}"] = parameter.detach()
            continue
        _, _, block, part = name.split(".", 3)
        if ".experts." in part:
            turned = case.kind == "gpt-oss" and not part.endswith("_bias")
            found = stacks(part + "@turned" * turned, parameter.detach())
        elif leaf == "sinks":
            found = {"attn_sinks.weight": parameter.detach()}
        else:
            new, tensor = NAMES[part.rpartition(".")[0]], parameter.detach()
            new = "post_attention_norm" if case.kind == "gpt-oss" and new == "ffn_norm" else new
            tensor = neighbours(tensor, heads[new]) if case.kind == "llama" and new in heads else tensor
            found = {f"{new}.{leaf}": tensor[0] if new == "ffn_gate_inp_shexp" else tensor}
        out |= {f"blk.{block}.{key}": tensor.contiguous() for key, tensor in found.items()}
    return out


def write(path: Path, case: Case, tensors: dict[str, torch.Tensor], config: Any, kind: str | None = None) -> Path:
    """The file; matrices and stacks of them in a quantised format if one is named."""
    writer = gguf.GGUFWriter(path, case.kind)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(700.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_expert_count(10)
    writer.add_expert_used_count(3)
    if "head_dim" in case.config:
        writer.add_key_length(32)
        writer.add_value_length(32)
    if case.kind != "llama":
        writer.add_expert_feed_forward_length(case.config.get("moe_intermediate_size", config.intermediate_size))
    if case.kind == "qwen2moe":
        writer.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)
    if case.kind == "gpt-oss":
        writer.add_sliding_window(config.sliding_window)
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(4.0)
        writer.add_rope_scaling_orig_ctx_len(32)
    for name, tensor in tensors.items():
        if kind and tensor.ndim >= 2 and tensor.shape[-1] % 32 == 0:
            stored = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(name, gguf.quants.quantize(tensor.numpy(), stored), raw_dtype=stored)
        else:
            writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module", params=CASES, ids=str)
def made(request, tmp_path_factory):
    case, directory = request.param, tmp_path_factory.mktemp(str(request.param))
    model = reference(case)
    return case, model, write(directory / "tiny.gguf", case, converted(case, model), model.config)


@torch.inference_mode()
def test_logits_equal_the_original_model(made):
    _, theirs, path = made
    ours = lamina.load(path)
    for batch, tokens in ((2, 19), (1, 1), (1, 61)):
        x = ids(batch, tokens)
        assert relative(ours(x), theirs(x, use_cache=False).logits) <= 1e-5
    state = ours.init_state(1, 61)
    pieces = torch.cat([ours(piece, state) for piece in x.split([17, 1, 1, 30, 12], 1)], 1)
    assert relative(pieces, theirs(x, use_cache=False).logits) <= 1e-5
    assert ours.arch.parameters().total == sum(p.numel() for p in theirs.parameters())


@torch.inference_mode()
def test_saved_is_what_transformers_loads(made, tmp_path):
    case, theirs, path = made
    lamina.save(lamina.load(path), tmp_path / "saved")
    name = f"{case.stem}ForCausalLM"
    back = getattr(transformers, name).from_pretrained(tmp_path / "saved", attn_implementation="eager")
    x = ids(2, 61)
    assert relative(back(x, use_cache=False).logits, theirs(x, use_cache=False).logits) <= 1e-5


@torch.inference_mode()
def test_experts_stay_as_they_are_stored(made, tmp_path):
    """Q8_0: the model is the original one with each matrix rounded as the gguf package rounds it."""
    case, theirs, _ = made
    tensors, kind = converted(case, theirs), gguf.GGMLQuantizationType.Q8_0
    path = write(tmp_path / "q8.gguf", case, tensors, theirs.config, "Q8_0")
    for name, tensor in tensors.items():
        if tensor.ndim >= 2:
            rounded = gguf.quants.dequantize(gguf.quants.quantize(tensor.numpy(), kind), kind)
            tensors[name] = torch.from_numpy(np.array(rounded))
    plain = lamina.load(write(tmp_path / "plain.gguf", case, tensors, theirs.config))
    ours, x = lamina.load(path), ids(2, 19)
    assert relative(ours(x), plain(x)) <= 1e-5
    state = ours.init_state(2, 19)
    assert relative(torch.cat([ours(one, state) for one in x.split(1, 1)], 1), plain(x)) <= 1e-5
    stack = ours.blocks[0].feed_forward.op.experts.up_proj.weight
    assert isinstance(stack, Packed)
    assert stack.nbytes < stack.numel() * 2


def test_a_router_and_a_stack_that_disagree(made, tmp_path):
    case, theirs, _ = made
    tensors = converted(case, theirs)
    tensors["blk.2.ffn_up_exps.weight"] = tensors["blk.2.ffn_up_exps.weight"][:9].contiguous()
    path = write(tmp_path / "bad.gguf", case, tensors, theirs.config)
    with pytest.raises(LaminaError, match=r"the router of block 2 chooses among 10 experts, and 'blk\.2\.ffn_up_exps"):
        lamina.load(path)
