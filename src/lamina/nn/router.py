"""Routers: which experts a token goes to, and with what weight."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lamina.arch.moe import Router as RouterValue
from lamina.arch.router_mlp import RouterMLP as RouterMLPValue
from lamina.nn.basic import Linear, Starting, norm
from lamina.nn.registry import reads
from lamina.nn.step import Step
from lamina.ops.routing import Routed, route

reads(
    RouterValue,
    """experts active score normalise scale correction groups active_groups group_best bias norm logit_scale softcap
    sparse_mixer hashed mlp expert_scale shared""",
)
reads(RouterMLPValue, "width layers carried norm")


class RouterMLP(Starting):
    """Logits of r = down(x), which takes up the r of the router before: gate(gelu(... gelu(layers[0](norm(r))))).

    Shapes: x [N D] -> [N E]
    """

    starts: ClassVar = {"carry": 1.0}

    def __init__(self, value: RouterMLPValue, width: int, experts: int) -> None:
        super().__init__()
        self.down_proj = Linear(width, value.width, True)
        self.norm = norm(value.norm, value.width)
        self.carry = nn.Parameter(torch.empty(value.width)) if value.carried else None
        self.layers = nn.ModuleList(Linear(value.width, value.width, True) for _ in range(value.layers))
        self.gate = Linear(value.width, experts)

    def forward(self, x: Float[Tensor, "N D"], step: Step | None) -> Float[Tensor, "N E"]:
        left = {} if step is None else step.shared
        r = self.down_proj(x)
        if self.carry is not None and RouterMLP in left:
            r = r + self.carry * left[RouterMLP]
        left[RouterMLP] = r
        y = r if self.norm is None else self.norm(r)
        for layer in self.layers:
            y = F.gelu(layer(y))
        return self.gate(y)


class Router(Starting):
    """The chosen experts of each token, and their weights.

    Shapes: x [N D]
    Raises: ValueError where token ids choose, and there is no step to say them
    """

    starts: ClassVar = {"expert_scale": 1.0, "correction": 0.0}

    def __init__(self, value: RouterValue, width: int, vocab: int = 0) -> None:
        super().__init__()
        self.value = value
        self.norm = norm(value.norm, width)
        self.mlp = RouterMLP(value.mlp, width, value.experts) if value.mlp else None
        self.gate = None if value.mlp else Linear(width, value.experts + value.shared, value.bias)
        # what balances the load without a loss is moved by how the load falls, not by gradients
        self.correction = nn.Parameter(torch.empty(value.experts), requires_grad=False) if value.correction else None
        self.expert_scale = nn.Parameter(torch.empty(value.experts)) if value.expert_scale else None
        table = torch.empty(vocab, value.active, dtype=torch.int64) if value.hashed else None
        self.register_buffer("by_token", table)  # the experts of each token id

    def spread(self) -> None:
        """Gives tokens their experts in turn, where no checkpoint does."""
        if (table := self._buffers["by_token"]) is not None:
            table.copy_(torch.arange(table.numel()).view_as(table) % self.value.experts)

    @property
    def in_range(self) -> bool:
        """Whether every token's experts are among those there are."""
        table = self._buffers["by_token"]
        return table is None or table.is_meta or bool(((table >= 0) & (table < self.value.experts)).all())

    def forward(self, x: Float[Tensor, "N D"], step: Step | None = None) -> Routed:
        read = x if self.norm is None else self.norm(x)
        logits = self.gate(read) if self.gate is not None else self.mlp(read, step)  # type: ignore[misc]
        chosen = None
        if (table := self._buffers["by_token"]) is not None:
            if step is None:
                raise ValueError("this router chooses by token id, so it needs a step")
            chosen = table[step.ids.flatten()]
        found = route(logits, self.value, self.correction, chosen)
        if self.expert_scale is not None:
            found = found._replace(weights=found.weights * self.expert_scale.float()[found.chosen])
        return found
