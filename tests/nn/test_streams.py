"""Residual streams, what stands in place of a sum, and filters: as the reference's modules, and with a state."""

from __future__ import annotations

import types
from typing import Any

import pytest
import torch
from torch import nn
from transformers.models.gemma3n import modeling_gemma3n as gemma
from transformers.models.inkling2 import modeling_inkling2 as inkling
from transformers.models.muse_spark import modeling_muse_spark as muse
from transformers.models.qwen4_exp import modeling_qwen4_exp as qwen
from transformers.models.zaya import modeling_zaya as zaya

import lamina
from lamina.arch import (
    GLU,
    AffineResidual,
    AltUp,
    AttentionResiduals,
    Branch,
    GatedResidual,
    GatedStreams,
    HyperConnections,
    LaurelResidual,
    LayerScale,
    PerLayerInput,
    PerLayerInputs,
    RMSNorm,
    ScaledResidual,
    ShortFilter,
)
from lamina.errors import LaminaError
from lamina.nn import streams
from lamina.nn.registry import Place
from lamina.nn.residual import residual
from lamina.nn.short_filter import ShortFilter as Filter
from lamina.nn.state import Fresh
from lamina.nn.step import Step

from .used_streams import ALTUP, BRANCH, EARLIER, FILTER, GATED, HYPER, LAUREL, NGRAMS, OWN, PLAIN

B, T, D, N = 2, 7, 12, 3
RMS = RMSNorm(eps=1e-3)
SHARP = AttentionResiduals(blocks=2, norm=RMSNorm(weight=False), scaled=True, normed=True, first=False)
KINDS: list[Any] = [
    HYPER,
    HYPER.replace(iterations=0, magnitude=1.3),
    HYPER.replace(joining="mean"),
    GATED,
    GATED.replace(memory=NGRAMS),
    EARLIER,
    EARLIER.replace(blocks=1, scaled=True, normed=True, first=False),
]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def filled(module: Any, seed: int = 0) -> Any:
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=random) * (1.2 / p.shape[-1] ** 0.5 if p.ndim > 1 else 0.7))
    return module.eval()


def same(ours: nn.Module, theirs: nn.Module, names: dict[str, str]) -> None:
    """Gives ours the weights of theirs, by name; all of them."""
    left, right = dict(ours.named_parameters()), dict(theirs.named_parameters())
    assert set(names) == set(left)
    assert set(names.values()) == set(right)
    with torch.no_grad():
        for name, other in names.items():
            left[name].copy_(right[other].view_as(left[name]))


def step_of(x: torch.Tensor) -> Step:
    fresh = Fresh()
    return Step(x[..., 0].long(), x.dtype, lambda slot: fresh, [0] * len(x), None)


@torch.no_grad()
def test_gated_streams_are_the_references() -> None:
    config: Any = types.SimpleNamespace(hc_count=N, hidden_size=D, hc_lowrank=5, rms_norm_eps=1e-3)
    theirs = filled(qwen.Qwen4ExpTextGatedResidual(config))
    value = GatedStreams(count=N, rank=5, norm=RMSNorm(eps=1e-3, offset=1.0))
    ours = streams.around_branch(value, D, 0, 0)
    names = {
        "norm.weight": "hc_norm.weight",
        "down_proj.weight": "input_mix_weight_down.weight",
        "up_proj.weight": "input_mix_weight_up.weight",
        "write.weight": "block_inject_weight.weight",
    }
    assert ours is not None
    same(ours, theirs, names)
    x, out = noise(B, T, N, D), noise(B, T, D, seed=1)
    (read, write), (expected, _, injected) = ours(x), theirs(x.flatten(2))
    torch.testing.assert_close(read, expected)
    torch.testing.assert_close(write(out), x + out[..., None, :] * injected[..., None])


