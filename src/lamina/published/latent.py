"""Latent attention as a config.json writes it."""

from __future__ import annotations

import math
from typing import Any

from lamina.arch import Indexer, LatentAttention, LengthTemperature, RMSNorm, Rotary, YarnScaling
from lamina.errors import LaminaError
from lamina.published import common, rope
from lamina.published.config import Config, shown

PREDICTION = ("num_nextn_predict_layers", "num_mtp_layers", "index_share_for_mtp_iteration")


def sizes(c: Config, **usual: Any) -> common.Sizes:
    """The usual numbers; `head_dim` is passed over, since the parts of a head have keys of their own.

    Raises: LaminaError if there are fewer key/value heads than heads: each head has its own.
    """
    c.ignore("the parts of a head have keys of their own", "head_dim")
    c.ignore("multi-token-prediction layers are not built yet", *PREDICTION)
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
