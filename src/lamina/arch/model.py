"""The architecture as a value: what a model is, with nothing said about how it is run or stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, PrivateAttr, ValidationError, model_validator

from lamina.arch.base import Node, Op, describe, one_of
from lamina.arch.bill import Line, lines, of_prediction
from lamina.arch.block import Block, kinds
from lamina.arch.encoder import Encoder
from lamina.arch.measure import Shape, Work, linear, numbers, within
from lamina.arch.mixers import Attention, DifferentialAttention, LatentAttention
from lamina.arch.ngrams import NgramTables
from lamina.arch.norm import Norm
from lamina.arch.per_layer import PerLayerInputs
from lamina.arch.position import LearnedPositions, Rotary
from lamina.arch.precision import cache_bytes
from lamina.arch.prediction import Prediction
from lamina.arch.shared_transformer import SharedTransformer
from lamina.arch.streams import AnyStreams
from lamina.errors import LaminaError

if TYPE_CHECKING:
    from lamina.arch.cost import Cost


class TaskEmbedding(Node):
    """A learned vector for each task, of `width` numbers, put before the sequence as `tokens` tokens.

    Where `width` does not fill those tokens, zeros do (HRM and TRM call a task a puzzle).
    """

    count: PositiveInt
    width: PositiveInt
    tokens: PositiveInt


class Embedding(Node):
    """Token ids to vectors: scale * (table[id] + position).

    `placeholders` are rows beyond the vocabulary for tokens that are read but never predicted (images);
    `per_layer` are vectors that go to the blocks themselves; `affine` adds a learned vector, then multiplies by one.
    `ngrams` are vectors of the last few tokens, averaged with that; `norm` normalises what is read of the table.
    Source of `scale`: arXiv 1706.03762, section 3.4.
    """

    vocab: PositiveInt
    width: PositiveInt
    placeholders: NonNegativeInt = 0
    scale: PositiveFloat = 1.0
    positions: LearnedPositions | None = None
    task: TaskEmbedding | None = None
    ngrams: NgramTables | None = None
    per_layer: PerLayerInputs | None = None
    affine: bool = False
    norm: Norm | None = None

    def weights(self) -> dict[str, Shape]:
        """The table, and what stands beside it."""
        named: dict[str, Shape] = {"weight": (self.vocab + self.placeholders, self.width)}
        if self.positions:
            named["positions.weight"] = (self.positions.length, self.width)
        if self.task:
            named["task.weight"] = (self.task.count, self.task.width)
        if self.per_layer:
            named |= within("per_layer", self.per_layer.weights(self.width))
        if self.affine:
            named |= {"affine.bias": (self.width,), "affine.scale": (self.width,)}
        if self.norm:
            named |= within("norm", self.norm.weights(self.width))
        return named

    def unused(self) -> int:
        """Parameters of the tables beside the token table that a token does not read."""
        return self.per_layer.unused() if self.per_layer else 0

    def looked_up(self) -> dict[str, int]:
        """How many numbers a token reads of each table, beside what it reads whole."""
        rows = {"weight": self.width, "positions.weight": self.width, "task.weight": 0}
        if self.per_layer:
            rows["per_layer.table.weight"] = self.per_layer.blocks * self.per_layer.width
        return {name: rows[name] for name in self.weights() if name in rows}

    def work(self) -> Work:
        """Forward FLOPs of matrix products."""
        return self.per_layer.work(self.width) if self.per_layer else Work(0)

    def saved(self) -> int:
        """Numbers of each token that the backward pass needs."""
        return self.per_layer.saved(self.width) if self.per_layer else 0

    def parameters(self) -> int:
        return numbers(self.weights().values())


class Head(Node):
    """Vectors to logits: softcap(scale * (W x + b)); W is the embedding table when `tied`.

    The last `padding` rows of W are of no token, and their logits are dropped.
    """

    tied: bool = False
    scale: PositiveFloat = 1.0
    softcap: PositiveFloat | None = None
    bias: bool = False
    padding: NonNegativeInt = 0

    def weights(self, vocab: int, width: int) -> dict[str, Shape]:
        """The matrix, unless it is the embedding's, and the bias."""
        matrix: dict[str, Shape] = {} if self.tied else {"weight": (vocab, width)}
        return matrix | {"bias": (vocab,)} if self.bias else matrix


