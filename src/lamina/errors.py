"""The one error type for bad input."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SHOWN = 40
"""How many names a sentence lists at most."""


class LaminaError(ValueError):
    """Bad input, said in one sentence that names the file, key or path and what would be accepted.

    Every reader, loader and command raises this and nothing else for input that is wrong; the command line
    prints the sentence and leaves with exit code 2.
    """


def closest(word: str, known: Iterable[str]) -> str:
    """What to say about an unknown word: the nearest known one if there is one, and what is known."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    if len(known) <= SHOWN:
        return f"{hint}known: {', '.join(known)}"
    some = difflib.get_close_matches(word, known, n=8, cutoff=0.3) or known[:8]
    return f"{hint}{len(known)} are known, such as {', '.join(some)}"
