"""Multi-head latent attention (MLA): the keys and values of all heads are made from one short vector a token.

Of a token only that latent c [R] is kept, and beside it one rotated key k [r] that all heads share: R + r numbers.
`kv_b_proj` holds for each head two matrices, up [P R] for keys and out [V R] for values, and a head reads

    score = (q_plain . up c + q_rotated . k) * scale        given = sum over tokens of softmax(score) out c

Expanded, up c and out c are computed for every token that is seen, and the rest is attention as usual. Absorbed, the
same sums are taken in another order: the query is brought to the latents, and what comes back is brought to values,

    score = ((up^T q_plain) . c + q_rotated . k) * scale    given = out (sum over tokens of softmax(score) c)

so that nothing is computed of a token but its score: all heads read the same R + r numbers. With T new tokens and S
in all, FLOPs of a head are, as multiplications and additions of two each,

    expanded  S R (P + V)  +  T S (P + r + V)
    absorbed  T R (P + V)  +  T S (2 R + r)

A prompt (T = S) is cheaper expanded; after many tokens a few more are cheaper absorbed (of DeepSeek V3, up to 170).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lamina.arch.mixers import LatentAttention as LatentAttentionValue
from lamina.arch.mixers.latent_attention import LearnedTemperature
from lamina.nn.basic import Linear, norm
from lamina.nn.indexer import Indexer
from lamina.nn.registry import Place, runs
from lamina.nn.state import FullCache, Stateful
from lamina.nn.step import Step
from lamina.nn.temperature import Temperature
from lamina.ops.attention import Reach, attend
from lamina.ops.latent import attend_latent
from lamina.ops.packed import Packed
from lamina.ops.rotary import rotate
from lamina.ops.sparse import Choice, attend_chosen, leading

FIELDS = """heads latent query_latent plain_dim rotary_dim value_dim rotary norm scale query_scale latent_scale gate
bias temperature kv_from sinks indexer"""


@runs(LatentAttentionValue, FIELDS)
class LatentAttention(Stateful):
    """Latent attention as its value says.

    Shapes: x [B T D] -> [B T D]; the state holds rows [B 1 S R+r] of each latent and its shared key
    Source: arXiv 2405.04434, section 2.1; the order of the sums: the same, section 2.1.2.
    """

    def __init__(self, value: LatentAttentionValue, width: int, place: Place) -> None:
        super().__init__()
        self.value = value
        queries, out = value.heads * value.head_dim, value.heads * value.value_dim
        if value.query_latent:
            self.q_a_proj = Linear(width, value.query_latent, value.bias)
            self.q_a_norm = norm(value.norm, value.query_latent)
            self.q_b_proj = Linear(value.query_latent, queries)
        else:
            self.q_proj = Linear(width, queries)
        self.own = value.kv_from is None
        if value.kv_from is None:
            self.slot = place.slot()
            self.kv_a_proj = Linear(width, value.latent + value.rotary_dim, value.bias)
            self.kv_a_norm = norm(value.norm, value.latent)
        else:
            self.slot = place.borrowed(value.kv_from)
        self.lent = place.lent
        self.kv_b_proj = Linear(value.latent, value.heads * (value.plain_dim + value.value_dim))
        self.o_proj = Linear(out, width, value.bias)
        self.gate_proj = Linear(width, out if value.gate == "elementwise" else value.heads) if value.gate else None
        self.sinks = nn.Parameter(torch.empty(value.heads)) if value.sinks else None
        self.temperature = Temperature(value.heads) if isinstance(value.temperature, LearnedTemperature) else None
        self.indexer = Indexer(value.indexer, width, value.query_latent, place) if value.indexer else None
        self.scale = value.scale or value.head_dim**-0.5

    @property
    def joined(self) -> tuple[str, ...]:  # type: ignore[override]
        """The projections of the input that there are."""
        return tuple(name for name in ("q_a_proj", "q_proj", "kv_a_proj") if name in self._modules)

    def state(self, batch: int, capacity: int, **like: Any) -> FullCache:
        return FullCache(batch, capacity, (1, self.value.latent + self.value.rotary_dim), **like)

    def _rotated(self, x: Float[Tensor, "B H T r"], step: Step) -> Float[Tensor, "B H T r"]:
        rotary = self.value.rotary
        return x if rotary is None else rotate(x, rotary, *step.rotary(rotary))

    def _queries(self, q: Float[Tensor, "B T HK"], step: Step) -> tuple[Tensor, Tensor]:
        """Of each head the part that meets latents, [B H T P], and the one that meets the shared key, [B H T r]."""
        value = self.value
        q = q.unflatten(-1, (value.heads, -1)).transpose(1, 2)
        q = q if value.query_scale == 1.0 else q * value.query_scale
        if self.temperature is not None:
            q = q * self.temperature(step)
        plain, turned = q.split([value.plain_dim, value.rotary_dim], -1)
        return plain, self._rotated(turned, step)

    def _kept(self, made: Tensor, step: Step) -> tuple[Float[Tensor, "B S R+r"], Reach]:
        """The latents and shared keys of all tokens, and who sees which: its own, or those an earlier block left."""
        if not self.own:
            return step.shared["latents", self.slot]
        latent, key = made.split([self.value.latent, self.value.rotary_dim], -1)
        latent = self.kv_a_norm(latent) * self.value.latent_scale  # type: ignore[misc]
        new = torch.cat([latent[:, None], self._rotated(key[:, None], step)], -1)
        (rows,), reach = step.layers(self.slot).extend((new,), step)
        if self.slot in self.lent:
            step.shared["latents", self.slot] = rows[:, 0], reach
        return rows[:, 0], reach

    def _absorbs(self, tokens: int, seen: int) -> bool:
        """Whether the absorbed order takes fewer FLOPs (the sums above)."""
        value = self.value
        expansion, r = value.latent * (value.plain_dim + value.value_dim), value.rotary_dim
        expanded = seen * expansion + tokens * seen * (value.plain_dim + r + value.value_dim)
        return tokens * expansion + tokens * seen * (2 * value.latent + r) < expanded

    def _attended(
        self, plain: Tensor, turned: Tensor, rows: Tensor, reach: Reach, factor: Tensor | None
    ) -> Float[Tensor, "B H T V"]:
        """What the heads read of all rows that they reach, in the cheaper order."""
        form = self._absorbed if self._absorbs(plain.shape[2], rows.shape[1]) else self._expanded
        return form(plain, turned, rows, reach, factor)

    def _chosen(
        self, plain: Tensor, turned: Tensor, rows: Tensor, reach: Reach, factor: Tensor | None, choice: Choice
    ) -> Float[Tensor, "B H T V"]:
        """What the heads read of the rows that an indexer chose; of all, where a query sees no more than those."""
        n, tokens = choice.dense, plain.shape[2]
        if n == tokens:
            return self._attended(plain, turned, rows, reach, factor)
        after = None if factor is None else factor[:, :, n:]
        out = self._absorbed(plain[:, :, n:], turned[:, :, n:], rows, reach, after, choice)
        if n == 0:
            return out
        before, seen = None if factor is None else factor[:, :, :n], choice.seen
        dense = plain[:, :, :n], turned[:, :, :n], rows[:, :seen], leading(reach, n, seen), before
        return torch.cat([self._attended(*dense), out], 2)

    def _up_and_out(self) -> tuple[Float[Tensor, "H P R"], Float[Tensor, "H V R"]]:
        """The two matrices of each head: views of what `kv_b_proj` holds, unpacked for this call if it is packed."""
        value, weight = self.value, self.kv_b_proj.weight
        whole = weight.dense() if isinstance(weight, Packed) else weight
        up, out = whole.unflatten(0, (value.heads, -1)).split([value.plain_dim, value.value_dim], 1)
        return up, out

    def _absorbed(
        self,
        plain: Tensor,
        turned: Tensor,
        rows: Tensor,
        reach: Reach,
        factor: Tensor | None,
        choice: Choice | None = None,
    ) -> Float[Tensor, "B H T V"]:
        """Attention to the latents themselves, those reached or those chosen.

        Float32 on a CPU, which is slow at anything narrower.
        """
        dtype = torch.float32 if rows.is_cpu and rows.dtype != torch.float64 else rows.dtype
        up, out = self._up_and_out()
        q = torch.cat([plain.to(dtype) @ up.to(dtype), turned.to(dtype)], -1)  # [B H T R+r]
        if choice is None:
            sums = attend_latent(q, rows.to(dtype), self.value.latent, reach, self.scale, self.sinks, factor)
        else:
            sums = attend_chosen(q, rows[:, None], self.value.latent, choice, self.scale, None, self.sinks, factor)
        return (sums @ out.to(dtype).mT).to(rows.dtype)

    def _expanded(
        self, plain: Tensor, turned: Tensor, rows: Tensor, reach: Reach, factor: Tensor | None
    ) -> Float[Tensor, "B H T V"]:
        """Attention to a key and a value of each token and head."""
        value = self.value
        latent, key = rows.split([value.latent, value.rotary_dim], -1)
        made = self.kv_b_proj(latent).unflatten(-1, (value.heads, -1)).transpose(1, 2)  # [B H S P+V]
        keys, values = made.split([value.plain_dim, value.value_dim], -1)
        k = torch.cat([keys, key[:, None].expand(-1, value.heads, -1, -1)], -1)
        return attend(torch.cat([plain, turned], -1), k, values, reach, self.scale, None, self.sinks, factor)

    def forward(self, x: Float[Tensor, "B T D"], step: Step) -> Float[Tensor, "B T D"]:
        value = self.value
        q, *made = self.project(x)
        latent = self.q_a_norm(q) if value.query_latent else x  # type: ignore[misc]
        plain, turned = self._queries(self.q_b_proj(latent) if value.query_latent else q, step)
        rows, reach = self._kept(made[0] if made else x, step)
        factor = None
        if value.temperature is not None and not isinstance(value.temperature, LearnedTemperature):
            factor = step.temperature(value.temperature)
            if value.temperature.of == "queries":
                plain, turned, factor = plain * factor, turned * factor, None
        read = plain, turned, rows, reach, factor
        out = self._chosen(*read, self.indexer(x, latent, step)) if self.indexer else self._attended(*read)
        out = out.transpose(1, 2)  # [B T H V]
        if self.gate_proj is not None:
            gate = self.gate_proj(x).sigmoid()
            out = out * (gate.view_as(out) if value.gate == "elementwise" else gate[..., None])
        return self.o_proj(out.flatten(2))
