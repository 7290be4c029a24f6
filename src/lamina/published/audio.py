"""Encoders of sound, as their configs write them: from the whole config and the decoder's width.

Source: the published configs and the reference's code; the papers are named with each.
"""

from __future__ import annotations

from lamina.arch import (
    MLP,
    Block,
    Branch,
    ConvolutionBlock,
    DistanceAttention,
    Encoder,
    GatedConvolution,
    LayerNorm,
    Linear,
    Merge,
    Normalise,
    RMSNorm,
    Spectrogram,
    SpectrumConvolution,
    Waveform,
)
from lamina.errors import LaminaError
from lamina.published.config import Config
from lamina.published.encoders import activation, heads, part, rms


def gemma4(c: Config, width: int) -> Encoder | None:
    """Gemma 4's: a Conformer over a spectrogram (arXiv 2005.08100, 2303.01037)."""
    if (v := part(c, "audio_config")) is None:
        return None
    wide, layers, norm = v.count("hidden_size", 1024), v.count("num_hidden_layers", 12, most=1 << 12), rms(v, 1e-6)
    many, act = heads(v, wide, 8), activation(v, "silu")
    channels = v.list("subsampling_conv_channels", [128, 32])
    if len(channels) != 2 or any(not isinstance(n, int) or not 4 <= n < 1 << 16 for n in channels):
        raise LaminaError(f"{v.where}: subsampling_conv_channels is {channels}; two counts from 4 on are expected")
    v.only("attention_context_right", 0)
    v.count("attention_chunk_size", 12)  # queries computed together: each sees its own last vectors
    v.ignore("how the reference runs", "attention_invalid_logits_value", "gradient_clipping")
    v.ignore("four bounds a matrix, which inputs and outputs are clipped to, are not counted", "use_clipped_linears")
    mixer = DistanceAttention(
        heads=many,
        head_dim=wide // many,
        window=v.count("attention_context_left", 13),
        softcap=v.float("attention_logit_cap", 50.0),
    )
    convolution = GatedConvolution(kernel=v.count("conv_kernel_size", 5), norm=norm, activation=act)
    half = v.float("residual_weight", 0.5)
    feed = Branch(op=MLP(inner=4 * wide, activation=act), before=norm, after=norm, multiplier=half)
    middle = (Branch(op=mixer, before=norm, after=norm), Branch(op=convolution, before=norm))
    block = Block(branches=(feed, *middle, feed.replace(joined=norm)))
    gives = v.count("output_proj_dims", 1536)
    v.finish()
    plain, (first, second) = LayerNorm(eps=norm.eps, bias=False), channels
    return Encoder(
        modality="audio",
        input=Spectrogram(bins=first // 4 * 4),
        stem=(
            SpectrumConvolution(inputs=1, channels=first, kernel=3, stride=2, norm=plain),
            SpectrumConvolution(inputs=first, channels=second, kernel=3, stride=2, norm=plain),
            Linear(width=wide),
        ),
        blocks=(block,) * layers,
        connector=(
            Linear(width=gives, bias=True),
            Normalise(norm=RMSNorm(eps=norm.eps, weight=False)),
            Linear(width=width),
        ),
    )


def muse(c: Config, width: int) -> Encoder | None:
    """Muse Spark's: a pyramid of convolutions over the samples themselves, without attention."""
    if (v := part(c, "audio_config")) is None:
        return None
    sizes, widths = v.list("patch_sizes", [16, 6, 5, 4]), v.list("hidden_sizes", [256, 512, 1024, 2048])
    depths, stages = v.list("depths", [2, 2, 2, 2]), v.count("num_hidden_layers", 4, most=64)
    known = all(isinstance(n, int) and 0 < n < 1 << 16 for n in (*sizes, *widths, *depths))
    if not known or {len(sizes), len(widths), len(depths)} != {stages} or max(depths) > 1 << 12:
        raise LaminaError(f"{v.where}: patch_sizes, hidden_sizes and depths need {stages} sizes each")
    norm, kernel, ratio = rms(v, 1e-6), v.count("conv_kernel_size", 7), v.float("mlp_ratio", 4.0)
    act = activation(v, "gelu")
    v.only("out_hidden_size", width)
    v.finish()
    stem = []
    for size, wide, depth in zip(sizes, widths, depths, strict=True):
        stem += [Merge(count=size), Linear(width=wide, bias=True), Normalise(norm=norm)]
        stem += [ConvolutionBlock(kernel=kernel, inner=int(wide * ratio), activation=act, norm=norm)] * depth
    return Encoder(
        modality="audio",
        input=Waveform(),
        stem=tuple(stem),
        norm=norm,
        connector=(Linear(width=width, bias=True), Normalise(norm=norm)),
    )
