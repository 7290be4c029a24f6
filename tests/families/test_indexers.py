"""What indexers choose and what attention makes of it, against the reference; and how published checkpoints say it."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch
import transformers
from table import ROWS
from transformers.models.qwen4_exp import modeling_qwen4_exp as qwen

import lamina
from lamina.arch import (
    Attention,
    PooledIndexer,
    QKNorm,
    RMSNorm,
    Rotary,
)
from lamina.errors import LaminaError
from lamina.families import read_config
from lamina.nn.block import op_module
from lamina.nn.registry import Place
from lamina.nn.state import Fresh
from lamina.nn.step import Step
from lamina.ops.sparse import Choice
from tests.reference import ids, randomise, reference, relative

TOKENS = 37
INDEXED = [row for row in ROWS if row.name.startswith(("deepseek-v3.2", "glm-5", "minimax-m3"))]


def watched(model, name: str) -> list:
    """What the modules of this name give, in order."""
    found: list = []
    for path, module in model.named_modules():
        if path.endswith(f".{name}"):
            module.register_forward_hook(lambda module, given, out: found.append(out))
    return found


@pytest.mark.parametrize("row", INDEXED, ids=str)
@torch.inference_mode()
def test_the_same_keys_are_chosen(row):
    """As sets, of every query that has a choice; runs are tokens, or blocks of each indexer head."""
    _, directory = reference(row)
    theirs = getattr(transformers, row.model_class).from_pretrained(directory, attn_implementation="eager")
    ours = lamina.load(directory)
    expected, got = watched(theirs, "indexer"), watched(ours, "indexer")
    x = ids(2, TOKENS)
    theirs(x, use_cache=False)
    ours(x)
    own = [choice for i, choice in enumerate(got) if all(choice is not earlier for earlier in got[:i])]
    assert len(own) == len(expected) >= 2
    for choice, indices in zip(own, expected, strict=True):
        later = (indices if indices.ndim == 4 else indices[:, None])[:, :, choice.dense :]
        assert 0 < choice.dense < TOKENS // 2
        if choice.tail:  # the reference gives the tokens of pools
            assert [read(choice, b) for b in range(2)] == [[{*row} - {-1} for row in b[0].tolist()] for b in later]
        else:
            assert torch.equal(choice.runs.sort(-1).values, later.sort(-1).values)


def read(choice: Choice, row: int) -> list[set[int]]:
    """The tokens that each query reads."""
    columns, seen = choice.columns(row, 0, slice(None))
    return [set(of_query[those].tolist()) for of_query, those in zip(columns, seen, strict=True)]


def applied(module, x: torch.Tensor) -> torch.Tensor:
    return module(
        x, Step(torch.zeros(x.shape[:2], dtype=torch.long), x.dtype, lambda slot: Fresh(), [0] * len(x), None)
    )


def filled(module, theirs: dict[str, torch.Tensor], names: dict[str, str]) -> None:
    """Weights of the reference by our names; each is used."""
    module.load_state_dict({ours: theirs.pop(name) for name, ours in names.items()})
    assert not theirs


@torch.inference_mode()
def test_pools_of_attention_are_those_of_qwen_4():
    config = qwen.Qwen4ExpTextConfig(
        vocab_size=97,
        hidden_size=48,
        num_hidden_layers=1,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=12,
        indexer_n_heads=5,
        indexer_kv_heads=1,
        indexer_head_dim=10,
        indexer_budget=9,
        indexer_compress_ratio=3,
        layer_types=["full_attention"],
        rope_parameters={"rope_type": "default", "rope_theta": 900.0, "partial_rotary_factor": 0.5},
    )
    config._attn_implementation = "eager"
    theirs = qwen.Qwen4ExpTextAttention(config, 0).eval()
    randomise(theirs)
    turn, norm = Rotary(base=900.0, dim=6), RMSNorm(eps=config.rms_norm_eps, offset=1.0)
    blocks = PooledIndexer(heads=5, head_dim=10, pool=3, top_k=3, rotary=turn, norm=norm)
    value = Attention(heads=6, kv_heads=2, head_dim=12, rotary=turn, qk_norm=QKNorm(norm=norm), gate="elementwise")
    ours = op_module(value.replace(blocks=blocks), 48, Place())
    held = theirs.state_dict()
    both = held.pop("q_proj.weight").view(6, 24, 48)
    held |= {"q": both[:, :12].reshape(72, 48), "gate": both[:, 12:].reshape(72, 48)}
    held["index_q"], held["index_k"] = held.pop("indexer.index_qk_proj.weight").split([50, 10])
    names = {"q": "q_proj.weight", "gate": "gate_proj.weight"}
    names |= {f"{name}.weight": f"{name}.weight" for name in ("k_proj", "v_proj", "o_proj", "q_norm", "k_norm")}
    names |= {f"index_{part}": f"indexer.{part}_proj.weight" for part in "qk"}
    names |= {f"indexer.{part}_layernorm.weight": f"indexer.{part}_norm.weight" for part in "qk"}
    filled(ours, held, names)
    x = torch.randn(2, TOKENS, 48, generator=torch.Generator().manual_seed(2))
    angles = torch.arange(TOKENS)[:, None] * 900.0 ** (-torch.arange(0, 6, 2) / 6)
    turned = [torch.cat([part, part], -1)[None].expand(2, -1, -1) for part in (angles.cos(), angles.sin())]
    mask = torch.full((TOKENS, TOKENS), torch.finfo(x.dtype).min).triu(1).expand(2, 1, -1, -1)
    assert relative(applied(ours, x), theirs(x, tuple(turned), mask)[0]) <= 1e-5


@torch.inference_mode()
def test_minimax_m3_as_it_is_published(tmp_path):
    """Experts one by one, other names, and an image encoder beside."""
    text = next(row.config for row in ROWS if row.name == "minimax-m3")
    sees = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.MiniMaxM3VLConfig(text_config=text, vision_config=sees | {"projection_dim": 48})
    theirs = transformers.MiniMaxM3SparseForConditionalGeneration(config).eval().float()
    randomise(theirs)
    theirs.save_pretrained(tmp_path)
    ours = lamina.load(tmp_path)
    held = {name.partition(".layers.1.")[2] for name in safetensors.torch.load_file(tmp_path / "model.safetensors")}
    assert {"block_sparse_moe.experts.9.w2.weight", "self_attn.index_q_norm.weight"} <= held
    x = ids(2, TOKENS)
    assert relative(ours(x), theirs(x, use_cache=False).logits) <= 1e-5


BAD = {
    "deepseek-v3.2": ("index_topk", 0),
    "glm-5": ("index_n_heads", -1),
    "glm-5.2": ("index_topk", 1 << 40),
    "minimax-m3": ("index_topk_blocks", 0),
}


@pytest.mark.parametrize("name", BAD)
def test_a_choice_of_nothing_is_one_sentence(name):
    key, wrong = BAD[name]
    _, directory = reference(next(row for row in ROWS if row.name == name))
    said = json.loads((directory / "config.json").read_text())
    with pytest.raises(LaminaError, match=rf"'{key}' is {wrong}; a whole number from 1 to \d+ is expected"):
        read_config(said | {key: wrong})


@torch.inference_mode()
def test_a_choice_of_more_than_there_is_reads_all():
    _, directory = reference(next(row for row in ROWS if row.name == "deepseek-v3.2"))
    model = lamina.load(directory)
    arch = model.arch.replace("blocks[*].mixer.indexer.top_k", 1 << 30)
    most, full = lamina.build(arch), lamina.build(arch.replace("blocks[*].mixer.indexer", None))
    most.load_state_dict(model.state_dict())
    full.load_state_dict(model.state_dict(), strict=False)
    x = ids(2, TOKENS)
    assert torch.equal(most(x), full(x))
    assert relative(model(x), full(x)) > 1e-2
