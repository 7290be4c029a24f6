"""What the table cannot hold: text decoders within multimodal checkpoints, and angles that depend on the length."""

from __future__ import annotations

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from table import BASE, LONGROPE, VISION, WIDE

import lamina
from tests.reference import ids, randomise, relative


def saved(model, directory):
    randomise(model)
    model.save_pretrained(directory)
    return lamina.load(directory)


@torch.inference_mode()
@pytest.mark.parametrize("old_names", [False, True])
def test_mistral3_text(tmp_path, old_names):
    """Mistral Small 3.1: the text decoder of an image-text checkpoint, under the names of old files and of new."""
    config = transformers.Mistral3Config(
        text_config=transformers.MistralConfig(**WIDE, sliding_window=None).to_dict(),
        vision_config=transformers.PixtralVisionConfig(**VISION, head_dim=8).to_dict(),
        image_token_index=5,
        tie_word_embeddings=False,
    )
    theirs = transformers.Mistral3ForConditionalGeneration(config).eval()
    ours = saved(theirs, tmp_path)
    if old_names:
        ours = respelled(tmp_path)
    x = ids(2, 19)
    assert relative(ours(x), theirs(x, use_cache=False).logits) <= 1e-5
    assert any("vision" in name for name in ours.ignored)


@torch.inference_mode()
@pytest.mark.parametrize("old_names", [False, True])
def test_gemma3_text_within_a_multimodal_checkpoint(tmp_path, old_names):
    text = WIDE | {"sliding_window": 7, "num_hidden_layers": 7, "pad_token_id": 0}
    config = transformers.Gemma3Config(
        text_config=transformers.Gemma3TextConfig(**text).to_dict(),
        vision_config=transformers.SiglipVisionConfig(**VISION).to_dict(),
        mm_tokens_per_image=4,
        image_token_index=96,
    )
    theirs = transformers.Gemma3ForConditionalGeneration(config).eval()
    ours = saved(theirs, tmp_path)
    if old_names:
        ours = respelled(tmp_path)
    x = ids(2, 19, vocab=90)
    assert relative(ours(x), theirs(x, use_cache=False).logits) <= 1e-5
    lamina.save(ours, tmp_path / "text")
    back = transformers.Gemma3ForCausalLM.from_pretrained(tmp_path / "text")
    assert relative(back(x, use_cache=False).logits, ours(x)) <= 1e-5


def respelled(directory):
    """The same checkpoint, its text decoder called `language_model.model.` or `model.language_model.`."""
    path = directory / "model.safetensors"
    tensors = load_file(path)
    out = {}
    for name, tensor in tensors.items():
        if name.startswith("language_model.model."):
            name = name.replace("language_model.model.", "model.language_model.")
        elif name.startswith("model.language_model."):
            name = name.replace("model.language_model.", "language_model.model.")
        elif name.startswith("language_model.lm_head"):
            name = name.removeprefix("language_model.")
        elif name.startswith("lm_head"):
            name = "language_model." + name
        out[name] = tensor.clone()
    assert set(out) != set(tensors)
    save_file(out, path, metadata={"format": "pt"})
    return lamina.load(directory)


def length_dependent(kind, directory):
    if kind == "dynamic":
        rope = {"rope_type": "dynamic", "factor": 3.0, "rope_theta": 100.0}
        config = transformers.LlamaConfig(**BASE | {"max_position_embeddings": 16, "rope_parameters": rope})
        model = transformers.LlamaForCausalLM(config)
    else:
        more = {"original_max_position_embeddings": 16, "max_position_embeddings": 64, "rope_parameters": LONGROPE}
        model = transformers.Phi3ForCausalLM(transformers.Phi3Config(**BASE | more))
    return model.eval(), saved(model, directory)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_angles_follow_the_length_of_the_sequence(kind, tmp_path):
    """Short and long prompts equal the reference; a state that grows past the border equals reading all at once."""
    theirs, ours = length_dependent(kind, tmp_path)
    for tokens in (16, 17, 29, 9):
        x = ids(1, tokens)
        fresh = theirs.from_pretrained(tmp_path)  # the reference remembers the longest sequence it has seen
        assert relative(ours(x), fresh(x, use_cache=False).logits) <= 1e-5
    x = ids(2, 24)
    state = ours.init_state(2, 40)
    for start, stop in ((0, 9), (9, 15), (15, 16), (16, 17), (17, 20), (20, 24)):
        out = ours(x[:, start:stop], state)
        assert relative(out, ours(x[:, :stop])[:, start:]) <= 1e-5
    assert state.nbytes == ours.arch.state_bytes(40, 2, "float32")


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_rows_on_both_sides_of_the_border(kind, tmp_path):
    _, ours = length_dependent(kind, tmp_path)
    x, lengths = ids(2, 14), [14, 5]
    state = ours.init_state(2, 40)
    ours(x, state, lengths=torch.tensor(lengths))
    more = ids(2, 4, seed=4)
    for last in (False, True):
        saved_state = state.snapshot()
        out = ours(more, state, lengths=torch.tensor([4, 2]), last=last)
        for i, (n, m) in enumerate(zip(lengths, (4, 2), strict=True)):
            alone = ours(torch.cat([x[i : i + 1, :n], more[i : i + 1, :m]], 1))[0, n:]
            assert relative(out[i, :m] if not last else out[i, 0], alone if not last else alone[-1]) <= 1e-5
        state.restore(saved_state)
    padded = ours(torch.cat([x, more], 1), lengths=torch.tensor([18, 6]))
    assert relative(padded[1, :6], ours(torch.cat([x, more], 1)[1:, :6])[0]) <= 1e-5
