"""Mixers: what moves information from token to token. One file a mechanism."""

from lamina.arch.mixers.attention import Attention, LengthTemperature, QKNorm
from lamina.arch.mixers.base import Mixer
from lamina.arch.mixers.block_indexer import BlockIndexer
from lamina.arch.mixers.compressed_attention import CompressedAttention, Compressor, EntryIndexer
from lamina.arch.mixers.compressed_convolution import CompressedConvolutionalAttention
from lamina.arch.mixers.conformer import DistanceAttention, GatedConvolution
from lamina.arch.mixers.cross_attention import CrossAttention
from lamina.arch.mixers.delta_rule import DeltaNet, GatedDeltaNet, KimiDeltaAttention
from lamina.arch.mixers.differential_attention import DifferentialAttention
from lamina.arch.mixers.latent_attention import Indexer, KeyPool, LatentAttention, LearnedTemperature
from lamina.arch.mixers.lightning_attention import LightningAttention
from lamina.arch.mixers.linear_attention import GatedLinearAttention, LinearAttention, Retention
from lamina.arch.mixers.mamba3 import Mamba3
from lamina.arch.mixers.pooled_indexer import PooledIndexer
from lamina.arch.mixers.relative_attention import LengthClip, RelativeAttention
from lamina.arch.mixers.rg_lru import RGLRU
from lamina.arch.mixers.rwkv7 import RWKV7
from lamina.arch.mixers.sequence_glu import SequenceGLU
from lamina.arch.mixers.short_convolution import ShortConvolution
from lamina.arch.mixers.state_space import Mamba, Mamba2
from lamina.arch.mixers.xlstm import MLSTM, SLSTM

__all__ = [
    "MLSTM",
    "RGLRU",
    "RWKV7",
    "SLSTM",
    "Attention",
    "BlockIndexer",
    "CompressedAttention",
    "CompressedConvolutionalAttention",
    "Compressor",
    "CrossAttention",
    "DeltaNet",
    "DifferentialAttention",
    "DistanceAttention",
    "EntryIndexer",
    "GatedConvolution",
    "GatedDeltaNet",
    "GatedLinearAttention",
    "Indexer",
    "KeyPool",
    "KimiDeltaAttention",
    "LatentAttention",
    "LearnedTemperature",
    "LengthClip",
    "LengthTemperature",
    "LightningAttention",
    "LinearAttention",
    "Mamba",
    "Mamba2",
    "Mamba3",
    "Mixer",
    "PooledIndexer",
    "QKNorm",
    "RelativeAttention",
    "Retention",
    "SequenceGLU",
    "ShortConvolution",
]
