"""Values that between them hold every part an architecture can have."""

from __future__ import annotations

from lamina.arch import (
    GLU,
    MLP,
    Architecture,
    Attention,
    Block,
    Branch,
    Causal,
    CrossAttention,
    DeepSupervision,
    DynamicScaling,
    Embedding,
    Head,
    LayerNorm,
    LearnedPositions,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    MaskedDiffusion,
    Node,
    Parallel,
    QKNorm,
    Recursion,
    RMSNorm,
    Rotary,
    SequenceGLU,
    Span,
    TaskEmbedding,
    YarnScaling,
)

SCALINGS = (
    None,
    LinearScaling(factor=3.0),
    DynamicScaling(factor=0.1, original_context=33),
    Llama3Scaling(factor=8.0, low_frequency=1.0, high_frequency=4.0, original_context=77),
    YarnScaling(factor=1 / 3, original_context=77, beta_fast=31.0, beta_slow=0.9, attention_factor=1.1, truncate=False),
    LongRopeScaling(short=(1.0, 1.1, 1e-3), long=(2.0, 3.3, 1e9), original_context=77, attention_factor=1.19),
)
RMS, LAYER = RMSNorm(eps=1e-7, offset=1.0), LayerNorm(eps=2e-5, bias=False)


def _attention(i: int) -> Attention:
    return Attention(
        heads=6,
        kv_heads=(6, 2, 1)[i % 3],
        head_dim=7,
        rotary=Rotary(base=900.1, dim=6, layout=("half", "interleaved")[i % 2], scaling=SCALINGS[i]),
        qk_norm=QKNorm(norm=(RMS, LAYER)[i % 2], over=("head", "width")[i % 2]),
        window=(None, 5)[i % 2],
        softcap=(None, 30.0)[i % 2],
        scale=(None, 0.3)[i % 2],
        bias=i % 2 == 0,
        output_bias=i % 2 == 1,
    )


PLAIN = Attention(heads=3, kv_heads=1, head_dim=5)
_CROSS = CrossAttention(heads=6, kv_heads=2, head_dim=7, memory_width=13, qk_norm=QKNorm())
DECODER = Architecture(
    name="all kinds of decoder blocks",
    family="llama",
    embedding=Embedding(vocab=97, width=11, placeholders=3, scale=11**0.5, positions=LearnedPositions(length=19)),
    blocks=(
        *(
            Block(
                branches=(
                    Branch(op=_attention(i), before=RMS, after=LAYER, multiplier=0.22),
                    Branch(op=GLU(inner=17, activation="relu2", bias=True), before=LAYER),
                )
            )
            for i in range(len(SCALINGS))
        ),
        Block(branches=(Branch(op=Parallel(ops=(PLAIN, MLP(inner=23, bias=True), PLAIN)), before=LAYER),)),
        Block(branches=(Branch(op=_CROSS, before=RMS, gate="tanh"), Branch(op=MLP(inner=3), attended_only=True))),
    ),
    norm=RMS,
    head=Head(tied=True, scale=1 / 3, softcap=30.0, bias=True),
    objective=Causal(),
    context=77,
)
DIFFUSION = Architecture(
    family="llada",
    embedding=Embedding(vocab=97, width=15),
    blocks=(Block(branches=(Branch(op=PLAIN, before=RMS), Branch(op=GLU(inner=9), before=RMS))),) * 2,
    objective=MaskedDiffusion(mask_token=96),
)
RECURSIVE = Architecture(
    family="hrm",
    embedding=Embedding(vocab=97, width=15, task=TaskEmbedding(count=5, width=20, tokens=2)),
    blocks=(
        Block(branches=(Branch(op=SequenceGLU(length=13, glu=GLU(inner=9)), joined=RMSNorm(weight=False)),)),
        Block(branches=(Branch(op=PLAIN, joined=RMSNorm(weight=False)),)),
    ),
    recursion=Recursion(
        low=Span(start=0, stop=1), high=Span(start=1, stop=2), low_cycles=3, high_cycles=2, gradient="last_step"
    ),
    objective=DeepSupervision(max_steps=7, exploration=0.1),
    context=11,
)
ALL = (DECODER, DIFFUSION, RECURSIVE)


def parts(value: object) -> list[Node]:
    """Every node within a value, itself included."""
    if isinstance(value, tuple):
        return [node for item in value for node in parts(item)]
    if not isinstance(value, Node):
        return []
    return [value, *(node for name in type(value).model_fields for node in parts(getattr(value, name)))]
