"""Gemma 3n (text): four streams of which a block computes one, per-layer inputs, keys and values shared by the last.

The sources of the parts are named where they are defined. Published as an open checkpoint without a paper.
"""

from __future__ import annotations

import math
from typing import Any

from lamina.arch import (
    GLU,
    AltUp,
    Architecture,
    Block,
    Branch,
    LaurelResidual,
    PerLayerInput,
    QKNorm,
    RMSNorm,
)
from lamina.published import gemma, rope
from lamina.published.common import Family, alternating, decoder, sizes, text_part
from lamina.published.config import Config
from lamina.published.gemma import ACTIVATION, each_layer, kv_sources, per_layer_inputs, two_bases
from lamina.published.rules import ATTENTION, QK_NORMS, SANDWICH_NORMS, Layout, Rule
from lamina.published.rules import GLU as GLU_RULES


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
        count=c.count("altup_num_inputs", 4, most=1 << 10),
        active=c.count("altup_active_idx", 0, least=0),
        norm=norm,
        output_scale=c.bool("altup_correct_scale", True),
        clip=c.float("altup_coef_clip", 120.0),
    )
    inputs = per_layer_inputs(c, s.layers, norm, width)
    softcap = c.float("final_logit_softcapping", None if "final_logit_softcapping" in c.data else 30.0)
    scale = math.sqrt(s.width)
    blocks = [made[layer] for layer in layers]
    arch = decoder(c, "gemma3n", s, blocks, norm, tied=True, embedding_scale=scale, softcap=softcap)
    return arch.replace(embedding=arch.embedding.replace(per_layer=inputs), stream=stream)


def write(arch: Architecture) -> dict[str, Any]:
    glus = [op for op in arch.ops() if isinstance(op, GLU)]
    stream, laurel = arch.stream, arch.blocks[0].branches[0].residual
    assert isinstance(stream, AltUp)
    assert isinstance(laurel, LaurelResidual)
    return {
        "model_type": "gemma3n_text",
        **gemma.keys(arch, "Gemma3nForCausalLM"),
        **gemma.shared_keys(arch),
        "intermediate_size": [glu.inner for glu in glus],
        "activation_sparsity_pattern": [glu.sparsity or 0.0 for glu in glus],
        "laurel_rank": laurel.rank,
        "altup_num_inputs": stream.count,
        "altup_active_idx": stream.active,
        "altup_correct_scale": stream.output_scale,
        "altup_coef_clip": stream.clip,
    }


BLOCK = (
    *(ATTENTION + QK_NORMS + GLU_RULES + SANDWICH_NORMS + gemma.PER_LAYER),
    Rule("laurel.linear_left", "mixer.residual.down_proj"),
    Rule("laurel.linear_right", "mixer.residual.up_proj"),
    Rule("laurel.post_laurel_norm", "mixer.residual.norm"),
    Rule("altup.router_norm", "stream.norm"),
    Rule("altup.modality_router", "stream.router"),
    Rule("altup.prediction_coefs", "stream.predict"),
    Rule("altup.correction_coefs", "stream.correct"),
    Rule("altup.correct_output_scale", "stream.output_scale"),
)


def layout(arch: Architecture) -> Layout:
    count = arch.stream.count if isinstance(arch.stream, AltUp) else 0
    ends = {"altup_projections": "entering", "altup_unembed_projections": "joining"}
    maps = (Rule(f"model.{name}.{i - 1}", f"{end}.maps.{i}") for name, end in ends.items() for i in range(1, count))
    return gemma.layout(arch, BLOCK, (*gemma.PER_LAYER_INPUTS, *maps))


FAMILIES = (Family("gemma3n", ("gemma3n_text", "gemma3n"), read, write, layout),)
