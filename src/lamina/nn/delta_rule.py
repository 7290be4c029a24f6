"""DeltaNet and Gated DeltaNet: projections, a short convolution, and a delta rule with a matrix a head for state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lamina.arch.mixers import DeltaNet as DeltaNetValue
from lamina.arch.mixers import GatedDeltaNet as GatedDeltaNetValue
from lamina.nn.basic import ACTIVATIONS, Linear, norm
from lamina.nn.convolution import Convolution
from lamina.nn.recurrent import Recurrent
from lamina.nn.registry import Place, runs
from lamina.nn.state import Stateful
from lamina.nn.step import Step
from lamina.ops.delta_rule import UNIT, gated_delta_rule

GATES = ACTIVATIONS | {"sigmoid": torch.sigmoid}
FEATURES: dict[str | None, Callable[[Tensor], Tensor]] = {
    **ACTIVATIONS,
    "elu": lambda x: F.elu(x) + 1.0,
    None: lambda x: x,
}


@runs(GatedDeltaNetValue, "key_heads value_heads key_dim value_dim convolution norm gate negative_eigenvalues")
class GatedDeltaNet(Stateful):
    """A delta rule with a decay and a step for each head and token, as its value says.

    Shapes: x [B T D] -> [B T D]
    """

    def __init__(self, value: GatedDeltaNetValue, width: int, place: Place) -> None:
        super().__init__()
        self.value, self.slot = value, place.slot()
        keys, values = value.key_heads * value.key_dim, value.value_heads * value.value_dim
        self.sizes = keys, keys, values
        self.q_proj, self.k_proj, self.v_proj = Linear(width, keys), Linear(width, keys), Linear(width, values)
        self.step_proj, self.decay_proj = Linear(width, value.value_heads), Linear(width, value.value_heads)
        self.gate_proj = Linear(width, values) if value.gate else None
        self.convolution = Convolution(value.channels, value.convolution, place)
        self.decay_log_rate = nn.Parameter(torch.empty(value.value_heads))
        self.decay_bias = nn.Parameter(torch.empty(value.value_heads))
        self.norm = norm(value.norm, value.value_dim)
        self.o_proj = Linear(values, width)

    @property
    def joined(self) -> tuple[str, ...]:  # type: ignore[override]
        gate = ("gate_proj",) if self.value.gate else ()
        return ("q_proj", "k_proj", "v_proj", "step_proj", "decay_proj", *gate)

    def state(self, batch: int, capacity: int, **like: Any) -> Recurrent:
        return Recurrent(batch, (self.value.value_heads, self.value.key_dim, self.value.value_dim), **like)

    def forward(self, x: Float[Tensor, "B T D"], step: Step) -> Float[Tensor, "B T D"]:
        value = self.value
        q, k, v, b, a, *gate = self.project(x)
        q, k, v = self.convolution(torch.cat([q, k, v], -1), step).split(self.sizes, -1)
        q, k = (part.unflatten(-1, (-1, value.key_dim)).transpose(1, 2) for part in (q, k))
        v = v.unflatten(-1, (-1, value.value_dim)).transpose(1, 2)
        b = b.float().sigmoid() * (2.0 if value.negative_eigenvalues else 1.0)
        g = -self.decay_log_rate.float().exp() * F.softplus(a.float() + self.decay_bias)
        held = step.layers(self.slot).held(self, step)
        out, *held.kept = gated_delta_rule(q, k, v, g.mT, b.mT, *held.kept, lengths=step.padding)
        out = self.norm(out.transpose(1, 2).to(x.dtype))
        if gate and value.gate:
            out = out * GATES[value.gate](gate[0]).view_as(out)
        return self.o_proj(out.flatten(2))


@runs(DeltaNetValue, "heads key_dim value_dim convolution activation unit learned_step norm gate negative_eigenvalues")
class DeltaNet(Stateful):
    """A delta rule without decay, as its value says.

    Shapes: x [B T D] -> [B T D]
    """

    def __init__(self, value: DeltaNetValue, width: int, place: Place) -> None:
        super().__init__()
        self.value, self.slot = value, place.slot()
        keys, values = value.heads * value.key_dim, value.heads * value.value_dim
        self.sizes = keys, keys, values
        self.q_proj, self.k_proj, self.v_proj = Linear(width, keys), Linear(width, keys), Linear(width, values)
        self.step_proj = Linear(width, value.heads) if value.learned_step else None
        self.gate_proj = Linear(width, values) if value.gate else None
        self.convolution = None
        if value.convolution:
            self.convolution = Convolution(value.channels, value.convolution, place, silu=value.activation == "silu")
        self.norm = norm(value.norm, value.value_dim)
        self.o_proj = Linear(values, width)

    @property
    def joined(self) -> tuple[str, ...]:  # type: ignore[override]
        step, gate = ("step_proj",) * self.value.learned_step, ("gate_proj",) * bool(self.value.gate)
        return ("q_proj", "k_proj", "v_proj", *step, *gate)

    def state(self, batch: int, capacity: int, **like: Any) -> Recurrent:
        return Recurrent(batch, (self.value.heads, self.value.key_dim, self.value.value_dim), **like)

    def _features(self, x: Float[Tensor, "B T C"], step: Step) -> list[Float[Tensor, "B H T K"]]:
        """Queries, keys and values of what is projected, queries and keys of one sum if the value says so."""
        value = self.value
        x = x if self.convolution is None else self.convolution(x, step)
        if self.convolution is None or value.activation != "silu":  # the convolution has done it else
            *keys, values = x.split(self.sizes, -1)
            x = torch.cat([*map(FEATURES[value.activation], keys), F.silu(values)], -1)
        parts = [part.unflatten(-1, (value.heads, -1)).transpose(1, 2) for part in x.split(self.sizes, -1)]
        if value.unit == "sum":
            parts[:2] = (F.normalize(part, p=1.0, dim=-1, eps=UNIT) for part in parts[:2])
        return parts

    def forward(self, x: Float[Tensor, "B T D"], step: Step) -> Float[Tensor, "B T D"]:
        value, made = self.value, dict(zip(self.joined, self.project(x), strict=True))
        q, k, v = self._features(torch.cat([made[f"{part}_proj"] for part in "qkv"], -1), step)
        b = made["step_proj"].float().sigmoid().mT if value.learned_step else torch.ones_like(v[..., 0].float())
        b = b * 2.0 if value.negative_eigenvalues else b
        held, kept = step.layers(self.slot).held(self, step), torch.zeros_like(b)
        options: dict[str, Any] = {"unit": value.unit == "length", "lengths": step.padding}
        out, *held.kept = gated_delta_rule(q, k, v, kept, b, *held.kept, **options)
        out = self.norm(out.transpose(1, 2).to(x.dtype))
        if value.gate:
            out = out * GATES[value.gate](made["gate_proj"]).view_as(out)
        return self.o_proj(out.flatten(2))
