"""A conversation: its messages, and a state that holds what the model has read of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch

from lamina.cli.options import SamplingOptions
from lamina.cli.usage import Usage
from lamina.errors import LaminaError
from lamina.generation import Sampling, generators, sample, seen_tokens
from lamina.generation.stops import StopText, read_stops

_PIECE = 128  # tokens fed at once, so that an interruption is noticed soon


class Conversation:
    """Turns of a user and a model.

    With a chat template the whole conversation is rendered at each turn; where that only adds to what the
    state holds, only what is new is read. Without one (`templated` False) each text is continued by itself.

    Fields: `stopped` set by anyone ends the current answer; `usage` sums up all turns; `finish` says why the
    last answer ended: "eos", "stop", "length", "full" (the context), "stopped".
    """

    def __init__(self, model: Any, options: SamplingOptions, capacity: int, system: str | None = None) -> None:
        self.model, self.capacity, self.system = model, capacity, system
        self.templated = model.tokenizer.chat_template is not None
        self.messages: list[dict[str, str]] = []
        self.usage = Usage(capacity=capacity)
        self.stopped, self.finish = False, ""
        self._sampling = Sampling(**options.sampling)
        self._generators = generators(self._sampling, 1)
        self._stops, self._most = read_stops(options.stop or ()), options.max_new_tokens
        self._read: list[int] = []
        self._state: Any = None

    def reset(self) -> None:
        """Forget all turns; the system message stays."""
        self.messages = []
        self.forget_state()

    def forget_state(self) -> None:
        """Read everything anew at the next turn."""
        self._read, self._state = [], None

    @property
    def length(self) -> int:
        """Tokens that the state holds."""
        return len(self._read)

    def answer(self, text: str) -> Iterator[str]:
        """The model's answer to `text`, piece by piece. What came of a stopped answer stays in the conversation.

        Raises: LaminaError, with the conversation as it was before, if it does not fit or cannot be rendered
        """
        self.stopped, self.finish = False, ""
        ids = self._ids(text)
        if len(ids) >= self.capacity:
            turns = "the conversation" if self.messages else "the text"
            advice = "/reset starts a new one" if self.messages else "shorten it"
            raise LaminaError(
                f"{turns} would be {len(ids):,} tokens, and the context holds {self.capacity:,}; {advice}"
            )
        said = ""
        try:
            for piece in self._continue(ids):
                said += piece
                yield piece
        finally:
            if self.templated and (said or not self.stopped):
                self.messages += [{"role": "user", "content": text}, {"role": "assistant", "content": said}]

    def _ids(self, text: str) -> list[int]:
        tokenizer = self.model.tokenizer
        if not self.templated:
            self.forget_state()
            return tokenizer.encode(text)
        system = [{"role": "system", "content": self.system}] if self.system else []
        turn = {"role": "user", "content": text}
        return tokenizer.encode(tokenizer.render([*system, *self.messages, turn]), special=False)

    def _continue(self, ids: list[int]) -> Iterator[str]:
        started = time.perf_counter()
        logits = self._prefill(ids)
        self.usage.prefill_seconds += time.perf_counter() - started
        seen = None
        if self._sampling.repetition_penalty != 1:
            seen = seen_tokens([ids], self.model.arch.vocab, self.model.device)
        stream, stops, new = self.model.tokenizer.stream(), StopText(self._stops), 0
        self.finish = "stopped"
        while not self.stopped and logits is not None:
            token = self._choose(logits, seen)
            new += 1
            self.usage.new_tokens += 1
            if token in self.model.eos_ids:
                self.finish = "eos"
                break
            text, complete = stops.push(stream.push(token))
            yield text
            if complete:
                self.finish = "stop"
                return
            if new == self._most or len(self._read) >= self.capacity:
                self.finish = "length" if new == self._most else "full"
                break
            started = time.perf_counter()
            logits = self._feed([token])
            self.usage.decoded_tokens += 1
            self.usage.decode_seconds += time.perf_counter() - started
        text, complete = stops.push(stream.finish())
        yield text if complete else text + stops.finish()

    def _prefill(self, ids: list[int]) -> torch.Tensor | None:
        """Reads what the state does not hold yet; the last logits, or None if it was stopped."""
        held = len(self._read)
        if self._state is None or held >= len(ids) or ids[:held] != self._read:
            self.forget_state()
            self._state = self.model.init_state(batch=1, capacity=self.capacity)
            held = 0
        self.usage.state_bytes = self._state.nbytes
        logits = None
        for start in range(held, len(ids), _PIECE):
            if self.stopped:
                return None
            piece = ids[start : start + _PIECE]
            logits = self._feed(piece)
            self.usage.prompt_tokens += len(piece)
        return logits

    @torch.inference_mode()
    def _feed(self, ids: list[int]) -> torch.Tensor:
        logits = self.model(torch.tensor([ids], device=self.model.device), self._state, last=True)
        self._read += ids
        return logits

    @torch.inference_mode()
    def _choose(self, logits: torch.Tensor, seen: torch.Tensor | None) -> int:
        chosen = sample(logits[:, -1], self._sampling, self._generators, seen)
        if seen is not None:
            seen.scatter_(1, chosen[:, None], True)
        return int(chosen)
