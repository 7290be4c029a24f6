"""TRM and HRM against outputs of their authors' published models (tests/golden/README.md says how they were made)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import lamina
from lamina.families import family_named, read_config
from tests.reference import relative

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("name", ["trm-attention", "trm-mlp", "hrm"])
def test_outer_steps_equal_the_published_model(name):
    model, expected = lamina.load(GOLDEN / name), load_file(GOLDEN / name / "expected.safetensors")
    inputs, puzzles = expected["inputs"].long(), expected["puzzle_identifiers"].long()
    state = model.init_state(batch=len(inputs))
    first = None
    for step in range(3):
        logits = model(inputs, state, puzzle=puzzles)
        first = logits if first is None else first
        for got, key in (
            (logits, "logits"),
            (state.halt, "q_halt"),
            (state.go_on, "q_continue"),
            (state.high, "z_H"),
            (state.low, "z_L"),
        ):
            assert relative(got, expected[f"step{step}.{key}"]) <= 1e-5
    assert state.steps == [3, 3, 3]
    assert relative(model(inputs, state, puzzle=puzzles), first) <= 1e-5  # a finished row begins anew
    assert state.nbytes == model.arch.state_bytes(inputs.shape[1], len(inputs), "float32")


@pytest.mark.parametrize("name", ["trm-attention", "trm-mlp", "hrm"])
def test_value_parameters_and_round_trip(name, tmp_path):
    model = lamina.load(GOLDEN / name)
    arch = model.arch
    stored = sum(v.numel() for v in load_file(GOLDEN / name / "weights.safetensors").values())
    starts = 2 * arch.width  # the two starting latents are fixed, not learned
    assert arch.parameters().total == stored - starts
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == arch.parameters().total
    assert lamina.Architecture.from_json(arch.to_json()) == arch
    assert read_config(family_named(arch.family).write(arch)) == arch
    lamina.save(model, tmp_path / "saved")
    again = lamina.load(tmp_path / "saved")
    x, puzzles = torch.zeros(2, arch.context, dtype=torch.long), torch.tensor([1, 0])
    assert torch.equal(again(x, puzzle=puzzles), model(x, puzzle=puzzles))
    theirs, ours = (load_file(p) for p in (GOLDEN / name / "weights.safetensors", tmp_path / "saved/model.safetensors"))
    assert {k: v.shape for k, v in theirs.items()} == {k: v.shape for k, v in ours.items()}


def test_rows_are_independent_and_states_can_be_kept():
    model = lamina.load(GOLDEN / "trm-attention")
    x = torch.randint(0, 11, (3, 16), generator=torch.Generator().manual_seed(0))
    puzzles = torch.tensor([2, 0, 3])
    state = model.init_state(3)
    model(x, state, puzzle=puzzles)
    saved = state.snapshot()
    whole = model(x, state, puzzle=puzzles)
    state.restore(saved)
    state.select([2])
    assert relative(model(x[2:], state, puzzle=puzzles[2:]), whole[2:]) <= 1e-5


def test_gradients_flow_through_the_last_cycle_only():
    """TRM differentiates its last high cycle: the carry that enters an outer step gets no gradient."""
    model = lamina.load(GOLDEN / "trm-attention")
    x, puzzles = torch.zeros(1, 16, dtype=torch.long), torch.tensor([1])
    model(x, puzzle=puzzles).logsumexp(-1).sum().backward()
    assert model.blocks[0].feed_forward.op.down_proj.weight.grad.abs().max() > 0
    assert model.high_start.grad is None


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m, x: m(x), "puzzle"),
        (lambda m, x: m(x, puzzle=torch.tensor([9, 9, 9])), "0 to 3"),
        (lambda m, x: m(x[:, :-1], m.init_state(2), puzzle=torch.tensor([0, 0, 0])), "state holds 2 rows"),
        (lambda m, x: m(x + 40, puzzle=torch.tensor([0, 0, 0])), "outside the vocabulary"),
    ],
)
def test_bad_input_is_one_sentence(call, says):
    model = lamina.load(GOLDEN / "trm-attention")
    with pytest.raises(lamina.LaminaError, match=says) as caught:
        call(model, torch.zeros(3, 16, dtype=torch.long))
    assert "\n" not in str(caught.value)