class Causal(Node):
    """Predict the next token; attention looks back only.

    With `prefix`, tokens of a prompt that the caller marks as such also see each other (prefix language model).
    """

    kind: Literal["causal"] = "causal"
    prefix: bool = False


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
    what is differentiated: the whole last high cycle (TRM), the last step of each level (HRM), or every high step
    and, of each high cycle, the last so many low steps (HRM-Text). `enters` is where the input does: in each low
    step, or as the high latent at the start, which then is nowhere else (low starts at zero). `norm` is one of what a
    stack gives; `halting` is a head that decides whether to stop.
    """

    low: Span
    high: Span
    low_cycles: PositiveInt
    high_cycles: PositiveInt
    gradient: Literal["last_cycle", "last_step"] | tuple[NonNegativeInt, ...] = "last_cycle"
    enters: Literal["each_low_step", "start"] = "each_low_step"
    norm: Norm | None = None
    halting: bool = True

    def weights(self, width: int) -> dict[str, Shape]:
        """The head that decides whether to halt, two numbers with a bias, and the stacks' norms."""
        named = linear("halt", 2, width, bias=True) if self.halting else {}
        stacks = ("low",) if self.low == self.high else ("low", "high")
        each = self.norm.weights(width) if self.norm else {}
        for stack in stacks:
            named |= within(f"{stack}_norm", each)
        return named


if TYPE_CHECKING:
    AnyEncoder = Encoder
else:
    AnyEncoder = one_of(Encoder)


class Parameters(NamedTuple):
    """Numbers learned: all of them (tied ones once), those one token uses, those of the embedding."""

    total: int
    active: int
    embedding: int


