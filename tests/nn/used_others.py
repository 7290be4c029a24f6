"""Fields of embeddings, rotary positions, side-by-side ops and per-layer inputs that change a model."""

from __future__ import annotations

from lamina import arch as values
from lamina.arch import (
    MLP,
    Architecture,
    Attention,
    Block,
    Branch,
    Embedding,
    Head,
    LengthClip,
    LengthTemperature,
    Parallel,
    PerLayerInput,
    QKNorm,
    RelativeAttention,
    RMSNorm,
    Rotary,
    ShortFilter,
)
from lamina.arch import CompressedConvolutionalAttention as Convolved
from lamina.arch import PerLayerInputs as Inputs

RMS = RMSNorm(eps=1e-3)
SIDES = Parallel(ops=(Attention(heads=4, kv_heads=2, head_dim=6), MLP(inner=7)))
TURN = Rotary(base=100.0, dim=6)
EMBEDDING = Embedding(vocab=31, width=12)
INPUTS = Inputs(vocab=9, width=4, blocks=2, scale=1.0)
INPUT = PerLayerInput(inner=4)
CONVOLVED = Convolved(heads=4, kv_heads=2, head_dim=6)
CLIP = LengthClip(limit=2.0, relative=1.0)
RELATIVE = RelativeAttention(heads=4, kv_heads=2, head_dim=6, relative_dim=3, extent=5)
GROWING = LengthTemperature(floor=3, scale=0.5, steps=False)


def _taking(inputs: Inputs, op: PerLayerInput) -> Architecture:
    """Blocks that take per-layer inputs in."""
    block = Block(branches=(Branch(op=MLP(inner=7), before=RMS), Branch(op=op, after=RMS)))
    embedding = EMBEDDING.replace(per_layer=inputs)
    return Architecture(family="gemma4", embedding=embedding, blocks=(block,) * inputs.blocks, norm=RMS, context=40)


USED = [
    (TURN, {"turning": 2, "backwards": True, "learned": True}),
    (SIDES, {"before": (RMS, None), "after": (None, RMS)}),
    (EMBEDDING, {"affine": True, "norm": RMS, "per_layer": INPUTS}),
    (INPUTS, {"vocab": 5, "width": 3, "blocks": 1, "scale": 2.0, "norm": RMS}),
    (CONVOLVED, {"heads": 2, "kv_heads": 4, "head_dim": 4, "rotary": TURN, "window": 3, "depthwise": 3, "grouped": 3}),
    (CONVOLVED, {"bias": True, "output_bias": True}),
    (RELATIVE, {"heads": 2, "kv_heads": 1, "head_dim": 4, "relative_dim": 2, "extent": 3, "window": 3, "scale": 0.1}),
    (RELATIVE, {"filter": ShortFilter(kernel=3), "qk_norm": QKNorm(norm=RMS), "clip": CLIP, "value_norm": RMS}),
    (RELATIVE, {"temperature": GROWING, "gate": "elementwise", "sinks": True}),
    (CLIP, {"limit": 1.0, "relative": 0.5}),
    (Head(), {"padding": 3}),
    (INPUT, {"inner": 5, "activation": "silu"}),
]
ELSEWHERE = {
    (Rotary, "sections"): "a token of text has the same position in all of them",
}
HOLDING = {
    values.LengthClip: lambda part: RELATIVE.replace(clip=part),
    values.PerLayerInputs: lambda part: _taking(part, PerLayerInput(inner=part.width)),
    values.PerLayerInput: lambda part: _taking(INPUTS.replace(width=part.inner), part),
}
