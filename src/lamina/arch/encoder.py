"""Encoders: what turns images and sound into vectors that a text decoder reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from lamina.arch.base import Node
from lamina.arch.block import Block
from lamina.arch.encoder_steps import AnyStep, Input, Patches, Positions, Step
from lamina.arch.measure import Shape
from lamina.arch.norm import Norm
from lamina.arch.position import LearnedPositions

if TYPE_CHECKING:
    from lamina.arch.bill import Line


class Place(NamedTuple):
    """What stands before or after the blocks of an encoder; `each` is how many units a vector there stands for."""

    path: str
    kind: str
    weights: dict[str, Shape]
    flops: int
    saved: int
    each: int


class Encoder(Node):
    """From what is read to vectors as wide as the decoder's: `stem`, `blocks` that look both ways, `connector`.

    Fields: `before` is a norm of what enters the blocks, `norm` one of what leaves the first `norm_after` of them (all,
    if not said). `taps` are the blocks whose outputs, side by side and without that norm, the connector reads; none
    means what leaves the last. `class_token` is a learned vector that stands with the patches of each image and that
    the connector does not read. `fusion` says how the result enters the decoder: at placeholder tokens of the stream,
    or as the memory of cross-attention.
    Units: patches of an image, frames of a spectrogram or samples of sound, as `input` says; FLOPs.
    Raises: LaminaError for taps or a place of the norm beyond the blocks, and for a step at a place it cannot have.
    Source: arXiv 2010.11929 (ViT), 2304.08485 (a connector to a decoder's stream), 2204.14198 (cross-attention).
    """

    modality: Literal["image", "audio"]
    input: Input
    stem: Annotated[tuple[AnyStep, ...], Field(min_length=1)]
    positions: Positions | None = None
    class_token: bool = False
    before: Norm | None = None
    blocks: tuple[Block, ...] = ()
    norm: Norm | None = None
    norm_after: PositiveInt | None = None
    taps: tuple[NonNegativeInt, ...] = ()
    connector: tuple[AnyStep, ...] = ()
    fusion: Literal["stream", "cross_attention"] = "stream"

    @model_validator(mode="after")
    def _consistent(self) -> Encoder:
        if (self.modality == "image") != isinstance(self.input, Patches):
            raise ValueError(f"an encoder of {self.modality} cannot read {self.input.kind}")
        if self.taps and max(self.taps) >= len(self.blocks):
            raise ValueError(f"taps {self.taps} name blocks beyond the {len(self.blocks)} there are")
        if self.norm_after and self.norm_after > len(self.blocks):
            raise ValueError(f"norm_after ({self.norm_after}) is beyond the {len(self.blocks)} blocks there are")
        for block in {id(block): block for block in self.blocks}.values():
            block.check()
        return self

    @property
    def width(self) -> int:
        """Of the vectors that pass the blocks."""
        return _after(self.stem, self.input.numbers)

    @property
    def gives(self) -> int:
        """The width of the vectors that the decoder reads."""
        return _after(self.connector, self.width * max(1, len(self.taps)))

    bidirectional: ClassVar[bool] = True  # nothing is kept of what was read before

    @property
    def each(self) -> int:
        """How many units a vector in the blocks stands for."""
        return _joined(self.stem)

    @property
    def needed(self) -> int:
        """How many blocks are passed: none beyond the last that is read."""
        return max(self.taps) + 1 if self.taps else len(self.blocks)

    def tokens(self, units: int) -> int:
        """How many vectors the decoder reads for one image or sound of so many units."""
        return -(-units // (self.each * _joined(self.connector)))

    def places(self) -> Iterator[Place]:
        """All but the blocks, in the order in which it is passed."""
        yield from _steps("stem", self.stem, self.input.numbers, 1)
        width, each = self.width, self.each
        if self.class_token:
            yield Place("class_token", "class_token", {"weight": (width,)}, 0, 0, each)
        if isinstance(self.positions, LearnedPositions):
            yield Place("positions", "learned", {"weight": (self.positions.length, width)}, 0, 0, each)
        elif self.positions:
            yield Place("positions", self.positions.kind, self.positions.weights(width), 0, 0, each)
        for name, norm in (("before", self.before), ("norm", self.norm)):
            if norm:
                yield Place(name, norm.kind, norm.weights(width), 0, width, each)
        yield from _steps("connector", self.connector, width * max(1, len(self.taps)), each)

    # -- cost

    def bill(self, path: str = "encoder") -> tuple[Line, ...]:
        """What each part weighs and does, as lines whose paths begin so."""
        from lamina.arch.bill import of_encoder

        return tuple(of_encoder(self, path))

    def weights(self) -> dict[str, Shape]:
        """The shape of everything learned, by its path; that of equal blocks once."""
        return {f"{line.path}.{name}": shape for line in self.bill() for name, shape in line.weights.items()}

    def parameters(self) -> int:
        """How many numbers are learned."""
        return sum(line.parameters for line in self.bill())

    def flops(self, units: int) -> int:
        """Forward FLOPs of one image, or one sound, of so many units; a multiply-accumulate is 2."""
        return sum(line.encoding_flops(units) for line in self.bill())

    def saved(self, units: int) -> int:
        """Numbers that the backward pass needs of one image or sound, when nothing is computed again."""
        return sum(line.encoding_saved(units) for line in self.bill())


def _after(steps: tuple[Step, ...], width: int) -> int:
    for step in steps:
        width = step.gives(width)
    return width


def _joined(steps: tuple[Step, ...]) -> int:
    many = 1
    for step in steps:
        many *= step.joined
    return many


def _steps(path: str, steps: tuple[Step, ...], width: int, each: int) -> Iterator[Place]:
    for i, step in enumerate(steps):
        each *= step.joined
        yield Place(f"{path}[{i}]", step.kind, step.weights(width), step.work(width), step.saved(width), each)  # type: ignore[attr-defined]
        width = step.gives(width)
