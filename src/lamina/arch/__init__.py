"""What a model is: frozen values, with no torch behind them."""

from lamina.arch.base import Node, Op
from lamina.arch.feedforward import GLU, MLP
from lamina.arch.mixers import Attention, CrossAttention, QKNorm, SequenceGLU
from lamina.arch.model import (
    Architecture,
    Block,
    Branch,
    Causal,
    DeepSupervision,
    Embedding,
    Head,
    MaskedDiffusion,
    Parallel,
    Parameters,
    Recursion,
    Span,
    TaskEmbedding,
)
from lamina.arch.norm import LayerNorm, RMSNorm
from lamina.arch.position import (
    DynamicScaling,
    LearnedPositions,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    Rotary,
    YarnScaling,
)

__all__ = [
    "GLU",
    "MLP",
    "Architecture",
    "Attention",
    "Block",
    "Branch",
    "Causal",
    "CrossAttention",
    "DeepSupervision",
    "DynamicScaling",
    "Embedding",
    "Head",
    "LayerNorm",
    "LearnedPositions",
    "LinearScaling",
    "Llama3Scaling",
    "LongRopeScaling",
    "MaskedDiffusion",
    "Node",
    "Op",
    "Parallel",
    "Parameters",
    "QKNorm",
    "RMSNorm",
    "Recursion",
    "Rotary",
    "SequenceGLU",
    "Span",
    "TaskEmbedding",
    "YarnScaling",
]
