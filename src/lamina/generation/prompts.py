"""From what a caller gives as a prompt to checked token ids."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from torch import Tensor

from lamina.errors import LaminaError

Prompt: TypeAlias = str | Sequence[int] | Tensor
Prompts: TypeAlias = Prompt | Sequence[Prompt]


def read_prompts(prompt: Prompts, tokenizer: Any, vocab: int) -> tuple[list[list[int]], bool]:
    """Token ids of every prompt, and whether several were given.

    Text, a list of ids or a tensor [T] is one prompt; a list of those, or a tensor [B T], is several.

    Raises: LaminaError for an empty prompt, an id outside the vocabulary, text without a tokenizer
    """
    given: Any = prompt
    if isinstance(given, Iterable) and not isinstance(given, str | Tensor):
        given = list(given)
    several = given.ndim > 1 if isinstance(given, Tensor) else _holds_prompts(given)
    if not several:
        return [_read(given, tokenizer, vocab, "the prompt")], False
    return [_read(one, tokenizer, vocab, f"prompt {row}") for row, one in enumerate(given)], True


def _holds_prompts(prompt: Any) -> bool:
    if not isinstance(prompt, list):
        return False
    kinds = {isinstance(one, str) or (isinstance(one, Iterable) and getattr(one, "ndim", 1) > 0) for one in prompt}
    if len(kinds) > 1:
        raise LaminaError("the prompt mixes ids with prompts: give text, a list of ids, or a list of those")
    return kinds == {True}


def _read(prompt: Any, tokenizer: Any, vocab: int, name: str) -> list[int]:
    if isinstance(prompt, str):
        if tokenizer is None:
            raise LaminaError(f"{name} is text but the model has no tokenizer: give token ids")
        ids = list(tokenizer.encode(prompt))
    else:
        try:
            ids = [operator.index(one) for one in (prompt.tolist() if isinstance(prompt, Tensor) else prompt)]
        except TypeError:
            raise LaminaError(f"{name} must be text or whole numbers (token ids), not {prompt!r:.60}") from None
    if not ids:
        raise LaminaError(f"{name} is empty: give at least one token")
    for position, one in enumerate(ids):
        if not 0 <= one < vocab:
            raise LaminaError(
                f"{name} has id {one} at position {position}, outside the vocabulary of {vocab} (0 to {vocab - 1})"
            )
    return ids
