"""Zamba and Zamba 2 at full size, and what they read and refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

import lamina
from lamina.arch import Mamba, Mamba2, RMSNorm, SharedTransformer
from lamina.errors import LaminaError
from lamina.families import family_named, read_config


def _kinds(layers: int, hybrid: tuple[int, ...]) -> dict[str, Any]:
    return {
        "num_hidden_layers": layers,
        "layers_block_type": ["hybrid" if i in hybrid else "mamba" for i in range(layers)],
    }


SIZES: dict[str, dict[str, Any]] = {  # of the published models
    "1.2b": {"hidden_size": 2048, "n_mamba_heads": 64, "mamba_d_state": 128, "use_shared_attention_adapter": True}
    | {"use_mem_rope": True, **_kinds(38, (5, 11, 17, 23, 29, 35))},
    "2.7b": {"hidden_size": 2560, "n_mamba_heads": 80, "num_mem_blocks": 2},
    "7b": {"hidden_size": 3584, "n_mamba_heads": 112, "mamba_ngroups": 2, "num_mem_blocks": 2, "use_mem_rope": True}
    | _kinds(81, (6, *range(11, 81, 6))),
}


PUBLISHED = {
    f"zamba2-{name}": {"model_type": "zamba2", "num_attention_heads": 32} | said for name, said in SIZES.items()
}
PUBLISHED["zamba-7b"] = {"model_type": "zamba", "hidden_size": 3712, "num_attention_heads": 16}
BILLIONS = {"zamba2-1.2b": 1.22, "zamba2-2.7b": 2.66, "zamba2-7b": 7.36, "zamba-7b": 7.23}


@pytest.mark.parametrize("name", PUBLISHED)
def test_full_size_is_the_references(name: str) -> None:
    data = PUBLISHED[name]
    arch = read_config(data)
    config = transformers.AutoConfig.for_model(**data)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    total = sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())
    assert arch.parameters().total == total == sum(p.numel() for p in lamina.build(arch, device="meta").parameters())
    assert round(total / 1e9, 2) == BILLIONS[name]
    assert read_config(family_named(arch.family).written(arch)) == arch
    assert read_config(config.to_dict()) == arch


def test_two_transformers_are_used_in_turn() -> None:
    arch = read_config(PUBLISHED["zamba2-2.7b"])
    found = {i: block.branches[0].aside for i, block in enumerate(arch.blocks)}
    assert {i: aside.same_as for i, aside in found.items() if aside} == {6: None, 12: None} | dict(
        zip((18, 24, 30, 36, 42, 47, 51), (6, 12) * 4, strict=False)
    )
    aside, mamba = found[6], next(op for op in arch.ops() if isinstance(op, Mamba2))
    assert isinstance(aside, SharedTransformer)
    assert (aside.attention.head_dim, aside.attention.scale, aside.attention.rotary) == (160, 80**-0.5, None)
    assert (aside.attention_rank, aside.feed_forward_rank, aside.feed_forward.activation) == (None, 128, "gelu")
    assert (mamba.step_min, mamba.norm) == (0.001, RMSNorm(eps=1e-5))
    keys_and_values = 9 * 1000 * 2 * 32 * 160
    assert arch.state_bytes(1000) - arch.state_bytes(0) == 2 * keys_and_values


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_mamba_heads": 48}, r"n_mamba_heads \(48\) must divide mamba_expand \* hidden_size \(5120\)"),
        ({"num_hidden_layers": 3}, "layers_block_type has 54 entries for 3 layers"),
        ({"layers_block_type": ["m"] * 54}, r"layers_block_type\[0\] is 'm'"),
        ({"attention_head_dim": 80}, "'attention_head_dim' is 80; only 160 is known"),
        ({"tie_word_embeddings": False}, "'tie_word_embeddings' is False; only True is known"),
        ({"use_shared_mlp": True}, "the key 'use_shared_mlp' .* is not understood"),
    ],
)
def test_what_contradicts_itself_or_is_not_understood_is_said(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(LaminaError, match=message):
        read_config(PUBLISHED["zamba2-2.7b"] | wrong)


def test_a_longer_context_where_the_config_says_so() -> None:
    data = PUBLISHED["zamba2-2.7b"]
    assert (read_config(data).context, read_config(data | {"use_long_context": True}).context) == (4096, 16384)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_mamba_heads": 3}, r"inner \(7424\) must be a multiple of heads \(3\)"),
        ({"attention_hidden_size": 3712}, "'attention_hidden_size' is 3712; only 7424 is known"),
        ({"hidden_mamba_act": "gelu"}, "'hidden_mamba_act' is 'gelu'; only 'silu' is known"),
    ],
)
def test_what_the_first_one_does_not_know_is_said(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(LaminaError, match=message):
        read_config(PUBLISHED["zamba-7b"] | wrong)


def test_the_first_one_shares_one_transformer_between_all() -> None:
    arch = read_config(PUBLISHED["zamba-7b"])
    places = [2, *range(7, 76, 6)]
    found = {i: block.branches[0].aside for i, block in enumerate(arch.blocks)}
    assert [i for i, aside in found.items() if aside] == places
    assert {aside.same_as for i, aside in found.items() if aside and i > 2} == {2}
    mixer = next(op for op in arch.ops() if isinstance(op, Mamba))
    assert (mixer.heads, mixer.interleaved, mixer.rank, mixer.inner) == (2, True, 232, 7424)
