"""Qwen4-Exp (Qwen3.8-Flash-Next): Qwen3-Next with several residual streams, indexed attention and an n-gram memory.

Source: the published config; the reference.
"""

from __future__ import annotations

from lamina.arch import (
    Architecture,
    Attention,
    Block,
    Branch,
    GatedStreams,
    NgramMemory,
    PooledIndexer,
    QKNorm,
    RMSNorm,
)
from lamina.arch.base import Op
from lamina.errors import LaminaError
from lamina.families.qwen_next import experts
from lamina.published import rope, vision
from lamina.published.common import Family, Sizes, decoder, sizes
from lamina.published.config import LATER, Config
from lamina.published.encoders import split
from lamina.published.experts import router
from lamina.published.recurrent import delta_net, ignore_running, kinds

LINEAR, INDEXED = "linear_attention", "indexed_attention"
KINDS = {LINEAR: LINEAR, INDEXED: INDEXED, "full_attention": INDEXED, "qwen_sparse_attention": INDEXED}


def _attention(c: Config, s: Sizes, norm: RMSNorm) -> Attention:
    """The indexer's queries and keys are rotated as the attention's are."""
    values = rope.parameters(c, 10000.0)
    values.setdefault("partial_rotary_factor", 0.25)
    rotary = rope.rotary(c, values, s.head_dim, s.context)
    c.only("indexer_kv_heads", 1)
    pool, budget = c.count("indexer_compress_ratio", most=1 << 16), c.count("indexer_budget")
    if budget % pool:
        raise LaminaError(f"{c.where}: indexer_budget ({budget}) must be a multiple of indexer_compress_ratio ({pool})")
    indexer = PooledIndexer(
        heads=c.count("indexer_n_heads", most=1 << 16),
        head_dim=c.count("indexer_head_dim", most=1 << 16),
        pool=pool,
        top_k=budget // pool,
        rotary=rotary,
        norm=norm,
    )
    return s.attention(rotary=rotary, qk_norm=QKNorm(norm=norm), gate="elementwise", blocks=indexer)


def _memory(c: Config, s: Sizes, norm: RMSNorm, found: list[str]) -> NgramMemory | None:
    """Layers are counted from one in `ple_layer_ids`."""
    layers = sorted(set(c.list("ple_layer_ids", [])))
    if wrong := [i for i in layers if not isinstance(i, int) or not 1 <= i <= s.layers or found[i - 1] != LINEAR]:
        raise LaminaError(f"{c.where}: ple_layer_ids holds {wrong[0]!r}, which is no layer of linear_attention")
    end = c.data.get("eos_token_id")
    end = end[0] if isinstance(end, list) and end else end
    if layers and not isinstance(end, int):
        raise LaminaError(f"{c.where}: ple_layer_ids needs an eos_token_id")
    c.ignore("storage", "split_ngram_parts", "ple_embedding_dtype")
    c.ignore("follows from ple_layer_ids", "number_of_conv_states")
    memory = NgramMemory(
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
    return memory if layers else None


def read(c: Config) -> Architecture:
    """No norm stands before a branch or at the end: reading the streams normalises them."""
    c, encoders = split(c, vision.qwen3)
    s = sizes(c, kv_heads=2, head_dim=256, default_context=32768, inner=c.count("moe_intermediate_size", 512))
    norm, gate = RMSNorm(eps=s.eps, offset=1.0), c.choice("output_gate_type", ("sigmoid", "silu"), "silu")
    c.only("hidden_act", "silu")  # the reference takes it for the short convolution too
    c.only("attention_bias", False)
    made: dict[str, Op] = {
        LINEAR: delta_net(c, s.eps, gate="sigmoid" if gate == "sigmoid" else "silu"),
        INDEXED: _attention(c, s, norm),
    }
    period = c.count("full_attention_interval", 4)
    usual = [LINEAR if (i + 1) % period else INDEXED for i in range(s.layers)]
    found = kinds(c, "layer_types", c.list("layer_types", usual), s.layers, KINDS)
    stream = GatedStreams(
        count=c.count("hc_count", 4, most=1 << 10, least=2),
        rank=c.count("hc_lowrank", 320, most=1 << 20),
        norm=norm,
        memory=_memory(c, s, norm, found),
    )
    ignore_running(c)
    c.ignore(LATER, *(key for key in c.data if key.startswith("mtp")))
    routed = experts(c, s, router(c, experts=512, active=10))
    blocks = {kind: Block(branches=(Branch(op=op), Branch(op=routed))) for kind, op in made.items()}
    arch = decoder(c, "qwen4_exp", s, [blocks[kind] for kind in found], norm)
    return arch.replace(norm=None, stream=stream, encoders=encoders)


FAMILIES = (Family("qwen4_exp", ("qwen4_exp_text", "qwen4_exp"), read),)
