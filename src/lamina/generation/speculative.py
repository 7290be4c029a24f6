"""Speculative decoding: tokens are drafted cheaply, and one pass of the model says which of them stand.

What comes out is what plain decoding gives: token for token when greedy, and by the same distribution otherwise.
Source: arXiv 2211.17192 (drafts, and rejection that keeps the distribution); 2412.19437, section 2.2 (drafting heads).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from lamina.errors import LaminaError
from lamina.generation.sampling import Sampling, filter_logits, sample, seen_tokens
from lamina.nn.state import State, states
from lamina.nn.step import Step

WAITING = 64
"""Places that the heads may lag behind: more are read at once, as those of a prompt."""


class Draft(NamedTuple):
    """A token that may come next, and the distribution that it was drawn from (None if it was the best)."""

    id: int
    chances: Float[Tensor, " vocab"] | None


class Drafter(Protocol):
    """What guesses the tokens to come."""

    def read(self, ids: Sequence[int], hidden: Float[Tensor, "1 m D"]) -> None:
        """Tokens that stand, and what the model's last norm gave of those that it has passed."""
        ...

    def draft(self, count: int, chooser: Chooser) -> list[Draft]:
        """The next tokens, at most so many."""
        ...


class Chooser:
    """How tokens are chosen from logits, for one row."""

    def __init__(self, sampling: Sampling, generator: torch.Generator) -> None:
        self.sampling, self.generator = sampling, generator

    def chances(self, logits: Float[Tensor, " vocab"], seen: Tensor | None = None) -> Float[Tensor, " vocab"]:
        return filter_logits(logits[None], self.sampling, seen)[0].softmax(-1)

    def draft(self, logits: Float[Tensor, " vocab"]) -> Draft:
        if self.sampling.greedy:
            return Draft(int(logits.argmax()), None)
        chances = self.chances(logits)
        return Draft(self.drawn(chances), chances)

    def drawn(self, chances: Float[Tensor, " vocab"]) -> int:
        return int(torch.multinomial(chances.cpu(), 1, generator=self.generator))

    def plain(self, logits: Float[Tensor, " vocab"], seen: Tensor | None) -> int:
        """As plain decoding chooses."""
        return int(sample(logits[None], self.sampling, [self.generator], seen))

    def judged(self, logits: Float[Tensor, " vocab"], draft: Draft, seen: Tensor | None) -> tuple[int, bool]:
        """The token that stands in the place of a draft, and whether it is the draft."""
        if draft.chances is None:
            best = self.plain(logits, seen)
            return best, best == draft.id
        chances = self.chances(logits, seen)
        draw = float(torch.rand(1, generator=self.generator))
        if draw * float(draft.chances[draft.id]) < float(chances[draft.id]):
            return draft.id, True
        return self.drawn((chances - draft.chances).clamp(min=0)), False


class HeadDrafter:
    """Drafts with the model's own heads for later tokens; the last of them goes on, on what it gave, for more.

    `held` has what the model (first) and each head gave at the places that the next head has not read for good; a
    head's state holds its places up to there.
    """

    def __init__(self, model: Any, capacity: int, count: int) -> None:
        self.model, self.heads = model, list(model.prediction)
        like = {"dtype": model.dtype, "device": model.device}
        room = {"capacity": capacity, "rewind": count + len(self.heads)}
        self.states = [State(1, capacity, states(head, 1, **room, **like), None) for head in self.heads]
        if not all(state.rewinds(min(room["rewind"], capacity)) for state in self.states):
            raise LaminaError("the heads for later tokens keep what cannot be taken back, so they cannot draft")
        empty = torch.empty(1, 0, model.arch.width, **like)
        self.held = [empty] * (len(self.heads) + 1)
        self.ids: list[int] = []
        self.passed = 0  # tokens whose hidden states are known

    def read(self, ids: Sequence[int], hidden: Float[Tensor, "1 m D"]) -> None:
        self.ids += ids
        self.passed += hidden.shape[1]
        self.held[0] = torch.cat([self.held[0], hidden], 1)
        if self.held[0].shape[1] > WAITING:
            self._pass(0, None)

    def draft(self, count: int, chooser: Chooser) -> list[Draft]:
        return self._pass(count, chooser)

    def _pass(self, count: int, chooser: Chooser | None) -> list[Draft]:
        """Each head over the places whose tokens are known or drafted; then back to those that are known.

        The last place of all is read only to draft from it.
        """
        drafts: list[Draft] = []
        standing: list[int] = []
        known, given, out = len(self.ids), self.held[0], self.held[0]
        sure, until = self.passed, self.passed if chooser else self.passed - 1  # what is known for good, and read
        for d, (head, state) in enumerate(zip(self.heads, self.states, strict=True), 1):
            start, stop = state.lengths[0], min(until, known + len(drafts) - d)
            tokens = [*self.ids[start + d :], *(draft.id for draft in drafts)][: max(stop - start, 0)]
            out = self._apply(head, state, given[:, : len(tokens)], tokens)
            if chooser and tokens and stop == self.passed and len(drafts) < count:
                drafts.append(chooser.draft(self._logits(head, out)))
            stands = max(start, min(stop, known - d))
            self.held[d - 1] = given[:, stands - start : sure - start]
            standing.append(stands)
            given, sure = torch.cat([self.held[d], out], 1), stands
        while chooser and drafts and out.shape[1] and len(drafts) < count:
            out = self._apply(self.heads[-1], self.states[-1], out[:, -1:], [drafts[-1].id])
            drafts.append(chooser.draft(self._logits(self.heads[-1], out)))
        for state, stands in zip(self.states, standing, strict=True):
            state.rewind([stands])
        return drafts

    def _apply(self, head: Any, state: State, before: Tensor, tokens: Sequence[int]) -> Tensor:
        if not tokens:
            return before[:, :0]
        ids = torch.tensor([tokens], device=self.model.device)
        step = Step(ids, self.model.dtype, state.layers.__getitem__, state.lengths, [len(tokens)])
        out = head(before, self.model.embedding(ids, step), step)
        state.advance([len(tokens)])
        return out

    def _logits(self, head: Any, out: Tensor) -> Float[Tensor, " vocab"]:
        return self.model.logits(head.norm(out[:, -1:]))[0, -1]


