"""Further image encoders, as vision.py reads them: Kimi, Molmo 2, MiniMax-M3, GLM-5.3, Inkling 2, Muse, Fuyu."""

from __future__ import annotations

from lamina.arch import (
    GLU,
    MLP,
    AttentionPool,
    Block,
    Branch,
    Clamp,
    Encoder,
    GatedLinear,
    GridPositions,
    LayerNorm,
    LayerScale,
    LearnedPositions,
    Linear,
    Merge,
    Normalise,
    Patches,
    QKNorm,
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
    side,
    turned,
    two_layers,
    unread,
)
from lamina.published.experts import one_name

CUTTING = "how images are cut up is said to the processor"
COUNTING = "how many tokens an image becomes follows from its size"
KIMI = {
    "hidden_size": ("vt_hidden_size",),
    "intermediate_size": ("vt_intermediate_size",),
    "num_attention_heads": ("vt_num_attention_heads",),
    "num_hidden_layers": ("vt_num_hidden_layers",),
    "pos_emb_height": ("init_pos_emb_height",),
    "pos_emb_width": ("init_pos_emb_width",),
    "pos_emb_time": ("init_pos_emb_time",),
}


def _depth(v: Config, usual: int) -> int:
    return v.count("num_hidden_layers", usual, most=1 << 12)


