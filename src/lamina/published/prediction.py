"""Heads for later tokens as most checkpoints hold them: layers after the last, with DeepSeek-V3's parts around them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from lamina.arch import Architecture, Block, LatentAttention, Prediction, RMSNorm
from lamina.published.common import Family
from lamina.published.config import Config
from lamina.published.rules import Layout, Rule, later_layers

KEY = "num_nextn_predict_layers"
AROUND = {
    "enorm": "embedding_norm",
    "hnorm": "hidden_norm",
    "eh_proj": "joining",
    "shared_head.norm": "norm",
}
"""Published names beside those of the block, and ours."""


def drafting(family: Family, block: Iterable[Rule]) -> Family:
    """A family whose checkpoints may hold such layers; `block` are the tensor names of one of its blocks."""
    rules = tuple(block)

    def read(c: Config) -> Architecture:
        heads = c.count(KEY, 0, least=0, most=64)
        c.data = {key: value for key, value in c.data.items() if key != KEY}
        return _added(family.read(c), heads)

    def write(arch: Architecture) -> dict[str, Any]:
        return family.written(_without(arch)) | {KEY: len(arch.prediction.blocks) if arch.prediction else 0}

    def layout(arch: Architecture) -> Layout:
        base = family.layout_of(_without(arch))
        return _layout(arch, rules, base) if arch.prediction else base

    return replace(family, read=read, write=write, layout=layout)


def _without(arch: Architecture) -> Architecture:
    return arch.replace(prediction=None) if arch.prediction else arch


def _added(arch: Architecture, heads: int) -> Architecture:
    """The architecture with so many heads, each around a block like the last that reads nothing of other blocks."""
    if not heads:
        return arch
    block = next(block for block in reversed(arch.blocks) if not _borrows(block))
    return arch.replace(prediction=Prediction(blocks=(block,) * heads, norm=arch.norm or RMSNorm()))


def _borrows(block: Block) -> bool:
    latent = [op for op in block.ops() if isinstance(op, LatentAttention)]
    return any(op.source is not None or (op.indexer is not None and op.indexer.shared) for op in latent)


def _layout(arch: Architecture, block: Iterable[Rule], base: Layout) -> Layout:
    """With the layers after the last, whose embedding and head are the model's own, once more."""
    assert arch.prediction
    layers, rules = len(arch.blocks), list(base.rules)
    later = later_layers(layers)
    skip = {pattern: reason for pattern, reason in base.skip.items() if pattern not in later}
    for d in range(len(arch.prediction.blocks)):
        theirs, ours = f"model.layers.{layers + d}.", f"prediction.{d}."
        rules += [Rule(theirs + name, ours + place) for name, place in AROUND.items()]
        rules += [rule.within(theirs, ours + "block.") for rule in block]
        shared = rf"(.*\.)?layers\.{layers + d}\.(embed_tokens|shared_head\.head)\.weight"
        skip[shared] = "the model's own embedding or head, once more"
    return replace(base, rules=tuple(rules), skip=skip)
