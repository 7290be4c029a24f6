"""What the pages of docs/mechanisms are about: the values of each, an example of it, and what is said of its users."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import lamina
from lamina import arch as a
from lamina.arch.base import Node
from lamina.arch.position import LearnedPositions

Told = Callable[[Any], str]
Trait = Callable[[Any], bool]


@dataclass(frozen=True, eq=False)
class Mechanism:
    """One page.

    Fields: `types` are the values it is about, those of them that `which` tells; `example` is what its weights, costs
    and drawing are taken from, `line` the kinds of the lines of that example's bill; `drawn` finds in the example what
    is drawn; `sizes` writes the key sizes of a part, for a table of users; where that table would be too long, `traits`
    are the facts by which users are grouped; `within` is False for parts of an architecture as a whole, which stand in
    no block, and `encoding` is set of those of its encoders.
    """

    slug: str
    title: str
    types: tuple[type[Node], ...]
    example: Callable[[], a.Architecture]
    line: tuple[str, ...]
    drawn: Callable[[a.Architecture], Node]
    sizes: Told = str
    traits: dict[str, Trait] = field(default_factory=dict)
    which: Trait = lambda part: True
    within: bool = True
    encoding: bool = False


def named(name: str) -> Callable[[], a.Architecture]:
    """An example from the catalog, or from an edit of one."""
    return lambda: lamina.architecture(name)


def first(kind: type[Node]) -> Callable[[a.Architecture], Node]:
    """The first part of a type."""
    return lambda arch: next(part for part in parts(arch) if isinstance(part, kind))


def block(arch: a.Architecture) -> Node:
    """The first block."""
    return arch.blocks[0]


def parts(value: Any) -> Iterator[Node]:
    """A value and all its parts, each as often as it stands."""
    if isinstance(value, tuple):
        for item in value:
            yield from parts(item)
    elif isinstance(value, Node):
        yield value
        for name in type(value).model_fields:
            yield from parts(getattr(value, name))


def _rg_lru() -> a.Architecture:
    made = lamina.architecture("qwen3-0.6b").replace("blocks[*].mixer", a.RGLRU(inner=1024, heads=8))
    return made.replace(name="qwen3-0.6b with RG-LRU")


def _sequence_glu() -> a.Architecture:
    made = lamina.architecture("trm").replace("blocks[*].mixer", a.SequenceGLU(length=97, glu=a.GLU(inner=512)))
    return made.replace(name="trm with a GLU along the sequence")


def _zamba2() -> a.Architecture:
    """The sizes of Zamba2-2.7B, as its model card and the reference's defaults have them."""
    sizes = {"hidden_size": 2560, "num_attention_heads": 32, "n_mamba_heads": 80, "num_mem_blocks": 2}
    return lamina.architecture({"model_type": "zamba2", **sizes}).replace(name="zamba2-2.7b")


def _rwkv7() -> a.Architecture:
    """The sizes of the largest published one."""
    sizes = {"hidden_size": 2560, "num_hidden_layers": 32, "vocab_size": 65536, "decay_low_rank_dim": 96}
    sizes |= {"a_low_rank_dim": 96, "v_low_rank_dim": 64, "gate_low_rank_dim": 320}
    return lamina.architecture({"model_type": "rwkv7", **sizes}).replace(name="rwkv7-2.9b")


# -- what is said of parts


def _latent(op: a.LatentAttention) -> str:
    queries = f"query latent {op.query_latent:,}" if op.query_latent else "no query latent"
    keys = f"{op.plain_dim} + {op.rotary_dim}"
    sparse = ", indexer" if op.indexer else ""
    return (
        f"{op.heads} heads, latent {op.latent:,} + {op.rotary_dim}, {queries}, key {keys}, value {op.value_dim}{sparse}"
    )


def _gated(op: Any) -> str:
    what = "each number" if op.gate == "elementwise" else "each head"
    return f"{what} of {op.heads} heads, {getattr(op, 'gate_activation', 'sigmoid')}"


def _indexer(part: Any) -> str:
    if isinstance(part, a.BlockIndexer):
        return f"{part.heads} x {part.head_dim} chooses {part.top_k} blocks of {part.block}"
    if isinstance(part, a.PooledIndexer):
        return f"{part.heads} x {part.head_dim} chooses {part.top_k} pools of {part.pool}"
    if isinstance(part, a.EntryIndexer):
        return f"{part.heads} x {part.head_dim} chooses {part.top_k:,} compressed entries"
    if part.shared:
        return f"an earlier layer's choice of {part.top_k:,} tokens"
    pool = f" in pools of {part.pool.size}" if part.pool else ""
    return f"{part.heads} x {part.head_dim} chooses {part.top_k:,} tokens{pool}"


