"""Compressed attention as a config.json and a checkpoint have it."""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, CompressedAttention, Compressor, EntryIndexer, RMSNorm
from lamina.errors import LaminaError
from lamina.published import rope
from lamina.published.common import Sizes
from lamina.published.config import Config
from lamina.published.rules import Rule

SLIDING, SPARSE, HEAVY = "sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"
BY_RATIO = {0: SLIDING, 4: SPARSE, 128: HEAVY}
"""What the published compress_ratios mean."""

_COMPRESSOR = {
    "wkv": "kv_proj",
    "wgate": "weight_proj",
    "ape": "position_bias",
    "norm": "kv_norm",
}
_NAMES = {
    "wq_a": "q_a_proj",
    "q_norm": "q_a_norm",
    "wq_b": "q_b_proj",
    "wkv": "kv_proj",
    "norm": "kv_norm",
    "wo_a": "o_a_proj",
    "wo_b": "o_b_proj",
    "attn_sink": "sinks",
    "indexer.wq_b": "indexer.q_proj",
    "indexer.weights_proj": "indexer.head_weights",
    **{f"compressor.{theirs}": f"compressor.{ours}" for theirs, ours in _COMPRESSOR.items()},
    **{f"indexer.compressor.{theirs}": f"indexer.compressor.{ours}" for theirs, ours in _COMPRESSOR.items()},
}
RULES = tuple(Rule(f"attn.{theirs}", f"mixer.op.{ours}") for theirs, ours in _NAMES.items())


def listed(c: Config, key: str, usual: list, known: tuple, layers: int) -> list:
    """What a list says of each layer; a published one may go on with the prediction layers.

    Raises: LaminaError for one that is too short or holds something else.
    """
    found = c.list(key, usual)
    if found and (len(found) < layers or any(kind not in known for kind in found)):
        raise LaminaError(f"{c.where}: {key} needs {layers} entries, each of {', '.join(map(repr, known))}")
    return found[:layers]


def kinds(c: Config, layers: int) -> list[str]:
    """The kind of each layer: by name, or by how many tokens an entry stands for.

    Raises: LaminaError if the two disagree.
    """
    usual = [HEAVY if i < 2 or i % 2 == 0 else SPARSE for i in range(layers)]
    if ratios := listed(c, "compress_ratios", [], tuple(BY_RATIO), layers):
        usual = [BY_RATIO[ratio] for ratio in ratios]
    found = listed(c, "layer_types", usual, tuple(BY_RATIO.values()), layers)
    if ratios and found != usual:
        raise LaminaError(f"{c.where}: layer_types and compress_ratios disagree")
    return found


def _rotaries(c: Config, s: Sizes) -> list[Any]:
    """Of windows, and of layers with entries: another base, and the scaling, that leaves scores as they are."""
    share = c.float("partial_rotary_factor", c.count("qk_rope_head_dim", s.head_dim // 8) / s.head_dim)
    found = dict(c.dict("rope_scaling", None) or c.dict("rope_parameters", None) or {})
    main: dict[str, Any] = {"rope_theta": c.float("rope_theta", 10000.0)}
    other = found | {"rope_theta": c.float("compress_rope_theta", 160000.0)}
    if "main" in found and "compress" in found:
        main, other = dict(found["main"]), dict(found["compress"])
    if other.get("rope_type", other.get("type")) == "yarn":
        other.setdefault("attention_factor", 1.0)
    both = (values | {"partial_rotary_factor": share} for values in (main, other))
    return [rope.rotary(c, values, s.head_dim, s.context, "interleaved") for values in both]


def mixers(c: Config, s: Sizes, norm: RMSNorm) -> dict[str, CompressedAttention]:
    """The attention of each kind of layer."""
    windows, entries = _rotaries(c, s)
    plain = CompressedAttention(
        heads=s.heads,
        head_dim=s.head_dim,
        query_latent=c.count("q_lora_rank", 1024),
        window=c.count("sliding_window", 128),
        output_groups=c.count("o_groups", 8),
        output_rank=c.count("o_lora_rank", 1024),
        rotary=windows,
        norm=norm,
    )
    rates = Config(c.dict("compress_rates", {}), f"{c.where}: compress_rates")
    sparse = Compressor(stride=rates.count(SPARSE, 4), overlap=True)
    heavy = plain.replace(rotary=entries, compressor=Compressor(stride=rates.count(HEAVY, 128)))
    rates.finish()
    heads, dim, top_k = c.count("index_n_heads", 64), c.count("index_head_dim", 128), c.count("index_topk", 512)
    chosen = EntryIndexer(heads=heads, head_dim=dim, top_k=top_k)
    return {SLIDING: plain, SPARSE: heavy.replace(compressor=sparse, indexer=chosen), HEAVY: heavy}


def _kind(op: CompressedAttention) -> str:
    return SPARSE if op.indexer else HEAVY if op.compressor else SLIDING


def keys(arch: Architecture) -> dict[str, Any]:
    """The inverse of `kinds` and `mixers`; of a kind that no layer is, nothing is said."""
    ops = [op for op in arch.ops() if isinstance(op, CompressedAttention)]
    made, first = {_kind(op): op for op in ops}, ops[0]
    entries = made.get(SPARSE) or made.get(HEAVY)
    turned = {"main": made.get(SLIDING), "compress": entries}
    parameters = {name: rope.written(op.rotary, op.head_dim) if op else None for name, op in turned.items()}
    both = {name: values or {"rope_type": "default", "rope_theta": 10000.0} for name, values in parameters.items()}
    index = made[SPARSE].indexer if SPARSE in made else None
    names = {"index_n_heads": "heads", "index_head_dim": "head_dim", "index_topk": "top_k"} if index else {}
    return {
        "num_attention_heads": first.heads,
        "num_key_value_heads": 1,
        "head_dim": first.head_dim,
        "q_lora_rank": first.query_latent,
        "sliding_window": first.window,
        "o_groups": first.output_groups,
        "o_lora_rank": first.output_rank,
        "layer_types": [_kind(op) for op in ops],
        "compress_rates": {kind: op.compressor.stride for kind, op in made.items() if op.compressor},
        "partial_rotary_factor": first.rotary.dim / first.head_dim,
        "rope_parameters": both,
        **{key: getattr(index, field) for key, field in names.items()},
    }
