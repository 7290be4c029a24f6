"""Fields of streams, of what stands in place of a sum, and of filters, that change a model."""

from __future__ import annotations

from typing import Any

from lamina.arch import (
    GLU,
    AffineResidual,
    AltUp,
    Architecture,
    Attention,
    AttentionResiduals,
    Block,
    Branch,
    CompressedAttention,
    Compressor,
    Embedding,
    EntryIndexer,
    GatedResidual,
    GatedStreams,
    HyperConnections,
    LaurelResidual,
    LayerNorm,
    LayerScale,
    NgramMemory,
    RelativeAttention,
    RMSNorm,
    Rotary,
    ScaledResidual,
    ShortFilter,
)

RMS, LAYER = RMSNorm(eps=1e-3), LayerNorm(eps=1e-3)
SELF = Attention(heads=4, kv_heads=2, head_dim=6)
BRANCH = Branch(op=SELF, before=RMS)
PLAIN = Architecture(
    family="llama",
    embedding=Embedding(vocab=31, width=12),
    blocks=(Block(branches=(BRANCH, Branch(op=GLU(inner=7), before=RMS))),) * 3,
    norm=RMS,
    context=40,
)
HYPER = HyperConnections(count=3, iterations=2, norm=RMSNorm(eps=1e-3, weight=False), eps=1e-3)
GATED = GatedStreams(count=3, rank=4, norm=RMS)
NGRAMS = NgramMemory(blocks=(0, 2), width=12, longest=3, tables=2, rows=50, kernel=2, seed=1, end=5, norm=RMS)
EARLIER = AttentionResiduals(blocks=2, norm=RMS)
ALTUP = AltUp(count=3, norm=RMS)
RELATIVE = RelativeAttention(heads=4, kv_heads=2, head_dim=6, relative_dim=3, extent=5)
OWN = PLAIN.replace(
    blocks=(PLAIN.blocks[0].replace(branches=(Branch(op=RELATIVE, before=RMS), *PLAIN.blocks[0].branches)),) * 3
)
OWN = OWN.replace(stream=EARLIER)
SCALED, GATE, LAUREL = ScaledResidual(scale=2.0), GatedResidual(floor=0.5), LaurelResidual(rank=3, norm=RMS)
FILTER = ShortFilter(kernel=3)
TURN = Rotary(base=20.0, dim=4, layout="interleaved")
ENTRIES, CHOSEN = Compressor(stride=2), EntryIndexer(heads=5, head_dim=6, top_k=2)
NEAR = CompressedAttention(
    heads=4, head_dim=6, query_latent=5, window=4, output_groups=2, output_rank=3, rotary=TURN, norm=RMS
)
FAR = NEAR.replace(compressor=ENTRIES)
USED: list[tuple[Any, dict[str, Any]]] = [
    (PLAIN, {"stream": HYPER}),
    (OWN, {"stream": EARLIER.replace(separate=(1, 2))}),
    (HYPER, {"count": 2, "iterations": 0, "magnitude": 1.0, "eps": 0.1, "norm": RMS, "joining": "mean"}),
    (GATED, {"count": 2, "rank": 3, "norm": LAYER, "memory": NGRAMS}),
    (NGRAMS, {"blocks": (1,), "width": 8, "longest": 4, "tables": 1, "rows": 40, "multiple": 16, "kernel": 3}),
    (NGRAMS, {"seed": 2, "end": 4, "norm": LAYER}),
    (EARLIER, {"blocks": 1, "norm": LAYER, "scaled": True, "normed": True, "first": False}),
    (ALTUP, {"count": 2, "active": 1, "norm": LAYER, "output_scale": False}),
    (BRANCH, {"residual": SCALED, "filter": FILTER}),
    (SCALED, {"scale": 1.5, "normed": True}),
    (GATE, {"temperature": 0.5, "floor": 0.9}),
    (LAUREL, {"rank": 2, "norm": LAYER}),
    (FILTER, {"kernel": 2, "scale": 0.5, "heads": 4}),
    (NEAR, {"heads": 6, "head_dim": 8, "query_latent": 6, "window": 3, "output_groups": 4, "output_rank": 2}),
    (NEAR, {"rotary": TURN.replace(base=30.0), "norm": RMSNorm(eps=0.5), "compressor": ENTRIES}),
    (FAR, {"indexer": CHOSEN}),
    (ENTRIES, {"stride": 3, "overlap": True}),
    (CHOSEN, {"heads": 3, "head_dim": 4, "top_k": 1}),
]
ELSEWHERE = {
    (AltUp, "clip"): "read in training: tests/nn/test_streams.py",
    (AttentionResiduals, "separate"): "needs relative attention: changed in the architecture above",
}
HOLDING = {
    **dict.fromkeys((HyperConnections, GatedStreams, AttentionResiduals, AltUp), lambda p: PLAIN.replace(stream=p)),
    **dict.fromkeys(
        (AffineResidual, GatedResidual, LaurelResidual, LayerScale, ScaledResidual),
        lambda part: BRANCH.replace(residual=part),
    ),
    ShortFilter: lambda part: BRANCH.replace(filter=part),
    NgramMemory: lambda part: GATED.replace(memory=part),
    Compressor: lambda part: NEAR.replace(compressor=part),
    EntryIndexer: lambda part: FAR.replace(indexer=part),
}
