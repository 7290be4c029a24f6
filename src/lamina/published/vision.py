"""Image encoders as their configs write them: one reader a kind, from the whole config and the decoder's width.

Source: the published configs and the reference's code; the papers are named with each.
"""

from __future__ import annotations

import math
from typing import Any

from lamina.arch import (
    GLU,
    MLP,
    Attention,
    Block,
    Branch,
    Encoder,
    GridPositions,
    LayerNorm,
    LearnedPositions,
    Linear,
    Merge,
    Normalise,
    Patches,
    Pool,
    QKNorm,
    RMSNorm,
    Standardise,
    TilePositions,
)
from lamina.errors import LaminaError
from lamina.published.common import pre_norm
from lamina.published.config import Config
from lamina.published.encoders import (
    activation,
    attention,
    grid,
    heads,
    merge,
    norms,
    part,
    patches,
    rms,
    square,
    turned,
    two_layers,
    unread,
)
from lamina.published.experts import one_name

COUNTING = "how many tokens an image becomes follows from its size"


def _depth(v: Config, usual: int, key: str = "num_hidden_layers") -> int:
    return v.count(key, usual, most=1 << 12)


def _taps(c: Config, key: str, layers: int, usual: int) -> tuple[int, ...]:
    """The blocks that are read, where a config counts states: 0 is what enters the first block.

    Raises: LaminaError for one that is no block's.
    """
    value = c.data.get(key, usual)
    listed = value if isinstance(value, list) else [value]
    c.only(key, (c.data.get(key),))
    found = tuple(i - 1 if isinstance(i, int) and i >= 0 else layers + i for i in listed if isinstance(i, int))
    if len(found) != len(listed) or any(not 0 <= i < layers for i in found):
        raise LaminaError(f"{c.where}: {key} is {value}; states after a block, 1 to {layers}, are expected")
    return found


def clip(c: Config, width: int) -> Encoder | None:
    """LLaVA's encoder: CLIP, read before its last block, and two layers (arXiv 2103.00020, 2310.03744)."""
    if (v := part(c)) is None:
        return None
    if v.data.get("model_type") == "pixtral":
        return pixtral(c, width)
    v.only("model_type", "clip_vision_model")
    wide, layers = v.count("hidden_size", 1024), _depth(v, 24)
    many, patch, norm = heads(v, wide, 16), patches(v, 14, image=336), norms(v, 1e-5)
    feed = MLP(inner=v.count("intermediate_size", 4096), activation=activation(v, "quick_gelu"), bias=True)
    unread(v, "projection_dim", "vocab_size", "initializer_factor")
    v.finish()
    c.ignore(COUNTING, "image_seq_length")
    c.only("vision_feature_select_strategy", "default")
    bias, act = c.bool("multimodal_projector_bias", True), activation(c, "gelu", "projector_hidden_act")
    return Encoder(
        modality="image",
        input=patch,
        stem=(Linear(width=wide),),
        positions=LearnedPositions(length=grid(v, patch) ** 2 + 1),
        class_token=True,
        before=norm,
        blocks=(pre_norm(attention(wide, many), feed, norm),) * layers,
        norm=norm,
        taps=_taps(c, "vision_feature_layer", layers, -2),
        connector=two_layers(width, width, act, bias),
    )


