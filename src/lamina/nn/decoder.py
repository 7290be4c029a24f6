"""The model around its blocks: embedding, final norm, head, and the state that the caller owns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lamina.arch import Architecture
from lamina.arch.mixers import CrossAttention
from lamina.arch.model import Causal, MaskedDiffusion
from lamina.arch.model import Embedding as EmbeddingValue
from lamina.arch.model import Head as HeadValue
from lamina.arch.position import LearnedPositions
from lamina.errors import LaminaError
from lamina.nn import streams
from lamina.nn.basic import norm
from lamina.nn.block import blocks
from lamina.nn.made import STATE, Made, given
from lamina.nn.per_layer import PerLayerInputs
from lamina.nn.prediction import heads
from lamina.nn.registry import reads
from lamina.nn.state import Fresh, State, states
from lamina.nn.step import Step
from lamina.ops.linear import linear, lookup
from lamina.ops.packed import Packed

reads(Architecture, "name family embedding blocks norm head objective recursion loops context prediction stream")
reads(EmbeddingValue, "vocab width placeholders scale positions task per_layer affine norm")
reads(HeadValue, "tied scale softcap bias padding")
reads(LearnedPositions, "length")
reads(Causal)
reads(MaskedDiffusion, "mask_token")


class Affine(nn.Module):
    """(x + bias) * scale, number by number. Shapes: x [... D] -> [... D]"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias, self.scale = nn.Parameter(torch.empty(width)), nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.bias) * self.scale


class Embedding(nn.Module):
    """affine(scale * (norm(table[id]) + position)); what goes to the blocks themselves is left in the step.

    Shapes: ids [B T] -> [B T D]
    """

    packable: ClassVar = ("table",)
    table: nn.Parameter | Packed

    def __init__(self, value: EmbeddingValue) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(value.vocab + value.placeholders, value.width))
        learned = value.positions
        self.positions = nn.Parameter(torch.empty(learned.length, value.width)) if learned else None
        self.scale = value.scale
        self.norm = norm(value.norm, value.width)
        self.affine = Affine(value.width) if value.affine else None
        self.per_layer = PerLayerInputs(value.per_layer, value.width) if value.per_layer else None

    def forward(self, ids: Int[Tensor, "B T"], step: Step) -> Float[Tensor, "B T D"]:
        x = lookup(ids, self.table)
        x = x if self.norm is None else self.norm(x)
        if self.positions is not None:
            last = max(start + n for start, n in zip(step.starts, step.lengths, strict=True))
            if last > len(self.positions):
                raise LaminaError(f"{last} tokens pass the {len(self.positions)} learned positions of this model")
            x = x + self.positions[step.positions.clamp(max=len(self.positions) - 1)]
        x = x if self.scale == 1.0 else x * self.scale
        x = x if self.affine is None else self.affine(x)
        if self.per_layer is not None:
            self.per_layer(ids, x, step)
        return x


class Head(nn.Module):
    """softcap(scale * (W x + b)), W being the embedding table where the two are tied.

    Shapes: x [B T D] -> [B T vocab]
    """

    packable: ClassVar = ("weight",)
    weight: nn.Parameter | Packed | None

    def __init__(self, value: HeadValue, vocab: int, width: int) -> None:
        super().__init__()
        self.weight = None if value.tied else nn.Parameter(torch.empty(vocab, width))
        self.bias = nn.Parameter(torch.empty(vocab)) if value.bias else None
        self.vocab, self.scale, self.softcap = vocab, value.scale, value.softcap
        self.tokens = vocab - value.padding

    def forward(self, x: Float[Tensor, "B T D"], table: Tensor | Packed) -> Float[Tensor, "B T vocab"]:
        weight: Tensor | Packed | None = self.weight
        if weight is None:
            weight = table.cut(0, self.vocab) if isinstance(table, Packed) else table[: self.vocab]
        logits = linear(x, weight, self.bias)[..., : self.tokens].float()
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