def kimi(c: Config, width: int) -> Encoder | None:
    """Kimi K2.5's: MoonViT; vectors of one place in several frames of a video are averaged (arXiv 2504.07491)."""
    if (v := part(c)) is None:
        return None
    one_name(v, KIMI)
    wide, layers, norm = v.count("hidden_size", 1152), _depth(v, 27), LayerNorm(eps=1e-5)
    many = heads(v, wide, 16)
    feed = MLP(inner=v.count("intermediate_size", 4304), activation=activation(v, "gelu_pytorch_tanh"), bias=True)
    positions = GridPositions(
        rows=v.count("pos_emb_height", 64),
        columns=v.count("pos_emb_width", 64),
        frames=v.count("pos_emb_time", 4),
    )
    known = {"merge_type": "sd2_tpool", "pos_emb_type": "divided_fixed", "video_attn_type": "spatial_temporal"}
    for key, value in (known | {"mm_projector_type": "patchmerger", "mm_hidden_size": wide}).items():
        v.only(key, value)
    v.only("text_hidden_size", width)
    act = activation(v, "gelu", "projector_hidden_act")
    normed = LayerNorm(eps=v.float("projector_ln_eps", c.float("projection_layer_norm_eps", 1e-5)))
    c.only("projection_hidden_size", wide)
    c.ignore(CUTTING, "use_unified_vision_chunk")
    joined = Merge(count=side(v, "merge_kernel_size", 2) ** 2)
    rotary, patch = turned(v, wide // many), patches(v, 14)
    v.finish()
    return Encoder(
        modality="image",
        input=patch,
        stem=(Linear(width=wide, bias=True),),
        positions=positions,
        blocks=(pre_norm(attention(wide, many, rotary), feed, norm),) * layers,
        norm=norm,
        connector=(Normalise(norm=normed), joined, *two_layers(wide * joined.count, width, act)),
    )


def molmo(c: Config, width: int) -> Encoder | None:
    """Molmo 2's: SigLIP 2, two of its blocks side by side, and squares of two by two pooled by attention.

    Source: arXiv 2601.10611.
    """
    if (v := part(c)) is None:
        return None
    wide, layers, norm = v.count("hidden_size", 1152), _depth(v, 25), norms(v, 1e-6)
    many, bias = v.count("num_attention_heads", 16), v.bool("attention_bias", True)
    head, groups = v.count("head_dim", 72), v.count("num_key_value_heads", 16)
    op = attention(wide, 1, bias=bias).replace(heads=many, kv_heads=groups, head_dim=head)
    feed = MLP(inner=v.count("intermediate_size", 4304), activation=activation(v, "gelu_pytorch_tanh"), bias=True)
    patch = patches(v, 14, image=378)
    length = v.count("num_position_embeddings", grid(v, patch) ** 2)
    v.finish()
    a = c.sub("adapter_config") if "adapter_config" in c else Config({}, f"{c.where}: adapter_config")
    listed = a.list("vision_feature_layer", [24, 18])
    if any(not isinstance(i, int) or not -layers <= i < layers for i in listed):
        raise LaminaError(f"{a.where}: vision_feature_layer must be numbers of the {layers} layers")
    pool = AttentionPool(
        count=4,
        heads=a.count("num_attention_heads", 16),
        kv_heads=a.count("num_key_value_heads", 16),
        head_dim=a.count("head_dim", 72),
        width=a.count("hidden_size", 1152),
        bias=a.bool("attention_bias", True),
    )
    last = GatedLinear(
        inner=a.count("intermediate_size", 18944),
        width=a.count("text_hidden_size", 3584),
        activation=activation(a, "silu"),
    )
    a.only("mlp_bias", False)
    a.finish()
    return Encoder(
        modality="image",
        input=patch,
        stem=(Linear(width=wide, bias=True),),
        positions=LearnedPositions(length=length),
        blocks=(pre_norm(op, feed, norm),) * layers,
        taps=tuple(i % layers for i in listed),
        connector=(pool, last),
    )


def minimax(c: Config, width: int) -> Encoder | None:
    """MiniMax-M3's: a CLIP turned by time, height and width, whose patches are projected, then merged and projected."""
    if (v := part(c)) is None:
        return None
    v.only("model_type", ("clip_vision_model", "minimax_m3_vl_vision"))
    for key, value in {"position_embedding_type": "rope", "rope_mode": "3d", "projection_dim": width}.items():
        v.only(key, value)
    unread(v, "vocab_size", "initializer_factor")
    v.ignore(CUTTING, "vision_segment_max_frames")
    if "img_token_compression_config" in v:
        pressed = v.sub("img_token_compression_config")
        pressed.only("image_token_compression_method", "patch_merge")
        v.data |= {key: pressed.count(key, 2) for key in ("spatial_merge_size", "temporal_patch_size")}
        pressed.finish()
    wide, layers, norm = v.count("hidden_size", 1280), _depth(v, 32), norms(v, 1e-5)
    many, joined, patch = heads(v, wide, 16), merge(v), patches(v, 14, frames=2, image=2016)
    feed = MLP(inner=v.count("intermediate_size", 5120), activation=activation(v, "gelu"), bias=True)
    rotary = turned(v, wide // many, axes=3)
    v.finish()
    c.ignore("said of the encoder too", "img_token_compression_config")
    c.ignore(CUTTING, "image_grid_pinpoints", "process_image_mode")
    c.ignore(COUNTING, "image_seq_length")
    known = {"multimodal_projector_bias": True, "num_reward_heads": 0, "projector_hidden_act": "gelu"}
    for key, value in (known | {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"}).items():
        c.only(key, value)
    c.only("merged_hidden_size", joined.gives(width))
    inner = c.count("projector_hidden_size", 6144)
    return Encoder(
        modality="image",
        input=patch,
        stem=(Linear(width=wide),),
        before=norm,
        blocks=(pre_norm(attention(wide, many, rotary), feed, norm),) * layers,
        connector=(*two_layers(inner, width, "gelu"), joined, *two_layers(inner, width, "gelu")),
    )


def glm(c: Config, width: int) -> Encoder | None:
    """GLM-5.3's: clamped GLUs, squares of patches convolved to one, then a projection and a clamped GLU."""
    if (v := part(c)) is None:
        return None
    wide, layers, norm = v.count("hidden_size", 1024), v.count("depth", 24, most=1 << 12), rms(v, 1e-5)
    many, joined, act = heads(v, wide, 16, "num_heads"), merge(v), activation(v, "silu")
    clamp, bias = Clamp(limit=v.float("swiglu_limit", 10.0)), v.bool("attention_bias", True)
    if act != "silu":
        raise LaminaError(f"{v.where}: hidden_act is {act}; a clamped feed-forward is known with 'silu'")
    glu = GLU(inner=v.count("intermediate_size", 4096), bias=bias, clamp=clamp)
    op = attention(wide, many, turned(v, wide // many), bias, qk_norm=QKNorm(norm=norm))
    gives, inner = v.count("out_hidden_size", 1536), v.count("projection_intermediate_size", 10240)
    patch = patches(v, 14, "in_channels", 2, image=336)
    v.finish()
    return Encoder(
        modality="image",
        input=patch,
        stem=(Linear(width=wide, bias=True),),
        blocks=(pre_norm(op, glu, norm),) * layers,
        norm=norm,
        connector=(
            joined,
            Linear(width=gives, bias=True),
            Linear(width=gives),
            Normalise(norm=LayerNorm(eps=1e-5), activation="gelu"),
            GatedLinear(inner=inner, width=gives, clamp=clamp),
        ),
    )


def inkling2(c: Config, width: int) -> Encoder | None:
    """Inkling 2's: a ViT with LayerScale, a class token, and a grid of positions beside the rotary ones."""
    if (v := part(c)) is None:
        return None
    one_name(v, {"patch_size": ("native_patch_size",), "spatial_merge_size": ("adapter_merge_size",)})
    wide, layers, norm = v.count("hidden_size", 1024), _depth(v, 23), norms(v, 1e-5)
    many, act, joined = heads(v, wide, 16), activation(v, "gelu"), merge(v)
    inner = v.count("intermediate_size", int(wide * v.float("mlp_ratio", 4.0)))
    v.ignore("training", "layer_scale_init_value")
    rotary, along = turned(v, wide // many, layout="interleaved"), v.count("posemb_grid_size", 32)
    ops = attention(wide, many, rotary), MLP(inner=inner, activation=act, bias=True)
    block = Block(branches=tuple(Branch(op=op, before=norm, residual=LayerScale()) for op in ops))
    v.only("text_hidden_size", width)
    last = two_layers(v.count("projection_hidden_dim", 4096), width, act, v.bool("projector_bias", False))
    patch = patches(v, 20)
    v.finish()
    return Encoder(
        modality="image",
        input=patch,
        stem=(Linear(width=wide),),
        positions=GridPositions(rows=along, columns=along, class_vector=True),
        class_token=True,
        before=norm,
        blocks=(block,) * layers,
        connector=(joined, *last),
    )


def muse(c: Config, width: int) -> Encoder | None:
    """Muse's perception encoder: three blocks of four see a square of patches only."""
    if (v := part(c)) is None:
        return None
    wide, layers, norm = v.count("hidden_size", 1536), _depth(v, 50), norms(v, 1e-5)
    many, rows, columns = heads(v, wide, 16), v.count("pos_emb_height", 32), v.count("pos_emb_width", 32)
    feed = MLP(inner=v.count("intermediate_size", 8960), activation=activation(v, "gelu"), bias=True)
    op, inside = attention(wide, many, turned(v, wide // many)), LayerNorm(eps=1e-5)
    seen = {"full_attention": None, "window_attention": rows * columns}
    made = {kind: pre_norm(op.replace(chunk=chunk), feed, inside) for kind, chunk in seen.items()}
    usual = ["full_attention" if (i + 1) % 4 == 0 or i == layers - 1 else "window_attention" for i in range(layers)]
    joined = merge(v, "merge_size")
    patch = Patches(size=v.count("patch_size", 14), frames=v.count("patch_temporal", 2, most=64))
    unread(v, "max_position_embeddings")
    blocks = tuple(made[kind] for kind in v.layer_types(layers, usual, seen))
    v.finish()
    c.only("out_hidden_size", wide * joined.count)
    inner, act = c.count("projector_hidden_size", 4096), activation(c, "gelu", "projector_hidden_act")
    return Encoder(
        modality="image",
        input=patch,
        stem=(Linear(width=wide),),
        positions=GridPositions(rows=rows, columns=columns),
        before=norm,
        blocks=blocks,
        norm=norm,
        connector=(
            joined,
            Linear(width=inner, activation=act),
            Linear(width=inner, activation=act),
            Linear(width=width),
        ),
    )


def fuyu(c: Config, width: int) -> Encoder:
    """Fuyu's: one matrix from a patch to the decoder, and nothing else (adept.ai, Fuyu-8B)."""
    return Encoder(modality="image", input=patches(c, 30, image=300), stem=(Linear(width=width, bias=True),))
