"""The one error type for bad input."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LaminaError(ValueError):
    """Bad input, said in one sentence that names the file, key or path and what would be accepted.

    Every reader, loader and command raises this and nothing else for input that is wrong; the command line
    prints the sentence and leaves with exit code 2.
    """


def closest(word: str, known: Iterable[str]) -> str:
    """What to say about an unknown word: the nearest known one if there is one, and all that are known."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}known: {', '.join(known)}"
