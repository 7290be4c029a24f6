"""The n-gram memory of gated streams as Qwen4-Exp publishes it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lamina.arch import NgramMemory, RMSNorm
from lamina.arch.ngram_memory import factors
from lamina.errors import LaminaError
from lamina.published.common import Sizes
from lamina.published.config import Config
from lamina.published.rules import Rule, named

TO, TABLE = "ple.", "ple.ple_embedding."
RULES = (
    Rule(TABLE + "ngram_embedding.shard_{shard}.weight", "memory.table"),
    *named(TO, "memory.", "conv1d:convolution key_proj value_proj"),
    *named(TO, "memory.", "norm_key:key_norm norm_query:stream_norm norm_conv:convolution_norm"),
)


def memory(c: Config, s: Sizes, norm: RMSNorm, among: Iterable[int]) -> NgramMemory | None:
    """Layers are counted from one in `ple_layer_ids`; they are to be `among` those of linear attention.

    Raises: LaminaError for one that is not, or without a token that ends a text
    """
    layers, known = sorted(set(c.list("ple_layer_ids", []))), {i + 1 for i in among}
    if wrong := [i for i in layers if i not in known]:
        raise LaminaError(f"{c.where}: ple_layer_ids holds {wrong[0]!r}, which is no layer of linear_attention")
    end = c.data.get("eos_token_id")
    end = end[0] if isinstance(end, list) and end else end
    if layers and not isinstance(end, int):
        raise LaminaError(f"{c.where}: ple_layer_ids needs an eos_token_id")
    c.ignore("storage", "split_ngram_parts", "ple_embedding_dtype")
    c.ignore("follows from ple_layer_ids", "number_of_conv_states")
    made = NgramMemory(
        blocks=tuple(i - 1 for i in layers),
        width=c.count("ple_embed_dim", s.width),
        longest=c.count("ngram_size", 3, most=64, least=2),
        tables=c.count("heads_per_ngram", 8, most=1 << 10),
        rows=c.count("ngram_vocab_size_base", 20_000_000, most=1 << 28),
        multiple=c.count("make_ngram_vocab_size_divisible_by", 128),
        kernel=c.count("ple_conv_kernel_size", 4, most=1 << 16),
        seed=c.int("seed", 1234),
        end=end if layers else 0,
        norm=norm,
    )
    return made if layers else None


def keys(memory: NgramMemory | None) -> dict[str, Any]:
    """The inverse of `memory`; a table is written as one tensor."""
    if memory is None:
        return {"ple_layer_ids": []}
    return {
        "ple_layer_ids": [i + 1 for i in memory.blocks],
        "ple_embed_dim": memory.width,
        "ngram_size": memory.longest,
        "heads_per_ngram": memory.tables,
        "ngram_vocab_size_base": memory.rows,
        "make_ngram_vocab_size_divisible_by": memory.multiple,
        "ple_conv_kernel_size": memory.kernel,
        "seed": memory.seed,
        "eos_token_id": memory.end,
        "split_ngram_parts": 1,
    }


def constants(memory: NgramMemory | None, vocab: int) -> dict[str, tuple[int, ...]]:
    """Tensors that hold the numbers of the hashes, which follow from the config."""
    found: dict[str, tuple[int, ...]] = {}
    for place, block in enumerate(memory.blocks if memory else ()):
        assert memory
        sizes, root = memory.sizes(place), f"model.layers.{block}.{TABLE}"
        found[root + "layer_multipliers"] = factors(vocab, memory.longest, place, memory.seed)
        found[root + "ngram_heads_vocab_sizes"] = sizes
        found[root + "ngram_heads_offsets"] = tuple(sum(sizes[:i]) for i in range(len(sizes)))
    return found
