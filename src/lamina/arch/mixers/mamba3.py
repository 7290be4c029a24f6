"""Mamba-3: a state-space model with a trapezoidal step, a state that turns, and several inputs and outputs of it."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat, PositiveInt, model_validator

from lamina.arch.measure import CHUNK, Kept, Shape, Work, linear, matrices, within
from lamina.arch.mixers.base import Mixer
from lamina.arch.norm import Norm, RMSNorm


class Mamba3(Mixer):
    """S <- a (S + (1 - l) d x' B'^T) + l d x B^T; y = S C + skip x, with H heads of P channels and a P x N state each.

    x' and B' are those of the token before: what enters is a mean of both ends of a step d, and `l` in (0, 1), from
    the input, says how it leans. There is no convolution. B and C are normalised, shared by the heads of each of
    `groups`, get a bias of each head, and are turned: `turning` pairs of their numbers, by an angle that grows with
    pi tanh(projection) d. The decay is a = exp(-rate d), its rate 1 + p where a projection p is positive and
    1 / (1 - p) where it is not ("heavy_tail"), or softplus(p); at least `rate_floor`. The output is times SiLU(gate),
    each head behind `output_norm` where there is one.

    Fields: with a `rank` R above one a token has R rows of B, C, x, y and gate; x and the gate are spread over them by
    weights of each head, and y is drawn together by such.
    Source: arXiv 2603.15569, section 3; the rate and the floor are those of the authors' code.
    """

    kind: Literal["mamba3"] = "mamba3"
    heads: PositiveInt
    head_dim: PositiveInt
    groups: PositiveInt = 1
    state: PositiveInt
    rank: PositiveInt = 1
    turning: PositiveInt
    norm: Norm = RMSNorm(eps=1e-5)
    output_norm: Norm | None = None
    rate: Literal["heavy_tail", "softplus"] = "heavy_tail"
    rate_floor: PositiveFloat = 1e-4
    bias: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Mamba3:
        if self.heads % self.groups:
            raise ValueError(f"heads ({self.heads}) must be a multiple of groups ({self.groups})")
        if 2 * self.turning > self.state:
            raise ValueError(f"turning ({self.turning}) must be at most half of state ({self.state})")
        return self

    @property
    def inner(self) -> int:
        return self.heads * self.head_dim

    @property
    def sizes(self) -> tuple[int, ...]:
        """What the input projection gives: gate, x, B, C, step, rate, lean and angles."""
        shared = self.groups * self.rank * self.state
        return self.inner, self.inner, shared, shared, self.heads, self.heads, self.heads, self.turning

    def weights(self, width: int) -> dict[str, Shape]:
        rows, channels = (self.heads, self.rank, self.state), (self.heads, self.rank, self.head_dim)
        named = linear("in_proj", sum(self.sizes), width, self.bias)
        named |= {"step_bias": (self.heads,), "b_bias": rows, "c_bias": rows, "skip": (self.heads,)}
        named |= within("b_norm", self.norm.weights(self.state)) | within("c_norm", self.norm.weights(self.state))
        named |= {"x_up": channels, "gate_up": channels, "down": channels} if self.rank > 1 else {}
        named |= within("output_norm", self.output_norm.weights(self.inner)) if self.output_norm else {}
        return named | linear("o_proj", width, self.inner, self.bias)

    def work(self, width: int, memory: int = 0, decoding: bool = False) -> Work:
        """R rows write the state and read it, 4 R P N a head; each two of a chunk meet in R^2 ways."""
        token = 2 * matrices(self.weights(width)) + 4 * self.rank * self.inner * self.state
        return Work(token, chunked=2 * self.rank**2 * self.heads * (self.state + self.head_dim))

    def keeps(self, width: int) -> tuple[Kept, ...]:
        """The states and angles, and B and x of the last token, in float32; the same at any length."""
        last = self.rank * self.state + self.head_dim
        return (
            Kept(
                "recurrent", self.inner * self.state + self.heads * (self.turning + last), "sequence", dtype="float32"
            ),
        )

    def saved(self, width: int) -> int:
        states = self.inner * self.state // CHUNK
        return width + sum(self.sizes) + (2 + 3 * self.rank) * self.inner + 3 * self.heads + states
