"""Which experts a token goes to, and with what weight."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lamina.arch.moe import Router


class Routed(NamedTuple):
    """What a router says of each token, in float32: its logits, the chosen experts and their weights.

    Fields: `shared` are the weights of the shared experts, where they compete with the routed ones
    """

    logits: Float[Tensor, "N E"]
    chosen: Int[Tensor, "N k"]
    weights: Float[Tensor, "N k"]
    shared: Float[Tensor, "N s"] | None = None


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


def sparse_mixer(logits: Float[Tensor, "N E"], router: Router) -> tuple[Int[Tensor, "N k"], Float[Tensor, "N k"]]:
    """One expert after the other, from the best: each is weighed by a softmax over those that come near it.

    Source: arXiv 2409.12136, section 2.2; the bound is that of `lamina.arch.Router`.
    Differs: the paper and the reference draw the experts at random in training; here the best are taken.
    """
    assert router.sparse_mixer is not None
    left, chosen, weights = logits, [], []
    for _ in range(router.active):
        best, place = left.max(-1, keepdim=True)
        far = (best - logits) / torch.maximum(logits.abs(), best) > 2 * router.sparse_mixer
        weights.append(left.masked_fill(far, float("-inf")).softmax(-1).gather(-1, place))
        chosen.append(place)
        left = left.scatter(-1, place, float("-inf"))
    return torch.cat(chosen, -1), torch.cat(weights, -1)


def route(
    logits: Float[Tensor, "N E"],
    router: Router,
    correction: Float[Tensor, " E"] | None = None,
    chosen: Int[Tensor, "N k"] | None = None,
) -> Routed:
    """The chosen experts of each token and their weights.

    Shapes: the last `router.shared` of the E logits are those of shared experts
    `chosen` are experts that something else chose: a table of token ids.
    Source: see `lamina.arch.Router`.
    """
    logits = logits.float() if router.logit_scale == 1.0 else logits.float() * router.logit_scale
    if cap := router.softcap:
        logits = cap * torch.tanh(logits / cap)
    own = logits if not router.shared else logits[:, : router.experts]
    if router.sparse_mixer is not None:
        chosen, weights = sparse_mixer(own, router)
    else:
        scores = scores_of(logits, router)
        if chosen is None:
            choice = scores[:, : router.experts]
            choice = choice if correction is None else choice + correction.float()
            chosen = allowed(choice, router).topk(router.active, -1, sorted=False).indices
        weights = scores.gather(-1, chosen)
        weights = torch.cat([weights, scores[:, router.experts :]], -1) if router.shared else weights
    if router.normalise:
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
    weights = weights if router.scale == 1.0 else weights * router.scale
    if not router.shared:
        return Routed(own, chosen, weights)
    return Routed(own, chosen, weights[:, : router.active], weights[:, router.active :])
