"""The decoding loop: prompts in, tokens out one by one as they are chosen."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, Unpack

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lamina.errors import LaminaError
from lamina.generation.prompts import Prompts, read_prompts
from lamina.generation.sampling import Choices, Sampling, generators, sample, seen_tokens, whole
from lamina.generation.speculative import Chooser, Drafter, HeadDrafter, ModelDrafter
from lamina.generation.speculative import speculate as speculated
from lamina.generation.stops import StopText, read_stops

Finished: TypeAlias = Literal["stop", "length", "eos"]


class State(Protocol):
    """What a model remembers of each row."""

    @property
    def nbytes(self) -> int: ...
    def select(self, rows: Any) -> None: ...


class Model(Protocol):
    """What generation needs of a model; `lamina.build` and `lamina.load` return one."""

    @property
    def arch(self) -> Any: ...
    @property
    def tokenizer(self) -> Any: ...
    @property
    def eos_ids(self) -> Sequence[int]: ...
    @property
    def device(self) -> torch.device: ...
    def init_state(self, batch: int, capacity: int) -> Any: ...
    def __call__(
        self, ids: Tensor, state: Any = None, *, lengths: Tensor | None = None, last: bool = False
    ) -> Tensor: ...


class Token(int):
    """One new token of one prompt: its id, which prints as its text.

    `text` is what became certain with it: empty while a character or a possible stop string is open. The
    end-of-sequence token has none of its own. The texts of a row joined are its whole continuation.
    """

    row: int
    text: str
    finished: Finished | None

    def __new__(cls, row: int, id: int, text: str, finished: Finished | None = None) -> Token:
        token = super().__new__(cls, id)
        token.row, token.text, token.finished = row, text, finished
        return token

    @property
    def id(self) -> int:
        return int(self)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Token(row={self.row}, id={self.id}, text={self.text!r}, finished={self.finished!r})"


@dataclass(slots=True)
class Stats:
    """What a generation has cost so far.

    Units: tokens summed over rows; seconds in the model and the sampler, without the caller's own time
           between tokens; bytes of the state with every row in it
    """

    rows: int
    prompt_tokens: int
    new_tokens: int = 0
    prefill_seconds: float = 0.0  # up to and including the first token of every row
    decode_seconds: float = 0.0
    state_bytes: int = 0
    drafted: int = 0  # tokens guessed by speculation, and how many of them stood
    accepted: int = 0

    @property
    def prefill_rate(self) -> float:
        """Prompt tokens a second (0 before the prefill)."""
        return self.prompt_tokens / self.prefill_seconds if self.prefill_seconds else 0.0

    @property
    def decode_rate(self) -> float:
        """New tokens a second after each row's first, which the prefill gave (0 before the second)."""
        return (self.new_tokens - self.rows) / self.decode_seconds if self.decode_seconds else 0.0

    @property
    def acceptance(self) -> float:
        """How many of the drafted tokens stood (0 if none were drafted)."""
        return self.accepted / self.drafted if self.drafted else 0.0


@dataclass(slots=True)
class _Row:
    """A prompt that is still being continued."""

    index: int
    stream: Any
    stops: StopText
    new: int = 0


@dataclass(slots=True)
class _Batch:
    """The rows still running and what advances with them, in the same order."""

    rows: list[_Row]
    state: Any
    generators: list[torch.Generator]
    seen: Tensor | None
    ids: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))

    def keep(self, places: list[int]) -> None:
        """Drop all rows but these, from the state too, so that the work shrinks."""
        self.rows = [self.rows[i] for i in places]
        self.generators = [self.generators[i] for i in places] if self.generators else []
        self.state.select(places)
        self.ids = self.ids[places]
        self.seen = None if self.seen is None else self.seen[places]


