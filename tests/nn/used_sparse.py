"""Fields of indexers that change a model: of nine tokens, most see more than may be chosen."""

from __future__ import annotations

from lamina import arch as values
from lamina.arch import (
    Attention,
    BlockIndexer,
    Indexer,
    KeyPool,
    LatentAttention,
    LayerNorm,
    LearnedTemperature,
    PooledIndexer,
    RMSNorm,
    Rotary,
)

TURN = Rotary(base=100.0, dim=4)
SELF = Attention(heads=4, kv_heads=2, head_dim=6)
LATENT = LatentAttention(heads=3, latent=5, query_latent=7, plain_dim=4, rotary_dim=6, value_dim=8)
INDEXER = Indexer(heads=3, head_dim=6, top_k=3)
POOL = KeyPool(size=2)
BLOCKS = BlockIndexer(heads=2, head_dim=6, block=2, top_k=2)
POOLS = PooledIndexer(heads=3, head_dim=6, pool=2, top_k=2)
LARGER = {"head_dim": 5, "rotary": TURN, "norm": LayerNorm(eps=1.0)}
USED = [
    (SELF, {"blocks": BLOCKS}),
    (SELF.replace(blocks=BLOCKS), {"blocks": POOLS}),
    (LATENT, {"indexer": INDEXER}),
    (INDEXER, {"heads": 2, "top_k": 2, "query_norm": RMSNorm(), "temperature": LearnedTemperature()}),
    (INDEXER, LARGER | {"norm": RMSNorm()}),
    (INDEXER.replace(top_k=4), {"pool": POOL}),
    (INDEXER.replace(rotary=TURN), {"rotated": "last"}),
    (POOL, {"size": 4}),
    (BLOCKS, {"heads": 1, "block": 3, "top_k": 3, "local": 2} | LARGER),
    (POOLS, {"heads": 2, "pool": 3, "top_k": 3} | LARGER),
]
ELSEWHERE = {
    (Indexer, "shared"): "takes the choice of an earlier block: test_sparse.py",
    (KeyPool, "tail"): "only one of its values runs: test_sparse.py",
}
HOLDING = {
    values.Indexer: lambda part: LATENT.replace(indexer=part),
    values.KeyPool: lambda part: INDEXER.replace(top_k=4, pool=part),
    values.BlockIndexer: lambda part: SELF.replace(blocks=part),
    values.PooledIndexer: lambda part: SELF.replace(blocks=part),
}