def _compressed(op: a.CompressedAttention) -> str:
    entry = f", an entry every {op.compressor.stride} tokens" if op.compressor else ""
    chosen = f", {op.indexer.top_k} of them chosen" if op.indexer else ""
    return f"{op.heads} heads of {op.head_dim}, window {op.window}{entry}{chosen}"


def _heads(op: Any) -> str:
    return f"{op.heads} heads, key {op.key_dim}, value {op.value_dim}"


def _moe(op: a.MoE) -> str:
    inner = f"{op.router.active} of {op.router.experts:,} experts of {op.expert.inner:,}"
    inner += f" at width {op.latent:,}" if op.latent else ""
    inner += f", {op.identities} identities" if op.identities else ""
    return inner + (f", shared {op.shared.inner:,}" if op.shared else "")


def _stream(part: Any) -> str:
    if isinstance(part, a.AttentionResiduals):
        return f"attention over earlier sums, a run of {part.blocks} blocks"
    if isinstance(part, a.AltUp | a.HyperConnections | a.GatedStreams):
        name = {"altup": "AltUp", "hyper_connections": "hyper-connections", "gated_streams": "gated streams"}[part.kind]
        return f"{name}, {part.count} streams"
    return {
        "scaled": "scaled residual",
        "affine": "affine residual",
        "gated": "gated residual",
        "laurel": "LAuReL residual",
    }[part.kind]


def _ngrams(part: Any) -> str:
    return f"{part.count} tables of about {part.rows:,} rows, up to {part.longest} tokens together"


def _relative(op: a.RelativeAttention) -> str:
    window = f", window {op.window:,}" if op.window else ""
    return f"{op.heads}/{op.kv_heads} heads of {op.head_dim}, {op.relative_dim} x {op.extent:,} distances{window}"


def _short(part: Any) -> str:
    return f"kernel {part.kernel}" + ("" if isinstance(part, a.ShortConvolution) else ", beside a vector")


def _recursion(part: a.Recursion) -> str:
    low, high = part.low.stop - part.low.start, part.high.stop - part.high.start
    return f"{part.high_cycles} x ({part.low_cycles} x {low} blocks + {high} blocks)"


def _encoder(part: a.Encoder) -> str:
    many = f"{len(part.blocks)} blocks" if part.blocks else "no blocks"
    into = "the stream" if part.fusion == "stream" else "cross-attention"
    return f"{part.modality}, {many} of width {part.width:,}, into {into}"


def _conformer(op: Any) -> str:
    if isinstance(op, a.GatedConvolution):
        return f"gated convolution of {op.kernel}"
    return f"distance attention, {op.heads} heads of {op.head_dim}, window {op.window}"


def _mamba2(op: a.Mamba2) -> str:
    return f"{op.heads} heads of {op.head_dim}, state {op.state}, {op.groups} {'group' if op.groups == 1 else 'groups'}"


def _delta(op: a.GatedDeltaNet) -> str:
    return f"{op.key_heads} key heads of {op.key_dim}, {op.value_heads} value heads of {op.value_dim}"


def _cca(op: a.CompressedConvolutionalAttention) -> str:
    return f"{op.heads}/{op.kv_heads} heads of {op.head_dim}, kernels {op.depthwise} and {op.grouped}"


def _parallel(op: a.Parallel) -> str:
    return " + ".join(op.kind.replace("_", " ") for op in op.ops)


# -- traits


