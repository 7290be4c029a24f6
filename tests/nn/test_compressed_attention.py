"""Compressed attention: what its state holds, what a token costs, what is never looked at, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import lamina
from lamina.arch import Architecture, DynamicScaling, MaskedDiffusion
from lamina.errors import LaminaError

from .used_streams import CHOSEN, ENTRIES, FAR, NEAR, PLAIN, TURN

OPS = {
    "window": NEAR,
    "entries": FAR,
    "overlapping": NEAR.replace(compressor=ENTRIES.replace(stride=3, overlap=True)),
    "chosen": NEAR.replace(compressor=ENTRIES.replace(overlap=True), indexer=CHOSEN),
}


def model_of(op: Any) -> tuple[Any, Architecture]:
    """Two blocks of it, with weights that make scores differ."""
    block = PLAIN.blocks[0]
    mixing = block.branches[0].replace(op=op)
    arch = PLAIN.replace(blocks=(block.replace(branches=(mixing, block.branches[1])),) * 2)
    model, random = lamina.build(arch), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=random) * (1.2 / p.shape[-1] ** 0.5 if p.ndim > 1 else 1.0))
    return model, arch


def ids(batch: int, tokens: int) -> torch.Tensor:
    return torch.randint(0, 31, (batch, tokens), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", OPS)
@torch.no_grad()
def test_a_state_changes_nothing(name: str) -> None:
    """However the tokens come, and whatever the other rows of the batch are."""
    model, arch = model_of(OPS[name])
    x = ids(3, 26)
    whole = model(x)
    for pieces in ([26], [1] * 26, [1, 6, 2, 9, 8], [13, 13]):
        state = model.init_state(3, 29)
        out = torch.cat([model(piece, state) for piece in x.split(pieces, 1)], 1)
        torch.testing.assert_close(out, whole, rtol=1e-4, atol=1e-4)
    assert state.nbytes == arch.state_bytes(29, 3, "float32")
    state, lengths = model.init_state(3, 29), torch.tensor([11, 0, 6])
    model(x[:, :11], state, lengths=lengths)
    second = model(x[:, 11:20], state, lengths=torch.tensor([9, 5, 1]))
    third = model(x[:, 20:22], state)
    for row, (n, m) in enumerate(((11, 9), (0, 5), (6, 1))):
        alone = model(torch.cat([x[row, :n], x[row, 11 : 11 + m], x[row, 20:22]])[None])[0]
        torch.testing.assert_close(second[row, :m], alone[n : n + m], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(third[row], alone[n + m :], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", OPS)
@torch.no_grad()
def test_a_token_costs_what_is_said(name: str) -> None:
    """One token after 24: keys of the window and entries that were not chosen are multiplied with nothing."""
    model, arch = model_of(OPS[name])
    state = model.init_state(1, 40)
    model(ids(1, 24), state)
    with FlopCounterMode(display=False) as counter:
        model(ids(1, 1), state)
    assert counter.get_total_flops() == arch.flops(1, 24)


@torch.no_grad()
def test_later_tokens_are_not_seen() -> None:
    """Not through entries either: one is seen when its run is whole."""
    for name, op in OPS.items():
        model, _ = model_of(op)
        x, y = ids(1, 17), ids(1, 17)
        y[0, 11:] = (y[0, 11:] + 7) % 31
        assert torch.equal(model(x)[:, :11], model(y)[:, :11]), name


def test_everything_learns() -> None:
    """The choice among entries aside, which no gradient passes."""
    for name, op in OPS.items():
        model, _ = model_of(op)
        model.train()(ids(2, 17), lengths=torch.tensor([17, 9])).square().mean().backward()
        idle = {leaf for leaf, p in model.named_parameters() if p.grad is None or not p.grad.any()}
        assert idle == {leaf for leaf, _ in model.named_parameters() if ".indexer." in leaf}, name
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_what_is_refused() -> None:
    arch = model_of(NEAR)[1]
    both = arch.replace(objective=MaskedDiffusion(mask_token=3))
    scaled = NEAR.replace(rotary=TURN.replace(scaling=DynamicScaling(factor=2.0, original_context=5)))
    for wrong, path in ((both, "blocks[0].mixer"), (arch.replace("blocks[*].mixer", scaled), "blocks[0].mixer.rotary")):
        with pytest.raises(LaminaError) as caught:
            lamina.build(wrong, device="meta")
        assert str(caught.value).startswith(path)