@torch.no_grad()
def test_a_memory_of_tokens_is_the_references() -> None:
    """Of the second block that reads one, with ends of texts among the tokens."""
    sizes = {
        "ngram_size": 3,
        "heads_per_ngram": 2,
        "ngram_vocab_size_base": 50,
        "make_ngram_vocab_size_divisible_by": 16,
    }
    more = {"hc_count": N, "hidden_size": D, "ple_embed_dim": 8, "ple_conv_kernel_size": 3, "rms_norm_eps": 1e-3}
    config: Any = types.SimpleNamespace(vocab_size=31, seed=77, eos_token_id=5, **sizes, **more)
    theirs = filled(qwen.Qwen4ExpTextPLELayer(config, 4, 1))
    value = NGRAMS.replace(blocks=(0, 4), width=8, kernel=3, multiple=16, seed=77, norm=RMSNorm(eps=1e-3, offset=1.0))
    place = Place(vocab=31)
    place.block = 4
    ours: Any = streams.memory(GATED.replace(memory=value), D, place)
    names = {"table": "ple_embedding.ngram_embedding.weight", "convolution.weight": "conv1d.weight"}
    names |= {f"{name}.weight": f"{name}.weight" for name in ("key_proj", "value_proj")}
    norms = {"key_norm": "norm_key", "stream_norm": "norm_query", "convolution_norm": "norm_conv"}
    same(ours, theirs, names | {f"{left}.weight": f"{right}.weight" for left, right in norms.items()})
    ids = torch.tensor([[3, 9, 5, 9, 4, 30, 5, 5, 1, 2], [5, 1, 0, 7, 7, 7, 7, 2, 5, 3]])
    x, fresh = noise(2, 10, N, D), Fresh()
    found = ours(x, Step(ids, x.dtype, lambda slot: fresh, [0, 0], None))
    torch.testing.assert_close(found.flatten(2), x.flatten(2) + theirs(x.flatten(2), ids, None))


