"""How the next token is chosen from logits: the settings, the filters and the draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lamina.errors import LaminaError

COLDEST = 1e-5  # colder than this is greedy: float32 logits divided by less could overflow


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen: greedy at temperature 0, otherwise drawn from the filtered distribution.

    Units: top_k is a number of tokens (0 = all); top_p, min_p are probabilities (1.0, 0.0 = all);
           repetition_penalty divides positive and multiplies negative logits of tokens seen before
    Raises: LaminaError naming the field and what is accepted
    Source: top-p arXiv 1904.09751; min-p arXiv 2407.01082; repetition penalty arXiv 1909.05858, section 4.1
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        _number("temperature", self.temperature, "0 (greedy) or a finite number above it", lambda x: x >= 0)
        _number("top_p", self.top_p, "a number above 0 and up to 1 (1 keeps all)", lambda x: 0 < x <= 1)
        _number("min_p", self.min_p, "a number from 0 (keeps all) to 1", lambda x: 0 <= x <= 1)
        _number("repetition_penalty", self.repetition_penalty, "a finite number above 0", lambda x: x > 0)
        whole("top_k", self.top_k, "a whole number, 0 (keeps all) or more", least=0)
        if self.seed is not None:
            whole("seed", self.seed, "None or a whole number from 0 to 2**64 - 1", least=0, below=2**64)

    @property
    def greedy(self) -> bool:
        return self.temperature < COLDEST


class Choices(TypedDict, total=False):
    """The settings of `Sampling` besides the temperature."""

    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    seed: int | None


def _number(name: str, value: Any, accepted: str, holds) -> None:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not (good and math.isfinite(value) and holds(value)):
        raise LaminaError(f"{name} is {value!r}, but must be {accepted}")


def whole(name: str, value: Any, accepted: str, *, least: int, below: float = math.inf) -> int:
    """`value` if it is a whole number in [least, below).

    Raises: LaminaError naming the field and what is accepted
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < below:
        raise LaminaError(f"{name} is {value!r}, but must be {accepted}")
    return value


def generators(sampling: Sampling, rows: int) -> list[torch.Generator]:
    """One generator a row, all from the same seed, so that a prompt draws the same wherever it stands.

    Without a seed every row gets fresh entropy. They live on the CPU: a seed means the same on every device.
    """
    made = [torch.Generator() for _ in range(rows)]
    for generator in made:
        if sampling.seed is None:
            generator.seed()
        else:
            generator.manual_seed(sampling.seed)
    return made


def seen_tokens(rows: Sequence[Sequence[int]], vocab: int, device: torch.device) -> Bool[Tensor, "B vocab"]:
    """Which tokens each row already holds: the history that a repetition penalty needs."""
    seen = torch.zeros(len(rows), vocab, dtype=torch.bool, device=device)
    for row, ids in zip(seen, rows, strict=True):
        row[torch.tensor(ids, dtype=torch.int64, device=device)] = True
    return seen


def filter_logits(
    logits: Float[Tensor, "B vocab"], sampling: Sampling, seen: Bool[Tensor, "B vocab"] | None = None
) -> Float[Tensor, "B vocab"]:
    """Float32 scores after repetition penalty, temperature, top-k, top-p and min-p, in that order.

    What is filtered out becomes -inf. Ties with the k-th token are kept by top-k. Greedy settings apply the
    penalty only: no filter moves the largest score.

    Shapes: logits [B vocab]; seen [B vocab], the tokens of prompt and continuation so far
    Source: the processors of transformers 5.23, `generation/logits_process.py`, whose results these equal
    """
    scores = logits.float()
    if seen is not None and sampling.repetition_penalty != 1:
        penalty = sampling.repetition_penalty
        scores = torch.where(seen, torch.where(scores < 0, scores * penalty, scores / penalty), scores)
    if sampling.greedy:
        return scores
    if sampling.temperature != 1:
        scores = scores / sampling.temperature
    if 0 < sampling.top_k < scores.shape[-1]:
        last_kept = scores.topk(sampling.top_k).values[:, -1:]
        scores = scores.masked_fill(scores < last_kept, -math.inf)
    if sampling.top_p < 1:
        scores = _top_p(scores, sampling.top_p)
    if sampling.min_p > 0:
        probabilities = scores.softmax(-1)
        least = sampling.min_p * probabilities.amax(-1, keepdim=True)
        scores = scores.masked_fill(probabilities < least, -math.inf)
    return scores


def _top_p(scores: Float[Tensor, "B vocab"], top_p: float) -> Float[Tensor, "B vocab"]:
    """Keep the most probable tokens that together reach `top_p`, and always the first; of equals the earlier.

    Sorting a whole vocabulary costs more than everything else here, so only candidates are sorted: tokens
    less probable than (1 - top_p) / (2 vocab) together weigh under 1 - top_p and would all be removed.

    Differs: of tokens that tie at the border transformers keeps whichever its unstable sort puts last
    """
    vocab = scores.shape[-1]
    probabilities = scores.softmax(-1)
    count = int((probabilities >= (1 - top_p) / (2 * vocab)).sum(-1).max())
    if 0 < count < vocab:
        candidates = probabilities.topk(count, sorted=False).indices.sort(-1, descending=True).values
    else:
        candidates = torch.arange(vocab - 1, -1, -1, device=scores.device).expand_as(scores)
    rest = probabilities.scatter(-1, candidates, 0.0).sum(-1, keepdim=True)

    ordered, order = scores.gather(-1, candidates).sort(dim=-1, stable=True)
    cumulative = rest + (1 - rest) * ordered.softmax(-1).cumsum(-1)
    removed = cumulative <= 1 - top_p
    removed[:, -1] = False
    ordered = ordered.masked_fill(removed, -math.inf)
    return torch.full_like(scores, -math.inf).scatter(-1, candidates.gather(-1, order), ordered)


def sample(
    logits: Float[Tensor, "B vocab"],
    sampling: Sampling,
    generators: Sequence[torch.Generator] = (),
    seen: Bool[Tensor, "B vocab"] | None = None,
) -> Int[Tensor, " B"]:
    """The next token of every row: the largest score if greedy, else one draw with the row's own generator.

    A draw inverts the cumulative distribution at one float64 uniform, so it costs one random number a row and
    never gives a token of probability 0.

    Shapes: logits, seen [B vocab]; one generator a row (none needed if greedy); result int64 [B]
    Raises: LaminaError if a row's largest logit is not a finite number
    """
    scores = filter_logits(logits, sampling, seen)
    if sampling.greedy:
        best, ids = scores.max(-1)
        _check(best.isfinite())
        return ids
    cumulative = scores.softmax(-1).cumsum(-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    _check(total.isfinite())  # NaN as soon as one score is NaN or +inf, or all are -inf
    draws = [torch.rand(1, dtype=torch.float64, generator=generator) for generator in generators]
    above_zero = 1 - torch.stack(draws).to(scores.device)  # in (0, 1]
    return torch.searchsorted(cumulative, above_zero * total).squeeze(-1)


def _check(finite: Tensor) -> None:
    if not bool(finite.all()):
        raise LaminaError(
            "the model's logits are not finite numbers, so no token can be chosen: "
            "check the weights, or compute in float32"
        )
