"""Which experts a token goes to, and with what weight."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lamina.arch.moe import Router


def scores_of(logits: Float[Tensor, "N E"], router: Router) -> Float[Tensor, "N E"]:
    """The scores of logits, float32."""
    logits = logits.float()
    if router.score == "softmax":
        return logits.softmax(-1)
    return logits.sigmoid() if router.score == "sigmoid" else F.softplus(logits).sqrt()


def allowed(choice: Float[Tensor, "N E"], router: Router) -> Float[Tensor, "N E"]:
    """The scores that decide, without those of experts outside the best groups.

    Source: arXiv 2405.04434, section 2.2.2; arXiv 2412.19437, section 2.1.2.
    """
    if router.groups == 1:
        return choice
    grouped = choice.unflatten(-1, (router.groups, -1))
    best = grouped.topk(router.group_best, -1).values.sum(-1)
    kept = torch.zeros_like(best, dtype=torch.bool).scatter(-1, best.topk(router.active_groups, -1).indices, True)
    return grouped.masked_fill(~kept[..., None], float("-inf")).flatten(-2)


def route(
    logits: Float[Tensor, "N E"], router: Router, correction: Float[Tensor, " E"] | None = None
) -> tuple[Int[Tensor, "N k"], Float[Tensor, "N k"]]:
    """The chosen experts of each token and their weights, float32.

    Source: see `lamina.arch.Router`.
    """
    scores = scores_of(logits, router)
    choice = scores if correction is None else scores + correction.float()
    chosen = allowed(choice, router).topk(router.active, -1, sorted=False).indices
    weights = scores.gather(-1, chosen)
    if router.normalise:
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
    return chosen, weights * router.scale