ATTENTION: dict[str, Trait] = {
    "MHA (G = H)": lambda op: op.heads == op.kv_heads,
    "GQA (1 < G < H)": lambda op: 1 < op.kv_heads < op.heads,
    "MQA (G = 1)": lambda op: op.kv_heads == 1 < op.heads,
    "a window": lambda op: bool(op.window),
    "chunks": lambda op: bool(op.chunk),
    "sinks": lambda op: op.sinks,
    "a gate, each number": lambda op: op.gate == "elementwise",
    "a gate, each head": lambda op: op.gate == "head",
    "QK-norm over the head": lambda op: bool(op.qk_norm and op.qk_norm.over == "head"),
    "QK-norm over the width": lambda op: bool(op.qk_norm and op.qk_norm.over == "width"),
    "a norm of values": lambda op: bool(op.value_norm),
    "soft-capped scores": lambda op: bool(op.softcap),
    "a temperature that grows with length": lambda op: bool(op.temperature),
    "keys and values of an earlier layer": lambda op: op.kv_from is not None,
    "keys that are the values (K = V)": lambda op: op.keys_as_values,
    "values of another size than keys": lambda op: bool(op.value_dim and op.value_dim != op.head_dim),
    "blocks or pools that an indexer chooses": lambda op: bool(op.blocks),
    "no rotary (NoPE)": lambda op: op.rotary is None,
    "biases on q, k, v": lambda op: op.bias,
}
FEED_FORWARD: dict[str, Trait] = {
    "MLP": lambda op: op.kind == "mlp",
    "GLU with SiLU (SwiGLU)": lambda op: op.kind == "glu" and op.activation == "silu",
    "GLU with GELU (GeGLU)": lambda op: op.kind == "glu" and op.activation in ("gelu", "gelu_tanh"),
    "GELU (tanh)": lambda op: op.activation == "gelu_tanh",
    "squared ReLU": lambda op: op.activation == "relu2",
    "xIELU": lambda op: op.activation == "xielu",
    "biases": lambda op: op.bias,
    "a clamp": lambda op: bool(getattr(op, "clamp", None)),
    "a smooth squash": lambda op: bool(getattr(op, "squash", None)),
    "a sparse gate": lambda op: bool(getattr(op, "sparsity", 0)),
}
NORMS: dict[str, Trait] = {
    "before alone": lambda b: bool(b.before and not b.after and not b.joined),
    "after alone": lambda b: bool(b.after and not b.before and not b.joined),
    "before and after": lambda b: bool(b.before and b.after),
    "of the sum": lambda b: bool(b.joined),
    "LayerNorm": lambda b: any(isinstance(n, a.LayerNorm) for n in (b.before, b.after, b.joined)),
    "LayerNorm without bias": lambda b: any(
        isinstance(n, a.LayerNorm) and not n.bias for n in (b.before, b.after, b.joined)
    ),
    "RMSNorm, 1 + weight": lambda b: any(isinstance(n, a.RMSNorm) and n.offset == 1 for n in (b.before, b.after)),
    "no weight": lambda b: any(isinstance(n, a.RMSNorm) and not n.weight for n in (b.before, b.after, b.joined)),
    "multiplied by the weight first": lambda b: any(isinstance(n, a.RMSNorm) and n.weight_first for n in (b.before,)),
    "no norm": lambda b: not (b.before or b.after or b.joined),
}
POSITIONS: dict[str, Trait] = {
    "rotary, pairs i and i + dim/2": lambda p: getattr(p, "layout", "") == "half",
    "rotary, pairs 2i and 2i + 1": lambda p: getattr(p, "layout", "") == "interleaved",
    "linear scaling": lambda p: isinstance(getattr(p, "scaling", None), a.LinearScaling),
    "llama3 scaling": lambda p: isinstance(getattr(p, "scaling", None), a.Llama3Scaling),
    "yarn scaling": lambda p: isinstance(getattr(p, "scaling", None), a.YarnScaling),
    "dynamic scaling": lambda p: isinstance(getattr(p, "scaling", None), a.DynamicScaling),
    "longrope scaling": lambda p: isinstance(getattr(p, "scaling", None), a.LongRopeScaling),
    "several positions a token (sections)": lambda p: bool(getattr(p, "sections", None)),
    "some pairs that do not turn": lambda p: bool(getattr(p, "turning", None)),
    "learned frequencies": lambda p: bool(getattr(p, "learned", False)),
    "learned positions": lambda p: isinstance(p, LearnedPositions),
}

