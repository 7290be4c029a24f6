"""Masked diffusion: text is made by filling in masked tokens, a few at each step, looking both ways.

Source: arXiv 2502.09992 (LLaDA), equations 3 to 5, algorithms 1, 2 and 5.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lamina.arch import MaskedDiffusion
from lamina.errors import LaminaError
from lamina.nn.decoder import Model


def mask_token(model: Model) -> int:
    """The token that hides others.

    Raises: LaminaError for a model with another objective
    """
    objective = model.arch.objective
    if not isinstance(objective, MaskedDiffusion):
        raise LaminaError(f"masked diffusion needs a model of that objective; this one is {objective.kind}")
    return objective.mask_token


def corrupt(
    ids: Int[Tensor, "B T"], mask: int, random: torch.Generator | None = None, keep: Bool[Tensor, "B T"] | None = None
) -> tuple[Int[Tensor, "B T"], Float[Tensor, " B"]]:
    """Hides each token with probability t, drawn for each row evenly from (0, 1]; returns the ids and t.

    `keep` is True where a token is never hidden (a prompt, padding).
    """
    t = 1 - torch.rand(len(ids), generator=random)
    hidden = torch.rand(ids.shape, generator=random) < t[:, None]
    hidden = hidden.to(ids.device) if keep is None else hidden.to(ids.device) & ~keep
    return torch.where(hidden, mask, ids), t.to(ids.device)


def loss(
    model: Model,
    ids: Int[Tensor, "B T"],
    random: torch.Generator | None = None,
    keep: Bool[Tensor, "B T"] | None = None,
) -> Float[Tensor, ""]:
    """The bound on the negative log-likelihood, in nats a token: cross-entropy of what is hidden, over t.

    Shapes: ids [B T]; keep [B T], True for prompt and padding, which are neither hidden nor counted
    Raises: LaminaError for a model with another objective
    Source: arXiv 2502.09992, eq. 3 (pre-training), eq. 5 (with a prompt)
    """
    mask = mask_token(model)
    noisy, t = corrupt(ids, mask, random, keep)
    logits = model(noisy)
    surprise = F.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none").view(ids.shape)
    counted = torch.full_like(t, ids.shape[1]) if keep is None else (~keep).sum(1).clamp(min=1)
    return (surprise * (noisy == mask) * (ids != mask) / t[:, None] / counted[:, None]).sum(1).mean()


@torch.no_grad()
def denoise(
    model: Model,
    prompt: Int[Tensor, "B P"],
    length: int = 64,
    steps: int = 64,
    block: int | None = None,
    temperature: float = 0.0,
    random: torch.Generator | None = None,
) -> Iterator[Int[Tensor, "B T"]]:
    """Fills `length` masked tokens after the prompt; yields prompt and answer so far after each step.

    Each step predicts every masked token and keeps the most certain ones, an even share of them. With `block`
    set, blocks of that many tokens are finished from left to right, `steps` being shared among them.
    Raises: LaminaError for sizes below one, a block that does not divide the length, or steps that do not
    divide among the blocks
    """
    mask, block = mask_token(model), block or length
    if min(length, steps, block) < 1 or length % block or steps % (length // block):
        raise LaminaError(
            f"length ({length}) must be a multiple of block ({block}), and steps ({steps}) of the number of blocks"
        )
    model.check_ids(prompt, "prompt")
    x = torch.cat([prompt, prompt.new_full((len(prompt), length), mask)], 1)
    per_block = steps // (length // block)
    for start in range(prompt.shape[1], x.shape[1], block):
        for step in range(per_block):
            open_ = torch.zeros_like(x, dtype=torch.bool)
            open_[:, start : start + block] = x[:, start : start + block] == mask
            left = int(open_[0].sum())
            count = left // (per_block - step) + (left % (per_block - step) > 0)
            x = _settle(model, x, open_, count, mask, temperature, random)
            yield x


def _settle(
    model: Model,
    x: Tensor,
    open_: Tensor,
    count: int,
    mask: int,
    temperature: float,
    random: torch.Generator | None,
) -> Tensor:
    """Predicts the open tokens and settles the `count` most certain of each row."""
    logits = model(x).float()
    logits[..., mask] = float("-inf")  # a mask is not an answer
    if temperature > 0:
        noise = torch.rand(logits.shape, generator=random, dtype=torch.float64).to(logits.device)
        guess = (logits.double() / temperature - torch.log(-torch.log(noise))).argmax(-1)
    else:
        guess = logits.argmax(-1)
    certainty = torch.softmax(logits, -1).gather(-1, guess[..., None])[..., 0]
    best = torch.where(open_, certainty, -1.0).topk(count, -1).indices
    return x.scatter(1, best, guess.gather(1, best))
