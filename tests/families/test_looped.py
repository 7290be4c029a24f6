"""A stack that is passed several times: against the reference's Llama blocks, applied again by hand."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from table import WIDE
from transformers.masking_utils import create_causal_mask

import lamina
from tests.reference import ids, randomise, relative

LOOPS = 3


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The reference's Llama, and ours loaded from its weights under a config that says that they are looped."""
    config = transformers.LlamaConfig(**WIDE)
    config._attn_implementation = "eager"
    theirs = transformers.LlamaForCausalLM(config).eval()
    randomise(theirs)
    directory = tmp_path_factory.mktemp("looped")
    theirs.save_pretrained(directory)
    said = json.loads((directory / "config.json").read_text())
    said = {key: said[key] for key in (*WIDE, "rms_norm_eps", "hidden_act", "rope_parameters", "tie_word_embeddings")}
    (directory / "config.json").write_text(json.dumps(said | {"model_type": "nanbeige", "num_loops": LOOPS}))
    return theirs, lamina.load(directory)


def by_hand(model: transformers.LlamaForCausalLM, x: torch.Tensor) -> torch.Tensor:
    h, places = model.model.embed_tokens(x), torch.arange(x.shape[1])[None]
    turned = model.model.rotary_emb(h, places)
    mask = create_causal_mask(model.config, h, None, past_key_values=None, position_ids=places)
    for _ in range(LOOPS):
        for layer in model.model.layers:
            h = layer(h, attention_mask=mask, position_embeddings=turned)
        h = model.model.norm(h)
    return model.lm_head(h)


@torch.inference_mode()
def test_logits_and_states(pair):
    theirs, ours = pair
    assert ours.arch.loops == LOOPS
    x = ids(2, 19)
    expected = by_hand(theirs, x)
    assert relative(ours(x), expected) <= 1e-5
    assert relative(theirs(x, use_cache=False).logits, expected) > 0.01
    state = ours.init_state(2, 23)
    assert state.nbytes == ours.arch.state_bytes(23, 2, "float32")
    out = torch.cat([ours(piece, state) for piece in x.split([5, 1, 1, 9, 3], 1)], 1)
    assert relative(out, expected) <= 1e-5


def test_it_is_saved_as_it_came(pair, tmp_path):
    _, ours = pair
    lamina.save(ours, tmp_path / "saved")
    again = lamina.load(tmp_path / "saved")
    assert again.arch == ours.arch
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), ours.parameters(), strict=True))


def test_each_pass_counts(pair):
    _, ours = pair
    once = ours.arch.replace(loops=1)
    assert ours.arch.parameters() == once.parameters()
    assert ours.arch.state_bytes(100) == LOOPS * once.state_bytes(100)
