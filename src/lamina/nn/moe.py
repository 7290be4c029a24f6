"""Mixture of experts: a router, the stack of experts, and what every token shares."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lamina.arch.feedforward import GLU as GLUValue
from lamina.arch.feedforward import MLP as MLPValue
from lamina.arch.moe import MoE as MoEValue
from lamina.nn.basic import Linear, norm
from lamina.nn.feedforward import GLU, MLP, XIELU, activation, gated
from lamina.nn.registry import Place, runs
from lamina.nn.router import Router
from lamina.nn.step import Step
from lamina.ops.experts import Sorted, experts_glu, grouped_linear, sort_by_expert
from lamina.ops.packed import Packed
from lamina.ops.routing import Routed

FIELDS = """router expert shared shared_gate latent latent_norm expert_norm identities identities_give scaled given_norm
scale"""


class ExpertLinear(nn.Module):
    """The same projection of every expert, stacked, and stored as whatever it is.

    Shapes: x [M I], in order of expert -> [M O]
    """

    packable: ClassVar = ("weight",)
    weight: nn.Parameter | Packed

    def __init__(self, experts: int, inputs: int, outputs: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(experts, outputs)) if bias else None

    def forward(self, x: Float[Tensor, "M I"], rows: Sorted) -> Float[Tensor, "M O"]:
        return grouped_linear(x, self.weight, rows, self.bias)


class Experts(nn.Module):
    """Feed-forwards of one shape, side by side: of each token, the weighted sum of what those give that it chose.

    With `identities`, so many of the router's choices are of no expert here. The weight is put on what an expert gives
    or, if `scaled` says so, on what it reads; `normed` is a norm of what each gives.
    Shapes: x [N D] -> [N D]
    """

    def __init__(self, value: GLUValue | MLPValue, experts: int, width: int) -> None:
        super().__init__()
        self.value = value
        if isinstance(value, GLUValue):
            self.gate_proj = ExpertLinear(experts, width, value.inner, value.bias)
        self.up_proj = ExpertLinear(experts, width, value.inner, value.bias)
        self.down_proj = ExpertLinear(experts, value.inner, width, value.bias)
        self.experts = experts
        self.activation = XIELU(experts) if value.activation == "xielu" else activation(value)
        self.plain = value == GLUValue(inner=value.inner)

    def forward(
        self,
        x: Float[Tensor, "N D"],
        routed: Routed,
        identities: int = 0,
        scaled: Literal["output", "input"] = "output",
        normed: nn.Module | None = None,
    ) -> Float[Tensor, "N D"]:
        chosen, weights = routed.chosen, routed.weights
        if self.plain and scaled == "output" and normed is None:
            stacks = self.gate_proj.weight, self.up_proj.weight, self.down_proj.weight
            if (found := experts_glu(x, chosen, weights, *stacks)) is not None:
                return found
        rows = sort_by_expert(chosen, self.experts, others=identities > 0)
        token, weight = rows.order // chosen.shape[1], weights.to(x.dtype).flatten()[rows.order, None]
        given = self.each(x[token] * weight if scaled == "input" else x[token], rows)
        given = given if normed is None else normed(given)
        return torch.zeros_like(x).index_add(0, token, given if scaled == "input" else given * weight)

    def each(self, x: Float[Tensor, "M D"], rows: Sorted) -> Float[Tensor, "M D"]:
        """What each row's expert gives."""

        def act(y: Tensor) -> Tensor:
            return self.activation(y, rows.expert) if isinstance(self.activation, XIELU) else self.activation(y)

        up = self.up_proj(x, rows)
        if isinstance(self.value, GLUValue):
            return self.down_proj(gated(self.value, act, self.gate_proj(x, rows), up), rows)
        return self.down_proj(act(up), rows)


@runs(MoEValue, FIELDS)
class MoE(nn.Module):
    """scale * (sum over the chosen experts of weight * expert(x), and what every token shares).

    Shapes: x [B T D] -> [B T D]
    """

    def __init__(self, value: MoEValue, width: int, place: Place | None = None) -> None:
        super().__init__()
        self.value = value
        inner = value.latent or width
        self.router = Router(value.router, width, place.vocab if place else 0)
        self.experts = Experts(value.expert, value.computing, inner)
        self.shared = None
        if value.shared:
            self.shared = GLU(value.shared, width) if isinstance(value.shared, GLUValue) else MLP(value.shared, width)
        self.shared_gate = Linear(width, 1) if value.shared_gate else None
        self.latent_down = Linear(width, inner) if value.latent else None
        self.latent_up = Linear(inner, width) if value.latent else None
        self.latent_norm = norm(value.latent_norm, inner)
        self.expert_norm, self.given_norm = norm(value.expert_norm, inner), norm(value.given_norm, inner)

    def forward(self, x: Float[Tensor, "B T D"], step: Step | None = None) -> Float[Tensor, "B T D"]:
        tokens = x.flatten(0, -2)
        routed = self.router(tokens, step)
        out = self._of_chosen(tokens, routed).view_as(x)
        if self.shared is not None:
            given = self._of_all(self.shared, x, routed)
            out = out + (given if self.shared_gate is None else given * self.shared_gate(x).sigmoid())
        return out if self.value.scale == 1.0 else out * self.value.scale

    def _of_chosen(self, x: Float[Tensor, "N D"], routed: Routed) -> Float[Tensor, "N D"]:
        value = self.value
        read = x if self.latent_down is None else self.latent_down(x)
        read = read if self.expert_norm is None else self.expert_norm(read)
        out = self.experts(read, routed, value.identities, value.scaled, self.given_norm)
        out = out if self.latent_norm is None else self.latent_norm(out)
        out = out if self.latent_up is None else self.latent_up(out)
        if value.identities and value.identities_give == "input":
            idle = (routed.weights * (routed.chosen >= value.computing)).sum(-1, keepdim=True)
            out = out + x * idle.to(x.dtype)
        return out

    def _of_all(self, shared: GLU | MLP, x: Float[Tensor, "B T D"], routed: Routed) -> Float[Tensor, "B T D"]:
        """What the shared feed-forward gives: its parts weighed by the router, where they compete with the rest."""
        if routed.shared is None:
            return shared(x)
        weights = routed.shared.to(x.dtype).view(*x.shape[:-1], -1, 1)
        inner = shared.inner(x)
        return shared.down_proj((inner.unflatten(-1, (weights.shape[-2], -1)) * weights).flatten(-2))
