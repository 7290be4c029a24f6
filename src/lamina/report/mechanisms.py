"""Mechanisms in the field's words: a name, and a phrase for each thing to say of one. Registered with `words`."""

from __future__ import annotations

from lamina.arch.mixers import (
    RGLRU,
    BlockIndexer,
    CompressedAttention,
    CompressedConvolutionalAttention,
    DeltaNet,
    DifferentialAttention,
    GatedDeltaNet,
    GatedLinearAttention,
    Indexer,
    KimiDeltaAttention,
    LatentAttention,
    LightningAttention,
    LinearAttention,
    Mamba,
    Mamba2,
    PooledIndexer,
    RelativeAttention,
    Retention,
    ShortConvolution,
)
from lamina.arch.moe import MoE, Router
from lamina.arch.per_layer import PerLayerInput
from lamina.arch.streams import AltUp, AttentionResiduals, GatedStreams, HyperConnections
from lamina.report.words import ACTIVATIONS, gate, kind_of, name_of, norm, number, phrases, rotary, temperature

SCORES = {"softmax": "softmax", "sigmoid": "sigmoid", "sqrt_softplus": "sqrt(softplus)"}

for kind, name in (
    (CompressedAttention, "compressed attention"),
    (CompressedConvolutionalAttention, "CCA"),
    (DifferentialAttention, "differential attention"),
    (DeltaNet, "DeltaNet"),
    (GatedDeltaNet, "Gated DeltaNet"),
    (GatedLinearAttention, "gated linear attention"),
    (KimiDeltaAttention, "Kimi Delta Attention"),
    (LatentAttention, "MLA"),
    (LightningAttention, "lightning attention"),
    (LinearAttention, "linear attention"),
    (Mamba, "Mamba"),
    (Mamba2, "Mamba-2"),
    (MoE, "MoE"),
    (PerLayerInput, "per-layer input"),
    (RelativeAttention, "relative attention"),
    (Retention, "retention"),
    (RGLRU, "RG-LRU"),
    (ShortConvolution, "short convolution"),
):
    kind_of.register(kind)(lambda op, name=name: name)


# -- attention


@kind_of.register
def _(op: LatentAttention) -> str:
    return "sparse MLA" if op.indexer else "MLA"


@kind_of.register
def _(op: CompressedAttention) -> str:
    if not op.compressor:
        return "window of one key"
    return f"{'sparse ' if op.indexer else ''}compressed 1:{op.compressor.stride}"


@name_of.register(LatentAttention)
@name_of.register(CompressedAttention)
@name_of.register(DeltaNet)
@name_of.register(KimiDeltaAttention)
@name_of.register(GatedLinearAttention)
@name_of.register(LightningAttention)
@name_of.register(LinearAttention)
@name_of.register(Retention)
@name_of.register(Mamba2)
def _(op: LatentAttention) -> str:
    return f"{kind_of(op)}, {op.heads} heads"


@name_of.register
def _(op: CompressedConvolutionalAttention) -> str:
    return f"CCA {op.heads}/{op.kv_heads}"


@name_of.register
def _(op: GatedDeltaNet) -> str:
    return f"Gated DeltaNet, {op.value_heads} heads"


@name_of.register
def _(op: ShortConvolution) -> str:
    return f"short convolution of {op.kernel}"


@name_of.register
def _(op: Mamba) -> str:
    return f"Mamba, {op.inner:,} channels"


@name_of.register
def _(op: PerLayerInput) -> str:
    return f"per-layer input of {op.inner:,}"


@phrases.register
def _(op: LatentAttention) -> list[str]:
    own = op.kv_from is None
    said = [f"latent of {op.latent:,} + rotary key of {op.rotary_dim}" if op.rotary_dim else f"latent of {op.latent:,}"]
    said[0] += "" if own else f", of layer {op.kv_from}"
    said.append(f"query latent of {op.query_latent:,}" if op.query_latent else "queries without a latent")
    said.append(f"key {op.plain_dim} + {op.rotary_dim}, value {op.value_dim}")
    said.append(rotary(op.rotary, op.rotary_dim) if op.rotary else "no rotary (NoPE)")
    if op.scale is not None:
        said.append(f"scale {number(op.scale)}")
    if op.query_scale != 1 or op.latent_scale != 1:
        said.append(f"queries times {number(op.query_scale)}, latent times {number(op.latent_scale)}")
    said += gate(op.gate) + temperature(op.temperature)
    return said + (phrases(op.indexer) if op.indexer else []) + (["bias"] if op.bias else [])


@phrases.register
def _(op: Indexer) -> list[str]:
    if op.shared:
        return [f"reads the {op.top_k:,} tokens that an earlier layer chose"]
    pools = f" in pools of {op.pool.size}" if op.pool else ""
    return [f"indexer of {op.heads} x {op.head_dim} chooses {op.top_k:,} tokens{pools}"]


@phrases.register
def _(op: BlockIndexer) -> list[str]:
    local = f", {op.local} of them the last" if op.local else ""
    return [f"indexer of {op.heads} x {op.head_dim} chooses {op.top_k} blocks of {op.block}{local}"]