def sums_of_inkling(embedding: torch.Tensor, parts: list[Any], run: int) -> torch.Tensor:
    """The reference's loop, with branches that are a tanh; `parts` are its modules, two a layer and one at the end."""
    hidden, closed = embedding, embedding.new_zeros(B, T, 0, D)
    for i in range(len(parts) // 2):
        before = hidden
        read = hidden if parts[2 * i] is None else parts[2 * i](closed, hidden)[0]
        hidden = torch.tanh(read)
        if i % run == 0:
            closed = torch.cat([closed, before.unsqueeze(-2)], -2)
        else:
            hidden = before + hidden
        hidden = hidden + torch.tanh(parts[2 * i + 1](closed, hidden)[0])
    return parts[-1](closed, hidden)[0]


@torch.no_grad()
def test_attention_residuals_are_the_references() -> None:
    config: Any = types.SimpleNamespace(hidden_size=D)
    value = SHARP
    theirs = [None, *(filled(inkling.Inkling2BlockAttentionResidual(config), i) for i in range(10))]
    ours = [streams.around_branch(value, D, i // 2, i % 2) for i in range(10)]
    joining = streams.joining(value, D)
    for left, right in zip([*ours, joining], theirs, strict=True):
        if right is not None and left is not None:
            same(left, right, {"score.weight": "query"})
    assert not list(ours[0].parameters())  # type: ignore[union-attr]
    embedding = noise(B, T, D)
    sums = streams.entering(value, D)(embedding)  # type: ignore[misc]
    for part in ours:
        read, write = part(sums)  # type: ignore[misc]
        sums = write(torch.tanh(read))
    torch.testing.assert_close(joining(sums), sums_of_inkling(embedding, theirs, 2))  # type: ignore[misc]


@torch.no_grad()
def test_separate_means_are_the_references() -> None:
    """Queries, keys and values each from a mean of their own; those of keys and values are normalised there."""
    config: Any = types.SimpleNamespace(hidden_size=D)
    theirs = filled(inkling.Inkling2BlockAttentionResidual(config, num_queries=3))
    norms = [filled(inkling.Inkling2RMSNorm(D, 1e-3), seed) for seed in (1, 2)]
    ours: Any = streams.around_branch(SHARP.replace(separate=(2,)), D, 2, 0, RMS)
    for part, query in zip((ours, ours.keys, ours.values), theirs.query, strict=True):
        part.score.weight.copy_(query[None])
    for part, norm in zip((ours.keys, ours.values), norms, strict=True):
        part.before.weight.copy_(norm.weight)
    every = noise(B, T, 4, D)
    read, _, *others = ours(streams.Sums(every[:, :, :3].unbind(-2), every[:, :, 3]))
    expected = theirs(every[:, :, :3], every[:, :, 3])
    torch.testing.assert_close(read, expected[0])
    for found, raw, norm in zip(others, expected[1:], norms, strict=True):
        torch.testing.assert_close(found, norm(raw))


@torch.no_grad()
def test_attention_residuals_by_hand() -> None:
    """As in Kimi K3: a softmax of w . norm(sum) over the embedding, closed runs, and what came since."""
    value = AttentionResiduals(blocks=2, norm=RMSNorm(eps=1e-5))
    parts = [filled(streams.around_branch(value, D, i // 2, i % 2), i) for i in range(10)]
    end = filled(streams.joining(value, D), 99)
    embedding, given = noise(D), []

    def read(part: Any, block: int, branch: int) -> torch.Tensor:
        closed = -(-block // 2) if branch == 0 else block // 2 + 1  # with the embedding
        runs = [sum(given[4 * i : 4 * i + 4]) for i in range(closed - 1)]
        every = [embedding, *runs, sum(given[4 * (closed - 1) :])] if closed else [embedding]
        normed = [s / (s.square().mean() + 1e-5).sqrt() * part.norm.weight for s in every]
        weights = torch.softmax(torch.stack([part.score.weight[0] @ s for s in normed]), 0)
        return sum(w * s for w, s in zip(weights, every, strict=True))  # type: ignore[return-value]

    sums = streams.entering(value, D)(embedding.expand(B, T, D))  # type: ignore[misc]
    for i, part in enumerate(parts):
        x, write = part(sums)
        expected = read(part, i // 2, i % 2)
        torch.testing.assert_close(x, expected.expand(B, T, D), rtol=1e-4, atol=1e-5)
        given.append(torch.tanh(expected))
        sums = write(torch.tanh(x))
    torch.testing.assert_close(end(sums)[0, 0], read(end, 5, 0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("active", [0, 2])
@torch.no_grad()
def test_altup_is_the_references(active: int) -> None:
    """Also in training, where the rules are bounded."""
    config: Any = types.SimpleNamespace(
        hidden_size=D, altup_num_inputs=N, altup_active_idx=active, altup_coef_clip=0.4, rms_norm_eps=1e-3
    )
    theirs = filled(gemma.Gemma3nTextAltUp(config))
    value = AltUp(count=N, active=active, norm=RMS, clip=0.4)
    block = PLAIN.blocks[0]
    ours = streams.around_block(value, D, block)
    names = {
        "output_scale": "correct_output_scale",
        "norm.weight": "router_norm.weight",
        "router.weight": "modality_router.weight",
        "predict.weight": "prediction_coefs.weight",
        "correct.weight": "correction_coefs.weight",
    }
    assert ours is not None
    same(ours, theirs, names)
    x = noise(B, T, N, D)
    branches: Any = [lambda x, step: torch.tanh(x), lambda x, step: x + 1.0]
    found = []
    for training in (False, True):
        predicted = theirs.train(training).predict(x.permute(2, 0, 1, 3))
        expected = theirs.correct(predicted, torch.tanh(predicted[active]) + 1.0)
        found.append(ours.train(training)(x, branches, step_of(x[:, :, 0])))
        torch.testing.assert_close(found[-1], expected.permute(1, 2, 0, 3))
    assert not torch.allclose(*found)


@torch.no_grad()
def test_residuals() -> None:
    x, out, z = noise(B, T, D), noise(B, T, D, seed=1), noise(B, T, D, seed=2)
    config: Any = types.SimpleNamespace(hidden_size=D, residual_gate_temperature=0.3)
    gate = filled(muse.MuseSparkResidualGate(config))
    ours: Any = residual(GatedResidual(temperature=0.3), D)
    same(ours, gate, {"gate": "gate"})
    torch.testing.assert_close(ours(x, out, z), gate(x, out))
    both = filled(zaya.ZayaResidualScaling(D))
    ours = residual(AffineResidual(), D)
    names = {"stream_bias": "residual_bias", "stream_scale": "residual_scale"}
    names |= {"output_bias": "hidden_states_bias", "output_scale": "hidden_states_scale"}
    same(ours, both, names)
    torch.testing.assert_close(ours(x, out, z), both(out, x))
    scale: Any = filled(residual(LayerScale(), D))
    torch.testing.assert_close(scale(x, out, z), x + scale.scale * out)
    for normed, stream in ((False, x), (True, z)):
        ours = residual(ScaledResidual(scale=2.5, normed=normed), D)
        torch.testing.assert_close(ours(x, out, z), 2.5 * stream + out)
    config = types.SimpleNamespace(hidden_size=D, laurel_rank=5, rms_norm_eps=1e-3)
    laurel: Any = filled(gemma.Gemma3nTextLaurelBlock(config))
    ours = residual(LaurelResidual(rank=5, norm=RMS), D)
    names = {"down_proj.weight": "linear_left.weight", "up_proj.weight": "linear_right.weight"}
    same(ours, laurel, names | {"norm.weight": "post_laurel_norm.weight"})
    torch.testing.assert_close(ours(x, out, z), (x + out + laurel(z)) / 2**0.5)


@pytest.mark.parametrize(("kind", "name"), [(AffineResidual(), "stream_scale"), (LayerScale(), "scale")])
def test_residuals_begin_at_a_sum(kind: Any, name: str) -> None:
    block = PLAIN.blocks[0].replace(branches=(BRANCH.replace(residual=kind),))
    model: Any = lamina.build(PLAIN.replace(blocks=(block,)))
    assert (getattr(model.blocks[0].mixer.residual, name) == 1.0).all()


@torch.no_grad()
def test_filters_are_the_references() -> None:
    kernel, heads, source = 4, 3, noise(B, T, 5, seed=3)
    x = noise(B, T, D)
    theirs = filled(inkling.Inkling2ShortConvolution(D, kernel, 0, 0))
    ours = Filter(ShortFilter(kernel=kernel, scale=(kernel + 1) ** -0.5), D, 5, Place())
    same(ours, theirs, {"convolution.weight": "conv1d.weight"})
    torch.testing.assert_close(ours(x, source, step_of(x)), theirs(x))
    moving = filled(inkling.Inkling2DynamicShortConvolution(D, 5, heads, kernel, 0, 0))
    ours = Filter(ShortFilter(kernel=kernel, scale=(2 * kernel + 1) ** -0.5, heads=heads), D, 5, Place())
    assert ours.taps is not None
    ours.taps.weight.copy_(moving.weight_proj.weight)  # type: ignore[union-attr]
    ours.convolution.weight.copy_(moving.static_weight.T[:, None])
    torch.testing.assert_close(ours(x, source, step_of(x)), moving(x, source))


BRANCHES = (
    BRANCH.replace(filter=FILTER.replace(heads=4), residual=LAUREL),
    Branch(op=GLU(inner=7), before=RMS, after=RMS, filter=FILTER, gate="tanh", multiplier=0.7),
)
FILTERED = PLAIN.replace(blocks=(PLAIN.blocks[0].replace(branches=BRANCHES),) * 3)
TAKEN_IN = Branch(op=PerLayerInput(inner=5), after=RMS)
PER_LAYER = PLAIN.replace(
    embedding=PLAIN.embedding.replace(per_layer=PerLayerInputs(vocab=31, width=5, blocks=3, scale=2.0)),
    blocks=(PLAIN.blocks[0].replace(branches=(*PLAIN.blocks[0].branches, TAKEN_IN)),) * 3,
    stream=ALTUP.replace(active=1),
)
SEPARATE = OWN.replace(stream=SHARP.replace(separate=(1, 2)))
MODELS = [*(PLAIN.replace(stream=kind) for kind in KINDS), FILTERED, PER_LAYER, SEPARATE]


@pytest.mark.parametrize("arch", MODELS, ids=lambda arch: arch.stream.kind if arch.stream else "filters")
@torch.no_grad()
def test_a_state_changes_nothing(arch: Any) -> None:
    model = filled(lamina.build(arch))
    assert arch.parameters().total == sum(p.numel() for p in model.parameters())
    ids = torch.randint(0, 31, (3, 19), generator=torch.Generator().manual_seed(1))
    whole = model(ids)
    for pieces in ([19], [1] * 19, [2, 1, 9, 7]):
        state = model.init_state(3, 21)
        out = torch.cat([model(piece, state) for piece in ids.split(pieces, 1)], 1)
        torch.testing.assert_close(out, whole, rtol=1e-5, atol=1e-4)
    assert state.nbytes == arch.state_bytes(21, 3, "float32")
    state, lengths = model.init_state(3, 21), torch.tensor([9, 1, 4])
    first = model(ids[:, :9], state, lengths=lengths, last=True)
    saved = state.snapshot()
    model(ids[:, 9:12], state)
    state.restore(saved)
    state.select([2, 1, 0])
    then = model(ids[[2, 1, 0], 9:12], state)
    for row, n in enumerate(lengths.tolist()):
        alone = model(torch.cat([ids[row : row + 1, :n], ids[row : row + 1, 9:12]], 1))[0]
        torch.testing.assert_close(first[row, 0], alone[n - 1], rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(then[2 - row], alone[n:], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("arch", MODELS, ids=lambda arch: arch.stream.kind if arch.stream else "filters")
def test_everything_learns(arch: Any) -> None:
    model = filled(lamina.build(arch)).train()
    model(torch.arange(9)[None]).square().mean().backward()
    idle = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    one = {f"blocks.0.mixer.stream.{name}" for name in ("score.weight", "norm.weight")}  # a mean of one sum is that sum
    assert idle == (one if arch.stream == EARLIER else set())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


AT_ODDS = {
    "blocks[0].mixer.residual": (HYPER, BRANCH.replace(residual=ScaledResidual())),
    "blocks[0].mixer.joined": (GATED, BRANCH.replace(joined=RMS)),
    "blocks[0].scaled": (EARLIER, None),
    "stream.separate": (EARLIER.replace(separate=(1,)), BRANCH),
}


@pytest.mark.parametrize("path", AT_ODDS)
def test_what_does_not_stand_beside_a_stream(path: str) -> None:
    stream, branch = AT_ODDS[path]
    block = PLAIN.blocks[0].replace(**({"branches": (branch,)} if branch else {"scaled": True}))
    arch = PLAIN.replace(blocks=(block,), stream=stream)
    with pytest.raises(LaminaError) as caught:
        lamina.build(arch, device="meta")
    assert str(caught.value).startswith(
        path + (" (1, a block" if stream == EARLIER.replace(separate=(1,)) else " (beside ")
    )


def test_hyper_connections_begin_even() -> None:
    """A model that is built weighs no stream by its own: factors begin at one, biases at zero."""
    model: Any = lamina.build(PLAIN.replace(stream=HyperConnections(count=4, iterations=3)))
    connection = model.blocks[1].feed_forward.stream
    assert connection.scale.tolist() == [1.0, 1.0, 1.0]
    assert not connection.mix.bias.any()