class Architecture(Node):
    """A language model's architecture.

    `family` names the published layout (config keys, tensor names) it is read from and written to; `name` is
    a label: two architectures that differ in it alone are equal. The stack of blocks, with `norm` at its end, is
    passed `loops` times, each with a state of its own; an `exit_gate` scores after each whether to stop there.
    `stream` is what branches read and write where it is more than one sum. `encoders` turn images and sound into
    vectors that it reads beside tokens; without them it is the text decoder alone. `prediction` are heads for tokens
    after the next, with which it drafts (see `lamina.generate`). `context` is the longest sequence the publisher
    states, in tokens.
    """

    name: str = ""
    family: str
    embedding: Embedding
    blocks: Annotated[tuple[Block, ...], Field(min_length=1)]
    norm: Norm | None = None
    head: Head = Head()
    objective: Objective = Causal()
    recursion: Recursion | None = None
    loops: PositiveInt = 1
    exit_gate: bool = False
    stream: AnyStreams | None = None
    context: PositiveInt | None = None
    encoders: tuple[AnyEncoder, ...] = ()
    prediction: Prediction | None = None
    _bills: dict[int, tuple[Line, ...]] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Architecture:
        if self.recursion and max(self.recursion.low.stop, self.recursion.high.stop) > len(self.blocks):
            raise ValueError(f"recursion names blocks beyond the {len(self.blocks)} there are")
        for block in {id(block): block for block in self.blocks}.values():
            block.check()
        self._check_sources()
        inputs = self.embedding.per_layer
        if inputs and inputs.blocks != len(self.blocks):
            raise ValueError(f"embedding.per_layer is for {inputs.blocks} blocks, and there are {len(self.blocks)}")
        rows = self.embedding.vocab + self.embedding.placeholders
        if isinstance(self.objective, MaskedDiffusion) and self.objective.mask_token >= rows:
            raise ValueError(f"mask_token ({self.objective.mask_token}) must be one of the {rows} tokens")
        return self

    def _check_sources(self) -> None:
        """Raises: ValueError if a block reads keys and values, or weights, that no earlier block has."""
        for i, block in enumerate(self.blocks):
            for op in block.ops():
                if op.source is None:
                    continue
                lending = self.blocks[op.source].ops() if op.source < i else ()
                if not any(o.source is None and op.borrows_of(o) for o in lending):
                    what = "weights" if isinstance(op, SharedTransformer) else "keys and values"
                    raise ValueError(
                        f"blocks[{i}] reads the {what} of blocks[{op.source}]: expected is an earlier block "
                        f"whose {type(op).__name__} has its own"
                    )

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

    def different_ops(self) -> Iterator[Op]:
        """The ops of the blocks that differ, each once."""
        for block in kinds(self.blocks)[0]:
            yield from block.ops()

    # -- cost: sums over the bill

    def bill(self, memory: int = 0) -> tuple[Line, ...]:
        """What each part weighs, keeps and does; `memory` is how many cross-attended tokens a sequence has."""
        if memory not in self._bills:
            self._bills[memory] = tuple(lines(self, memory))
        return self._bills[memory]

    def parameters(self) -> Parameters:
        """How many numbers are learned.

        Returns: total (tied weights once), active (what one token uses: the experts it is routed to, and of
        an untied embedding table nothing is left out; encoders are not used by a token of text), embedding (token
        table, positions, tasks).
        """
        bill = self.bill()
        embedding = sum(line.parameters for line in bill if line.group == "embedding")
        return Parameters(sum(line.parameters for line in bill), sum(line.active for line in bill), embedding)

    @property
    def prediction_parameters(self) -> int:
        """Numbers learned in the heads for later tokens, which no total counts."""
        return sum(line.parameters for line in of_prediction(self))

    def state_bytes(self, context: int, batch: int = 1, dtype: str = "bfloat16", memory: int = 0) -> int:
        """Bytes that the state object of `batch` sequences of `context` tokens holds.

        `memory` is how many cross-attended tokens (image patches) each sequence has.
        Raises: LaminaError for a negative size or an unknown dtype.
        """
        if min(context, batch, memory) < 0:
            raise LaminaError(f"context ({context}), batch ({batch}) and memory ({memory}) must not be negative")
        itemsize = cache_bytes(dtype)
        return batch * sum(line.state_bytes(context, itemsize, memory) for line in self.bill(memory))

    def flops(self, tokens: int = 1, context: int = 0, memory: int = 0) -> int:
        """Forward FLOPs of `tokens` new tokens after `context` earlier ones; a multiply-accumulate is 2.

        Matrix products only, without norms, activations and softmax; the logits of every new token are counted. The
        tokens are of text: encoders do not run (see `Encoder.flops`).
        Where attention looks both ways, each pass reads all tokens again: earlier ones cost as much as new ones.
        """
        if min(tokens, context, memory) < 0:
            raise LaminaError(f"tokens ({tokens}), context ({context}) and memory ({memory}) must not be negative")
        if self.bidirectional:
            tokens, context = tokens + context, 0
        return sum(line.flops(tokens, context, not self.bidirectional, self.prefix) for line in self.bill(memory))

    def cost(self, **setting: Any) -> Cost:
        """What it costs at a context, batch and precisions; see `lamina.arch.cost.price` for the arguments."""
        from lamina.arch.cost import price

        return price(self, **setting)

    @property
    def prefix(self) -> int:
        """How many vectors stand before the tokens."""
        return self.embedding.task.tokens if self.embedding.task else 0

    @property
    def depends_on_length(self) -> bool:
        """Whether earlier keys go stale as a sequence grows (rotary scalings that look at the length)."""
        return any(rotary.depends_on_length for rotary in self.rotaries())

    def rotaries(self) -> set[Rotary]:
        """The rotary embeddings under which keys are kept."""
        turning = Attention, LatentAttention, DifferentialAttention, SharedTransformer
        return {op.rotary for op in self.different_ops() if isinstance(op, turning) and op.rotary}

    # -- edited

    def replace(self, path: str | None = None, part: Any = None, /, **fields: Any) -> Architecture:
        """The same architecture with another part at a path, or with some fields changed; checked again.

        `arch.replace("blocks[*].mixer", part)` keeps the norms around the mixers; `part` may be a function of the
        old part, or None to remove it. `arch.replace(context=8192)` changes fields.
        Raises: LaminaError, naming the path, if it matches nothing or the result contradicts itself.
        """
        if path is None:
            return super().replace(**fields)
        from lamina.arch.edit import replaced

        return replaced(self, path, part)

    def scaled(self, parameters: int, keep: Iterable[str] = ("vocab",)) -> Architecture:
        """A sibling of about so many parameters with the same proportions; see `lamina.arch.scale.scaled`."""
        from lamina.arch.scale import scaled

        return scaled(self, parameters, keep)

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
