"""How a mixer or an embedding knows where a token stands. A mixer without a rotary part has no positions (NoPE)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from lamina.arch.base import Node


class LinearScaling(Node):
    """All angles divided by `factor` (position interpolation). Source: arXiv 2306.15595."""

    kind: Literal["linear"] = "linear"
    factor: PositiveFloat


class DynamicScaling(Node):
    """The base grows once a sequence is longer than `original_context` (dynamic NTK).

    The angles depend on the length of the whole sequence, so keys computed earlier become stale; a state
    then recomputes them (see nn/decoder.py). Source: arXiv 2309.00071, section 3.3.
    """

    kind: Literal["dynamic"] = "dynamic"
    factor: PositiveFloat
    original_context: PositiveInt


class Llama3Scaling(Node):
    """Long wavelengths divided by `factor`, short ones kept, those between blended.

    Where both frequencies are one number nothing is blended (Llama 4 Scout). Source: arXiv 2407.21783.
    """

    kind: Literal["llama3"] = "llama3"
    factor: PositiveFloat
    low_frequency: PositiveFloat
    high_frequency: PositiveFloat
    original_context: PositiveInt

    @model_validator(mode="after")
    def _ordered(self) -> Llama3Scaling:
        if self.high_frequency < self.low_frequency:
            raise ValueError(f"high_frequency {self.high_frequency} is below low_frequency {self.low_frequency}")
        return self


class YarnScaling(Node):
    """Interpolation by parts, with attention scaled by `attention_factor` (on both cos and sin).

    Source: arXiv 2309.00071, section 3.2 and 3.4. `truncate` rounds the ramp's ends to whole dimensions.
    """

    kind: Literal["yarn"] = "yarn"
    factor: PositiveFloat
    original_context: PositiveInt
    beta_fast: PositiveFloat = 32.0
    beta_slow: PositiveFloat = 1.0
    attention_factor: PositiveFloat
    truncate: bool = True


class LongRopeScaling(Node):
    """One divisor for each frequency: `short` ones up to `original_context` tokens, `long` ones beyond.

    The choice depends on the length of the whole sequence (see DynamicScaling). Source: arXiv 2402.13753.
    """

    kind: Literal["longrope"] = "longrope"
    short: tuple[PositiveFloat, ...]
    long: tuple[PositiveFloat, ...]
    original_context: PositiveInt
    attention_factor: PositiveFloat


Scaling = Annotated[
    LinearScaling | DynamicScaling | Llama3Scaling | YarnScaling | LongRopeScaling,
    Field(discriminator="kind"),
]


class Rotary(Node):
    """Rotary position embedding of the first `dim` dimensions of a head.

    `layout` says which two dimensions turn together: i and i + dim/2 ("half"), or 2i and 2i + 1
    ("interleaved"). With `learned`, each frequency is multiplied by e to the power of a learned number, dim / 2 of
    them that all blocks share (Mistral Large 4). `sections` are for tokens with several positions (time, height and
    width of an image patch): so many pairs turn by the first, so many by the second, and so on; in text all
    positions are the same. `spread` says with which frequencies a section turns: with its part of one range, with a
    whole range of its own ("each"), or with every second of one ("alternating"). Of the dim/2 pairs only the first
    `turning` turn, where not all do (Gemma 4 calls it proportional). With `backwards` they turn by the angle's negative
    (nanochat). Source: arXiv 2104.09864; sections: 2409.12191.
    """

    kind: Literal["rotary"] = "rotary"
    base: PositiveFloat = 10000.0
    dim: PositiveInt
    layout: Literal["half", "interleaved"] = "half"
    scaling: Scaling | None = None
    learned: bool = False
    turning: PositiveInt | None = None
    sections: tuple[PositiveInt, ...] | None = None
    spread: Literal["parts", "each", "alternating"] = "parts"
    backwards: bool = False

    @model_validator(mode="after")
    def _sizes(self) -> Rotary:
        if self.dim % 2:
            raise ValueError(f"rotary dimensions turn in pairs, so dim must be even, not {self.dim}")
        if self.turning and self.turning > self.dim // 2:
            raise ValueError(f"turning ({self.turning}) must not exceed the {self.dim // 2} pairs (dim / 2)")
        if self.sections and sum(self.sections) != self.dim // 2:
            raise ValueError(f"sections {self.sections} must add up to the {self.dim // 2} pairs (dim / 2)")
        if isinstance(self.scaling, YarnScaling) and self.base <= 1:
            raise ValueError(f"base must exceed 1 beside {self.scaling.kind}, and is {self.base:g}")
        if isinstance(self.scaling, LongRopeScaling):
            for name, factors in (("short", self.scaling.short), ("long", self.scaling.long)):
                if len(factors) != self.dim // 2:
                    raise ValueError(f"scaling.{name} has {len(factors)} factors; {self.dim // 2} are needed (dim / 2)")
        return self

    def regime(self, length: int) -> int:
        """Which set of angles a sequence of `length` tokens uses: 0 for the usual one.

        Keys rotated under one regime cannot be used under another.
        """
        if not self.depends_on_length or length <= self.scaling.original_context:  # type: ignore[union-attr]
            return 0
        return length if isinstance(self.scaling, DynamicScaling) else 1

    @property
    def depends_on_length(self) -> bool:
        if isinstance(self.scaling, LongRopeScaling):
            return self.scaling.short != self.scaling.long
        return isinstance(self.scaling, DynamicScaling)


class LearnedPositions(Node):
    """A learned vector for each of the first `length` positions, added to the token embedding (GPT-2)."""

    kind: Literal["learned"] = "learned"
    length: PositiveInt
