"""Sequences as people say them: runs, and patterns of runs that repeat."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from itertools import groupby
from typing import TypeVar

T = TypeVar("T", bound=Hashable)
Run = tuple[int, T]
"""(how many, of what)"""


def folds(items: Iterable[T]) -> list[tuple[int, tuple[Run[T], ...]]]:
    """A sequence as (times, pattern): 5 of a and 1 of b, ten times over, then 2 of a.

    A pattern is a tuple of (how many, of what). Nothing is lost: writing out all patterns gives the sequence again.
    """
    runs = [(len(list(group)), item) for item, group in groupby(items)]
    found, at = [], 0
    while at < len(runs):
        period, times = _repeat(runs, at)
        found.append((times, tuple(runs[at : at + period])))
        at += period * times
    return found


def _repeat(runs: Sequence[Run[T]], at: int) -> tuple[int, int]:
    """(period, times) of the pattern from `at` on that covers most, the shortest such; (1, 1) if none repeats."""
    best = (1, 1)
    for period in range(2, (len(runs) - at) // 2 + 1):
        times = 1
        while runs[at : at + period] == runs[at + times * period : at + (times + 1) * period]:
            times += 1
        if times > 1 and period * times > best[0] * best[1]:
            best = (period, times)
    return best
