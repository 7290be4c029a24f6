"""Latent attention as a config.json writes it."""

from __future__ import annotations

import math
from typing import Any

from lamina.arch import Architecture, Indexer, LatentAttention, LengthTemperature, RMSNorm, Rotary, YarnScaling
from lamina.errors import LaminaError
from lamina.published import common, rope
from lamina.published.config import LATER, Config, shown
from lamina.published.experts import dense_of, moe_of, router_keys, shared_experts, sparse_blocks
from lamina.published.rules import (
    CORRECTION,
    EXPERTS,
    MULTIMODAL,
    PRE_NORMS,
    ROUTER,
    SHARED,
    Layout,
    Rule,
    decoder_rules,
    later_layers,
)
from lamina.published.rules import GLU as GLU_RULES

PREDICTION = ("num_nextn_predict_layers", "num_mtp_layers", "index_share_for_mtp_iteration")
_NAMES = {
    **{f"{name}_proj": f"{name}_proj" for name in ("q", "q_a", "q_b", "kv_b", "o")},
    "q_a_layernorm": "q_a_norm",
    "kv_a_proj_with_mqa": "kv_a_proj",
    "kv_a_layernorm": "kv_a_norm",
}


def attention_rules(theirs: str = "self_attn.", ours: str = "mixer.op.") -> tuple[Rule, ...]:
    """The tensors of one latent attention."""
    return tuple(Rule(theirs + published, ours + name) for published, name in _NAMES.items())


BLOCK = attention_rules() + GLU_RULES + PRE_NORMS + EXPERTS + ROUTER + CORRECTION + SHARED
"""The tensors of a block, as DeepSeek V3 names them."""


def layout_of(arch: Architecture, block: tuple[Rule, ...] = BLOCK) -> Layout:
    """The tensors of a decoder of such blocks."""
    beside = r"(model\.)?(vision_tower|mm_projector|multi_modal_projector)\..*"
    skip = later_layers(len(arch.blocks)) | {beside: "the image encoder is not part of this model"}
    return Layout(decoder_rules(block), spellings=MULTIMODAL, skip=skip)


def attention_of(arch: Architecture) -> LatentAttention:
    return next(op for op in arch.ops() if isinstance(op, LatentAttention))


def interleaved(arch: Architecture) -> bool:
    """The inverse of `layout`."""
    return all(op.rotary.layout == "interleaved" for op in arch.ops() if isinstance(op, LatentAttention) and op.rotary)


def keys(arch: Architecture, architecture: str) -> dict[str, Any]:
    """What the readers of these families read; `architecture` is the name of the reference's class."""
    op, moe, dense, sparse = attention_of(arch), moe_of(arch), dense_of(arch), sparse_blocks(arch)
    assert arch.norm
    return {
        "architectures": [architecture],
        "vocab_size": arch.vocab,
        "hidden_size": arch.width,
        "num_hidden_layers": len(arch.blocks),
        "num_attention_heads": op.heads,
        "num_key_value_heads": op.heads,
        "intermediate_size": dense.inner,
        "hidden_act": common.published(dense.activation),
        "max_position_embeddings": arch.context,
        "rms_norm_eps": arch.norm.eps,
        "tie_word_embeddings": arch.head.tied,
        "q_lora_rank": op.query_latent,
        "kv_lora_rank": op.latent,
        "qk_nope_head_dim": op.plain_dim,
        "qk_rope_head_dim": op.rotary_dim,
        "v_head_dim": op.value_dim,
        "attention_bias": op.bias,
        "rope_parameters": rotary_keys(op),
        **router_keys(moe.router, "n_routed_experts"),
        "moe_intermediate_size": moe.expert.inner,
        "n_shared_experts": shared_experts(moe),
        "first_k_dense_replace": sparse.index(True),
    }


def rotary_keys(op: LatentAttention, dim: int = 0) -> dict[str, Any]:
    """The inverse of `rotated`, and of `length_temperature`."""
    if op.rotary is None:
        return {}
    values, scaling = rope.written(op.rotary, dim or op.rotary_dim), op.rotary.scaling
    if isinstance(scaling, YarnScaling) and op.scale:
        growth, all_dim = 0.1 * math.log(scaling.factor), math.sqrt(op.scale * math.sqrt(op.head_dim))
        values["mscale_all_dim"] = common.rounded((all_dim - 1.0) / growth)
        values["mscale"] = common.rounded((scaling.attention_factor * all_dim - 1.0) / growth)
    if isinstance(op.temperature, LengthTemperature):
        values["llama_4_scaling_beta"] = op.temperature.scale
        values["original_max_position_embeddings"] = op.temperature.floor
    return values


def sizes(c: Config, **usual: Any) -> common.Sizes:
    """The usual numbers; `head_dim` is passed over, since the parts of a head have keys of their own.

    Raises: LaminaError if there are fewer key/value heads than heads: each head has its own.
    """
    c.ignore("the parts of a head have keys of their own", "head_dim")
    c.ignore(LATER, *PREDICTION)
    c.data = {key: value for key, value in c.data.items() if key != "head_dim"}
    s = common.sizes(c, **usual)
    if s.kv_heads != s.heads:
        raise LaminaError(
            f"{c.where}: num_key_value_heads is {s.kv_heads} and num_attention_heads {s.heads}; "
            "in latent attention every head has keys and values of its own"
        )
    return s


