"""What an encoder is made of beside blocks: what it reads, steps from vectors to vectors, and positions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from lamina.arch.base import Node
from lamina.arch.feedforward import Activation, Clamp
from lamina.arch.measure import Shape, linear, matrices, within
from lamina.arch.norm import Norm
from lamina.arch.position import LearnedPositions

# -- what is read


class Patches(Node):
    """An image cut into squares of `size` pixels, or a video into squares of `frames` frames; a unit is a patch.

    `image` is the side in pixels of the image that the publisher states, if one is. Source: arXiv 2010.11929.
    """

    kind: Literal["patches"] = "patches"
    size: PositiveInt
    channels: PositiveInt = 3
    frames: PositiveInt = 1
    image: PositiveInt | None = None

    @property
    def numbers(self) -> int:
        """Numbers of one unit."""
        return self.channels * self.frames * self.size**2

    @property
    def usual(self) -> int | None:
        """Units of an image of the stated size."""
        return (self.image // self.size) ** 2 if self.image else None


class Spectrogram(Node):
    """Sound as a short-time spectrum of `bins` frequencies; a unit is a frame."""

    kind: Literal["spectrogram"] = "spectrogram"
    bins: PositiveInt
    usual: None = None

    @property
    def numbers(self) -> int:
        return self.bins


class Waveform(Node):
    """Sound as it was sampled; a unit is a sample."""

    kind: Literal["waveform"] = "waveform"
    usual: None = None

    @property
    def numbers(self) -> int:
        return 1


Input = Annotated[Patches | Spectrogram | Waveform, Field(discriminator="kind")]


# -- steps


class Step(Node):
    """Vectors to vectors, perhaps of another width, perhaps fewer."""

    @property
    def joined(self) -> int:
        """How many vectors become one."""
        return 1

    def gives(self, width: int) -> int:
        """The width of what it gives."""
        return width

    def weights(self, width: int) -> dict[str, Shape]:
        """The shape of everything learned, by its name."""
        return {}

    def work(self, width: int) -> int:
        """Forward FLOPs of matrix products for each vector it gives."""
        return 2 * matrices(self.weights(width))

    def saved(self, width: int) -> int:
        """Numbers that the backward pass needs for each vector it gives."""
        return width * self.joined


class Linear(Step):
    """act(W x + b), to `width` numbers."""

    kind: Literal["linear"] = "linear"
    width: PositiveInt
    bias: bool = False
    activation: Activation | None = None

    def gives(self, width: int) -> int:
        return self.width

    def weights(self, width: int) -> dict[str, Shape]:
        named = linear("", self.width, width, self.bias)
        return {name[1:]: shape for name, shape in named.items()}

    def saved(self, width: int) -> int:
        return width + (self.width if self.activation else 0)


class GatedLinear(Step):
    """down(act(gate(x)) * up(x)), of inner width `inner`, to `width` numbers."""

    kind: Literal["gated_linear"] = "gated_linear"
    inner: PositiveInt
    width: PositiveInt
    activation: Activation = "silu"
    bias: bool = False
    clamp: Clamp | None = None

    def gives(self, width: int) -> int:
        return self.width

    def weights(self, width: int) -> dict[str, Shape]:
        named = linear("gate_proj", self.inner, width, self.bias) | linear("up_proj", self.inner, width, self.bias)
        return named | linear("down_proj", self.width, self.inner)

    def saved(self, width: int) -> int:
        return width + 4 * self.inner


class Normalise(Step):
    """A norm, and an activation behind it if there is one."""

    kind: Literal["normalise"] = "normalise"
    norm: Norm
    activation: Activation | None = None

    def weights(self, width: int) -> dict[str, Shape]:
        return self.norm.weights(width)

    def saved(self, width: int) -> int:
        return 2 * width if self.activation else width


class Standardise(Step):
    """(x - b) * s, with b and s stored for each number (Gemma 4)."""

    kind: Literal["standardise"] = "standardise"

    def weights(self, width: int) -> dict[str, Shape]:
        return {"bias": (width,), "scale": (width,)}


class Merge(Step):
    """`count` neighbours become one vector, side by side (also called pixel shuffle)."""

    kind: Literal["merge"] = "merge"
    count: PositiveInt

    @property
    def joined(self) -> int:
        return self.count

    def gives(self, width: int) -> int:
        return self.count * width

    def saved(self, width: int) -> int:
        return 0


class Pool(Step):
    """`count` neighbours become their mean, times `scale`."""

    kind: Literal["pool"] = "pool"
    count: PositiveInt
    scale: PositiveFloat = 1.0

    @property
    def joined(self) -> int:
        return self.count

    def saved(self, width: int) -> int:
        return 0


class AttentionPool(Step):
    """`count` neighbours become one: their mean asks, they answer. Source: arXiv 2601.10611 (Molmo 2)."""

    kind: Literal["attention_pool"] = "attention_pool"
    count: PositiveInt
    heads: PositiveInt
    head_dim: PositiveInt
    width: PositiveInt
    kv_heads: PositiveInt
    bias: bool = False

    @property
    def joined(self) -> int:
        return self.count

    def gives(self, width: int) -> int:
        return self.width

    def weights(self, width: int) -> dict[str, Shape]:
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        named = linear("q_proj", q, width, self.bias)
        for name in ("k_proj", "v_proj"):
            named |= linear(name, kv, width, self.bias)
        return named | linear("o_proj", self.width, q, self.bias)

    def work(self, width: int) -> int:
        """Keys and values are of each neighbour, all else is of the one that asks."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return 2 * (width * q + q * self.width + self.count * (2 * width * kv + 2 * q))

    def saved(self, width: int) -> int:
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return (self.count + 1) * width + 2 * self.count * kv + 2 * q + self.heads


