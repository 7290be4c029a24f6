"""Balancing the load of experts: by a loss, or without one by moving the routers' corrections.

Routers say what they chose to whoever asks, and only then: inside `routes(model)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lamina.arch import Router as RouterValue
from lamina.errors import LaminaError
from lamina.nn.router import Router
from lamina.ops.routing import scores_of


@dataclass(frozen=True)
class Route:
    """What the router at `path` chose for the tokens of one pass.

    Fields: `real` is False for padding, None where there is none
    """

    path: str
    router: RouterValue
    logits: Float[Tensor, "N E"]
    chosen: Int[Tensor, "N k"]
    real: Bool[Tensor, " N"] | None = None

    @property
    def counts(self) -> Float[Tensor, " E"]:
        """How many choices fell on each expert."""
        weight = torch.ones(len(self.chosen), device=self.chosen.device) if self.real is None else self.real.float()
        spread = weight[:, None].expand_as(self.chosen).flatten()
        return torch.zeros(self.router.experts, device=spread.device).index_add(0, self.chosen.flatten(), spread)

    @property
    def tokens(self) -> Tensor:
        """How many tokens are real."""
        return torch.tensor(float(len(self.chosen))) if self.real is None else self.real.float().sum()

    @property
    def likelihood(self) -> Float[Tensor, " E"]:
        """The sum over tokens of how likely each expert was: scores that sum to one; gradients flow through it."""
        scores = scores_of(self.logits, self.router)
        scores = scores / (scores.sum(-1, keepdim=True) + 1e-20)
        return (scores if self.real is None else scores * self.real[:, None]).sum(0)


@contextmanager
def routes(model: nn.Module) -> Iterator[list[Route]]:
    """Collects what the routers of a model choose in the passes within; they go on as before afterwards."""
    found: list[Route] = []

    def note(path: str, module: Any, inputs: tuple, routed: Any) -> None:
        step, real = (*inputs, None)[1], None
        if step is not None and step.padded:
            real = torch.zeros(step.batch, step.tokens, dtype=torch.bool, device=routed.chosen.device)
            rows, columns, _ = step.real
            real[rows, columns] = True
        found.append(Route(path, module.value, routed.logits, routed.chosen, None if real is None else real.flatten()))

    hooks = [
        module.register_forward_hook(lambda m, inputs, out, path=path: note(path, m, inputs, out))
        for path, module in model.named_modules()
        if isinstance(module, Router)
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def balance_loss(found: Sequence[Route]) -> Float[Tensor, ""]:
    """E sum over experts e of f_e P_e: f_e choices of e a token, P_e its mean score; k where the load is even.

    Taken over the tokens of all routes together, as if they were of one router.
    Source: arXiv 2101.03961, eq. 4 to 6, for k choices a token. Scores of sigmoid routers are made to sum to one, as in
    arXiv 2412.19437, eq. 18.
    Raises: LaminaError if there is no route, or the routers differ in their number of experts
    """
    if len({route.router.experts for route in found}) != 1:
        sizes = sorted({route.router.experts for route in found})
        raise LaminaError(f"the load is balanced over routers of as many experts, not {sizes}; call it for each")
    tokens = torch.stack([route.tokens.to(route.logits.device) for route in found]).sum()
    counts = torch.stack([route.counts for route in found]).sum(0) / tokens
    likelihood = torch.stack([route.likelihood for route in found]).sum(0) / tokens
    return found[0].router.experts * (counts * likelihood).sum()


def loads(found: Sequence[Route]) -> dict[str, Float[Tensor, " E"]]:
    """How many choices fell on each expert, by the path of its router."""
    total: dict[str, Tensor] = {}
    for route in found:
        total[route.path] = total[route.path] + route.counts if route.path in total else route.counts
    return total


@torch.no_grad()
def move_corrections(model: nn.Module, counts: Mapping[str, Float[Tensor, " E"]], rate: float = 1e-3) -> None:
    """Corrections up by `rate` where an expert has less than the mean load, and down where it has more.

    Source: arXiv 2408.15664, algorithm 1. Counts of several machines are summed before.
    Raises: LaminaError for a router without a correction
    """
    for path, load in counts.items():
        router = model.get_submodule(path)
        if not isinstance(router, Router) or router.correction is None:
            raise LaminaError(f"{path} has no correction to move; its router needs correction=True")
        router.correction.add_(rate * torch.sign(load.mean() - load).to(router.correction))