@phrases.register
def _(op: CompressedAttention) -> list[str]:
    said = [f"one key, also the value, of {op.head_dim}", f"window {op.window:,}"]
    if op.compressor:
        over = f", over {2 * op.compressor.stride}" if op.compressor.overlap else ""
        said.append(f"an entry every {op.compressor.stride} tokens{over}")
    if op.indexer:
        said.append(f"indexer of {op.indexer.heads} x {op.indexer.head_dim} chooses {op.indexer.top_k:,} entries")
    said += [f"query latent of {op.query_latent:,}", rotary(op.rotary, op.head_dim), "sinks"]
    return [*said, f"output in {op.output_groups} groups of {op.output_rank:,}"]


@phrases.register
def _(op: CompressedConvolutionalAttention) -> list[str]:
    said = [f"head {op.head_dim}", f"convolutions of {op.depthwise} and {op.grouped} tokens over q and k"]
    said += [f"window {op.window:,}"] if op.window else []
    said.append("half of each value from the token before")
    return [*said, rotary(op.rotary, op.head_dim) if op.rotary else "no rotary (NoPE)"]


@name_of.register
def _(op: DifferentialAttention) -> str:
    return f"differential attention {op.heads}/{op.kv_heads}"


@phrases.register
def _(op: DifferentialAttention) -> list[str]:
    said = [f"two maps a head, each of {op.head_dim}, value {op.values}"]
    begins = "begins larger in deeper blocks" if op.initial is None else f"begins at {number(op.initial)}"
    said.append(f"the second map's share {begins}")
    said.append(rotary(op.rotary, op.head_dim) if op.rotary else "no rotary (NoPE)")
    said.append(f"{norm(op.norm)} of each head's output")
    biased = [name for name, has in (("q, k, v", op.bias), ("output", op.output_bias)) if has]
    return said + ([f"bias on {' and '.join(biased)}"] if biased else [])


@kind_of.register
def _(op: RelativeAttention) -> str:
    return f"relative {'sliding' if op.window else 'full'}"


@name_of.register
def _(op: RelativeAttention) -> str:
    return f"relative attention {op.heads}/{op.kv_heads}"


@phrases.register
def _(op: RelativeAttention) -> list[str]:
    said = [f"head {op.head_dim}", f"learned bias of distances below {op.extent:,}, rank {op.relative_dim}"]
    said += [f"window {op.window:,}"] if op.window else []
    said += [f"short filter of {op.filter.kernel} over k and v"] if op.filter else []
    said += [f"QK-norm {norm(op.qk_norm.norm)} over the {op.qk_norm.over}"] if op.qk_norm else []
    said += [f"queries and keys no longer than {number(op.clip.limit)}"] if op.clip else []
    said += [f"{norm(op.value_norm)} of values"] if op.value_norm else []
    said += ["a sink from the input"] if op.sinks else []
    said += gate(op.gate) + temperature(op.temperature)
    return said + ([f"scale {number(op.scale)}"] if op.scale is not None else [])


@phrases.register
def _(op: PooledIndexer) -> list[str]:
    return [f"indexer of {op.heads} x {op.head_dim} chooses {op.top_k} pools of {op.pool}, and the tail"]


# -- recurrences


@name_of.register
def _(op: RGLRU) -> str:
    return f"RG-LRU, {op.inner:,} channels"


@phrases.register
def _(op: RGLRU) -> list[str]:
    gates = f"input and decay gates in {op.heads} blocks"
    return [gates, f"convolution of {op.convolution}", f"{ACTIVATIONS[op.activation]} gate on the output"]


@phrases.register
def _(op: GatedDeltaNet) -> list[str]:
    said = [f"{op.key_heads} key heads of {op.key_dim}, {op.value_heads} value heads of {op.value_dim}"]
    said += [f"convolution of {op.convolution}", "a decay per head"]
    said += ["step up to 2 (negative eigenvalues)"] if op.negative_eigenvalues else []
    return [*said, f"{norm(op.norm)} per head" + (f", {ACTIVATIONS.get(op.gate, op.gate)} gate" if op.gate else "")]


@phrases.register
def _(op: DeltaNet) -> list[str]:
    features = {"silu": "", "relu": ", ReLU", "elu": ", elu + 1", None: ", no activation"}[op.activation]
    said = [f"key {op.key_dim}, value {op.value_dim}{features}", "no decay"]
    said += [f"convolution of {op.convolution}"] if op.convolution else []
    said += ["queries and keys of sum 1"] if op.unit == "sum" else []
    said += [] if op.learned_step else ["steps of 1"]
    said += ["step up to 2 (negative eigenvalues)"] if op.negative_eigenvalues else []
    return [*said, f"{norm(op.norm)} per head" + (f", {ACTIVATIONS.get(op.gate, op.gate)} gate" if op.gate else "")]


