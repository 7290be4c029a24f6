"""What the LFM lineages say in the same words: short convolutions beside attention, and the names of their tensors."""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, Attention, ShortConvolution
from lamina.arch.feedforward import GLU
from lamina.published.common import common_keys
from lamina.published.config import Config
from lamina.published.rules import Layout, Rule, decoder_rules

CONV, FULL, SLIDING = "conv", "full_attention", "sliding_attention"
NORM: dict[str, Any] = {"eps": 1e-5, "eps_key": "norm_eps"}
LAST_NORM = "embedding_norm"


def convolution(c: Config, kernel: int) -> ShortConvolution:
    """The mixer of most layers; `kernel` is the family's value for an absent key."""
    return ShortConvolution(kernel=c.count("conv_L_cache", kernel, most=1 << 16), bias=c.bool("conv_bias", False))


def tied(c: Config) -> bool:
    """Whether the head is the embedding's table, which two keys may say.

    Raises: LaminaError if they disagree
    """
    said = c.bool("tie_embedding", c.bool("tie_word_embeddings", True))
    c.only("tie_word_embeddings", said)
    return said


def _of_one(arch: Architecture) -> Attention:
    """The first attention; of models that have none, one of any size, for their configs state one."""
    found = (op for op in arch.ops() if isinstance(op, Attention))
    return next(found, Attention(heads=1, kv_heads=1, head_dim=arch.width))


def keys(arch: Architecture, architecture: str, feed_forward: GLU | None = None) -> dict[str, Any]:
    """What both lineages' configs hold; `feed_forward` is the dense one where the first layer's is not."""
    said = common_keys(arch, architecture, feed_forward=feed_forward, attention=_of_one(arch))
    said["norm_eps"] = said.pop("rms_norm_eps")
    mixers = [next(block.ops()) for block in arch.blocks]
    windows = [op.window if isinstance(op, Attention) else None for op in mixers]
    seen = zip(mixers, windows, strict=True)
    said["layer_types"] = [CONV if isinstance(op, ShortConvolution) else SLIDING if w else FULL for op, w in seen]
    for mixer in mixers:
        if isinstance(mixer, ShortConvolution):
            return said | {"conv_L_cache": mixer.kernel, "conv_bias": mixer.bias}
    return said


SHORT_CONVOLUTION = (
    Rule("conv.conv", "mixer.op.convolution"),
    Rule("conv.in_proj", "mixer.op.in_proj"),
    Rule("conv.out_proj", "mixer.op.o_proj"),
)
FEED_FORWARD = tuple(
    Rule(f"feed_forward.{theirs}", f"feed_forward.op.{ours}_proj")
    for theirs, ours in (("w1", "gate"), ("w3", "up"), ("w2", "down"))
)
PRE_NORMS = (Rule("operator_norm", "mixer.before"), Rule("ffn_norm", "feed_forward.before"))


def layout(arch: Architecture, own: tuple[Rule, ...]) -> Layout:
    """The names of tensors; `own` are the rules of a lineage's attention and of what else is its own."""
    mixing = [i for i, block in enumerate(arch.blocks) if isinstance(next(block.ops()), ShortConvolution)]
    first = tuple(rule.limited(mixing) for rule in SHORT_CONVOLUTION)  # for both kinds of mixers have an o_proj
    return Layout(decoder_rules(first + FEED_FORWARD + PRE_NORMS + own, norm=LAST_NORM))
