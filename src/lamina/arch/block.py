"""Blocks: residual branches around mixers and feed-forwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from pydantic import Field, NonNegativeInt, model_validator

from lamina.arch.base import Node, Op, one_of
from lamina.arch.channel_mix import ChannelMix
from lamina.arch.feedforward import GLU, MLP
from lamina.arch.measure import Kept, Shape, Work, within
from lamina.arch.mixers import (
    MLSTM,
    RGLRU,
    RWKV7,
    SLSTM,
    Attention,
    CompressedAttention,
    CompressedConvolutionalAttention,
    CrossAttention,
    DeltaNet,
    DifferentialAttention,
    DistanceAttention,
    GatedConvolution,
    GatedDeltaNet,
    GatedLinearAttention,
    KimiDeltaAttention,
    LatentAttention,
    LightningAttention,
    LinearAttention,
    Mamba,
    Mamba2,
    Mamba3,
    RelativeAttention,
    Retention,
    SequenceGLU,
    ShortConvolution,
)
from lamina.arch.moe import MoE
from lamina.arch.norm import Norm
from lamina.arch.per_layer import PerLayerInput
from lamina.arch.residual import AnyResidual
from lamina.arch.shared_transformer import SharedTransformer
from lamina.arch.short_filter import ShortFilter

AnyMixer = (
    Attention
    | CompressedAttention
    | CompressedConvolutionalAttention
    | CrossAttention
    | DeltaNet
    | DifferentialAttention
    | DistanceAttention
    | GatedConvolution
    | GatedDeltaNet
    | GatedLinearAttention
    | KimiDeltaAttention
    | LatentAttention
    | LightningAttention
    | LinearAttention
    | MLSTM
    | Mamba
    | Mamba2
    | Mamba3
    | RelativeAttention
    | Retention
    | RGLRU
    | RWKV7
    | SequenceGLU
    | ShortConvolution
    | SLSTM
)
AnyFeedForward = MLP | GLU | MoE | PerLayerInput | ChannelMix
if TYPE_CHECKING:
    SingleOp = AnyMixer | AnyFeedForward
else:
    SingleOp = one_of(*get_args(AnyMixer), *get_args(AnyFeedForward))


def named(ops: tuple[Op, ...]) -> dict[str, Op]:
    """Ops by their role; the second of a role is `role_2`, and so on."""
    names: dict[str, Op] = {}
    for op in ops:
        count = 1 + sum(name.rpartition("_")[0] == op.role or name == op.role for name in names)
        names[op.role if count == 1 else f"{op.role}_{count}"] = op
    return names


class Parallel(Op):
    """Several ops that read the same input; their outputs are added (Cohere: attention and feed-forward).

    `before` and `after` are norms of what each op reads and gives, one for each op, if there are any (Gemma 4).
    `lands` says of each op how many branches later its output is added, if not all at once (the shortcut of
    LongCat-Flash's experts, arXiv 2509.01322). `multipliers` are what the outputs are multiplied by (Falcon-H1).
    """

    kind: Literal["parallel"] = "parallel"
    ops: Annotated[tuple[SingleOp, ...], Field(min_length=2)]
    before: tuple[Norm | None, ...] = ()
    after: tuple[Norm | None, ...] = ()
    lands: tuple[NonNegativeInt, ...] = ()
    multipliers: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Parallel:
        for name, entries in (("lands", self.lands), ("multipliers", self.multipliers)):
            if entries and len(entries) != len(self.ops):
                raise ValueError(f"{name} has {len(entries)} entries for {len(self.ops)} ops")
        for name, norms in (("before", self.before), ("after", self.after)):
            if norms and len(norms) != len(self.ops):
                raise ValueError(f"{name} has {len(norms)} norms for {len(self.ops)} ops")
        return self

    @property
    def role(self) -> str:
        return "parallel"

    def named_ops(self) -> dict[str, Op]:
        return named(self.ops)

    @property
    def norms(self) -> dict[str, Norm]:
        """Its norms, by where they stand."""
        places = {"before": self.before, "after": self.after}
        return {
            f"{role}.{place}": norm
            for place, norms in places.items()
            for role, norm in zip(self.named_ops(), norms, strict=False)  # there may be none
            if norm
        }

    def weights(self, width: int) -> dict[str, Shape]:
        return {
            name: shape
            for role, op in self.named_ops().items()
            for name, shape in within(role, op.weights(width)).items()
        }

    def unused(self, width: int) -> int:
        return sum(op.unused(width) for op in self.ops)

    def work(self, width: int, memory: int = 0, decoding: bool = False) -> Work:
        parts = [op.work(width, memory, decoding) for op in self.ops]
        pairs = tuple(pair for part in parts for pair in part.pairs)
        orders = tuple(order for part in parts for order in part.orders)
        summed = {name: sum(getattr(part, name) for part in parts) for name in ("token", "once", "chunked", "crossed")}
        return Work(pairs=pairs, orders=orders, **summed)

    def keeps(self, width: int) -> tuple[Kept, ...]:
        return tuple(kept for op in self.ops for kept in op.keeps(width))

    def borrows(self, width: int) -> tuple[Kept, ...]:
        return tuple(kept for op in self.ops for kept in op.borrows(width))

    def saved(self, width: int) -> int:
        """The input, which they share, is saved once."""
        return sum(op.saved(width) for op in self.ops) - (len(self.ops) - 1) * width


if TYPE_CHECKING:
    AnyOp = AnyMixer | AnyFeedForward | Parallel
    AnyAside = SharedTransformer
else:
    AnyOp = one_of(*get_args(AnyMixer), *get_args(AnyFeedForward), Parallel)
    AnyAside = one_of(SharedTransformer)


class Branch(Node):
    """One residual branch: y = x + multiplier * gate * after(op(before(x))), then norm(y) if `joined` is set.

    Pre-norm sets `before`; OLMo 2 sets `after`; Gemma both; the post-norm of the first transformer (and of
    TRM) is `joined`, a norm of the sum. `gate` is a learned scalar behind a tanh. `attended_only` gives
    zero to tokens that see no memory (the feed-forwards of Llama 3.2 Vision's cross-attention blocks).
    `residual` says what takes the place of x + where that is more than x; `filter` is a short convolution of what
    the op gives. A `gate` "factor" is a learned number without a tanh. What `aside` gives of x is added to what the op
    reads, op(before(x + aside(x))), and not to the stream (Zamba).
    """

    op: AnyOp
    before: Norm | None = None
    after: Norm | None = None
    joined: Norm | None = None
    gate: Literal["tanh", "factor"] | None = None
    multiplier: float = 1.0
    attended_only: bool = False
    residual: AnyResidual | None = None
    filter: ShortFilter | None = None
    aside: AnyAside | None = None

    @property
    def norms(self) -> dict[str, Norm]:
        """Its norms, by where they stand."""
        places = {"before": self.before, "after": self.after, "joined": self.joined}
        within_op = self.op.norms if isinstance(self.op, Parallel) else {}
        return {place: norm for place, norm in places.items() if norm} | within_op

    def norm_weights(self, width: int) -> dict[str, Shape]:
        """Of its norms; one of the sum around a mixer that works along the sequence runs along it too."""
        along = self.op.length if isinstance(self.op, SequenceGLU) else width
        sizes = {"joined": along}
        weights: dict[str, Shape] = {}
        for place, norm in self.norms.items():
            role, _, side = place.rpartition(".")
            weights |= within(f"op.{side}.{role}" if role else place, norm.weights(sizes.get(place, width)))
        return weights

    def gate_weights(self) -> dict[str, Shape]:
        """Of the gate that its output passes."""
        return {"gate": (1,)} if self.gate else {}

    def named_ops(self, name: str) -> dict[str, Op]:
        """Its op under the branch's name; those of a Parallel one by one under theirs."""
        return self.op.named_ops() if isinstance(self.op, Parallel) else {name: self.op}


class Block(Node):
    """What is repeated: residual branches, one after the other.

    A block with cross-attention is passed over while there is no memory to read. `scaled` multiplies what it gives by
    a stored number (Gemma 4).
    """

    branches: Annotated[tuple[Branch, ...], Field(min_length=1)]
    scaled: bool = False

    def check(self) -> None:
        """Raises: ValueError if an output lands beyond the last branch.

        An architecture asks this of each different block once; as a validator it would run for every one.
        """
        for i, branch in enumerate(self.branches):
            lands = branch.op.lands if isinstance(branch.op, Parallel) else ()
            if i + max(lands, default=0) >= len(self.branches):
                raise ValueError(f"branches[{i}].op.lands goes beyond the {len(self.branches)} branches there are")

    def named_branches(self) -> dict[str, Branch]:
        """The branches by the role of what they compute: mixer, cross_attention, feed_forward, parallel."""
        names = named(tuple(branch.op for branch in self.branches))
        return dict(zip(names, self.branches, strict=True))

    def ops(self) -> Iterator[Op]:
        """Every mixer and feed-forward, those of a Parallel one by one; before an op what stands aside of it."""
        for branch in self.branches:
            if branch.aside:
                yield branch.aside
            yield from branch.op.ops if isinstance(branch.op, Parallel) else (branch.op,)


def kinds(blocks: Sequence[Block]) -> tuple[list[Block], list[int]]:
    """The different blocks in order of appearance, and which of them stands at each place."""
    different: list[Block] = []
    known: dict[int, int] = {}
    for block in blocks:
        if id(block) not in known:
            if block not in different:
                different.append(block)
            known[id(block)] = different.index(block)
    return different, [known[id(block)] for block in blocks]
