"""A state or snapshot of another architecture, precision, size or batch is refused in one sentence, and not touched."""

from __future__ import annotations

import pytest
import torch

import lamina
from lamina.arch import (
    GLU,
    Architecture,
    Attention,
    Block,
    Branch,
    DynamicScaling,
    Embedding,
    GatedDeltaNet,
    Op,
    RMSNorm,
    Rotary,
    ShortConvolution,
)
from lamina.errors import LaminaError

from ..arch import samples

NORM = RMSNorm()
FULL = Attention(heads=4, kv_heads=2, head_dim=6)
NET = GatedDeltaNet(key_heads=2, value_heads=4, key_dim=5, value_dim=3)
CONVOLUTION = ShortConvolution(kernel=3)


def arch(*mixers: Op, width: int = 12) -> Architecture:
    return Architecture(
        family="lamina",
        embedding=Embedding(vocab=31, width=width),
        blocks=tuple(
            Block(branches=(Branch(op=mixer, before=NORM), Branch(op=GLU(inner=7), before=NORM))) for mixer in mixers
        ),
        norm=NORM,
        context=40,
    )


HYBRID = arch(NET, FULL, CONVOLUTION)
OTHERS = {
    "mixers": (arch(FULL, NET, CONVOLUTION), r"blocks\[0\]\.mixer"),
    "heads": (
        arch(NET, FULL.replace(heads=2, kv_heads=1), CONVOLUTION),
        r"blocks\[1\]\.mixer\.heads: 2 -> 4, and more",
    ),
    "depth": (arch(NET, FULL), r"blocks\[2\]"),
    "window": (arch(NET, FULL.replace(window=5), CONVOLUTION), r"blocks\[1\]\.mixer\.window: 5 -> none"),
    "width": (arch(NET, FULL, CONVOLUTION, width=20), r"embedding\.width: 20 -> 12"),
    "norm": (HYBRID.replace(norm=None), r"norm: none -> "),
}
"""Some of them keep tensors of the same shapes, which would be taken without a word."""
IDS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])


@pytest.mark.parametrize("name", OTHERS)
def test_a_state_of_another_architecture_is_refused(name):
    other, where = OTHERS[name]
    model, state = lamina.build(HYBRID), lamina.build(other).init_state(2, 20)
    with pytest.raises(LaminaError, match=rf"^the state was made for another architecture \({where}.*init_state$") as e:
        model(IDS, state)
    assert "\n" not in str(e.value)
    assert state.lengths == [0, 0]


@pytest.mark.parametrize("name", OTHERS)
@torch.inference_mode()
def test_a_snapshot_of_another_architecture_is_refused_and_changes_nothing(name):
    other, where = OTHERS[name]
    model, stranger = lamina.build(HYBRID), lamina.build(other)
    theirs, state = stranger.init_state(2, 20), model.init_state(2, 20)
    stranger(IDS, theirs)
    model(IDS, state)
    before = state.snapshot()
    with pytest.raises(LaminaError, match=rf"^the snapshot was made for another architecture \({where}"):
        state.restore(theirs.snapshot())
    expected = model(IDS, state)
    state.restore(before)
    assert torch.equal(model(IDS, state), expected)


@torch.inference_mode()
def test_one_of_an_equal_architecture_is_taken():
    """Whichever model made it, and whatever it is called."""
    model, twin = lamina.build(HYBRID), lamina.build(HYBRID.replace(name="another name"))
    state = twin.init_state(2, 20)
    expected = model(IDS)
    assert torch.allclose(model(IDS, state), expected, atol=1e-6)
    again = model.init_state(2, 20)
    again.restore(state.snapshot())
    assert again.lengths == [5, 5]
    assert torch.equal(model(IDS, again), model(IDS, state))


def test_other_rows_and_other_things_are_refused():
    model = lamina.build(HYBRID)
    with pytest.raises(LaminaError, match=r"^the state holds 3 rows and ids 2; they must agree$"):
        model(IDS, model.init_state(3, 20))
    for wrong in ((1, 2), {}, "state", model.init_state(2, 20).snapshot()):
        kind = type(wrong).__name__
        with pytest.raises(LaminaError, match=f"^a model continues from .* init_state gave, not from a {kind}$"):
            model(IDS, wrong)
    with pytest.raises(LaminaError, match=r"^a state is restored from .* snapshot gave, not from a list$"):
        model.init_state(2, 20).restore([])
    saved = model.init_state(3, 20).snapshot()
    with pytest.raises(LaminaError, match=r"^the snapshot holds 3 rows and the state 2; they must agree$"):
        model.init_state(2, 20).restore(saved)


def test_other_sizes_and_precisions_are_refused():
    """A ring has as many slots as capacity and rewind allow, so positions of one are not those of another."""
    model, half = lamina.build(HYBRID), lamina.build(HYBRID, dtype="bfloat16")
    with pytest.raises(LaminaError, match=r"^the state holds bfloat16 on cpu and what it is used with float32"):
        model(IDS, half.init_state(2, 20))
    with pytest.raises(LaminaError, match=r"^the snapshot holds bfloat16 on cpu "):
        model.init_state(2, 20).restore(half.init_state(2, 20).snapshot())
    for options, said in (
        ({"capacity": 21}, "capacity 21 .* has 20"),
        ({"capacity": 20, "rewind": 2}, "rewind 2 .* 0"),
    ):
        with pytest.raises(LaminaError, match=f"^the snapshot was taken of a state made with {said}; they must agree$"):
            model.init_state(2, 20).restore(model.init_state(2, **options).snapshot())


def test_recursive_models_say_so_too():
    model, decoder = lamina.build(samples.RECURSIVE), lamina.build(HYBRID)
    ids, puzzle = torch.zeros(2, 13, dtype=torch.int64), torch.tensor([0, 1])
    with pytest.raises(LaminaError, match=r"^a model continues from .* init_state gave, not from a State$"):
        model(ids, decoder.init_state(2, 20), puzzle=puzzle)
    with pytest.raises(LaminaError, match=r"^a model continues from .* init_state gave, not from a Carry$"):
        decoder(IDS, model.init_state(2))
    other = lamina.build(samples.RECURSIVE.replace(recursion=samples.RECURSIVE.recursion.replace(low_cycles=2)))
    with pytest.raises(
        LaminaError, match=r"^the state was made for another architecture \(recursion\.low_cycles: 2 -> 3\)"
    ):
        model(ids, other.init_state(2), puzzle=puzzle)
    with pytest.raises(LaminaError, match=r"^the snapshot was made for another architecture \(recursion\.low_cycles"):
        model.init_state(2).restore(other.init_state(2).snapshot())


@torch.inference_mode()
def test_a_snapshot_is_restored_as_often_as_wanted():
    """The tokens too, which are kept where angles change with the length: what comes later does not touch them."""
    turned = Rotary(base=50.0, dim=6, scaling=DynamicScaling(factor=3.0, original_context=9))
    model = lamina.build(arch(FULL.replace(rotary=turned), NET, FULL.replace(rotary=turned)))
    state = model.init_state(2, 20)
    model(IDS, state)
    saved = state.snapshot()
    given = []
    for _ in range(2):
        state.restore(saved)
        model(IDS.flip(0), state)
        state.restore(saved)
        given.append(model(IDS, state))
    assert torch.equal(*given)
    assert torch.allclose(given[0][:, -1], model(torch.cat([IDS, IDS], 1))[:, -1], atol=1e-5)