class SpectrumConvolution(Step):
    """relu(norm(conv(x))) over time and frequency: a square kernel, and every `stride`-th place of both.

    A vector holds `inputs` channels of each frequency, and afterwards `channels` of every `stride`-th frequency.
    """

    kind: Literal["spectrum_convolution"] = "spectrum_convolution"
    inputs: PositiveInt
    channels: PositiveInt
    kernel: PositiveInt
    stride: PositiveInt
    norm: Norm

    @property
    def joined(self) -> int:
        return self.stride

    def gives(self, width: int) -> int:
        bins = width // self.inputs
        return -(-bins // self.stride) * self.channels

    def weights(self, width: int) -> dict[str, Shape]:
        kernel = (self.channels, self.inputs, self.kernel, self.kernel)
        return {"convolution.weight": kernel} | within("norm", self.norm.weights(self.channels))

    def work(self, width: int) -> int:
        return 2 * self.gives(width) * self.inputs * self.kernel**2

    def saved(self, width: int) -> int:
        return self.stride * width + 2 * self.gives(width)


class ConvolutionBlock(Step):
    """x + mlp(norm(conv(x))), with a kernel of its own for each channel over the last vectors.

    Source: arXiv 2201.03545 (ConvNeXt), along time; as in Muse Spark.
    """

    kind: Literal["convolution_block"] = "convolution_block"
    kernel: PositiveInt
    inner: PositiveInt
    activation: Activation = "gelu"
    norm: Norm

    def weights(self, width: int) -> dict[str, Shape]:
        named: dict[str, Shape] = {"convolution.weight": (width, 1, self.kernel), "convolution.bias": (width,)}
        named |= within("norm", self.norm.weights(width)) | linear("up_proj", self.inner, width, True)
        return named | linear("down_proj", width, self.inner, True)

    def work(self, width: int) -> int:
        return 2 * width * self.kernel + 4 * width * self.inner

    def saved(self, width: int) -> int:
        return 3 * width + 2 * self.inner


AnyStep = Annotated[
    Linear
    | GatedLinear
    | Normalise
    | Standardise
    | Merge
    | Pool
    | AttentionPool
    | SpectrumConvolution
    | ConvolutionBlock,
    Field(discriminator="kind"),
]


# -- positions


class GridPositions(Node):
    """A learned vector for each place of a grid of `rows` by `columns`, resampled to the grid of an image.

    With `factored`, one for each row and one for each column, added, and nothing is resampled (Gemma 4). A class token
    has one of its own with `class_vector`; `frames` are as many fixed sinusoids over time (Kimi).
    """

    kind: Literal["grid"] = "grid"
    rows: PositiveInt
    columns: PositiveInt
    factored: bool = False
    class_vector: bool = False
    frames: NonNegativeInt = 0

    def weights(self, width: int) -> dict[str, Shape]:
        places = self.rows + self.columns if self.factored else self.rows * self.columns
        return {"weight": (places, width)} | ({"class": (width,)} if self.class_vector else {})


class TilePositions(Node):
    """Where a patch stands, for images cut into tiles; each part passes a gate behind a tanh (Llama 3.2 Vision).

    A learned vector for each of `length` places of a tile, and for each place of each of `tiles` tiles in each of
    `arrangements` of them (and in none); and for each tile in each, one before the blocks and one after the first
    stack of them.
    """

    kind: Literal["tiles"] = "tiles"
    length: PositiveInt
    tiles: PositiveInt
    arrangements: PositiveInt

    def weights(self, width: int) -> dict[str, Shape]:
        named: dict[str, Shape] = {"gate": (1,), "weight": (self.length, width)}
        named["tiles.weight"] = (self.arrangements + 1, self.tiles * self.length * width)
        for name in ("before", "after"):
            named |= {f"{name}.gate": (1,), f"{name}.weight": (self.arrangements + 1, self.tiles * width)}
        return named


Positions = Annotated[LearnedPositions | GridPositions | TilePositions, Field(discriminator="kind")]
