"""Encoders in the field's words. Registered with `words`."""

from __future__ import annotations

from lamina.arch import (
    AttentionPool,
    ConvolutionBlock,
    DistanceAttention,
    Encoder,
    GatedConvolution,
    GatedLinear,
    GridPositions,
    LearnedPositions,
    Linear,
    Merge,
    Normalise,
    Patches,
    Pool,
    Spectrogram,
    SpectrumConvolution,
    Standardise,
    TilePositions,
    Waveform,
)
from lamina.arch.block import kinds
from lamina.report.words import GATED, folded, kind_of, labels, name_of, norm, phrases

kind_of.register(DistanceAttention)(lambda op: "attention by distance")
kind_of.register(GatedConvolution)(lambda op: "gated convolution")
kind_of.register(Standardise)(lambda step: "standardised")


@kind_of.register
def _(encoder: Encoder) -> str:
    attends = any((op.role == "mixer" and "attention" in kind_of(op)) or hasattr(op, "heads") for op in _ops(encoder))
    convolves = any(isinstance(op, GatedConvolution) for op in _ops(encoder))
    return "Conformer" if convolves else "ViT" if attends else "convolutions" if len(encoder.stem) > 1 else "linear"


@name_of.register
def _(encoder: Encoder) -> str:
    """`ViT 27 blocks of 1,152`."""
    count = len(encoder.blocks)
    return f"{kind_of(encoder)} {count} blocks of {encoder.width:,}" if count else kind_of(encoder)


@phrases.register
def _(encoder: Encoder) -> list[str]:
    different, places = kinds(encoder.blocks)
    ops = list(dict.fromkeys(name_of(op) for op in _ops(encoder)))
    said = [name_of(encoder.input), *([" + ".join(ops)] if ops else [])]
    if len(different) > 1:
        names = labels(different)
        said.append(folded(names[place] for place in places))
    if not encoder.blocks:
        said += [name_of(step) for step in encoder.stem]
    said += [name_of(encoder.positions)] if encoder.positions else []
    said += ["class token"] if encoder.class_token else []
    said += [f"reads blocks {', '.join(map(str, encoder.taps))}"] if encoder.taps else []
    said += [f"then {', '.join(name_of(step) for step in encoder.connector)}"] if encoder.connector else []
    return [*said, "as the memory of cross-attention"] if encoder.fusion == "cross_attention" else said


def _ops(encoder: Encoder) -> list:
    return [op for block in kinds(encoder.blocks)[0] for op in block.ops()]


def title(encoder: Encoder) -> str:
    return f"{encoder.modality} encoder"


def sentence(encoder: Encoder) -> str:
    """All there is to say of an encoder, in a line."""
    return ", ".join((name_of(encoder), *phrases(encoder))).replace(", then ", "; then ")


@name_of.register
def _(value: Patches) -> str:
    return f"patches of {value.size}" + (f" x {value.frames} frames" if value.frames > 1 else "")


@name_of.register
def _(value: Spectrogram) -> str:
    return f"a spectrogram of {value.bins} frequencies"


@name_of.register
def _(value: Waveform) -> str:
    return "samples"


@name_of.register
def _(value: LearnedPositions) -> str:
    return f"{value.length:,} learned positions"


@name_of.register
def _(value: GridPositions) -> str:
    return f"a learned grid of {value.rows:,} {'+' if value.factored else 'x'} {value.columns:,}"


@name_of.register
def _(value: TilePositions) -> str:
    return f"{value.length:,} learned positions in {value.tiles} tiles"


@name_of.register
def _(step: Linear) -> str:
    return f"linear {step.width:,}" + (f" ({step.activation.replace('_', ' ')})" if step.activation else "")


@name_of.register
def _(step: GatedLinear) -> str:
    return f"{GATED[step.activation]} {step.inner:,} to {step.width:,}"


@name_of.register
def _(step: Normalise) -> str:
    return norm(step.norm)


@name_of.register
def _(step: Merge) -> str:
    return f"{step.count} merged"


@name_of.register
def _(step: Pool) -> str:
    return f"mean of {step.count}"


@name_of.register
def _(step: AttentionPool) -> str:
    return f"{step.count} pooled by attention, {step.heads} heads"


@name_of.register
def _(step: SpectrumConvolution) -> str:
    return f"convolution {step.kernel} x {step.kernel}, {step.channels} channels"


@name_of.register
def _(step: ConvolutionBlock) -> str:
    return f"convolution of {step.kernel} + MLP {step.inner:,}"


@name_of.register
def _(op: DistanceAttention) -> str:
    return f"attention by distance, {op.heads} heads, window {op.window}"


@name_of.register
def _(op: GatedConvolution) -> str:
    return f"gated convolution of {op.kernel}"