@dataclass(frozen=True)
class TokenIds:
    """Tokens with a meaning of their own: what begins a text, what ends one, what fills up a batch."""

    bos: int | None = None
    eos: tuple[int, ...] = ()
    pad: int | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> TokenIds:
        """Those that a config.json names; what is no token id counts as none."""

        def ids(key: str) -> tuple[int, ...]:
            value = config.get(f"{key}_token_id")
            values = value if isinstance(value, list) else [value]
            return tuple(v for v in values if isinstance(v, int) and not isinstance(v, bool) and v >= 0)

        return cls(next(iter(ids("bos")), None), ids("eos"), next(iter(ids("pad")), None))

    def joined(self, tokenizer: Any) -> TokenIds:
        """These, and what a tokenizer adds to them."""
        return TokenIds(
            tokenizer.bos_id if self.bos is None else self.bos,
            tuple(dict.fromkeys((*tokenizer.eos_ids, *self.eos))),
            tokenizer.pad_id if self.pad is None else self.pad,
        )

    def as_config(self) -> dict[str, Any]:
        """The keys of a config.json; all three, for a key that is absent gets a default from the reference."""
        eos = self.eos[0] if len(self.eos) == 1 else list(self.eos) or None
        return {"bos_token_id": self.bos, "eos_token_id": eos, "pad_token_id": self.pad}


class Model(nn.Module):
    """What every model has beside its parameters.

    Fields: `arch` the value it was built from; `tokenizer` or None; `source_path` the file or directory it
    came from; `token_ids` the tokens that begin and end a text; `ignored` what was passed over in loading, and why.
    """

    arch: Architecture
    tokenizer: Any = None
    source_path: Path | None = None
    token_ids: TokenIds = TokenIds()
    ignored: Mapping[str, str] = MappingProxyType({})

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        self.embedding = Embedding(arch.embedding)
        self.entering = streams.entering(arch.stream, arch.width)
        self.blocks = blocks(arch.blocks, arch.width, arch.stream, arch.vocab + arch.embedding.placeholders)
        self.joining = streams.joining(arch.stream, arch.width)
        self.norm = norm(arch.norm, arch.width)
        self.head = Head(arch.head, arch.vocab, arch.width)

    def init_state(self, batch: int = 1, capacity: int | None = None) -> Any:
        """An empty state for `batch` rows, which the caller owns."""
        raise TypeError(f"{type(self).__name__} does not make a state")

    @property
    def eos_ids(self) -> tuple[int, ...]:
        return self.token_ids.eos

    @property
    def device(self) -> torch.device:
        return self.embedding.table.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.table.dtype

    def check_ids(self, ids: Any, name: str = "ids") -> None:
        """Raises: LaminaError unless ids are whole numbers [B T] within the vocabulary."""
        if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.dtype not in (torch.int64, torch.int32):
            seen = f"{ids.dtype} {list(ids.shape)}" if isinstance(ids, Tensor) else type(ids).__name__
            raise LaminaError(f"{name} must be an int64 tensor of [batch, tokens], not {seen}")
        if not ids.numel():
            raise LaminaError(f"{name} is empty ({list(ids.shape)}); at least one token is needed")
        rows = len(self.embedding.table)
        low, high = (0, 0) if ids.is_meta else (int(bound) for bound in ids.aminmax())
        if low < 0 or high >= rows:
            raise LaminaError(f"token id {low if low < 0 else high} is outside the vocabulary, 0 to {rows - 1}")