def attention(
    c: Config,
    s: common.Sizes,
    query_latent: int | None = 1536,
    latent: int = 512,
    plain: int = 128,
    rotary: int = 64,
    value: int = 128,
    **fields: Any,
) -> LatentAttention:
    """Latent attention; the arguments are the family's ranks and sizes for keys that are absent.

    A `q_lora_rank` of null means that queries have no latent. Both latents have a norm of eps 1e-6 whatever
    rms_norm_eps is, as in the published code, unless `fields` say otherwise.
    """
    ranked = None if "q_lora_rank" in c.data else query_latent
    made = LatentAttention(
        heads=s.heads,
        query_latent=c.count("q_lora_rank", ranked),
        latent=c.count("kv_lora_rank", latent),
        plain_dim=c.count("qk_nope_head_dim", plain),
        rotary_dim=c.count("qk_rope_head_dim", rotary, least=0),
        value_dim=c.count("v_head_dim", value),
        bias=c.bool("attention_bias", False),
        **{"norm": RMSNorm(eps=1e-6)} | fields,
    )
    c.only("qk_head_dim", made.head_dim)
    return made


def rotated(
    c: Config, s: common.Sizes, op: LatentAttention, values: dict[str, Any], layout: str = "interleaved", dim: int = 0
) -> LatentAttention:
    """The same with a rotary embedding of these published parameters, and YaRN's scale of the scores.

    `dim` is what a partial_rotary_factor is a part of, rotary_dim if nothing is said. With `mscale_all_dim`, scores
    are multiplied by the square of 0.1 mscale_all_dim ln(factor) + 1. Source: arXiv 2309.00071, section 3.4.
    """
    all_dim = values.get("mscale_all_dim") or 0.0
    turned = rope.rotary(c, values, dim or op.rotary_dim, s.context, layout)
    scale = None
    if isinstance(turned.scaling, YarnScaling) and all_dim:
        scale = op.head_dim**-0.5 * (0.1 * all_dim * math.log(max(turned.scaling.factor, 1.0)) + 1.0) ** 2
    return op.replace(rotary=turned, scale=scale)


def rotary_or(c: Config, usual: dict[str, Any]) -> dict[str, Any]:
    """The rotary parameters, or the usual ones where a config says nothing of them."""
    said = any(key in c for key in ("rope_parameters", "rope_scaling", "rope_theta"))
    return rope.parameters(c, 10000.0) if said else dict(usual)


def layout(c: Config) -> str:
    """Which dimensions turn together."""
    return "interleaved" if c.bool("rope_interleave", True) else "half"


def length_temperature(c: Config, values: dict[str, Any]) -> LengthTemperature | None:
    """Taken out of published rotary parameters, where it is written."""
    values.pop("max_position_embeddings", None)
    if (beta := values.pop("llama_4_scaling_beta", None)) is None:
        return None
    floor = values.get("original_max_position_embeddings")
    if not isinstance(beta, int | float) or not isinstance(floor, int):
        raise LaminaError(f"{c.where}: llama_4_scaling_beta and original_max_position_embeddings must be numbers")
    return LengthTemperature(floor=floor, scale=beta, first=0)


def indexer(c: Config, rotary: Rotary | None, heads: int = 32, **fields: Any) -> Indexer:
    """The indexer of a layer; it rotates as many dimensions as `rotary` has."""
    return Indexer(
        heads=c.count("index_n_heads", heads),
        head_dim=c.count("index_head_dim", 128),
        top_k=c.count("index_topk", 2048),
        rotary=rotary,
        **fields,
    )


def indexer_keys(arch: Architecture) -> dict[str, Any]:
    """What `indexer` and `shared_choices` read."""
    found = [op.indexer for op in arch.ops() if isinstance(op, LatentAttention) and op.indexer]
    names = {"index_n_heads": "heads", "index_head_dim": "head_dim", "index_topk": "top_k"}
    said: dict[str, Any] = {key: getattr(found[0], field) for key, field in names.items()}
    return said | {"indexer_types": ["shared" if one.shared else "full" for one in found]}


INDEXER = tuple(
    Rule(f"self_attn.indexer.{theirs}", f"mixer.op.indexer.{ours}")
    for theirs, ours in {"wq_b": "q_proj", "wk": "k_proj", "k_norm": "k_norm", "weights_proj": "head_weights"}.items()
)


def sparse_layout(arch: Architecture) -> Layout:
    """The tensors of a decoder of such blocks with indexers."""
    return layout_of(arch, BLOCK + INDEXER)


def shared_choices(c: Config, layers: int) -> list[bool]:
    """Whether each layer takes the choice of tokens of the last layer that makes its own.

    Raises: LaminaError if the keys that say so disagree, or the first layer has no choice to take.
    """
    freq, offset = max(c.int("index_topk_freq", 1), 1), c.int("index_skip_topk_offset", 2)
    kinds = ["full" if max(i - offset + 1, 0) % freq == 0 else "shared" for i in range(layers)]
    if pattern := c.str("index_topk_pattern", None):
        kinds = [{"F": "full", "S": "shared"}.get(letter, letter) for letter in pattern]
    said = any(key in c for key in ("index_topk_freq", "index_topk_pattern"))
    listed = c.list("indexer_types", kinds)
    if len(listed) != layers or any(kind not in ("full", "shared") for kind in listed) or listed[0] != "full":
        raise LaminaError(f"{c.where}: indexer_types needs {layers} entries, 'full' or 'shared', the first 'full'")
    if said and listed != kinds:
        raise LaminaError(f"{c.where}: indexer_types is {shown(listed)}; index_topk_freq or _pattern say otherwise")
    return [kind == "shared" for kind in listed]
