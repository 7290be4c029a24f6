"""Stop strings in streamed text."""

from __future__ import annotations

from collections.abc import Sequence

from lamina.errors import LaminaError


def read_stops(stop: str | Sequence[str]) -> tuple[str, ...]:
    """The stop strings of a request: one string or several.

    Raises: LaminaError if one is empty or not a string
    """
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    for text in stops:
        if not isinstance(text, str) or not text:
            raise LaminaError(f"stop holds {text!r}, but a stop string must be text of one character or more")
    return stops


class StopText:
    """Cuts streamed text at the first stop string that is completed, wherever the pieces break.

    Text that may be the beginning of a stop string is held back until it is ruled out. Of two stop strings
    the one completed first wins, of two completed together the longer one: what is emitted does not depend on
    how the text was cut into pieces.
    """

    __slots__ = ("_held", "_stops")

    def __init__(self, stops: Sequence[str]):
        self._stops = stops
        self._held = ""

    def push(self, piece: str) -> tuple[str, bool]:
        """Text that is now certain to come before any stop string, and whether one was completed."""
        if not self._stops:
            return piece, False
        text = self._held + piece
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self._held = ""
            return text[: min(found)[1]], True
        keep = self._beginning(text)
        self._held = text[keep:]
        return text[:keep], False

    def finish(self) -> str:
        """The text still held back, which no stop string can claim any more."""
        held, self._held = self._held, ""
        return held

    def _beginning(self, text: str) -> int:
        """Where the longest ending of `text` that begins a stop string starts (its length if none does)."""
        longest = max(map(len, self._stops)) - 1
        starts = range(max(0, len(text) - longest), len(text))
        return next((at for at in starts if any(s.startswith(text[at:]) for s in self._stops)), len(text))
