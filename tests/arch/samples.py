"""Values that between them hold every part an architecture can have."""

from __future__ import annotations

from lamina.arch import (
    GLU,
    MLP,
    MLSTM,
    RGLRU,
    RWKV7,
    SLSTM,
    AffineResidual,
    AltUp,
    Architecture,
    Attention,
    AttentionPool,
    AttentionResiduals,
    Block,
    BlockIndexer,
    Branch,
    Causal,
    ChannelMix,
    Clamp,
    CompressedAttention,
    CompressedConvolutionalAttention,
    Compressor,
    ConvolutionBlock,
    CrossAttention,
    DeepSupervision,
    DeltaNet,
    DifferentialAttention,
    DistanceAttention,
    DynamicScaling,
    Embedding,
    Encoder,
    EntryIndexer,
    GatedConvolution,
    GatedDeltaNet,
    GatedLinear,
    GatedLinearAttention,
    GatedResidual,
    GatedStreams,
    GridPositions,
    Head,
    HyperConnections,
    Indexer,
    KeyPool,
    KimiDeltaAttention,
    LatentAttention,
    LaurelResidual,
    LayerNorm,
    LayerScale,
    LearnedPositions,
    LearnedTemperature,
    LengthClip,
    LengthTemperature,
    LightningAttention,
    Linear,
    LinearAttention,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    Mamba,
    Mamba2,
    Mamba3,
    MaskedDiffusion,
    Merge,
    MoE,
    NgramMemory,
    NgramTables,
    Node,
    Normalise,
    Op,
    Parallel,
    Patches,
    PerLayerInput,
    PerLayerInputs,
    Pool,
    PooledIndexer,
    Prediction,
    QKNorm,
    Recursion,
    RelativeAttention,
    Retention,
    RMSNorm,
    Rotary,
    Router,
    RouterMLP,
    ScaledResidual,
    SequenceGLU,
    SharedTransformer,
    ShortConvolution,
    ShortFilter,
    Span,
    Spectrogram,
    SpectrumConvolution,
    Squash,
    Standardise,
    TaskEmbedding,
    TilePositions,
    Waveform,
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


# -- what is priced, compared and drawn, and has no module yet

TURN = Rotary(base=1e4, dim=4)
ROUTER = Router(experts=6, active=2, score="sigmoid", scale=2.5, correction=True, groups=3, active_groups=2)
EXPERTS = MoE(router=ROUTER, expert=GLU(inner=7), shared=GLU(inner=5), shared_gate=True)
DEEP = RouterMLP(width=3, layers=2, carried=True, norm=RMS)
DEEPER = MoE(
    router=Router(experts=5, active=3, mlp=DEEP, norm=RMS, logit_scale=0.4, expert_scale=True),
    expert=MLP(inner=9, activation="relu2", bias=True),
    latent=4,
    latent_norm=RMS,
    expert_norm=RMS,
    given_norm=RMS,
    identities=2,
    scaled="input",
)


def _stack(*ops: Op, after: RMSNorm | None = None) -> tuple[Block, ...]:
    """A block for each mixer, with a small feed-forward; a block of one branch for each feed-forward."""
    small = Branch(op=GLU(inner=3), before=RMS)
    return tuple(
        Block(branches=(Branch(op=op, before=RMS, after=after), *(() if op.role == "feed_forward" else (small,))))
        for op in ops
    )


LATENT = Architecture(
    name="latents, indexers and experts beside several streams",
    family="deepseek_v3",
    embedding=Embedding(vocab=97, width=16, ngrams=NgramTables(longest=3, tables=2, rows=50), norm=RMS),
    blocks=_stack(
        LatentAttention(
            heads=3,
            latent=10,
            query_latent=6,
            plain_dim=5,
            rotary_dim=4,
            value_dim=7,
            rotary=TURN,
            gate="head",
            sinks=True,
            indexer=Indexer(heads=2, head_dim=6, top_k=8, rotary=TURN, pool=KeyPool(size=4), query_norm=RMS),
            temperature=LengthTemperature(floor=9, scale=0.1),
        ),
        LatentAttention(
            heads=3,
            latent=10,
            plain_dim=5,
            rotary_dim=0,
            value_dim=7,
            kv_from=0,
            indexer=Indexer(heads=2, head_dim=6, top_k=8, temperature=LearnedTemperature()),
            temperature=LearnedTemperature(),
        ),
        CompressedAttention(
            heads=4,
            head_dim=6,
            query_latent=5,
            window=3,
            output_groups=2,
            output_rank=3,
            rotary=TURN,
            compressor=Compressor(stride=4, overlap=True),
            indexer=EntryIndexer(heads=2, head_dim=4, top_k=2),
        ),
        Attention(heads=4, kv_heads=2, head_dim=6, blocks=BlockIndexer(heads=2, head_dim=4, block=3, top_k=2)),
        Attention(heads=4, kv_heads=2, head_dim=6, blocks=PooledIndexer(heads=2, head_dim=4, pool=3, top_k=2)),
        EXPERTS,
        DEEPER,
    ),
    norm=RMS,
    stream=HyperConnections(count=3, iterations=2),
)
TURNED = LightningAttention(
    heads=6, head_dim=5, activation=None, first=1, scale=0.4, qk_norm=RMS, rotary=TURN, norm_groups=2
)
RECURRENT = Architecture(
    name="recurrences, convolutions and readings of earlier sums",
    family="qwen3_next",
    embedding=Embedding(vocab=97, width=16, affine=True),
    blocks=_stack(
        GatedDeltaNet(key_heads=2, value_heads=4, key_dim=5, value_dim=3, norm=RMS),
        DeltaNet(heads=3, key_dim=5, value_dim=4, convolution=None, activation="relu", unit="sum", gate="silu"),
        KimiDeltaAttention(heads=3, key_dim=5, value_dim=4, decay_rank=2, gate_rank=3, decay_floor=-5.0),
        Mamba2(heads=6, head_dim=3, groups=2, state=5, norm_groups=2, multipliers=(1.0, 0.5, 0.25, 2.0, 1.5)),
        Mamba3(heads=6, head_dim=3, groups=2, state=5, rank=2, turning=2, output_norm=RMS),
        Mamba(inner=14, state=5, rank=3, norms=RMS),
        MLSTM(heads=2, key_dim=3, value_dim=5, softcap=15.0),
        LightningAttention(heads=3, head_dim=5),
        TURNED,
        LinearAttention(heads=3, key_dim=5, value_dim=4, features="relu", gate="sigmoid"),
        Retention(heads=3, key_dim=6, value_dim=4, rotary=Rotary(dim=6)),
        GatedLinearAttention(heads=3, key_dim=5, value_dim=4, decay_rank=2, damping=8.0),
        RGLRU(inner=12, heads=3),
        SLSTM(heads=3, head_dim=5, forget="exponential"),
        RWKV7(heads=2, key_dim=3, value_dim=5, decay_rank=4, step_rank=6, gate_rank=7),
        RWKV7(heads=2, key_dim=3, value_dim=5, decay_rank=4, step_rank=6, gate_rank=7, value_rank=2),
        ChannelMix(inner=9),
        ShortConvolution(kernel=3, bias=True),
        CompressedConvolutionalAttention(heads=4, kv_heads=2, head_dim=6, rotary=TURN, depthwise=2, grouped=3),
        DifferentialAttention(heads=4, kv_heads=2, head_dim=6, rotary=TURN, initial=0.4, bias=True),
        GLU(inner=9, activation="xielu", clamp=Clamp(limit=7.0, shift=1.0, slope=1.702)),
        GLU(inner=9, squash=Squash(gate=4.0, up=25.0)),
    ),
    norm=RMS,
    stream=AttentionResiduals(blocks=3, separate=(2,)),
    loops=2,
    exit_gate=True,
)
_RELATIVE = RelativeAttention(
    heads=4,
    kv_heads=2,
    head_dim=5,
    relative_dim=3,
    extent=6,
    window=7,
    filter=ShortFilter(kernel=3, heads=2),
    clip=LengthClip(limit=2.0, relative=1.5),
    gate="elementwise",
    sinks=True,
)
RESIDUALS = (
    ScaledResidual(scale=1.7, normed=True),
    AffineResidual(),
    GatedResidual(temperature=2.0),
    LaurelResidual(rank=3, norm=RMS),
)
ADDED = Architecture(
    name="other ways to add up, and vectors that go to the blocks",
    family="gemma3n",
    embedding=Embedding(
        vocab=97, width=16, per_layer=PerLayerInputs(vocab=90, width=3, blocks=5, scale=3**0.5, norm=RMS)
    ),
    blocks=(
        *(Block(branches=(Branch(op=PLAIN, before=RMS, residual=r),), scaled=i == 0) for i, r in enumerate(RESIDUALS)),
        Block(
            branches=(
                Branch(op=_RELATIVE, before=RMS, filter=ShortFilter(kernel=2, scale=0.5), gate="factor"),
                Branch(op=PerLayerInput(inner=3), after=RMS),
            )
        ),
    ),
    norm=RMS,
    stream=AltUp(count=3, active=1, clip=120.0),
)
GATED = Architecture(
    name="gated streams with a memory",
    family="qwen4_exp",
    embedding=Embedding(vocab=97, width=16),
    blocks=_stack(PLAIN, EXPERTS),
    norm=RMS,
    stream=GatedStreams(
        count=2,
        rank=3,
        memory=NgramMemory(blocks=(1,), width=12, longest=3, tables=2, rows=30, multiple=8, seed=1, end=0),
    ),
)
_SEES = Block(
    branches=(
        Branch(op=Attention(heads=2, kv_heads=2, head_dim=4), before=LAYER, residual=LayerScale()),
        Branch(op=MLP(inner=9, activation="quick_gelu"), before=LAYER),
    )
)
_HEARS = Block(
    branches=(
        Branch(op=DistanceAttention(heads=2, head_dim=4, window=5), before=RMS),
        Branch(op=GatedConvolution(kernel=3, norm=RMS), before=RMS),
    )
)
SEEING = Architecture(
    name="encoders of images and sound",
    family="gemma4",
    embedding=Embedding(vocab=97, width=16),
    blocks=_stack(PLAIN, PLAIN.replace(window=4)),
    encoders=(
        Encoder(
            modality="image",
            input=Patches(size=4, image=16),
            stem=(Linear(width=8, bias=True), Standardise()),
            positions=GridPositions(rows=4, columns=4, class_vector=True),
            class_token=True,
            blocks=(_SEES, _SEES),
            connector=(Merge(count=2), Normalise(norm=RMS), GatedLinear(inner=7, width=16)),
        ),
        Encoder(
            modality="image",
            input=Patches(size=2),
            stem=(Linear(width=8),),
            positions=TilePositions(length=9, tiles=2, arrangements=3),
            blocks=(_SEES,),
            connector=(AttentionPool(count=4, heads=2, head_dim=3, width=16, kv_heads=1),),
            fusion="cross_attention",
        ),
        Encoder(
            modality="audio",
            input=Spectrogram(bins=10),
            stem=(SpectrumConvolution(inputs=1, channels=2, kernel=3, stride=2, norm=LAYER), Linear(width=8)),
            blocks=(_HEARS,),
            connector=(Pool(count=2, scale=0.5), Linear(width=16)),
        ),
        Encoder(
            modality="audio",
            input=Waveform(),
            stem=(Merge(count=5), Linear(width=16), ConvolutionBlock(kernel=3, inner=9, norm=LAYER)),
            connector=(Linear(width=16),),
        ),
    ),
)
DRAFTING = DIFFUSION.replace(
    name="heads for later tokens",
    objective=Causal(),
    prediction=Prediction(blocks=DIFFUSION.blocks, norm=LAYER, first="hidden"),
)
_ASIDE = SharedTransformer(
    attention=Attention(heads=4, kv_heads=2, head_dim=6, rotary=TURN, bias=True, output_bias=True, qk_norm=QKNorm()),
    feed_forward=GLU(inner=9, bias=True),
    norm=RMS,
    attention_rank=3,
    feed_forward_rank=2,
)
_WITH = Branch(op=PLAIN, before=RMS)
SHARED = Architecture(
    name="a transformer that blocks share",
    family="zamba2",
    embedding=Embedding(vocab=97, width=16),
    blocks=(
        Block(branches=(_WITH.replace(aside=_ASIDE),)),
        Block(branches=(_WITH,)),
        *(Block(branches=(_WITH.replace(aside=_ASIDE.replace(same_as=0)),)) for _ in range(2)),
        Block(branches=(_WITH.replace(aside=_ASIDE.replace(attention_rank=None, same_as=0)),)),
    ),
    norm=RMS,
    head=Head(tied=True),
    context=40,
)
RUNS = (DECODER, DIFFUSION, RECURSIVE)
"""Those of which there are modules."""
ALL = (*RUNS, SHARED, LATENT, RECURRENT, ADDED, GATED, SEEING, DRAFTING)


def parts(value: object) -> list[Node]:
    """Every node within a value, itself included."""
    if isinstance(value, tuple):
        return [node for item in value for node in parts(item)]
    if not isinstance(value, Node):
        return []
    return [value, *(node for name in type(value).model_fields for node in parts(getattr(value, name)))]
