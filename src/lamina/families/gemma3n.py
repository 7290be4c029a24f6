"""Gemma 3n (text): four streams of which a block computes one, per-layer inputs, keys and values shared by the last.

The sources of the parts are named where they are defined. Published as an open checkpoint without a paper.
"""

from __future__ import annotations

import math
from typing import Any

from lamina.arch import (
    AltUp,
    Architecture,
    Block,
    Branch,
    LaurelResidual,
    PerLayerInput,
    PerLayerInputs,
    QKNorm,
    RMSNorm,
)
from lamina.errors import LaminaError
from lamina.families.gemma import two_bases
from lamina.published import rope
from lamina.published.common import Family, alternating, decoder, sizes, text_part
from lamina.published.config import Config

ACTIVATION = "gelu_pytorch_tanh"


def each_layer(c: Config, key: str, default: Any) -> list:
    """A key that holds a number for all layers or a list with one for each."""
    layers, value = c.count("num_hidden_layers", most=1 << 12), c.data.get(key)
    listed = default if value is None else value if isinstance(value, list) else [value] * layers
    if len(listed) != layers or not all(isinstance(v, int | float) and v >= 0 for v in listed):
        raise LaminaError(f"{c.where}: {key} needs a number, or one for each of the {layers} layers")
    return listed


def kv_sources(c: Config, kinds: list[str], shared: int) -> list[int | None]:
    """For each layer, whose keys and values it reads: the last `shared` those of the last before them of their kind."""
    first = len(kinds) - shared
    own = {kind: i for i, kind in enumerate(kinds[: max(first, 0)])}
    if shared and not set(kinds) <= set(own):
        raise LaminaError(f"{c.where}: num_kv_shared_layers is {shared}, which leaves a layer type nothing to share")
    return [None if i < first else own[kind] for i, kind in enumerate(kinds)]


def per_layer_inputs(c: Config, layers: int, norm: RMSNorm, width: int) -> PerLayerInputs:
    vocab = c.count("vocab_size_per_layer_input", 262144)
    return PerLayerInputs(vocab=vocab, width=width, blocks=layers, scale=math.sqrt(width), norm=norm)


def read(c: Config) -> Architecture:
    c = text_part(c, "a MobileNet and an encoder of sound stand beside the text decoder, and are not read")
    inners = each_layer(c, "intermediate_size", [16384] * c.count("num_hidden_layers", most=1 << 12))
    ignored, c = c.ignored, Config(c.data | {"intermediate_size": inners[0]}, c.where)
    c.ignored = ignored
    s = sizes(c, 1e-6, "hidden_activation", ACTIVATION, head_dim=256, kv_heads=2, default_context=32768, vocab=262400)
    sparse = [0.95] * (10 if s.layers > 10 else 0)
    sparsity = each_layer(c, "activation_sparsity_pattern", sparse + [0.0] * (s.layers - len(sparse)))
    c.list("activation_sparsity_pattern", [])
    kinds = c.layer_types(s.layers, alternating(s.layers, 5, 4), rope.LAYER_TYPES)
    sources = kv_sources(c, kinds, c.count("num_kv_shared_layers", 15, least=0))
    norm, bias, width = RMSNorm(eps=s.eps), c.bool("attention_bias", False), c.count("hidden_size_per_layer_input", 256)
    rotary = {kind: rope.rotary(c, v, s.head_dim, s.context) for kind, v in two_bases(c).items()}
    window = {"full_attention": None, "sliding_attention": c.count("sliding_window", 512)}
    attention = s.attention(
        scale=1.0,
        bias=bias,
        output_bias=bias,
        qk_norm=QKNorm(norm=norm),
        value_norm=RMSNorm(eps=s.eps, weight=False),
    )
    laurel = LaurelResidual(rank=c.count("laurel_rank", 64), norm=norm)
    taken_in = Branch(op=PerLayerInput(inner=width, activation=s.glu().activation), after=norm)

    def block(kind: str, source: int | None, inner: int, sparsity: float) -> Block:
        mixer = attention.replace(rotary=rotary[kind], window=window[kind], kv_from=source)
        glu = s.glu().replace(inner=inner, sparsity=sparsity or None)
        mixing = Branch(op=mixer, before=norm, after=norm, residual=laurel)
        return Block(branches=(mixing, Branch(op=glu, before=norm, after=norm), taken_in))

    layers = list(zip(kinds, sources, inners, sparsity, strict=True))
    made = {layer: block(*layer) for layer in set(layers)}
    stream = AltUp(
        count=c.count("altup_num_inputs", 4),
        active=c.count("altup_active_idx", 0, least=0),
        norm=norm,
        output_scale=c.bool("altup_correct_scale", True),
        clip=c.float("altup_coef_clip", 120.0),
    )
    inputs = per_layer_inputs(c, s.layers, norm, width)
    softcap, scale = c.float("final_logit_softcapping", 30.0), math.sqrt(s.width)
    blocks = [made[layer] for layer in layers]
    arch = decoder(c, "gemma3n", s, blocks, norm, tied=True, embedding_scale=scale, softcap=softcap)
    return arch.replace(embedding=arch.embedding.replace(per_layer=inputs), stream=stream)


FAMILIES = (Family("gemma3n", ("gemma3n_text", "gemma3n"), read),)
