"""RWKV's channel mixing: a feed-forward that also reads the token before."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from lamina.arch.feedforward import Activation, FeedForward, learned
from lamina.arch.measure import Kept, Shape, linear


class ChannelMix(FeedForward):
    """down(act(up(x + shift (y - x)))), y being the input of the token before, with a share `shift` for each number.

    Source: arXiv 2503.14456, section 4; the shift of earlier versions: 2305.13048.
    """

    kind: Literal["channel_mix"] = "channel_mix"
    inner: PositiveInt
    activation: Activation = "relu2"

    def weights(self, width: int) -> dict[str, Shape]:
        up, down = linear("up_proj", self.inner, width), linear("down_proj", width, self.inner)
        return {"shift": (width,)} | up | down | learned(self.activation)

    def keeps(self, width: int) -> tuple[Kept, ...]:
        """The last input."""
        return (Kept("convolution", width, each="sequence"),)

    def saved(self, width: int) -> int:
        return 3 * width + 2 * self.inner  # x, its change, what is read; up, act(up)