class Decoder(Model):
    """A stack of blocks between an embedding and a head.

    `model(ids)` gives the logits of every token; `model(ids, state)` continues from a state that the caller
    made with `init_state`. Attention looks back only, or both ways if the objective says so.
    """

    def __init__(self, arch: Architecture) -> None:
        super().__init__(arch)
        self.frequencies = _frequencies(arch)
        self.prediction = heads(arch.prediction, arch.width) if arch.prediction else None

    def init_state(self, batch: int = 1, capacity: int | None = None, rewind: int = 0) -> State:
        """An empty state for `batch` rows of at most `capacity` tokens (the model's context if not given).

        The last `rewind` tokens can be taken back (`State.rewind`); windows hold as many more for that.

        Raises: LaminaError for sizes below one, or where attention looks both ways and nothing can be kept.
        """
        capacity = self.arch.context if capacity is None else capacity
        if self.arch.bidirectional:
            raise LaminaError(f"{self.arch.objective.kind} reads the whole sequence at each step and keeps no state")
        if any(type(n) is not int or n < 1 for n in (batch, capacity)):
            raise LaminaError(f"batch ({batch}) and capacity ({capacity}) must be whole numbers of at least 1")
        assert capacity
        like: dict[str, Any] = {"dtype": self.dtype, "device": self.device}
        passes = (states(self.blocks, batch, capacity, rewind=rewind, **like) for _ in range(self.arch.loops))
        layers = [layer for each in passes for layer in each]
        ids = torch.zeros(batch, capacity, dtype=torch.int64, device=self.device)
        made = Made(self.arch, **like, capacity=capacity, rewind=rewind)
        return State(batch, capacity, layers, ids if self.arch.depends_on_length else None, made)

    def forward(
        self,
        ids: Int[Tensor, "B T"],
        state: State | None = None,
        *,
        lengths: Int[Tensor, " B"] | None = None,
        last: bool = False,
        memory: Float[Tensor, "B M Dm"] | None = None,
        memory_mask: Bool[Tensor, "B T M"] | None = None,
    ) -> Float[Tensor, "B T vocab"]:
        """Logits of T tokens a row, float32.

        `lengths` says how many of a row's tokens are real (padding on the right; its logits mean nothing); a
        row of length 0 does not move on.
        `last` asks for the last real token of each row only: [B 1 vocab]. `memory` is what cross-attention
        reads, given once a state; `memory_mask` is True where a token sees it, and once given, later tokens
        see what the last one saw.

        Raises: LaminaError for ids, lengths or a state that do not fit each other.
        """
        read = self.hidden(ids, state, lengths=lengths, last=last, memory=memory, memory_mask=memory_mask)
        return self.logits(read)

    def logits(self, hidden: Float[Tensor, "B T D"]) -> Float[Tensor, "B T vocab"]:
        """The logits of what the last norm gave."""
        return self.head(hidden, self.embedding.table)

    def hidden(
        self,
        ids: Int[Tensor, "B T"],
        state: State | None = None,
        *,
        lengths: Int[Tensor, " B"] | None = None,
        last: bool = False,
        memory: Float[Tensor, "B M Dm"] | None = None,
        memory_mask: Bool[Tensor, "B T M"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """What the last norm gives of each token, which the head reads; the arguments are those of `forward`."""
        self.check_ids(ids)
        counts = _lengths(ids, lengths)
        self._check_memory(memory, memory_mask, ids)
        if state is not None:
            self._check_state(state, len(ids))
            state.check_room(counts)
            if state.history is not None:
                if self._stale(state, counts):
                    if state.has_memory or memory is not None:
                        raise LaminaError(
                            "a state with a memory cannot grow past where rotary angles change; start anew"
                        )
                    return self._again(ids, state, counts, last)
                _remember(state, ids, counts)
        step = self._step(ids, state, counts, memory, memory_mask)
        x = step.shared["embedded"] = self.embedding(ids, step)
        if self.entering is not None:
            x = self.entering(x)
        for loop in range(self.arch.loops):
            step.begin(loop * len(state.layers) // self.arch.loops if state else 0)
            x = self.norm(x) if loop and self.norm is not None else x
            for block in self.blocks:
                x = block(x, step)
        if self.joining is not None:
            x = self.joining(x)
        if last:
            x = x[torch.arange(len(ids), device=x.device), torch.tensor(counts, device=x.device) - 1][:, None]
        if self.norm is not None:
            x = self.norm(x)
        if state is not None:
            state.advance(counts)
        return x

    def _check_state(self, state: Any, rows: int) -> None:
        """Raises: LaminaError for what is no state, or one of another architecture or number of rows."""
        given(state, State, STATE)
        made, table = state.made, self.embedding.table
        apart = made is not None and (made.dtype != table.dtype or made.device != table.device)
        if made is not None and (apart or made.arch is not self.arch):
            made.check(Made(self.arch, self.dtype, self.device), "the state")
            state.made = made._replace(arch=self.arch)  # so that an equal one is compared once
        if state.batch != rows:
            raise LaminaError(f"the state holds {state.batch} rows and ids {rows}; they must agree")

    def _step(
        self, ids: Tensor, state: State | None, counts: list[int], memory: Tensor | None, mask: Tensor | None
    ) -> Step:
        fresh = Fresh()
        if state is not None:
            if mask is None and state.memory_mask is not None:
                mask = state.memory_mask[:, None].expand(-1, ids.shape[1], -1)
            elif mask is not None:
                state.memory_mask = mask[torch.arange(len(ids)), torch.tensor(counts) - 1]
        step = Step(
            ids,
            self.dtype,
            layers=(lambda slot: fresh) if state is None else state.layers.__getitem__,
            starts=[0] * len(ids) if state is None else state.lengths,
            lengths=counts,
            bidirectional=self.arch.bidirectional,
            memory=memory,
            memory_mask=mask,
        )
        if self.frequencies is not None:
            step.frequencies = dict(self.frequencies.items())
        step.has_memory = memory is not None or (state is not None and state.has_memory)
        return step

    def _check_memory(self, memory: Tensor | None, mask: Tensor | None, ids: Tensor) -> None:
        """Raises: LaminaError for a memory that nothing reads, or whose shape or mask does not fit."""
        if memory is None and mask is None:
            return
        widths = {op.memory_width for op in self.arch.ops() if isinstance(op, CrossAttention)}
        if not widths:
            raise LaminaError("this model has no cross-attention, so there is nothing to read a memory")
        if memory is not None and (memory.ndim != 3 or len(memory) != len(ids) or memory.shape[2] not in widths):
            raise LaminaError(f"memory must be [{len(ids)}, places, {min(widths)}], not {list(memory.shape)}")
        if mask is not None and (mask.ndim != 3 or mask.shape[:2] != ids.shape):
            raise LaminaError(f"memory_mask must be [{len(ids)}, {ids.shape[1]}, places], not {list(mask.shape)}")

    # -- rotary scalings that look at the length of the whole sequence

    def _stale(self, state: State, counts: list[int]) -> bool:
        """Whether the new tokens change the angles under which a row's earlier keys were rotated."""
        return any(
            held and rotary.regime(held) != rotary.regime(held + new)
            for rotary in self.arch.rotaries()
            for held, new in zip(state.lengths, counts, strict=True)
        )

    def _again(self, ids: Tensor, state: State, counts: list[int], last: bool) -> Tensor:
        """Reads each row from its beginning, so that continuing equals reading all at once."""
        assert state.history is not None
        assert state.made is not None
        starts = state.lengths
        _remember(state, ids, counts)
        totals = [start + new for start, new in zip(starts, counts, strict=True)]
        everything = state.history[:, : max(totals)].clone()
        state.lengths = [0] * state.batch
        state.layers = self.init_state(state.batch, state.capacity, state.made.rewind).layers
        hidden = self.hidden(everything, state, lengths=torch.tensor(totals), last=last)
        if last:
            return hidden
        tokens = torch.arange(ids.shape[1], device=ids.device)
        places = (torch.tensor(starts, device=ids.device)[:, None] + tokens).clamp(max=hidden.shape[1] - 1)
        return hidden[torch.arange(len(ids), device=ids.device)[:, None], places]


def _frequencies(arch: Architecture) -> nn.ParameterDict | None:
    """What is learned of the frequencies of rotary embeddings; all blocks with as many share it."""
    counts = {rotary.dim // 2 for rotary in arch.rotaries() if rotary.learned}
    made = {f"scale_{count}": nn.Parameter(torch.empty(count)) for count in sorted(counts)}
    return nn.ParameterDict(made) if made else None


def _lengths(ids: Tensor, lengths: Any) -> list[int]:
    if lengths is None:
        return [ids.shape[1]] * len(ids)
    counts = lengths.tolist() if isinstance(lengths, Tensor) else lengths
    if not isinstance(counts, list | tuple) or len(counts) != len(ids) or any(type(n) is not int for n in counts):
        raise LaminaError(f"lengths must be {len(ids)} whole numbers, one for each row, not {counts!r:.60}")
    if any(not 0 <= n <= ids.shape[1] for n in counts):
        raise LaminaError(f"lengths {counts} must lie within the {ids.shape[1]} tokens of a row, from 0")
    return list(counts)


def _remember(state: State, ids: Tensor, counts: list[int]) -> None:
    assert state.history is not None
    for row, (start, new) in enumerate(zip(state.lengths, counts, strict=True)):
        state.history[row, start : start + new] = ids[row, :new]
