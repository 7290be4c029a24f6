"""Every recurrent op against its reference of a token at a time: values, gradients, padding, packing, bad input."""

from __future__ import annotations

import pytest
import torch

from lamina.errors import LaminaError
from lamina.ops.chunks import packed
from tests.ops.recurrences import cases, flat

B, T = 3, 23


@pytest.fixture(params=cases(), ids=str)
def case(request):
    return request.param


@pytest.fixture
def made(case):
    """Sequences, state and constants of a case, in float64 and without gradients."""
    random = torch.Generator().manual_seed(0)
    return case.sequences(B, T, random), case.state(B, random), case.constants(random)


def results(function, sequences, state, constants, **options):
    out, after = function(*sequences, state=state, **constants, **options)
    return [out, *flat(after)]


def single(made):
    """The same in single precision, in which all is computed then."""
    sequences, state, constants = made
    parts = tuple(part.float() for part in flat(state))
    named = {name: x.float() for name, x in constants.items()}
    return [x.float() for x in sequences], parts if len(parts) > 1 else parts[0], named


def largest(a, b):
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-30))


@pytest.mark.parametrize("chunk", [1, 2, 8, 22, 23, 64])
def test_values(case, made, chunk):
    expected = results(case.reference, *made)
    for got, exact in zip(results(case.op, *made, chunk=chunk), expected, strict=True):
        assert largest(got, exact) <= 1e-12


def test_values_in_single_precision(case, made):
    exact = results(case.reference, *made)
    for got, right in zip(results(case.op, *single(made)), exact, strict=True):
        assert got.dtype == torch.float32
        assert largest(got.double(), right) <= 1e-5


def test_the_state_begins_with_zeros(case, made):
    sequences, state, constants = made
    zeros = tuple(torch.zeros_like(part) for part in flat(state))
    expected = results(case.reference, sequences, zeros if len(zeros) > 1 else zeros[0], constants)
    for got, exact in zip(results(case.op, sequences, None, constants), expected, strict=True):
        assert largest(got, exact) <= 1e-12


def gradients(function, made, **options):
    sequences, state, constants = made
    leaves = [x.detach().clone().requires_grad_() for x in (*sequences, *flat(state), *constants.values())]
    held = leaves[len(sequences) : len(leaves) - len(constants)]
    named = dict(zip(constants, leaves[len(leaves) - len(constants) :], strict=True))
    given = results(function, leaves[: len(sequences)], tuple(held) if len(held) > 1 else held[0], named, **options)
    random = torch.Generator().manual_seed(1)
    weights = [torch.randn(y.shape, generator=random, dtype=torch.float64).to(y) for y in given]
    return torch.autograd.grad(given, leaves, weights, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("chunk", [1, 8, 64])
def test_all_gradients(case, made, chunk):
    for got, exact in zip(gradients(case.op, made, chunk=chunk), gradients(case.reference, made), strict=True):
        assert largest(got, exact) <= 1e-10


def test_all_gradients_in_single_precision(case, made):
    for got, exact in zip(gradients(case.op, single(made)), gradients(case.reference, made), strict=True):
        assert got.dtype == torch.float32
        assert largest(got.double(), exact) <= 1e-5


def test_gradients_of_the_reference(case):
    """Against finite differences."""
    random = torch.Generator().manual_seed(2)
    sequences, state, constants = case.sequences(1, 4, random), case.state(1, random), case.constants(random)
    leaves = [x.requires_grad_() for x in (*sequences, *flat(state), *constants.values())]

    def run(*leaves):
        held = leaves[len(sequences) : len(leaves) - len(constants)]
        named = dict(zip(constants, leaves[len(leaves) - len(constants) :], strict=True))
        return tuple(results(case.reference, leaves[: len(sequences)], held if len(held) > 1 else held[0], named))

    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)


def test_strong_decay_is_finite(case, made):
    """exp(-50) a token, and one that is exact zero in the end: nothing overflows, forward or backward."""
    if case.decay is None:
        return
    sequences, state, constants = made
    for strength in (-50.0, -1e4):
        strong = [x.clone() for x in sequences]
        strong[case.decay][:, :, 5:] = strength
        strong = strong, state, constants
        for tensor in (*results(case.op, *single(strong)), *gradients(case.op, single(strong))):
            assert torch.isfinite(tensor).all()
        for got, right in zip(results(case.op, *single(strong)), results(case.reference, *strong), strict=True):
            assert largest(got.double(), right) <= 1e-5


