"""Mixers: what moves information from token to token. One file a mechanism."""

from lamina.arch.mixers.attention import Attention, LengthTemperature, QKNorm
from lamina.arch.mixers.base import Mixer
from lamina.arch.mixers.cross_attention import CrossAttention
from lamina.arch.mixers.delta_rule import GatedDeltaNet, KimiDeltaAttention
from lamina.arch.mixers.latent_attention import Indexer, LatentAttention
from lamina.arch.mixers.sequence_glu import SequenceGLU
from lamina.arch.mixers.short_convolution import ShortConvolution
from lamina.arch.mixers.state_space import Mamba, Mamba2

__all__ = [
    "Attention",
    "CrossAttention",
    "GatedDeltaNet",
    "Indexer",
    "KimiDeltaAttention",
    "LatentAttention",
    "LengthTemperature",
    "Mamba",
    "Mamba2",
    "Mixer",
    "QKNorm",
    "SequenceGLU",
    "ShortConvolution",
]