@phrases.register
def _(op: KimiDeltaAttention) -> list[str]:
    said = [f"key {op.key_dim}, value {op.value_dim}", f"convolution of {op.convolution}"]
    floor = f", never below exp({number(op.decay_floor)})" if op.decay_floor is not None else ""
    said.append(f"a decay per row{f', rank {op.decay_rank}' if op.decay_rank else ''}{floor}")
    return [*said, f"{norm(op.norm)} per head, sigmoid gate{f', rank {op.gate_rank}' if op.gate_rank else ''}"]


@phrases.register
def _(op: LightningAttention) -> list[str]:
    said = [f"key and value {op.head_dim}" + (f", {ACTIVATIONS[op.activation]}" if op.activation else "")]
    said += [f"{norm(op.qk_norm)} of queries and keys"] if op.qk_norm else []
    said += [rotary(op.rotary, op.head_dim)] if op.rotary else []
    said += [f"scale {number(op.scale)}"] if op.scale != 1 else []
    said.append("a fixed decay per head" + (", slower with depth" if op.by_depth else ""))
    groups = f" in {op.norm_groups} groups" if op.norm_groups > 1 else ""
    return [*said, f"{norm(op.norm)}{groups}, sigmoid gate"]


@phrases.register
def _(op: LinearAttention) -> list[str]:
    features = {"elu": "elu + 1", "relu": "ReLU", "identity": "no features"}[op.features]
    said = [f"key {op.key_dim}, value {op.value_dim}, {features}"]
    return said + (["divided by the sum of what was seen"] if op.normalise else []) + _finished(op)


@phrases.register
def _(op: Retention) -> list[str]:
    said = [f"key {op.key_dim}, value {op.value_dim}"] + ([rotary(op.rotary, op.key_dim)] if op.rotary else [])
    return [*said, "a fixed decay per head", *_finished(op)]


@phrases.register
def _(op: GatedLinearAttention) -> list[str]:
    said = [f"key {op.key_dim}, value {op.value_dim}", f"a decay per row, rank {op.decay_rank}"]
    return [*said, *_finished(op)]


def _finished(op: LinearAttention | Retention | GatedLinearAttention) -> list[str]:
    said = [f"{norm(op.norm)} per head"] if op.norm else []
    return [", ".join([*said, *([f"{ACTIVATIONS[op.gate]} gate"] if op.gate else [])])] if said or op.gate else []


@phrases.register
def _(op: Mamba2) -> list[str]:
    groups = "" if op.groups == 1 else f", B and C in {op.groups} groups"
    said = [f"head {op.head_dim}, state {op.state}{groups}", f"convolution of {op.convolution}", "a decay per head"]
    said.append(f"{norm(op.norm)}{' before' if op.norm_first else ' after'} a SiLU gate" if op.norm else "SiLU gate")
    return said + (["bias"] if op.bias else [])


@phrases.register
def _(op: Mamba) -> list[str]:
    said = [f"state {op.state} a channel", f"step rank {op.rank}", f"convolution of {op.convolution}"]
    said += [f"{op.heads} heads, with B and C each"] if op.heads > 1 else []
    return said + ([f"{norm(op.norms)} of step, B and C"] if op.norms else []) + (["bias"] if op.bias else [])


@phrases.register
def _(op: ShortConvolution) -> list[str]:
    return ["two gates from the input", *(["bias"] if op.bias else [])]


# -- experts


@name_of.register
def _(op: MoE) -> str:
    shared = " + shared" if op.shared else ""
    return f"MoE, {op.router.active} of {op.router.experts:,} experts{shared}"


@phrases.register
def _(op: MoE) -> list[str]:
    said = [f"expert {name_of(op.expert)}", *(phrases(op.expert))]
    if op.shared:
        said.append(f"shared {name_of(op.shared)}" + (", behind a sigmoid" if op.shared_gate else ""))
    if op.latent:
        said.append(f"experts work at width {op.latent:,}")
    if op.identities:
        said.append(f"{op.identities} of the choices return x")
    return said + phrases(op.router)


@phrases.register
def _(op: Router) -> list[str]:
    chosen = "by token id" if op.hashed else f"{SCORES.get(op.score, op.score)} scores"
    said = [f"router: {chosen}"]
    said[0] += ", normalised" if op.normalise else ""
    said[0] += f", times {number(op.scale)}" if op.scale != 1 else ""
    if op.correction:
        said.append("balancing bias, seen by the choice alone")
    if op.groups > 1:
        said.append(f"{op.active_groups} of {op.groups} groups")
    if op.mlp:
        said.append(f"router is an MLP of {op.mlp.width}" + (", carried from block to block" if op.mlp.carried else ""))
    return said


@phrases.register
def _(op: PerLayerInput) -> list[str]:
    return [f"{ACTIVATIONS.get(op.activation)} gate times this block's own vector of the token"]


# -- the stream


@name_of.register
def _(value: HyperConnections) -> str:
    return f"hyper-connections, {value.count} streams"


@name_of.register
def _(value: GatedStreams) -> str:
    return f"gated streams, {value.count} of them"


@name_of.register
def _(value: AltUp) -> str:
    return f"AltUp, {value.count} streams"


@name_of.register
def _(value: AttentionResiduals) -> str:
    return f"attention over earlier sums, every {value.blocks} blocks"
