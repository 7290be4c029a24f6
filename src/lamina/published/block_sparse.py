"""Block-sparse attention as MiniMax-M3's config.json writes it."""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, Attention, BlockIndexer, RMSNorm, Rotary
from lamina.errors import LaminaError
from lamina.published.config import Config
from lamina.published.rules import Rule

KINDS = {"full_attention": False, "minimax_m3_sparse": True}
SIZES = {
    "heads": "index_n_heads",
    "head_dim": "index_head_dim",
    "block": "index_block_size",
    "top_k": "index_topk_blocks",
    "local": "index_local_blocks",
}


def indexer(c: Config, layers: int, rotary: Rotary, norm: RMSNorm) -> tuple[BlockIndexer, list[bool]]:
    """The indexer, and which layers have one; `sparse_attention_config` is the older spelling."""
    old: Config | None = c.sub("sparse_attention_config") if "sparse_attention_config" in c else None
    c.dict("sparse_attention_config", None)

    def number(new: str, name: str, usual: int, **bounds: Any) -> int:
        value = c.count(new, usual, **bounds)
        return old.count(name, value, **bounds) if old else value

    made = BlockIndexer(
        heads=number("index_n_heads", "sparse_num_index_heads", 4),
        head_dim=number("index_head_dim", "sparse_index_dim", 128),
        block=number("index_block_size", "sparse_block_size", 128),
        top_k=number("index_topk_blocks", "sparse_topk_blocks", 16),
        local=number("index_local_blocks", "sparse_local_block", 1, least=0),
        rotary=rotary,
        norm=norm,
    )
    listed = old.list("sparse_attention_freq", [0] * layers) if old else [0] * layers
    usual = ["minimax_m3_sparse" if has else "full_attention" for has in listed]
    sparse = [KINDS[kind] for kind in c.layer_types(layers, usual, KINDS)]
    if old:
        old.only("use_sparse_attention", True)
        old.only("sparse_score_type", "max")
        old.only("sparse_init_block", 0)
        without = old.list("sparse_disable_index_value", [int(has) for has in sparse])
        if any(has and not (i < len(without) and without[i]) for i, has in enumerate(sparse)):
            raise LaminaError(f"{old.where}: an indexer with values (sparse_disable_index_value 0) is not known")
        old.finish()
    return made, sparse


def keys(arch: Architecture) -> dict[str, Any]:
    """What `indexer` reads."""
    found = [op.blocks for op in arch.ops() if isinstance(op, Attention)]
    made = next((blocks for blocks in found if isinstance(blocks, BlockIndexer)), None)
    names = {sparse: kind for kind, sparse in KINDS.items()}
    sizes = {key: getattr(made, field) for field, key in SIZES.items()} if made else {}
    return sizes | {"layer_types": [names[blocks is not None] for blocks in found]}


def rules(theirs: str) -> tuple[Rule, ...]:
    """The tensors of an indexer, whose names begin in several ways."""
    names = [f"{part}_{kind}" for part in "qk" for kind in ("proj", "norm")]
    return tuple(Rule(f"self_attn.{theirs}{name}", f"mixer.op.indexer.{name}") for name in names)