class ModelDrafter:
    """Drafts with another model of the same vocabulary."""

    def __init__(self, model: Any, capacity: int, count: int) -> None:
        self.model, self.state = model, model.init_state(1, capacity, rewind=count)
        self.ids: list[int] = []

    def read(self, ids: Sequence[int], hidden: Float[Tensor, "1 m D"]) -> None:
        self.ids += ids

    def draft(self, count: int, chooser: Chooser) -> list[Draft]:
        new, drafts = self.ids[self.state.lengths[0] :], []
        logits = self.model(torch.tensor([new], device=self.model.device), self.state, last=True)
        stands = list(self.state.lengths)
        saved = None if self.state.rewinds(count) else self.state.snapshot(count)
        while True:
            drafts.append(chooser.draft(logits[0, -1]))
            if len(drafts) == count:
                break
            logits = self.model(torch.tensor([[drafts[-1].id]], device=self.model.device), self.state)
        if saved is None:
            self.state.rewind(stands)
        else:
            self.state.restore(saved)
        return drafts


class Outcome(NamedTuple):
    """What one pass of the model gave: the tokens that stand, of which all but the last were drafted.

    Units: `state_bytes` is what the model's state holds
    """

    ids: list[int]
    drafted: int
    state_bytes: int


def speculate(
    model: Any,
    drafter: Drafter,
    prompt: Sequence[int],
    chooser: Chooser,
    *,
    count: int,
    limit: int,
    capacity: int,
    chunk: int,
) -> Iterator[Outcome]:
    """Continues one prompt, one to `count` + 1 tokens at a time, up to `limit`; the first comes of the prompt alone.

    Units: count of tokens drafted a pass; limit and capacity in tokens; chunk of prompt tokens read at a time
    """
    state = model.init_state(1, capacity, rewind=count)
    penalty = chooser.sampling.repetition_penalty != 1
    seen = seen_tokens([prompt], model.arch.vocab, model.device) if penalty else None

    def chosen(id: int) -> int:
        if seen is not None:
            seen[0, id] = True
        return id

    pieces, hidden = torch.tensor([prompt], device=model.device).split(chunk, 1), None
    for piece in pieces:
        hidden = model.hidden(piece, state)
        drafter.read(piece[0].tolist(), hidden)
    assert hidden is not None
    last, made = chosen(chooser.plain(model.logits(hidden[:, -1:])[0, -1], seen)), 1
    drafter.read([last], hidden[:, :0])
    yield Outcome([last], 0, state.nbytes)
    while made < limit:
        drafts = drafter.draft(min(count, limit - made - 1), chooser) if made + 1 < limit else []
        ids = torch.tensor([[last, *(draft.id for draft in drafts)]], device=model.device)
        saved = None if state.rewinds(len(drafts)) else state.snapshot(len(drafts) + 1)
        start = state.lengths[0]
        hidden = model.hidden(ids, state)
        logits, stand = model.logits(hidden)[0], []
        for place, draft in enumerate(drafts):
            id, same = chooser.judged(logits[place], draft, seen)
            stand.append(chosen(id))
            if not same:
                break
        else:
            stand.append(chosen(chooser.plain(logits[len(drafts)], seen)))
        if len(stand) <= len(drafts):
            if saved is None:
                state.rewind([start + len(stand)])
            else:
                state.restore(saved)
                model.hidden(ids[:, : len(stand)], state)
        drafter.read(stand, hidden[:, : len(stand)])
        last, made = stand[-1], made + len(stand)
        yield Outcome(stand, len(drafts), state.nbytes)