def test_weak_decay_behind_a_strong_one(case, made):
    """Tokens that forget nearly all leave nothing wrong in how much fades between later ones."""
    if case.decay is None:
        return
    sequences, state, constants = made
    mixed = [x.clone() for x in sequences]
    mixed[case.decay][:, :, 3::7] = -1e4
    mixed = mixed, state, constants
    for got, right in zip(results(case.op, *single(mixed)), results(case.reference, *mixed), strict=True):
        assert largest(got.double(), right) <= 1e-5


@pytest.mark.parametrize("chunk", [1, 8, 64])
def test_a_state_keeps_nothing_else_in_memory(case, made, chunk):
    """It is no part of what a chunk made on its way."""
    for part in results(case.op, *made, chunk=chunk)[1:]:
        assert part.untyped_storage().nbytes() == part.nbytes


def test_padding_leaves_the_state(case, made):
    sequences, state, constants = made
    lengths = [23, 0, 9]
    padded = [x.clone() for x in sequences]
    for row, n in enumerate(lengths):
        for x in padded:
            x[row, :, n:] = 3.0
    out, after = case.op(*padded, state=state, lengths=torch.tensor(lengths), **constants)
    for row, n in enumerate(lengths):
        begun = tuple(part[row : row + 1] for part in flat(state))
        if not n:
            assert all(torch.equal(a[row : row + 1], b) for a, b in zip(flat(after), begun, strict=True))
            continue
        alone = [x[row : row + 1, :, :n] for x in sequences]
        expected = results(case.reference, alone, begun if len(begun) > 1 else begun[0], constants)
        assert largest(out[row : row + 1, :, :n], expected[0]) <= 1e-12
        for got, exact in zip(flat(after), expected[1:], strict=True):
            assert largest(got[row : row + 1], exact) <= 1e-12


def test_packed_sequences_are_as_if_alone(case, made):
    _, state, constants = made
    row = case.sequences(1, T, torch.Generator().manual_seed(3))
    out, after = packed(case.op, [4, 1, 18], *row, state=state, **constants)
    for i, (start, end) in enumerate(((0, 4), (4, 5), (5, 23))):
        begun = tuple(part[i : i + 1] for part in flat(state))
        alone = [x[:, :, start:end] for x in row]
        expected = results(case.reference, alone, begun if len(begun) > 1 else begun[0], constants)
        assert largest(out[:, :, start:end], expected[0]) <= 1e-12
        for got, exact in zip(flat(after), expected[1:], strict=True):
            assert largest(got[i : i + 1], exact) <= 1e-12


def test_half_precision_is_computed_in_single(case, made):
    sequences, _, constants = made
    half = [x.bfloat16() for x in sequences]
    out, after = case.op(*half, **{name: x.float() for name, x in constants.items()})
    exact, _ = case.reference(*[x.float() for x in half], **{name: x.float() for name, x in constants.items()})
    assert largest(out.float(), exact) <= 1e-2
    assert all(part.dtype == torch.float32 for part in flat(after))


def test_bad_input_is_one_sentence(case, made):
    sequences, state, constants = made
    with pytest.raises(LaminaError, match="do not fit"):
        case.op(*[x[:, :, :0] for x in sequences], state=state, **constants)
    wrong = tuple(part[:2] for part in flat(state))
    with pytest.raises(LaminaError, match=r"state of .* does not fit"):
        case.op(*sequences, state=wrong if len(wrong) > 1 else wrong[0], **constants)
    with pytest.raises(LaminaError, match="at least one token"):
        case.op(*sequences, state=state, chunk=0, **constants)
    with pytest.raises(LaminaError, match="one of 0 to 23 for each of 3 rows"):
        case.op(*sequences, state=state, lengths=torch.tensor([1, 2, 24]), **constants)
    with pytest.raises(LaminaError, match="one of 0 to 23 for each of 3 rows"):
        case.op(*sequences, state=state, lengths=torch.tensor([1.0, 2.5, 3.0]), **constants)
    with pytest.raises(LaminaError, match="add up to one row of 23"):
        packed(case.op, [4, 0, 19], *[x[:1] for x in sequences], **constants)
    if case.decay is not None:
        for number in (float("nan"), float("-inf")):
            broken = [x.clone() for x in sequences]
            broken[case.decay][1, 1, 3] = number
            with pytest.raises(LaminaError, match="not finite"):
                case.op(*broken, state=state, **constants)
