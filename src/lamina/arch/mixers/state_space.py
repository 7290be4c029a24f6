"""State-space models: a diagonal recurrence whose coefficients depend on the input."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from lamina.arch.measure import CHUNK, Kept, Shape, Work, linear, matrices, within
from lamina.arch.mixers.base import Mixer
from lamina.arch.mixers.lightning_attention import linear_attention
from lamina.arch.norm import Norm, RMSNorm


class Mamba2(Mixer):
    """S <- a S + (d x) B^T; y = S C + skip x, with H heads of P channels, a P x N state and a step `d` each.

    The step is softplus(projection + bias), held between `step_min` and `step_max`; the decay a = exp(-rate d). B and
    C of N numbers are shared by the heads of each of `groups`. A short convolution and a SiLU run over x, B and C.
    The output is times SiLU(gate), then normalised in each of `norm_groups` (before the gate if `norm_first`).

    Fields: `bias` is that of the input projection, `output_bias` that of the output projection; `multipliers` are on
    what the input projection gives: gate, x, B, C and step (Falcon-H1).
    Source: arXiv 2405.21060, section 7.
    """

    kind: Literal["mamba2"] = "mamba2"
    heads: PositiveInt
    head_dim: PositiveInt
    groups: PositiveInt = 1
    state: PositiveInt
    convolution: PositiveInt = 4
    convolution_bias: bool = True
    bias: bool = False
    norm: Norm | None = RMSNorm()
    norm_groups: PositiveInt = 1
    norm_first: bool = False
    output_bias: bool = False
    step_min: NonNegativeFloat = 0.0
    step_max: PositiveFloat | None = None
    multipliers: tuple[float, float, float, float, float] = (1.0, 1.0, 1.0, 1.0, 1.0)

    @model_validator(mode="after")
    def _consistent(self) -> Mamba2:
        if self.heads % self.groups:
            raise ValueError(f"heads ({self.heads}) must be a multiple of groups ({self.groups})")
        if self.inner % self.norm_groups:
            raise ValueError(f"heads * head_dim ({self.inner}) must be a multiple of norm_groups ({self.norm_groups})")
        if self.step_max is not None and self.step_max < self.step_min:
            raise ValueError(f"step_max ({self.step_max}) must not be below step_min ({self.step_min})")
        return self

    @property
    def inner(self) -> int:
        return self.heads * self.head_dim

    @property
    def channels(self) -> int:
        """Of x, B and C together, which the convolution runs over."""
        return self.inner + 2 * self.groups * self.state

    def weights(self, width: int) -> dict[str, Shape]:
        named = linear("in_proj", self.inner + self.channels + self.heads, width, self.bias)
        named |= {"convolution.weight": (self.channels, 1, self.convolution)}
        named |= {"convolution.bias": (self.channels,)} if self.convolution_bias else {}
        named |= {"step_bias": (self.heads,), "decay_log_rate": (self.heads,), "skip": (self.heads,)}
        named |= within("norm", self.norm.weights(self.inner)) if self.norm else {}
        return named | linear("o_proj", width, self.inner, self.output_bias)

    def work(self, width: int, memory: int = 0, decoding: bool = False) -> Work:
        """The rule is linear attention, C being the queries, B the keys, and x times the step the values."""
        rule = linear_attention(self.heads, self.state, self.head_dim, self.groups)
        others = 2 * matrices(self.weights(width)) + 2 * self.channels * self.convolution
        return rule._replace(token=rule.token + others)

    def keeps(self, width: int) -> tuple[Kept, ...]:
        """A P x N matrix a head in float32, and the convolution's last inputs; the same at any length."""
        return (
            Kept("recurrent", self.inner * self.state, each="sequence", dtype="float32"),
            Kept("convolution", self.channels * (self.convolution - 1), each="sequence"),
        )

    def saved(self, width: int) -> int:
        states = self.inner * self.state // CHUNK
        return width + 3 * self.channels + 4 * self.inner + 2 * self.heads + states


class Mamba(Mixer):
    """The selective scan: s <- exp(-rate d) s + d x B; y = s . C + skip x, with N states in each of `inner` channels.

    x goes through a short convolution and a SiLU; the step d = softplus(projection + bias) comes from x through a
    bottleneck of `rank`, B and C come from x; the output is times SiLU(gate). `norms` normalises the bottleneck, B
    and C (Jamba, Falcon-Mamba). `bias` is that of the input and output projections. Channels may fall into `heads` with
    a bottleneck, B and C each; with `interleaved`, a channel's x and gate are projected by neighbouring rows (Zamba).
    Source: arXiv 2312.00752, algorithm 2.
    """

    kind: Literal["mamba"] = "mamba"
    inner: PositiveInt
    state: PositiveInt
    rank: PositiveInt
    convolution: PositiveInt = 4
    convolution_bias: bool = True
    bias: bool = False
    norms: Norm | None = None
    heads: PositiveInt = 1
    interleaved: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Mamba:
        if self.inner % self.heads:
            raise ValueError(f"inner ({self.inner}) must be a multiple of heads ({self.heads})")
        return self

    def weights(self, width: int) -> dict[str, Shape]:
        named = linear("in_proj", 2 * self.inner, width, self.bias)
        named |= {"convolution.weight": (self.inner, 1, self.convolution)}
        named |= {"convolution.bias": (self.inner,)} if self.convolution_bias else {}
        named |= linear("x_proj", self.heads * (self.rank + 2 * self.state), self.inner // self.heads)
        named |= linear("step_proj", self.inner, self.rank, bias=True)
        named |= {"decay_log_rate": (self.inner, self.state), "skip": (self.inner,)}
        for part, size in (("step", self.rank), ("b", self.state), ("c", self.state)):
            named |= within(f"{part}_norm", self.norms.weights(size)) if self.norms else {}
        return named | linear("o_proj", width, self.inner, self.bias)

    def work(self, width: int, memory: int = 0, decoding: bool = False) -> Work:
        """As Mamba2: a token writes and reads the state, 4 N a channel; the scan has no chunked form."""
        products = {name: shape for name, shape in self.weights(width).items() if name != "decay_log_rate"}
        return Work(2 * matrices(products) + 2 * self.inner * (self.convolution + 2 * self.state))

    def keeps(self, width: int) -> tuple[Kept, ...]:
        """N numbers a channel in float32, and the convolution's last inputs; the same at any length."""
        return (
            Kept("recurrent", self.inner * self.state, each="sequence", dtype="float32"),
            Kept("convolution", self.inner * (self.convolution - 1), each="sequence"),
        )

    def saved(self, width: int) -> int:
        states = self.inner * self.state // CHUNK
        # x; what the convolution reads, and before and after its SiLU; the step before and after softplus; y; the gate
        # before and after its SiLU; what it lets through
        return width + 9 * self.inner + self.heads * (self.rank + 2 * self.state) + states
