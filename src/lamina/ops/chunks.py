"""Recurrences over a sequence, some tokens at a time: values, gradients, padding, and sequences that are packed.

A rule takes a state and the next n tokens, and gives their outputs and the state after them, by matrix products
instead of token by token. Rules of all recurrent mixers run here, and gradients follow from the rule itself: the
forward pass keeps the state before each chunk, and the backward pass computes one chunk again at a time, so that what
training holds grows with the length and not with what a rule makes on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lamina.arch.measure import CHUNK
from lamina.errors import LaminaError

States = tuple[Tensor, ...]
Rule = Callable[..., tuple[Tensor, States]]
"""rule(state, *pieces, *constants) -> outputs [B H n ...], the state after; pieces are [B H n ...] of each sequence."""
Whole = Callable[[States, Sequence[Tensor], list[States] | None], tuple[Tensor, States] | None]
"""whole(state, sequences, before) -> outputs, the state after: of all chunks at once, or nothing where it can not.

The states before each chunk are appended to `before`.
"""


def over_chunks(
    rule: Rule,
    state: States,
    sequences: Sequence[Tensor],
    constants: Sequence[Tensor] = (),
    chunk: int = CHUNK,
    whole: Whole | None = None,
) -> tuple[Tensor, States]:
    """A rule applied to chunk after chunk of some sequences, the last of which may be shorter.

    `constants` are what every chunk reads besides (a rate a head, say); gradients reach them too. `whole` does the same
    faster, where it can, for chunks of the usual size.
    Shapes: sequences [B H T ...] -> outputs [B H T ...]; state and constants are the rule's own
    Raises: LaminaError for a chunk below one token
    """
    if chunk < 1:
        raise LaminaError(f"a chunk needs at least one token, not {chunk}")
    inputs, whole = (*state, *sequences, *constants), whole if chunk == CHUNK else None
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
        out, *after = _Chunked.apply(rule, whole, chunk, len(state), len(sequences), *inputs)  # type: ignore[misc]
        return out, tuple(after)
    return _forward(rule, whole, state, sequences, constants, chunk)


def _forward(
    rule: Rule,
    whole: Whole | None,
    state: States,
    sequences: Sequence[Tensor],
    constants: Sequence[Tensor],
    chunk: int,
    before: list[States] | None = None,
) -> tuple[Tensor, States]:
    """The states before each chunk are appended to `before`."""
    if whole is not None and (found := whole(state, sequences, before)) is not None:
        return found
    tokens, out = sequences[0].shape[2], None
    for start, end in pairwise((*range(0, tokens, chunk), tokens)):
        if before is not None:
            before.append(state)
        piece, state = rule(state, *_pieces(sequences, start, end), *constants)
        state = _alone(state)
        if end - start == tokens:
            return piece, state
        if out is None:  # a token's heads beside each other, as what comes after reads them
            rows, heads = piece.shape[:2]
            out = piece.new_empty(rows, tokens, heads, *piece.shape[3:]).transpose(1, 2)
        out[:, :, start:end] = piece
    assert out is not None, "there is a token at least"
    return out, state


def _alone(state: States) -> States:
    """Copied where it is a part of something larger, which it would keep in memory."""
    return tuple(x if x.untyped_storage().nbytes() == x.nbytes else x.clone() for x in state)


def _pieces(sequences: Iterable[Tensor], start: int, end: int) -> list[Tensor]:
    return [sequence[:, :, start:end] for sequence in sequences]


class _Chunked(torch.autograd.Function):
    """`_forward`, with a backward pass that computes one chunk again at a time."""

    @staticmethod
    def forward(
        ctx: Any, rule: Rule, whole: Whole | None, chunk: int, states: int, sequences: int, *inputs: Tensor
    ) -> Any:
        before: list[States] = []
        state, rest = inputs[:states], inputs[states:]
        out, after = _forward(rule, whole, state, rest[:sequences], rest[sequences:], chunk, before)
        ctx.rule, ctx.chunk, ctx.states, ctx.sequences = rule, chunk, states, sequences
        ctx.save_for_backward(*inputs, *(tensor for held in before[1:] for tensor in held))
        return out, *after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_out: Tensor, *of_state: Tensor) -> Any:
        wanted = ctx.needs_input_grad[5:]
        inputs, kept = ctx.saved_tensors[: len(wanted)], ctx.saved_tensors[len(wanted) :]
        sequences, constants = inputs[ctx.states :][: ctx.sequences], inputs[ctx.states + ctx.sequences :]
        before = [inputs[: ctx.states], *zip(*([iter(kept)] * ctx.states), strict=True)]
        of_sequences = [torch.empty_like(tensor) for tensor in sequences]
        of_constants = [torch.zeros_like(tensor) for tensor in constants]
        for i, state in reversed(list(enumerate(before))):
            start, end = i * ctx.chunk, min((i + 1) * ctx.chunk, sequences[0].shape[2])
            read = (*state, *_pieces(sequences, start, end), *constants)
            needed = (*(True,) * ctx.states, *wanted[ctx.states :])
            given = _gradients(ctx.rule, ctx.states, read, needed, (of_out[:, :, start:end], *of_state))
            of_state = tuple(given[: ctx.states])
            for whole, piece in zip(of_sequences, given[ctx.states :], strict=False):
                whole[:, :, start:end] = piece
            for total, part in zip(of_constants, given[ctx.states + ctx.sequences :], strict=True):
                total += part
        every = (*of_state, *of_sequences, *of_constants)
        return *(None,) * 5, *(grad if need else None for grad, need in zip(every, wanted, strict=True))


def _gradients(
    rule: Rule, states: int, read: Sequence[Tensor], needed: Sequence[bool], of_results: Sequence[Tensor]
) -> list[Tensor]:
    """The gradients of all that a rule reads, zeros where none is needed, from those of its outputs and state."""
    leaves = [tensor.detach().requires_grad_(need) for tensor, need in zip(read, needed, strict=True)]
    with torch.enable_grad():
        out, after = rule(tuple(leaves[:states]), *leaves[states:])
    ends = [(y, dy) for y, dy in zip((out, *after), of_results, strict=True) if y.requires_grad]
    results, given = zip(*ends, strict=True)
    asked = [leaf for leaf in leaves if leaf.requires_grad]
    found = iter(torch.autograd.grad(results, asked, given, allow_unused=True, materialize_grads=True))
    return [next(found) if leaf.requires_grad else torch.zeros_like(leaf) for leaf in leaves]


def packed(
    op: Callable[..., tuple[Tensor, Any]], lengths: Sequence[int], *sequences: Tensor, **options: Any
) -> tuple[Tensor, Any]:
    """An op over N sequences that lie one behind the other, each of which begins with a state of its own.

    Shapes: sequences [1 H T ...], T being the sum of the N lengths -> [1 H T ...], the N states after them;
    an initial state among the options has N rows
    Raises: LaminaError for lengths that do not make up T, or one that is not above zero
    """
    tokens = sequences[0].shape[2]
    if sequences[0].shape[0] != 1 or any(n < 1 for n in lengths) or sum(lengths) != tokens:
        raise LaminaError(f"packed lengths {list(lengths)} must be above zero and add up to one row of {tokens} tokens")

    def rows(x: Tensor) -> Tensor:
        each = [part[0].transpose(0, 1) for part in x.split(list(lengths), 2)]
        return torch.nn.utils.rnn.pad_sequence(each, batch_first=True).transpose(1, 2)

    held = torch.tensor(list(lengths), device=sequences[0].device)
    out, state = op(*map(rows, sequences), lengths=held, **options)
    return torch.cat([row[None, :, :n] for row, n in zip(out, lengths, strict=True)], 2), state
