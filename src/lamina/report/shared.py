"""A transformer that several places share, in the field's words. Registered with `words`."""

from __future__ import annotations

from lamina.arch import SharedTransformer
from lamina.report.words import kind_of, name_of, phrases


@kind_of.register
def _(op: SharedTransformer) -> str:
    return "shared transformer"


@name_of.register
def _(op: SharedTransformer) -> str:
    return f"shared {name_of(op.attention)} + {name_of(op.feed_forward)}"


@phrases.register
def _(op: SharedTransformer) -> list[str]:
    said = [] if op.same_as is None else [f"weights of layer {op.same_as}"]
    said += ["reads the embedding too", *phrases(op.attention), *phrases(op.feed_forward)]
    ranks = (("q, k, v", op.attention_rank), ("the feed-forward", op.feed_forward_rank))
    return said + [f"own matrices of rank {rank} beside {what}" for what, rank in ranks if rank]
