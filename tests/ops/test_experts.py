"""Products with the weights of a few of many experts, against one choice and one row at a time."""

from __future__ import annotations

import pytest
import torch

from lamina.ops import experts as ops
from lamina.ops.blocks import BLOCKS
from lamina.ops.experts import (
    experts_glu,
    experts_reference,
    grouped_linear,
    grouped_reference,
    sort_by_expert,
)
from lamina.ops.grid import Grid
from lamina.ops.packed import Packed
from tests.reference import relative

E, D, F = 11, 13, 7
"""Distinct, and no multiples of 4 or 8."""


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def choices(tokens: int, active: int, experts: int = E, first: int = 0, seed: int = 0) -> torch.Tensor:
    """Of each token, experts that differ, from `first` on."""
    random = torch.Generator().manual_seed(seed)
    return first + torch.rand(tokens, experts - first, generator=random).argsort(-1)[:, :active]


def stacks(experts: int = E, width: int = D, inner: int = F) -> list[torch.Tensor]:
    shapes = (inner, width), (inner, width), (width, inner)
    return [normal(experts, *shape, seed=seed) for seed, shape in enumerate(shapes, 1)]


SIZES = [(1, 1, E), (1, 3, E), (2, 5, E), (5, 4, E), (9, 2, E), (37, 3, E), (6, 2, 3), (60, 2, 2)]
"""Tokens, choices of each, experts: none, one, a few and many tokens an expert."""


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("width", [D, 64, 75])
def test_the_fused_experts_equal_their_twin(threads, poisoned, size, width):
    tokens, active, experts = size
    x, chosen, weights = normal(tokens, width), choices(tokens, active, experts), normal(tokens, active, seed=9)
    held = stacks(experts, width, 51)
    with torch.no_grad():
        found = experts_glu(x, chosen, weights, *held)
    exact = experts_reference(x.double(), chosen, weights.double(), *(weight.double() for weight in held))
    assert found is not None
    assert relative(found, exact) <= 2e-6


def test_choices_of_no_expert_give_nothing(poisoned):
    """Numbers beyond the stack, and a token with no other choice."""
    x, weights, held = normal(3, D), normal(3, 2, seed=9), stacks()
    chosen = torch.tensor([[2, E], [E + 1, E], [E, 5]])
    with torch.no_grad():
        found = experts_glu(x, chosen, weights, *held)
    assert relative(found, experts_reference(x, chosen, weights, *held)) <= 2e-6
    assert bool((found[1] == 0).all())