def pixtral(c: Config, width: int, usual: str = "gelu") -> Encoder | None:
    """Pixtral's encoder, and with a `spatial_merge_size` that of Mistral 3 and Large 4 (arXiv 2410.07073)."""
    if (v := part(c)) is None:
        return None
    v.only("model_type", "pixtral")
    wide, layers, norm = v.count("hidden_size", 1024), _depth(v, 24), RMSNorm(eps=1e-5)
    many, patch = heads(v, wide, 16), patches(v, 16, image=1024)
    v.only("head_dim", wide // many)
    glu = GLU(inner=v.count("intermediate_size", 4096), activation=activation(v, usual))
    rotary = turned(v, wide // many, spread="alternating")
    unread(v, "vocab_size")
    v.finish()
    merged = c.data.get("model_type") != "llava"
    c.ignore(COUNTING, "image_seq_length")
    c.only("vision_feature_layer", -1)
    c.only("vision_feature_select_strategy", "full")
    bias = c.bool("multimodal_projector_bias", not merged)
    joined = (Normalise(norm=RMSNorm(eps=_text_eps(c))), merge(c), Linear(width=wide)) if merged else ()
    return Encoder(
        modality="image",
        input=patch,
        stem=(Linear(width=wide),),
        before=norm,
        blocks=(pre_norm(attention(wide, many, rotary, bias=False), glu, norm),) * layers,
        connector=(*joined, *two_layers(width, width, activation(c, "gelu", "projector_hidden_act"), bias)),
    )


def _text_eps(c: Config) -> float:
    """That of the decoder, with which the connector normalises."""
    return Config(c.dict("text_config"), f"{c.where}: text_config").float("rms_norm_eps", 1e-5)


def siglip(c: Config, width: int) -> Encoder | None:
    """Gemma 3's encoder: SigLIP, whose vectors are averaged to `mm_tokens_per_image` (arXiv 2303.15343, 2503.19786)."""
    if (v := part(c)) is None:
        return None
    v.only("model_type", "siglip_vision_model")
    wide, layers, norm = v.count("hidden_size", 768), _depth(v, 12), norms(v, 1e-6)
    many, patch = heads(v, wide, 12), patches(v, 16, image=224)
    feed = MLP(inner=v.count("intermediate_size", 3072), activation=activation(v, "gelu_pytorch_tanh"), bias=True)
    v.ignore("the encoder's own head reads nothing for the decoder", "vision_use_head")
    v.finish()
    along, tokens = grid(v, patch), square(c, "mm_tokens_per_image", 256)
    if along % tokens:
        raise LaminaError(f"{c.where}: mm_tokens_per_image: {along} patches along a side do not make {tokens} tokens")
    return Encoder(
        modality="image",
        input=patch,
        stem=(Linear(width=wide, bias=True),),
        positions=LearnedPositions(length=along**2),
        blocks=(pre_norm(attention(wide, many), feed, norm),) * layers,
        norm=norm,
        connector=(
            Pool(count=(along // tokens) ** 2),
            Normalise(norm=RMSNorm(eps=norm.eps, offset=1.0)),
            Linear(width=width),
        ),
    )


def gemma4(c: Config, width: int) -> Encoder | None:
    """Gemma 4's encoder: blocks as its decoder's, means of squares of vectors, standardised."""
    if (v := part(c)) is None:
        return None
    wide, layers, norm = v.count("hidden_size", 768), _depth(v, 16), rms(v, 1e-6)
    many, head = v.count("num_attention_heads", 12), v.count("head_dim", 64)
    unread(v, "max_position_embeddings", "global_head_dim")
    for place in (v, c):
        place.ignore(COUNTING, "default_output_length", "image_seq_length", "video_seq_length")
    c.ignore(COUNTING, "vision_soft_tokens_per_image")
    v.ignore("four bounds a matrix, which inputs and outputs are clipped to, are not counted", "use_clipped_linears")
    v.only("attention_bias", False)
    op = Attention(
        heads=many,
        kv_heads=v.count("num_key_value_heads", 12),
        head_dim=head,
        rotary=turned(v, head, 100.0),
        qk_norm=QKNorm(norm=norm),
        value_norm=RMSNorm(eps=norm.eps, weight=False),
        scale=1.0,
    )
    act = activation(v, "gelu_pytorch_tanh", "hidden_activation")
    glu = GLU(inner=v.count("intermediate_size", 3072), activation=act)
    block = Block(branches=tuple(Branch(op=part, before=norm, after=norm) for part in (op, glu)))
    places = v.count("position_embedding_size", 10240)
    standard = (Standardise(),) if v.bool("standardize", False) else ()
    pool = Pool(count=v.count("pooling_kernel_size", 3, most=64) ** 2, scale=math.sqrt(wide))
    patch = Patches(size=v.count("patch_size", 16))
    v.finish()
    return Encoder(
        modality="image",
        input=patch,
        stem=(Linear(width=wide),),
        positions=GridPositions(rows=places, columns=places, factored=True),
        blocks=(block,) * layers,
        connector=(
            pool,
            *standard,
            Normalise(norm=RMSNorm(eps=norm.eps, weight=False)),
            Linear(width=width),
        ),
    )


def qwen2(c: Config, width: int) -> Encoder | None:
    """Qwen2-VL's encoder, where `hidden_size` is what the connector gives (arXiv 2409.12191)."""
    if (v := part(c)) is None:
        return None
    one_name(v, {"in_channels": ("in_chans",), "patch_size": ("spatial_patch_size",)})
    wide, layers = v.count("embed_dim", 1280), _depth(v, 32, "depth")
    many, norm = heads(v, wide, 16, "num_heads"), LayerNorm(eps=1e-6)
    feed = MLP(inner=int(wide * v.float("mlp_ratio", 4.0)), activation=activation(v, "quick_gelu"), bias=True)
    joined = merge(v)
    rotary, patch = turned(v, wide // many), patches(v, 14, "in_channels", 2)
    gives = v.count("hidden_size", 3584)
    v.finish()
    return Encoder(
        modality="image",
        input=patch,
        stem=(Linear(width=wide),),
        blocks=(pre_norm(attention(wide, many, rotary), feed, norm),) * layers,
        connector=(Normalise(norm=norm), joined, *two_layers(wide * joined.count, gives, "gelu")),
    )


def qwen3(c: Config, width: int) -> Encoder | None:
    """The encoder of Qwen3.5 to 3.8: with a table of positions beside the rotary ones (arXiv 2511.21631)."""
    if (v := part(c)) is None:
        return None
    c.only("language_model_only", False)
    v.only("deepstack_visual_indexes", ([],))
    wide, layers = v.count("hidden_size", 1152), _depth(v, 27, "depth")
    many, norm, joined = heads(v, wide, 16, "num_heads"), LayerNorm(eps=1e-6), merge(v)
    feed = MLP(inner=v.count("intermediate_size", 4304), activation=activation(v, "gelu_pytorch_tanh"), bias=True)
    rotary, patch = turned(v, wide // many), patches(v, 16, "in_channels", 2)
    along, gives = square(v, "num_position_embeddings", 2304), v.count("out_hidden_size", 3584)
    v.finish()
    return Encoder(
        modality="image",
        input=patch,
        stem=(Linear(width=wide, bias=True),),
        positions=GridPositions(rows=along, columns=along),
        blocks=(pre_norm(attention(wide, many, rotary), feed, norm),) * layers,
        connector=(Normalise(norm=norm), joined, *two_layers(wide * joined.count, gives, "gelu")),
    )


def mllama(c: Config, width: int) -> Encoder | None:
    """Llama 3.2 Vision's: tiles, more blocks behind gates, and what six of the blocks give (arXiv 2407.21783, 7)."""
    if (v := part(c)) is None:
        return None
    one_name(v, {"attention_heads": ("num_attention_heads",)})
    wide, layers, more = v.count("hidden_size", 1280), _depth(v, 32), v.count("num_global_layers", 8, most=1 << 12)
    many, patch, norm = heads(v, wide, 16, "attention_heads"), patches(v, 14, image=448), norms(v, 1e-5, "norm_eps")
    feed = MLP(inner=v.count("intermediate_size", 5120), activation=activation(v, "gelu"), bias=True)
    block = pre_norm(attention(wide, many, bias=False), feed, norm)
    gated = Block(branches=tuple(branch.replace(gate="tanh") for branch in block.branches))
    v.data.setdefault("intermediate_layers_indices", [3, 7, 15, 23, 30])
    taps = (layers + more - 1, *_taps(v, "intermediate_layers_indices", layers, 1))
    positions = TilePositions(
        length=grid(v, patch) ** 2 + 1,
        tiles=v.count("max_num_tiles", 4, most=1 << 10),
        arrangements=len(v.list("supported_aspect_ratios", [[1, 1]] * 8)),
    )
    v.only("vision_output_dim", wide * len(taps))
    unread(v, "max_aspect_ratio_id")
    v.finish()
    return Encoder(
        modality="image",
        input=patch,
        stem=(Linear(width=wide),),
        positions=positions,
        class_token=True,
        before=norm,
        blocks=(block,) * layers + (gated,) * more,
        norm=norm,
        norm_after=layers,
        taps=taps,
        connector=(Linear(width=width, bias=True),),
        fusion="cross_attention",
    )


LLAMA4: dict[str, Any] = {"hidden_size": 1408, "image_size": 336, "vision_output_dim": 4096}
"""Of the one encoder that Llama 4 was published with, what the defaults of the reference say otherwise."""


def llama4(c: Config, width: int) -> Encoder | None:
    """Llama 4's encoder. A config that says nothing of it means the one encoder there is.

    Differs: the defaults of the reference are those of an encoder whose vectors its connector cannot read.
    """
    v = part(c) or Config(dict(LLAMA4), f"{c.where}: vision_config")
    wide, layers = v.count("hidden_size", LLAMA4["hidden_size"]), _depth(v, 34)
    many, patch = heads(v, wide, 16), patches(v, 14, image=LLAMA4["image_size"])
    norm, inner = norms(v, 1e-5, "norm_eps"), v.count("intermediate_size", 5632)
    feed = MLP(inner=inner, activation=activation(v, "gelu"), bias=True)
    rotary = turned(v, wide // many, layout="interleaved")
    joined = Merge(count=max(1, round(v.float("pixel_shuffle_ratio", 0.5) ** -2)))
    if wide * joined.count != inner:
        raise LaminaError(
            f"{v.where}: the connector reads {inner} numbers (intermediate_size), and merged patches have "
            f"{wide * joined.count}"
        )
    first, second = v.count("projector_input_dim", 4096), v.count("projector_output_dim", 4096)
    v.only("vision_output_dim", second)
    for key, value in {"multi_modal_projector_bias": False, "vision_feature_select_strategy": "default"}.items():
        v.only(key, value)
    v.only("vision_feature_layer", -1)
    v.ignore("training", "projector_dropout")
    v.finish()
    return Encoder(
        modality="image",
        input=patch,
        stem=(Linear(width=wide),),
        positions=LearnedPositions(length=grid(v, patch) ** 2 + 1),
        class_token=True,
        before=norm,
        blocks=(pre_norm(attention(wide, many, rotary), feed, norm),) * layers,
        norm=norm,
        connector=(
            joined,
            Linear(width=first, activation="gelu"),
            Linear(width=second, activation="gelu"),
            Linear(width=width),
        ),
    )