class Generation(Iterator[Token]):
    """Tokens as they come: an iterator that also knows what it has cost (`stats`).

    Nothing is computed before the first token is asked for, and one step of the model gives one token for
    every row still running. `close()` ends it early; inference mode is never left on between tokens.
    `prompts` are the ids that were read; `several` says whether a list of prompts was given.
    """

    def __init__(
        self,
        model: Model,
        prompts: list[list[int]],
        sampling: Sampling,
        *,
        several: bool,
        max_new_tokens: int,
        stops: Sequence[str],
        capacity: int,
        prefill_chunk: int,
        speculate: int = 0,
        draft: Model | None = None,
    ):
        self.prompts, self.several = prompts, several
        self.stats = Stats(rows=len(prompts), prompt_tokens=sum(map(len, prompts)))
        self._model, self._sampling, self._stops = model, sampling, stops
        self._max_new_tokens, self._capacity, self._chunk = max_new_tokens, capacity, prefill_chunk
        self._eos = frozenset(model.eos_ids)
        self._speculate, self._draft = speculate, draft
        run = self._run_speculating if speculate else self._run
        self._tokens = run() if max_new_tokens else iter(())

    def __next__(self) -> Token:
        return next(self._tokens)

    def close(self) -> None:
        """End now and let go of the state."""
        self._tokens = iter(())

    def _run(self) -> Iterator[Token]:
        started = time.perf_counter()
        batch = self._prefill()
        self.stats.prefill_seconds = time.perf_counter() - started
        while True:
            ids = batch.ids.tolist()
            self.stats.new_tokens += len(ids)
            running = []
            for place, (row, chosen) in enumerate(zip(batch.rows, ids, strict=True)):
                token = self._token(row, chosen)
                if token.finished is None:
                    running.append(place)
                yield token
            if not running:
                return
            started = time.perf_counter()
            self._decode(batch, running)
            self.stats.decode_seconds += time.perf_counter() - started

    def _run_speculating(self) -> Iterator[Token]:
        """One prompt after the other: their states would soon differ in length."""
        for index, prompt in enumerate(self.prompts):
            row = _Row(index, self._stream(), StopText(self._stops))
            yield from self._speculated(prompt, row)

    def _speculated(self, prompt: list[int], row: _Row) -> Iterator[Token]:
        chooser = Chooser(self._sampling, generators(self._sampling, 1)[0])
        count, room = self._speculate, self._capacity + self._speculate
        with torch.inference_mode():
            if self._draft is None:
                drafter: Drafter = HeadDrafter(self._model, room, count)
            else:
                drafter = ModelDrafter(self._draft, room, count)
        setting = {"count": count, "limit": self._max_new_tokens, "capacity": room, "chunk": self._chunk}
        outcomes = speculated(self._model, drafter, prompt, chooser, **setting)
        while True:
            started = time.perf_counter()
            with torch.inference_mode():
                outcome = next(outcomes, None)
            if row.new:
                self.stats.decode_seconds += time.perf_counter() - started
            else:
                self.stats.prefill_seconds += time.perf_counter() - started
            if outcome is None:
                return
            self.stats.drafted += outcome.drafted
            self.stats.accepted += len(outcome.ids) - 1
            self.stats.state_bytes = outcome.state_bytes
            for id in outcome.ids:
                self.stats.new_tokens += 1
                token = self._token(row, id)
                yield token
                if token.finished:
                    return

    def _stream(self) -> Any:
        return self._model.tokenizer.stream() if self._model.tokenizer else None

    @torch.inference_mode()
    def _prefill(self) -> _Batch:
        """Read the prompts, at most `prefill_chunk` tokens of each at a time, and choose the first tokens.

        Every prompt is cut into the same number of even pieces, so that all end in the last one. A prompt
        with fewer tokens than there are pieces has pieces of length 0.
        """
        model, sampling, device = self._model, self._sampling, self._model.device
        state = model.init_state(batch=len(self.prompts), capacity=self._capacity)
        pieces = -(-max(map(len, self.prompts)) // self._chunk)
        logits = None
        for piece in range(pieces):
            cut = [ids[len(ids) * piece // pieces : len(ids) * (piece + 1) // pieces] for ids in self.prompts]
            lengths = [len(ids) for ids in cut]
            padded = pad_sequence([torch.tensor(ids, dtype=torch.int64) for ids in cut], batch_first=True)
            uneven = None if len(set(lengths)) == 1 else torch.tensor(lengths, device=device)
            logits = model(padded.to(device), state, lengths=uneven, last=True)
        assert logits is not None
        self.stats.state_bytes = state.nbytes
        batch = _Batch(
            rows=[_Row(index, self._stream(), StopText(self._stops)) for index in range(len(self.prompts))],
            state=state,
            generators=[] if sampling.greedy else generators(sampling, len(self.prompts)),
            seen=None
            if sampling.repetition_penalty == 1
            else seen_tokens(self.prompts, logits.shape[-1], logits.device),
        )
        self._choose(batch, logits)
        return batch

    @torch.inference_mode()
    def _decode(self, batch: _Batch, running: list[int]) -> None:
        """One more token for each of the rows still running."""
        if len(running) < len(batch.rows):
            batch.keep(running)
        self._choose(batch, self._model(batch.ids[:, None], batch.state))

    def _choose(self, batch: _Batch, logits: Tensor) -> None:
        batch.ids = sample(logits[:, -1], self._sampling, batch.generators, batch.seen)
        if batch.seen is not None:
            batch.seen.scatter_(1, batch.ids[:, None], True)

    def _token(self, row: _Row, chosen: int) -> Token:
        """What a chosen id means for its row: the text it makes certain, and whether the row ends."""
        row.new += 1
        finished: Finished | None = None
        if chosen in self._eos:
            finished = "eos"
        elif row.new == self._max_new_tokens:
            finished = "length"
        if row.stream is None:
            return Token(row.index, chosen, "", finished)
        piece = "" if finished == "eos" else row.stream.push(chosen)
        if finished:
            piece += row.stream.finish()
        text, stopped = row.stops.push(piece)
        if stopped:
            finished = "stop"
        elif finished:
            text += row.stops.finish()
        return Token(row.index, chosen, text, finished)


def generate(
    model: Model,
    prompt: Prompts,
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    stop: str | Sequence[str] = (),
    capacity: int | None = None,
    prefill_chunk: int = 512,
    speculate: int = 0,
    draft: Model | None = None,
    **sampling: Unpack[Choices],
) -> Generation:
    """Continue one prompt or several, token by token; several give the same as each alone.

    `temperature` 0 is greedy; `sampling` takes top_k, top_p, min_p, repetition_penalty and seed (see `Sampling`).

    With `speculate`, so many tokens are drafted a step, by the model's own heads for later tokens or by a `draft`
    model of the same vocabulary, and one pass says which of them stand: the tokens are those of plain decoding (in
    distribution, if they are sampled), `stats.acceptance` says how many of the drafted stood. Several prompts are then
    continued one after the other.

    A row ends with the model's end-of-sequence token, a stop string (itself not part of the text) or
    `max_new_tokens`. Everything is checked here, and computed when the tokens are asked for.

    Shapes: prompt is text, ids or a tensor [T], or a list of those, or a tensor [B T]
    Units: max_new_tokens, capacity (of the state, a row; default: what is needed), prefill_chunk in tokens
    Raises: LaminaError for whatever cannot be done as asked
    """
    choosing = Sampling(temperature, **sampling)
    _check_speculation(model, speculate, draft)
    whole("max_new_tokens", max_new_tokens, "a whole number, 0 or more", least=0)
    whole("prefill_chunk", prefill_chunk, "a whole number of tokens, 1 or more", least=1)
    stops = read_stops(stop)
    if stops and model.tokenizer is None:
        raise LaminaError("stop strings need text but the model has no tokenizer: leave stop empty")
    if model.arch.bidirectional:
        raise LaminaError("this model looks both ways and is not continued token by token; see lamina.objectives")
    prompts, several = read_prompts(prompt, model.tokenizer, model.arch.vocab)
    longest = max(map(len, prompts))
    needed = longest + max_new_tokens
    if capacity is not None:
        whole("capacity", capacity, "None or a whole number of tokens, 1 or more", least=1)
        if needed > capacity:
            raise LaminaError(
                f"the prompt ({longest} tokens) and max_new_tokens ({max_new_tokens}) come to {needed}, "
                f"past the capacity of {capacity} tokens"
            )
    cut = {"max_new_tokens": max_new_tokens, "capacity": capacity or needed, "prefill_chunk": prefill_chunk}
    guess = {"speculate": speculate, "draft": draft}
    return Generation(model, prompts, choosing, several=several, stops=stops, **cut, **guess)


def _check_speculation(model: Model, speculate: int, draft: Model | None) -> None:
    """Raises: LaminaError if nothing can draft, or what is drafted is of another vocabulary."""
    whole("speculate", speculate, "a whole number of tokens, 0 (no speculation) or more", least=0)
    if draft is not None and not speculate:
        raise LaminaError("a draft model is given, but speculate is 0: say how many tokens it drafts a step")
    if speculate and draft is None and model.arch.prediction is None:
        raise LaminaError("this model has no heads for later tokens to speculate with: give a draft model")
    if draft is not None and draft.arch.vocab != model.arch.vocab:
        raise LaminaError(
            f"the draft model has a vocabulary of {draft.arch.vocab} tokens and the model one of {model.arch.vocab}; "
            "they must be the same"
        )


def complete(model: Model, prompt: Prompts, **options: Any) -> str | list[str]:
    """The continuation as text, or a list of them for several prompts; `options` are those of `generate`.

    Raises: LaminaError as `generate` does, and if the model has no tokenizer
    """
    if model.tokenizer is None:
        raise LaminaError("the model has no tokenizer, so it cannot complete text: use complete_ids")
    generation = generate(model, prompt, **options)
    texts = [""] * generation.stats.rows
    for token in generation:
        texts[token.row] += token.text
    return texts if generation.several else texts[0]


def complete_ids(model: Model, prompt: Prompts, **options: Any) -> list[int] | list[list[int]]:
    """The new ids, or a list of them for several prompts, with the end-of-sequence id if one came.

    Raises: LaminaError as `generate` does
    """
    generation = generate(model, prompt, **options)
    rows: list[list[int]] = [[] for _ in generation.prompts]
    for token in generation:
        rows[token.row].append(token.id)
    return rows if generation.several else rows[0]
