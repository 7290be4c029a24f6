"""The decoder of Llama 3.2 Vision, its cross-attention blocks fed by given image states."""

from __future__ import annotations

import pytest
import torch
import transformers

import lamina
from lamina.families import family_named, read_config
from tests.reference import ids, randomise, relative

CONFIG = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_hidden_layers": 5,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "cross_attention_layers": [1, 3],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "rope_parameters": {"rope_type": "default", "rope_theta": 900.0},
}
TILES, PATCHES = 3, 7


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    config = transformers.MllamaTextConfig(**CONFIG, attn_implementation="eager")
    theirs = transformers.MllamaForCausalLM(config).eval()
    randomise(theirs)
    directory = tmp_path_factory.mktemp("mllama")
    theirs.save_pretrained(directory)
    return theirs, lamina.load(directory), directory


def memory(batch: int) -> torch.Tensor:
    return torch.randn(batch, TILES * PATCHES, 48, generator=torch.Generator().manual_seed(7))


def visible(batch: int, tokens: int) -> torch.Tensor:
    """Which tiles a token sees: some see all, some one, the first two none. [B T M]"""
    tiles = torch.rand(batch, tokens, TILES, generator=torch.Generator().manual_seed(8)) < 0.5
    tiles[:, :2] = False
    return tiles.repeat_interleave(PATCHES, -1)


def their_logits(theirs, x, states, mask=None):
    if mask is None:
        return theirs(x, cross_attention_states=states, use_cache=False).logits
    blind = ~mask.any(-1, keepdim=True)
    bias = torch.where(mask | blind, 0.0, torch.finfo(torch.float32).min)[:, None]
    sees = (~blind).float()[:, None]
    out = theirs(
        x, cross_attention_states=states, cross_attention_mask=bias, full_text_row_masked_out_mask=sees, use_cache=False
    )
    return out.logits


@torch.inference_mode()
def test_logits_equal_the_reference(pair):
    theirs, ours, _ = pair
    x = ids(2, 19)
    assert relative(ours(x), theirs(x, use_cache=False).logits) <= 1e-5  # no images: the blocks are passed over
    with_images = ours(x, memory=memory(2))
    assert relative(with_images, their_logits(theirs, x, memory(2))) <= 1e-5
    assert relative(with_images, ours(x)) > 1e-2
    masked = ours(x, memory=memory(2), memory_mask=visible(2, 19))
    assert relative(masked, their_logits(theirs, x, memory(2), visible(2, 19))) <= 1e-5


@torch.inference_mode()
def test_cached_decode(pair):
    theirs, ours, _ = pair
    x, seen = ids(2, 19), visible(2, 19)
    whole = ours(x, memory=memory(2), memory_mask=seen)
    state = ours.init_state(2, 40)
    out = [ours(x[:, :5], state, memory=memory(2), memory_mask=seen[:, :5])]
    out += [ours(x[:, i : i + 1], state, memory_mask=seen[:, i : i + 1]) for i in range(5, 19)]
    assert relative(torch.cat(out, 1), whole) <= 1e-5
    assert state.nbytes == ours.arch.state_bytes(40, 2, "float32", memory=TILES * PATCHES)
    # later tokens see what the last one saw, and go on as the reference does with its mask extended
    later, tokens = ids(2, 4, seed=9), torch.cat([x, ids(2, 4, seed=9)], 1)
    longer = torch.cat([seen, seen[:, -1:].expand(-1, 4, -1)], 1)
    got = torch.cat([ours(later[:, i : i + 1], state) for i in range(4)], 1)
    assert relative(got, their_logits(theirs, tokens, memory(2), longer)[:, 19:]) <= 1e-5


@torch.inference_mode()
def test_greedy_continuation(pair):
    theirs, ours, _ = pair
    x, states = ids(1, 13), memory(1)
    state = ours.init_state(1, 45)
    logits, expected, got = ours(x, state, memory=states), x, []
    for _ in range(32):
        expected = torch.cat([expected, their_logits(theirs, expected, states)[:, -1:].argmax(-1)], 1)
        got.append(int(logits[0, -1].argmax()))
        logits = ours(torch.tensor([got[-1:]]), state)
    assert got == expected[0, 13:].tolist()


@torch.inference_mode()
def test_padded_batch_snapshot_and_rows(pair):
    _, ours, _ = pair
    x, states, lengths = ids(3, 11), memory(3), torch.tensor([11, 4, 7])
    state = ours.init_state(3, 20)
    out = ours(x, state, lengths=lengths, memory=states)
    saved = state.snapshot()
    step = ours(x[:, :1], state)
    state.restore(saved)
    state.select([1])
    assert relative(ours(x[1:2, :1], state), step[1:2]) <= 1e-5
    for i, n in enumerate(lengths.tolist()):
        assert relative(out[i, :n], ours(x[i : i + 1, :n], memory=states[i : i + 1])[0]) <= 1e-5


def test_counts_and_round_trip(pair, tmp_path):
    theirs, ours, _ = pair
    assert ours.arch.parameters().total == sum(p.numel() for p in theirs.parameters())
    assert read_config(family_named("mllama").write(ours.arch)) == ours.arch
    lamina.save(ours, tmp_path / "saved")
    back = transformers.MllamaForCausalLM.from_pretrained(tmp_path / "saved", attn_implementation="eager")
    x = ids(1, 9)
    with torch.inference_mode():
        assert relative(back(x, cross_attention_states=memory(1)).logits, ours(x, memory=memory(1))) <= 1e-5
