"""What all mixers have in common."""

from __future__ import annotations

from lamina.arch.base import Op


class Mixer(Op):
    """Moves information from token to token."""

    @property
    def role(self) -> str:
        return "mixer"
