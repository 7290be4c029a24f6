"""The architecture as a value: what a model is, with nothing said about how it is run or stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError, model_validator

from lamina.arch.base import Node, Op, bytes_of, describe
from lamina.arch.feedforward import GLU, MLP
from lamina.arch.measure import Kept, Shape, Work, within
from lamina.arch.mixers import (
    Attention,
    CrossAttention,
    GatedDeltaNet,
    KimiDeltaAttention,
    LatentAttention,
    Mamba,
    Mamba2,
    SequenceGLU,
    ShortConvolution,
)
from lamina.arch.moe import MoE
from lamina.arch.norm import Norm
from lamina.arch.position import LearnedPositions
from lamina.errors import LaminaError

AnyMixer = (
    Attention
    | CrossAttention
    | GatedDeltaNet
    | KimiDeltaAttention
    | LatentAttention
    | Mamba
    | Mamba2
    | SequenceGLU
    | ShortConvolution
)
AnyFeedForward = MLP | GLU | MoE
SingleOp = Annotated[AnyMixer | AnyFeedForward, Field(discriminator="kind")]


def named(ops: tuple[Op, ...]) -> dict[str, Op]:
    """Ops by their role; the second of a role is `role_2`, and so on."""
    names: dict[str, Op] = {}
    for op in ops:
        count = 1 + sum(name.rpartition("_")[0] == op.role or name == op.role for name in names)
        names[op.role if count == 1 else f"{op.role}_{count}"] = op
    return names


class Parallel(Op):
    """Several ops that read the same input; their outputs are added (Cohere: attention and feed-forward)."""

    kind: Literal["parallel"] = "parallel"
    ops: Annotated[tuple[SingleOp, ...], Field(min_length=2)]

    @property
    def role(self) -> str:
        return "parallel"

    def named_ops(self) -> dict[str, Op]:
        return named(self.ops)

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
        return Work(sum(part.token for part in parts), pairs, sum(part.once for part in parts))

    def keeps(self, width: int) -> tuple[Kept, ...]:
        return tuple(kept for op in self.ops for kept in op.keeps(width))

    def saved(self, width: int) -> int:
        """The input, which they share, is saved once."""
        return sum(op.saved(width) for op in self.ops) - (len(self.ops) - 1) * width


AnyOp = Annotated[AnyMixer | AnyFeedForward | Parallel, Field(discriminator="kind")]


class Branch(Node):
    """One residual branch: y = x + multiplier * gate * after(op(before(x))), then norm(y) if `joined` is set.

    Pre-norm sets `before`; OLMo 2 sets `after`; Gemma both; the post-norm of the first transformer (and of
    TRM) is `joined`, a norm of the sum. `gate` is a learned scalar behind a tanh. `attended_only` gives
    zero to tokens that see no memory (the feed-forwards of Llama 3.2 Vision's cross-attention blocks).
    """

    op: AnyOp
    before: Norm | None = None
    after: Norm | None = None
    joined: Norm | None = None
    gate: Literal["tanh"] | None = None
    multiplier: float = 1.0
    attended_only: bool = False

    @property
    def norms(self) -> tuple[Norm, ...]:
        return tuple(norm for norm in (self.before, self.after, self.joined) if norm)

    def own_parameters(self, width: int) -> int:
        """Parameters of the norms and the gate, without the op's."""
        return sum(norm_parameters(self, norm, width) for norm in self.norms) + (self.gate is not None)


def norm_parameters(branch: Branch, norm: Norm, width: int) -> int:
    """A norm of the sum around a mixer that works along the sequence runs along the sequence too."""
    along = branch.op.length if isinstance(branch.op, SequenceGLU) else width
    return norm.parameters(along)


class Block(Node):
    """What is repeated: residual branches, one after the other.

    A block with cross-attention is passed over while there is no memory to read.
    """

    branches: Annotated[tuple[Branch, ...], Field(min_length=1)]

    def named_branches(self) -> dict[str, Branch]:
        """The branches by the role of what they compute: mixer, cross_attention, feed_forward, parallel."""
        names = named(tuple(branch.op for branch in self.branches))
        return dict(zip(names, self.branches, strict=True))

    def ops(self) -> Iterator[Op]:
        """Every mixer and feed-forward, those of a Parallel one by one."""
        for branch in self.branches:
            yield from branch.op.ops if isinstance(branch.op, Parallel) else (branch.op,)

    def parameters(self, width: int) -> int:
        return sum(branch.op.parameters(width) + branch.own_parameters(width) for branch in self.branches)

    def active_parameters(self, width: int) -> int:
        return sum(branch.op.active_parameters(width) + branch.own_parameters(width) for branch in self.branches)


class TaskEmbedding(Node):
    """A learned vector for each task, of `width` numbers, put before the sequence as `tokens` tokens.

    Where `width` does not fill those tokens, zeros do (HRM and TRM call a task a puzzle).
    """

    count: PositiveInt
    width: PositiveInt
    tokens: PositiveInt


class Embedding(Node):
    """Token ids to vectors: scale * (table[id] + position).

    `placeholders` are rows beyond the vocabulary for tokens that are read but never predicted (images).
    Source of `scale`: arXiv 1706.03762, section 3.4.
    """

    vocab: PositiveInt
    width: PositiveInt
    placeholders: NonNegativeInt = 0
    scale: PositiveFloat = 1.0
    positions: LearnedPositions | None = None
    task: TaskEmbedding | None = None

    def parameters(self) -> int:
        positions = self.positions.parameters(self.width) if self.positions else 0
        task = self.task.count * self.task.width if self.task else 0
        return (self.vocab + self.placeholders) * self.width + positions + task


class Head(Node):
    """Vectors to logits: softcap(scale * (W x + b)); W is the embedding table when `tied`."""

    tied: bool = False
    scale: PositiveFloat = 1.0
    softcap: PositiveFloat | None = None
    bias: bool = False

    def parameters(self, vocab: int, width: int) -> int:
        return (0 if self.tied else vocab * width) + (vocab if self.bias else 0)


class Causal(Node):
    """Predict the next token; attention looks back only."""

    kind: Literal["causal"] = "causal"


class MaskedDiffusion(Node):
    """Predict the tokens hidden behind `mask_token`; attention looks both ways. Source: arXiv 2502.09992."""

    kind: Literal["masked_diffusion"] = "masked_diffusion"
    mask_token: NonNegativeInt


class DeepSupervision(Node):
    """Predict the answer after each outer step, up to `max_steps`; attention looks both ways.

    Source: arXiv 2506.21734 (HRM), 2510.04871 (TRM). `exploration` is how often training asks for more steps.
    """

    kind: Literal["deep_supervision"] = "deep_supervision"
    max_steps: PositiveInt
    exploration: float = 0.1


Objective = Annotated[Causal | MaskedDiffusion | DeepSupervision, Field(discriminator="kind")]


class Span(Node):
    """The blocks from `start` up to, not including, `stop`."""

    start: NonNegativeInt
    stop: PositiveInt

    @model_validator(mode="after")
    def _not_empty(self) -> Span:
        if self.stop <= self.start:
            raise ValueError(f"a span of blocks needs stop ({self.stop}) above start ({self.start})")
        return self


class Recursion(Node):
    """Stacks applied again and again to a carry of a high and a low latent.

    One outer step is `high_cycles` times: `low_cycles` times low = L(low + high + input), then
    high = H(high + low). L and H are the spans of blocks below; TRM uses one stack as both. `gradient` says
    what is differentiated: the whole last high cycle (TRM) or the last step of each level (HRM).
    """

    low: Span
    high: Span
    low_cycles: PositiveInt
    high_cycles: PositiveInt
    gradient: Literal["last_cycle", "last_step"] = "last_cycle"

    def parameters(self, width: int) -> int:
        """The head that decides whether to halt: two numbers, with a bias."""
        return 2 * width + 2


class Parameters(NamedTuple):
    """Numbers learned: all of them (tied ones once), those one token uses, those of the embedding."""

    total: int
    active: int
    embedding: int


class Architecture(Node):
    """A language model's architecture.

    `family` names the published layout (config keys, tensor names) it is read from and written to; `name` is
    a label: two architectures that differ in it alone are equal. `context` is the longest sequence the
    publisher states, in tokens.
    """

    name: str = ""
    family: str
    embedding: Embedding
    blocks: Annotated[tuple[Block, ...], Field(min_length=1)]
    norm: Norm | None = None
    head: Head = Head()
    objective: Objective = Causal()
    recursion: Recursion | None = None
    context: PositiveInt | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Architecture:
        if self.recursion and max(self.recursion.low.stop, self.recursion.high.stop) > len(self.blocks):
            raise ValueError(f"recursion names blocks beyond the {len(self.blocks)} there are")
        rows = self.embedding.vocab + self.embedding.placeholders
        if isinstance(self.objective, MaskedDiffusion) and self.objective.mask_token >= rows:
            raise ValueError(f"mask_token ({self.objective.mask_token}) must be one of the {rows} tokens")
        return self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Architecture):
            return NotImplemented
        return all(getattr(self, f) == getattr(other, f) for f in type(self).model_fields if f != "name")

    def __hash__(self) -> int:
        return hash((self.family, self.embedding, self.blocks, self.head))

    @property
    def vocab(self) -> int:
        return self.embedding.vocab

    @property
    def width(self) -> int:
        return self.embedding.width

    @property
    def bidirectional(self) -> bool:
        """Whether attention looks both ways, which the objective decides."""
        return not isinstance(self.objective, Causal)

    def ops(self) -> Iterator[Op]:
        for block in self.blocks:
            yield from block.ops()

    # -- cost: sums of what each part says of itself

    def parameters(self) -> Parameters:
        """How many numbers are learned.

        Returns: total (tied weights once), active (what one token uses: the experts it is routed to, and of
        an untied embedding table nothing is left out), embedding (token table, positions, tasks).
        """
        width, embedding = self.width, self.embedding.parameters()
        rest = embedding + self.head.parameters(self.vocab, width)
        rest += self.norm.parameters(width) if self.norm else 0
        rest += self.recursion.parameters(width) if self.recursion else 0
        total = rest + sum(self._per_block(lambda block: block.parameters(width)))
        active = rest + sum(self._per_block(lambda block: block.active_parameters(width)))
        return Parameters(total, active, embedding)

    def state_bytes(self, context: int, batch: int = 1, dtype: str = "bfloat16", memory: int = 0) -> int:
        """Bytes that the state object of `batch` sequences of `context` tokens holds.

        `memory` is how many cross-attended tokens (image patches) each sequence has.
        Raises: LaminaError for a negative size or an unknown dtype.
        """
        if min(context, batch, memory) < 0:
            raise LaminaError(f"context ({context}), batch ({batch}) and memory ({memory}) must not be negative")
        itemsize = bytes_of(dtype)
        if self.recursion:  # the carry: two latents over the whole sequence, whatever came before
            return batch * 2 * (context + self._prefix) * self.width * itemsize
        if self.bidirectional:
            return 0  # every step reads the whole sequence again
        history = 8 * context if self.depends_on_length else 0
        read = (self.width, context, itemsize, memory)
        per_block = self._per_block(lambda block: sum(op.state_bytes(*read) for op in block.ops()))
        return batch * (sum(per_block) + history)

    def flops(self, tokens: int = 1, context: int = 0, memory: int = 0) -> int:
        """Forward FLOPs of `tokens` new tokens after `context` earlier ones; a multiply-accumulate is 2.

        Matrix products only, without norms, activations and softmax; the logits of every new token are counted.
        Where attention looks both ways, each pass reads all tokens again: earlier ones cost as much as new ones.
        """
        if min(tokens, context, memory) < 0:
            raise LaminaError(f"tokens ({tokens}), context ({context}) and memory ({memory}) must not be negative")
        causal = not self.bidirectional
        if not causal:
            tokens, context = tokens + context, 0
        head, read = 2 * tokens * self.width * self.vocab, (tokens + self._prefix, context, memory, causal)
        counts = self._per_block(lambda block: sum(op.flops(self.width, *read) for op in block.ops()))
        if self.recursion is None:
            return head + sum(counts)
        r, halting = self.recursion, 4 * self.width
        low = sum(counts[r.low.start : r.low.stop]) * r.low_cycles
        return head + halting + r.high_cycles * (low + sum(counts[r.high.start : r.high.stop]))

    @property
    def _prefix(self) -> int:
        """How many vectors stand before the tokens."""
        return self.embedding.task.tokens if self.embedding.task else 0

    @property
    def depends_on_length(self) -> bool:
        """Whether earlier keys go stale as a sequence grows (rotary scalings that look at the length)."""
        return any(op.rotary.depends_on_length for op in self.ops() if isinstance(op, Attention) and op.rotary)

    def _per_block(self, measure: Callable[[Block], int]) -> list[int]:
        """A measure of every block, computed once for blocks that are the same object."""
        known: dict[int, int] = {}
        for block in self.blocks:
            if id(block) not in known:
                known[id(block)] = measure(block)
        return [known[id(block)] for block in self.blocks]

    # -- as text

    def to_json(self, indent: int | None = None) -> str:
        """The whole value as JSON, without loss."""
        return self.model_dump_json(indent=indent)

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """The value that `to_json` wrote.

        Raises: LaminaError, naming the path of the first field that is wrong.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise LaminaError(f"not an architecture in JSON: {describe(error)}") from None
