"""Mixture of experts: the router, the stack of experts, and what every token shares."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lamina.arch.feedforward import GLU as GLUValue
from lamina.arch.feedforward import MLP as MLPValue
from lamina.arch.moe import MoE as MoEValue
from lamina.arch.moe import Router as RouterValue
from lamina.nn.basic import Linear, norm
from lamina.nn.feedforward import GLU, MLP, activation, gated
from lamina.nn.registry import Place, reads, runs
from lamina.nn.step import Step
from lamina.ops.experts import grouped_linear, sort_by_expert
from lamina.ops.routing import route

FIELDS = """router expert shared shared_gate latent latent_norm expert_norm identities identities_give scaled given_norm
scale"""

reads(
    RouterValue,
    "experts active score normalise scale correction groups active_groups group_best bias norm logit_scale",
)


class Router(nn.Module):
    """The chosen experts of each token, and their weights.

    Shapes: x [N D] -> experts int64 [N k], weights [N k]
    """

    def __init__(self, value: RouterValue, width: int) -> None:
        super().__init__()
        self.value = value
        self.norm = norm(value.norm, width)
        self.gate = Linear(width, value.experts, value.bias)
        # what balances the load without a loss is moved by how the load falls, not by gradients
        self.correction = nn.Parameter(torch.empty(value.experts), requires_grad=False) if value.correction else None

    def forward(self, x: Float[Tensor, "N D"]) -> tuple[Int[Tensor, "N k"], Float[Tensor, "N k"]]:
        logits = self.gate(x if self.norm is None else self.norm(x))
        return route(logits * self.value.logit_scale, self.value, self.correction)


class ExpertLinear(nn.Module):
    """The same projection of every expert, stacked.

    Shapes: x [M I], the first counts[0] rows for expert 0, and so on -> [M O]
    """

    def __init__(self, experts: int, inputs: int, outputs: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(experts, outputs)) if bias else None

    def forward(self, x: Float[Tensor, "M I"], counts: Sequence[int]) -> Float[Tensor, "M O"]:
        return grouped_linear(x, self.weight, counts, self.bias)


class Experts(nn.Module):
    """Feed-forwards of one shape, side by side.

    Shapes: x [M D], sorted by expert -> [M D]
    """

    def __init__(self, value: GLUValue | MLPValue, experts: int, width: int) -> None:
        super().__init__()
        self.value = value
        if isinstance(value, GLUValue):
            self.gate_proj = ExpertLinear(experts, width, value.inner, value.bias)
        self.up_proj = ExpertLinear(experts, width, value.inner, value.bias)
        self.down_proj = ExpertLinear(experts, value.inner, width, value.bias)
        self.activation = activation(value)

    def forward(self, x: Float[Tensor, "M D"], counts: Sequence[int]) -> Float[Tensor, "M D"]:
        up = self.up_proj(x, counts)
        if isinstance(self.value, GLUValue):
            return self.down_proj(gated(self.value, self.activation, self.gate_proj(x, counts), up), counts)
        return self.down_proj(self.activation(up), counts)


@runs(MoEValue, FIELDS)
class MoE(nn.Module):
    """scale * (sum over the chosen experts of weight * expert(x), and what every token shares).

    Shapes: x [B T D] -> [B T D]
    """

    def __init__(self, value: MoEValue, width: int, place: Place | None = None) -> None:
        super().__init__()
        self.value = value
        inner = value.latent or width
        self.router = Router(value.router, width)
        self.experts = Experts(value.expert, value.computing, inner)
        self.shared = None
        if value.shared:
            self.shared = (GLU if isinstance(value.shared, GLUValue) else MLP)(value.shared, width)
        self.shared_gate = Linear(width, 1) if value.shared_gate else None
        self.latent_down = Linear(width, inner) if value.latent else None
        self.latent_up = Linear(inner, width) if value.latent else None
        self.latent_norm = norm(value.latent_norm, inner)
        self.expert_norm, self.given_norm = norm(value.expert_norm, inner), norm(value.given_norm, inner)

    def forward(self, x: Float[Tensor, "B T D"], step: Step | None = None) -> Float[Tensor, "B T D"]:
        tokens = x.flatten(0, -2)
        chosen, weights = self.router(tokens)
        out = self._routed(tokens, chosen, weights.to(x.dtype)).view_as(x)
        if self.shared is not None:
            given = self.shared(x, step)
            out = out + (given if self.shared_gate is None else given * self.shared_gate(x).sigmoid())
        return out if self.value.scale == 1.0 else out * self.value.scale

    def _routed(self, x: Tensor, chosen: Int[Tensor, "N k"], weights: Float[Tensor, "N k"]) -> Float[Tensor, "N D"]:
        read = x if self.latent_down is None else self.latent_down(x)
        read = read if self.expert_norm is None else self.expert_norm(read)
        order, counts = sort_by_expert(chosen, self.value.router.experts)
        computing = sum(counts[: self.value.computing])
        order, token, weight = (
            order[:computing],
            order[:computing] // chosen.shape[1],
            weights.flatten()[order[:computing], None],
        )
        rows = read[token] * weight if self.value.scaled == "input" else read[token]
        given = self.experts(rows, counts[: self.value.computing])
        given = given if self.given_norm is None else self.given_norm(given)
        out = torch.zeros_like(read).index_add(0, token, given if self.value.scaled == "input" else given * weight)
        out = out if self.latent_norm is None else self.latent_norm(out)
        out = out if self.latent_up is None else self.latent_up(out)
        if self.value.identities and self.value.identities_give == "input":
            out = out + x * (weights * (chosen >= self.value.computing)).sum(-1, keepdim=True)
        return out