def test_experts_no_one_chose_are_not_read(poisoned):
    """Their weights may be anything: here they are no numbers."""
    x, weights, held = normal(5, D), normal(5, 2, seed=9), stacks()
    chosen = choices(5, 2, first=8)
    for weight in held:
        weight[:8] = float("nan")
    rows = sort_by_expert(chosen, E)
    with torch.no_grad():
        assert bool(experts_glu(x, chosen, weights, *held).isfinite().all())
        assert bool(grouped_linear(x[rows.order // 2], held[0], rows).isfinite().all())
    assert bool(grouped_linear(x[rows.order // 2], held[0].requires_grad_(), rows).isfinite().all())


@pytest.mark.parametrize("values", [0.0, 1e-30, 3.0, 60.0, 200.0, 1e30])
def test_the_activation_of_large_and_small_numbers(values):
    """silu(gate) alone: up and down are one, so that what is compared is the exponential in C."""
    gate = torch.tensor([[[values], [-values], [values / 3]]])
    up, down = torch.ones(1, 3, 1), torch.eye(3)[None]
    x, chosen, weights = torch.ones(1, 1), torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1)
    with torch.no_grad():
        for row in range(3):
            found = experts_glu(x, chosen, weights, gate, up, down[:, row : row + 1].contiguous())
            torch.testing.assert_close(found[0], torch.nn.functional.silu(gate[0, row]), rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_rows_in_groups_equal_their_twin(threads, poisoned, size, bias):
    """In C where only values are wanted; by torch where gradients are."""
    tokens, active, experts = size
    rows = sort_by_expert(choices(tokens, active, experts), experts)
    x, weight = normal(tokens * active, D), normal(experts, F, D, seed=1)
    added = normal(experts, F, seed=2) if bias else None
    exact = grouped_reference(x.double(), weight.double(), rows, None if added is None else added.double())
    with torch.no_grad():
        assert relative(grouped_linear(x, weight, rows, added), exact) <= 2e-6
    assert relative(grouped_linear(x, weight.requires_grad_(), rows, added).detach(), exact) <= 2e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gradients_equal_those_of_the_twin(dtype):
    rows = sort_by_expert(choices(9, 2, first=3), E)
    inputs = normal(18, D), normal(E, F, D, seed=1), normal(E, F, seed=2)
    ours, exact = ([v.to(d, copy=True).requires_grad_() for v in inputs] for d in (dtype, torch.float64))
    target = normal(18, F, seed=3)
    (grouped_linear(ours[0], ours[1], rows, ours[2]) * target.to(dtype)).sum().backward()
    (grouped_reference(exact[0], exact[1], rows, exact[2]) * target).sum().backward()
    for a, b in zip(ours, exact, strict=True):
        assert relative(a.grad, b.grad) <= (3e-2 if dtype == torch.bfloat16 else 2e-6)
    assert bool((ours[1].grad[:3] == 0).all())


def test_no_rows_at_all():
    rows = sort_by_expert(torch.empty(0, 2, dtype=torch.int64), E)
    weight = normal(E, F, D).requires_grad_()
    assert grouped_linear(torch.empty(0, D), weight, rows).shape == (0, F)
    with torch.no_grad():
        assert grouped_linear(torch.empty(0, D), weight, rows).shape == (0, F)
        assert experts_glu(torch.empty(0, D), rows.order.view(0, 2), torch.empty(0, 2), *stacks()).shape == (0, D)


def test_the_sort():
    chosen = torch.tensor([[4, 0], [6, 4], [0, 5]])
    rows = sort_by_expert(chosen, 5, others=True)
    assert rows.order.tolist() == [1, 4, 0, 3]
    assert rows.expert.tolist() == [0, 0, 4, 4]
    assert rows.ends.tolist() == [2, 2, 2, 2, 4]


def test_torch_grouped_product_is_called_as_it_wants():
    """What a GPU does, here by torch's own on a CPU; inner widths in multiples of 16 bytes."""
    rows = sort_by_expert(choices(9, 2, first=3), E)
    x, weight = normal(18, 16).bfloat16(), normal(E, 24, 16, seed=1).bfloat16()
    assert ops.GROUPED is not None
    found = ops.GROUPED(x, weight.mT, offs=rows.ends)
    assert relative(found, grouped_reference(x.double(), weight.double(), rows)) <= 2e-2


def grid(inputs: int) -> Packed:
    """Numbers of one byte, with a scale for every tile of 3 rows and 16 columns, and a factor of each matrix."""
    form = Grid("e4m3", 3, 16, "F32")
    tiles = -(-F // 3), -(-inputs // 16)
    codes = normal(E, F, inputs).to(torch.float8_e4m3fn).view(torch.uint8)
    scales = normal(E, *tiles, seed=1).view(torch.uint8)
    return Packed(form, (E, F, inputs), [codes, scales, None, normal(E, 1, seed=2).view(torch.uint8)])


def blocks(name: str, inputs: int) -> Packed:
    block = BLOCKS[name]
    random = torch.Generator().manual_seed(0)
    raw = torch.randint(0, 256, (E, F, inputs // block.elements, block.nbytes), dtype=torch.uint8, generator=random)
    raw[..., :2] = torch.tensor([0x00, 0x2C], dtype=torch.uint8)  # a scale of 1/16
    return Packed(block, (E, F, inputs), [raw.flatten(2)])


@pytest.mark.parametrize("tokens", [1, 3, 9, 60])
@pytest.mark.parametrize("stored", ["Q8_0", "Q4_0", "grid"])
def test_packed_stacks(threads, poisoned, stored, tokens):
    """Kept as stored, only those that were chosen are unpacked; values are those of the expanded stack."""
    packed = grid(64) if stored == "grid" else blocks(stored, 64)
    chosen = choices(tokens, 2, first=3)
    rows, x = sort_by_expert(chosen, E), normal(2 * tokens, 64)
    exact = grouped_reference(x.double(), packed.dense().double(), rows)
    with torch.no_grad():
        assert relative(grouped_linear(x, packed, rows), exact) <= 1e-5
    x.requires_grad_()
    grouped_linear(x, packed, rows).sum().backward()
    assert relative(x.grad, packed.dense()[rows.expert].sum(1)) <= 1e-5


def test_a_gradient_of_a_stack_is_made_once():
    """Not one of the whole stack for each expert that was used."""
    rows = sort_by_expert(choices(9, 2), E)
    weight = normal(E, F, D).requires_grad_()
    made = []
    y = grouped_linear(normal(18, D), weight, rows)
    weight.register_hook(lambda grad: made.append(grad.shape))
    y.sum().backward()
    assert made == [(E, F, D)]
    seen, names = [y.grad_fn], set()
    while seen:
        if (node := seen.pop()) is not None:
            names.add(node.name())
            seen += [parent for parent, _ in node.next_functions]
    assert "UnbindBackward0" in names
    assert "SelectBackward0" not in names
