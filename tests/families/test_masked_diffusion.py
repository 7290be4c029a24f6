"""LLaDA's published layout: forward against the reference's Llama run without a causal mask, loss, denoising."""

from __future__ import annotations

import math

import pytest
import torch
import transformers
from safetensors.torch import save_file

import lamina
from lamina.families import family_named, read_config
from lamina.objectives import masked_diffusion
from tests.reference import ids, randomise, relative

CONFIG = {
    "model_type": "llada",
    "d_model": 48,
    "n_heads": 6,
    "n_kv_heads": 2,
    "n_layers": 3,
    "mlp_hidden_size": 56,
    "vocab_size": 97,
    "embedding_size": 97,
    "max_sequence_length": 64,
    "rope": True,
    "rope_theta": 700.0,
    "rms_norm_eps": 1e-5,
    "weight_tying": False,
    "mask_token_id": 96,
    "activation_type": "silu",
    "block_type": "llama",
    "layer_norm_type": "rms",
    "include_bias": False,
}
NAMES = {
    "model.embed_tokens": "model.transformer.wte",
    "self_attn.q_proj": "q_proj",
    "self_attn.k_proj": "k_proj",
    "self_attn.v_proj": "v_proj",
    "self_attn.o_proj": "attn_out",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ff_norm",
    "mlp.gate_proj": "ff_proj",
    "mlp.up_proj": "up_proj",
    "mlp.down_proj": "ff_out",
    "model.layers.": "model.transformer.blocks.",
    "model.norm": "model.transformer.ln_f",
    "lm_head": "model.transformer.ff_out",
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The reference's Llama with the same weights, and the model loaded from LLaDA's names."""
    config = transformers.LlamaConfig(
        vocab_size=97,
        hidden_size=48,
        intermediate_size=56,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 700.0},
        attn_implementation="eager",
    )
    theirs = transformers.LlamaForCausalLM(config).eval()
    randomise(theirs)
    tensors = {}
    for name, tensor in theirs.state_dict().items():
        for old, new in NAMES.items():
            name = name.replace(old, new)
        tensors[name] = tensor.clone()
    directory = tmp_path_factory.mktemp("llada")
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text(__import__("json").dumps(CONFIG))
    return theirs, lamina.load(directory)


@torch.inference_mode()
def test_logits_equal_the_reference_without_a_causal_mask(pair):
    theirs, ours = pair
    x = ids(2, 19)
    everything = torch.zeros(2, 1, 19, 19)
    assert relative(ours(x), theirs(x, attention_mask=everything, use_cache=False).logits) <= 1e-5
    assert relative(ours(x), theirs(x, use_cache=False).logits) > 1e-2  # and it is no causal model


@torch.inference_mode()
def test_padding_is_not_seen(pair):
    _, ours = pair
    x = ids(2, 15)
    out = ours(x, lengths=torch.tensor([15, 6]))
    assert relative(out[1, :6], ours(x[1:, :6])[0]) <= 1e-5


def test_it_keeps_no_state(pair):
    _, ours = pair
    with pytest.raises(lamina.LaminaError, match="keeps no state"):
        ours.init_state(1, 8)
    assert ours.arch.state_bytes(1000) == 0


def test_value_and_round_trip(pair, tmp_path):
    _, ours = pair
    assert ours.arch.parameters().total == sum(p.numel() for p in ours.parameters())
    assert read_config(family_named("llada").write(ours.arch)) == ours.arch
    lamina.save(ours, tmp_path / "saved")
    assert torch.equal(lamina.load(tmp_path / "saved")(ids(1, 5)), ours(ids(1, 5)))


def test_loss_is_the_bound_computed_token_by_token(pair):
    _, model = pair
    x = ids(3, 11)
    keep = torch.zeros(3, 11, dtype=torch.bool)
    keep[:, :4] = True
    got = masked_diffusion.loss(model, x, torch.Generator().manual_seed(3), keep)
    noisy, t = masked_diffusion.corrupt(x, 96, torch.Generator().manual_seed(3), keep)
    assert not (noisy[:, :4] == 96).any()
    assert (noisy == 96).any()
    total = 0.0
    for b in range(3):
        logits = model(noisy[b : b + 1])[0]
        for i in range(11):
            if noisy[b, i] == 96:
                total -= float(torch.log_softmax(logits[i], 0)[x[b, i]]) / float(t[b]) / 7 / 3
    assert float(got) == pytest.approx(total, rel=1e-5)


def test_loss_of_a_model_that_knows_nothing_is_the_entropy():
    """Even logits cost ln(vocabulary) a token whatever is hidden, so the bound's mean is ln(vocabulary)."""
    model = lamina.build(read_config(CONFIG))
    torch.nn.init.zeros_(model.head.weight)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        losses = [float(masked_diffusion.loss(model, ids(4, 33), random)) for _ in range(60)]
    mean, error = torch.tensor(losses).mean(), torch.tensor(losses).std() / 60**0.5
    assert abs(mean - math.log(97)) < 4 * error
    assert error < 0.15


def test_it_learns():
    """A few steps on one sentence bring the loss down: gradients reach every parameter."""
    model = lamina.build(read_config(CONFIG), seed=1)
    x = ids(1, 9).repeat(16, 1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for step in range(60):
        value = masked_diffusion.loss(model, x, torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        value.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimiser.step()
        losses.append(float(value))
    assert sum(losses[-10:]) < 0.3 * sum(losses[:10])
    answer = [*masked_diffusion.denoise(model, x[:1, :3], length=6, steps=3)][-1]
    assert answer.tolist() == x[:1].tolist()


@pytest.mark.parametrize(("steps", "block"), [(6, None), (3, None), (4, 3), (2, 3), (1, None)])
def test_denoising_fills_everything_in_even_shares(pair, steps, block):
    _, model = pair
    prompt = ids(2, 4)
    states = [*masked_diffusion.denoise(model, prompt, length=6, steps=steps, block=block)]
    assert len(states) == steps
    left = [int((s == 96).sum(1)[0]) for s in states]
    assert left == sorted(left, reverse=True)
    assert left[-1] == 0
    assert all(torch.equal(s[:, :4], prompt) for s in states)
    if block:
        assert not (states[steps // 2 - 1][:, 4 : 4 + block] == 96).any()


def test_one_step_keeps_the_most_certain(pair):
    _, model = pair
    prompt = ids(1, 4)
    first = next(masked_diffusion.denoise(model, prompt, length=6, steps=6))
    masked = torch.cat([prompt, torch.full((1, 6), 96)], 1)
    with torch.no_grad():
        probabilities = torch.softmax(model(masked)[0, 4:, :96], -1)
    best = int(probabilities.max(-1).values.argmax())
    assert first[0, 4 + best] == probabilities[best].argmax()
    assert int((first == 96).sum()) == 5


def test_sampling_follows_its_seed(pair):
    _, model = pair
    run = [
        [*masked_diffusion.denoise(model, ids(1, 4), 8, 4, temperature=1.0, random=torch.Generator().manual_seed(s))][
            -1
        ]
        for s in (1, 1, 2)
    ]
    assert torch.equal(run[0], run[1])
    assert not torch.equal(run[0], run[2])


@pytest.mark.parametrize("bad", [{"length": 0}, {"steps": 0}, {"length": 8, "block": 3}, {"steps": 5, "block": 4}])
def test_sizes_that_do_not_fit(pair, bad):
    with pytest.raises(lamina.LaminaError):
        next(masked_diffusion.denoise(pair[1], ids(1, 3), **({"length": 8, "steps": 8} | bad)))
