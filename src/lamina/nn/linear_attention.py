"""Linear attention in three kinds: features and a sum to divide by, a fixed decay a head, a decay for each row."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lamina.arch.mixers import GatedLinearAttention as GatedLinearAttentionValue
from lamina.arch.mixers import LinearAttention as LinearAttentionValue
from lamina.arch.mixers import Retention as RetentionValue
from lamina.nn.basic import ACTIVATIONS, Linear, norm
from lamina.nn.recurrent import Recurrent
from lamina.nn.registry import Place, runs
from lamina.nn.state import Stateful
from lamina.nn.step import Step
from lamina.ops.gated_linear_attention import gated_linear_attention
from lamina.ops.linear_attention import linear_attention
from lamina.ops.rotary import rotate

FIELDS = "heads key_dim value_dim norm gate"
GATES = ACTIVATIONS | {"sigmoid": torch.sigmoid}
FEATURES = {"elu": lambda x: F.elu(x) + 1.0, "relu": F.relu, "identity": lambda x: x}


class _Heads(Stateful):
    """Projections around a rule that reads and writes one state a head; kinds say what stands between.

    Shapes: x [B T D] -> [B T D]
    """

    def __init__(self, value: Any, width: int, place: Place) -> None:
        super().__init__()
        self.value, self.slot = value, place.slot()
        keys, values = value.heads * value.key_dim, value.heads * value.value_dim
        self.q_proj, self.k_proj, self.v_proj = Linear(width, keys), Linear(width, keys), Linear(width, values)
        self.gate_proj = Linear(width, values) if value.gate else None
        self.norm = norm(value.norm, value.value_dim)
        self.o_proj = Linear(values, width)

    @property
    def joined(self) -> tuple[str, ...]:  # type: ignore[override]
        """The projections of the input that there are."""
        names = ("q_proj", "k_proj", "v_proj", "gate_proj", "decay_a_proj")
        return tuple(name for name in names if self._modules.get(name) is not None)

    def state(self, batch: int, capacity: int, **like: Any) -> Recurrent:
        return Recurrent(batch, (self.value.heads, self.value.key_dim, self.value.columns), **like)

    def _attended(
        self, q: Tensor, k: Tensor, v: Tensor, others: tuple[Tensor, ...], kept: tuple[Tensor, ...], step: Step
    ) -> tuple[Float[Tensor, "B H T V"], Tensor]:
        """What is read of the state, and the state after it; q is scaled."""
        raise TypeError(f"{type(self).__name__} has no rule")

    def forward(self, x: Float[Tensor, "B T D"], step: Step) -> Float[Tensor, "B T D"]:
        value = self.value
        parts = dict(zip(self.joined, self.project(x), strict=True))
        q, k, v = (parts.pop(name).unflatten(-1, (value.heads, -1)).transpose(1, 2) for name in self.joined[:3])
        gate = parts.pop("gate_proj", None)
        held = step.layers(self.slot).held(self, step)
        out, *held.kept = self._attended(q, k, v, tuple(parts.values()), held.kept, step)
        out = out.transpose(1, 2).to(x.dtype)
        out = out if self.norm is None else self.norm(out)
        if gate is not None:
            out = out * GATES[value.gate](gate).view_as(out)
        return self.o_proj(out.flatten(2))


@runs(LinearAttentionValue, f"{FIELDS} features normalise eps")
class LinearAttention(_Heads):
    """The sum that is divided by is one more column of the state: that of a value of one.

    Shapes: x [B T D] -> [B T D]
    """

    def _attended(
        self, q: Tensor, k: Tensor, v: Tensor, others: tuple[Tensor, ...], kept: tuple[Tensor, ...], step: Step
    ) -> tuple[Tensor, Tensor]:
        value, f = self.value, FEATURES[self.value.features]
        q, k, none = f(q) * value.key_dim**-0.5, f(k), v.new_zeros(()).expand(v.shape[:3])
        v = F.pad(v, (0, 1), value=1.0) if value.normalise else v
        out, state = linear_attention(q, k, v, none, *kept, lengths=step.padding)
        if value.normalise:
            out = out[..., :-1] / (out[..., -1:] + value.eps)
        return out, state


@runs(RetentionValue, f"{FIELDS} rotary")
class Retention(_Heads):
    """Queries and keys are rotated; the decays are constants.

    Shapes: x [B T D] -> [B T D]
    """

    def _attended(
        self, q: Tensor, k: Tensor, v: Tensor, others: tuple[Tensor, ...], kept: tuple[Tensor, ...], step: Step
    ) -> tuple[Tensor, Tensor]:
        value = self.value
        if value.rotary:
            q, k = (rotate(part, value.rotary, *step.rotary(value.rotary)) for part in (q, k))
        if (key := ("retention", value.heads)) not in step.shared:
            fades = torch.log1p(-torch.exp2(-5.0 - torch.arange(value.heads, dtype=torch.float64)))
            step.shared[key] = fades.float().to(step.device)
        fades = step.shared[key][:, None].expand(v.shape[:3])
        return linear_attention(q * value.key_dim**-0.5, k, v, fades, *kept, lengths=step.padding)


@runs(GatedLinearAttentionValue, f"{FIELDS} decay_rank damping")
class GatedLinearAttention(_Heads):
    """The decays are a projection of the input through a bottleneck.

    Shapes: x [B T D] -> [B T D]
    """

    def __init__(self, value: GatedLinearAttentionValue, width: int, place: Place) -> None:
        super().__init__(value, width, place)
        self.decay_a_proj = Linear(width, value.decay_rank)
        self.decay_b_proj = Linear(value.decay_rank, value.heads * value.key_dim, True)

    def _attended(
        self, q: Tensor, k: Tensor, v: Tensor, others: tuple[Tensor, ...], kept: tuple[Tensor, ...], step: Step
    ) -> tuple[Tensor, Tensor]:
        value, (low,) = self.value, others
        g = F.logsigmoid(self.decay_b_proj(low).float()) / value.damping
        g = g.unflatten(-1, (value.heads, -1)).transpose(1, 2)
        return gated_linear_attention(q * value.key_dim**-0.5, k, v, g, *kept, lengths=step.padding)