MECHANISMS = (
    Mechanism(
        *("attention", "Attention", (a.Attention,), named("qwen3-0.6b"), ("attention",), first(a.Attention)),
        traits=ATTENTION,
    ),
    Mechanism(
        *("gated-attention", "Gated attention", (a.Attention, a.LatentAttention, a.RelativeAttention)),
        *(named("qwen3-next-80b-a3b"), ("attention",)),
        lambda arch: next(op for op in arch.ops() if isinstance(op, a.Attention) and op.gate),
        _gated,
        which=lambda op: bool(op.gate),
    ),
    Mechanism(
        *("differential-attention", "Differential attention", (a.DifferentialAttention,)),
        *(named("qwen3-0.6b:blocks[*].mixer=differential_attention"), ("differential_attention",)),
        first(a.DifferentialAttention),
        lambda op: f"{op.heads}/{op.kv_heads} heads of two maps of {op.head_dim}",
    ),
    Mechanism(
        *("latent-attention", "Latent attention (MLA)", (a.LatentAttention,), named("deepseek-v3")),
        *(("latent_attention",), first(a.LatentAttention), _latent),
    ),
    Mechanism(
        *("sparse-attention", "Sparse attention"),
        (a.Indexer, a.BlockIndexer, a.PooledIndexer, a.EntryIndexer),
        *(named("deepseek-v3.2"), ("latent_attention",), first(a.Indexer), _indexer),
    ),
    Mechanism(
        *("compressed-attention", "Compressed attention", (a.CompressedAttention,), named("deepseek-v4-flash")),
        ("compressed_attention",),
        lambda arch: next(p for p in parts(arch) if isinstance(p, a.CompressedAttention) and p.indexer),
        _compressed,
    ),
    Mechanism(
        *("compressed-convolutional-attention", "Compressed convolutional attention (CCA)"),
        *((a.CompressedConvolutionalAttention,), named("zaya1-8b"), ("compressed_convolutional_attention",)),
        *(first(a.CompressedConvolutionalAttention), _cca),
    ),
    Mechanism(
        *("relative-attention", "Relative attention", (a.RelativeAttention,), named("inkling")),
        *(("relative_attention",), block, _relative),
    ),
    Mechanism(
        *("cross-attention", "Cross-attention", (a.CrossAttention,), named("llama-3.2-11b-vision")),
        *(("cross_attention",), first(a.CrossAttention)),
        lambda op: f"{op.heads}/{op.kv_heads} heads of {op.head_dim}, memory of width {op.memory_width:,}",
    ),
    Mechanism(
        *("deltanet", "DeltaNet", (a.DeltaNet,), named("qwen3-0.6b:blocks[*].mixer=deltanet"), ("deltanet",)),
        *(first(a.DeltaNet), _heads),
    ),
    Mechanism(
        *("gated-deltanet", "Gated DeltaNet", (a.GatedDeltaNet,), named("qwen3-next-80b-a3b"), ("gated_deltanet",)),
        *(first(a.GatedDeltaNet), _delta),
    ),
    Mechanism(
        *("kimi-delta-attention", "Kimi Delta Attention", (a.KimiDeltaAttention,), named("kimi-linear-48b-a3b")),
        *(("kimi_delta_attention",), first(a.KimiDeltaAttention), _heads),
    ),
    Mechanism(
        *("lightning-attention", "Lightning attention", (a.LightningAttention,), named("minimax-m1")),
        *(("lightning_attention",), first(a.LightningAttention), lambda op: f"{op.heads} heads of {op.head_dim}"),
    ),
    Mechanism(
        *("linear-attention", "Linear attention", (a.LinearAttention,)),
        named("qwen3-0.6b:blocks[*].mixer=linear_attention"),
        *(("linear_attention",), first(a.LinearAttention), _heads),
    ),
    Mechanism(
        *("retention", "Retention", (a.Retention,), named("qwen3-0.6b:blocks[*].mixer=retention"), ("retention",)),
        *(first(a.Retention), _heads),
    ),
    Mechanism(
        *("gated-linear-attention", "Gated linear attention (GLA)", (a.GatedLinearAttention,)),
        named("qwen3-0.6b:blocks[*].mixer=gated_linear_attention"),
        *(("gated_linear_attention",), first(a.GatedLinearAttention), _heads),
    ),
    Mechanism(*("mlstm", "mLSTM", (a.MLSTM,), named("xlstm-7b"), ("mlstm",), first(a.MLSTM), _heads)),
    Mechanism(
        *("slstm", "sLSTM", (a.SLSTM,), named("qwen3-0.6b:blocks[*].mixer=slstm"), ("slstm",), first(a.SLSTM)),
        lambda op: f"{op.heads} heads of {op.head_dim} cells",
    ),
    Mechanism(
        *("rwkv-7", "RWKV-7", (a.RWKV7, a.ChannelMix), _rwkv7, ("rwkv7", "channel_mix"), first(a.RWKV7)),
        lambda op: _heads(op) if isinstance(op, a.RWKV7) else f"channel mix of {op.inner:,}",
    ),
    Mechanism(
        *("mamba", "Mamba", (a.Mamba,), named("qwen3-0.6b:blocks[*].mixer=mamba"), ("mamba",), first(a.Mamba)),
        lambda op: f"{op.inner:,} channels, state {op.state}, rank {op.rank}",
    ),
    Mechanism(
        *("mamba-2", "Mamba-2", (a.Mamba2,), named("nemotron-3-nano-30b-a3b"), ("mamba2",), first(a.Mamba2), _mamba2)
    ),
    Mechanism(
        *("mamba-3", "Mamba-3", (a.Mamba3,), named("qwen3-0.6b:blocks[*].mixer=mamba3"), ("mamba3",), first(a.Mamba3)),
        lambda op: f"{op.heads} heads of {op.head_dim}, state {op.state}, rank {op.rank}",
    ),
    Mechanism(*("rg-lru", "RG-LRU", (a.RGLRU,), _rg_lru, ("rg_lru",), block, lambda op: f"{op.inner:,} channels")),
    Mechanism(
        *("short-convolution", "Short convolution", (a.ShortConvolution, a.ShortFilter), named("lfm2-8b-a1b")),
        *(("short_convolution",), first(a.ShortConvolution), _short),
    ),
    Mechanism(
        *("sequence-glu", "GLU along the sequence", (a.SequenceGLU,), _sequence_glu, ("sequence_glu",), block),
        lambda op: f"{op.length} tokens",
    ),
    Mechanism(
        *("feed-forward", "Feed-forward: MLP and GLU", (a.GLU, a.MLP), named("llama-3-8b"), ("glu",), block),
        traits=FEED_FORWARD,
    ),
    Mechanism(
        *("mixture-of-experts", "Mixture of experts", (a.MoE,), named("deepseek-v3"), ("moe",), first(a.MoE), _moe)
    ),
    Mechanism(*("norms", "Norms", (a.Branch,), named("gemma-3-270m"), ("norm",), block), traits=NORMS),
    Mechanism(
        *("rotary", "Positions", (a.Rotary, LearnedPositions), named("gpt-2-124m"), ("embedding",), lambda arch: arch),
        traits=POSITIONS,
        within=False,
    ),
    Mechanism(
        *("streams", "Residual streams"),
        (
            *(a.HyperConnections, a.AttentionResiduals, a.AltUp, a.GatedStreams),
            *(a.AffineResidual, a.GatedResidual, a.LaurelResidual, a.ScaledResidual),
        ),
        *(named("deepseek-v4-flash"), ("hyper_connections",), first(a.HyperConnections), _stream),
        within=False,
    ),
    Mechanism(
        *("per-layer-inputs", "Per-layer inputs", (a.PerLayerInput,), named("gemma-3n-e4b-text")),
        *(("per_layer_input",), first(a.PerLayerInputs), lambda op: f"{op.inner} numbers a layer"),
    ),
    Mechanism(
        *("ngram-tables", "N-gram tables", (a.NgramTables, a.NgramMemory), named("longcat-flash-lite"), ("ngrams",)),
        *(lambda arch: arch, _ngrams),
        within=False,
    ),
    Mechanism(
        *("shared-transformer", "Shared transformer", (a.SharedTransformer,), _zamba2, ("shared_transformer",)),
        *(first(a.SharedTransformer), lambda op: f"{op.attention.heads} heads of {op.attention.head_dim}"),
    ),
    Mechanism(
        *("parallel", "Parallel ops", (a.Parallel,), named("tiny-aya-3.35b"), ("attention", "glu"), block, _parallel),
    ),
    Mechanism(
        *("recursion", "Recursion and loops", (a.Recursion,), named("trm"), ("recursion",), first(a.Recursion)),
        _recursion,
        within=False,
    ),
    Mechanism(
        *("encoders", "Encoders of images and sound", (a.Encoder,), named("gemma-3-27b")),
        ("linear", "normalise", "learned"),
        lambda arch: arch.encoders[0].blocks[0],
        _encoder,
        within=False,
        encoding=True,
    ),
    Mechanism(
        *("conformer", "Conformer", (a.DistanceAttention, a.GatedConvolution), named("gemma-4-e4b")),
        ("distance_attention", "gated_convolution"),
        lambda arch: next(e for e in arch.encoders if e.modality == "audio").blocks[0],
        _conformer,
        within=False,
        encoding=True,
    ),
    Mechanism(
        *("masked-diffusion", "Masked diffusion", (a.MaskedDiffusion,), named("llada-8b"), (), block),
        lambda part: f"mask token {part.mask_token}",
        within=False,
    ),
)
"""Every page, in the order of the index."""
