"""Qwen4-Exp (Qwen3.8-Flash-Next): Qwen3-Next with several residual streams, indexed attention and an n-gram memory.

Source: the published config; the reference.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, Attention, Block, Branch, GatedStreams, PooledIndexer, QKNorm, RMSNorm
from lamina.arch.base import Op
from lamina.errors import LaminaError
from lamina.published import delta_net as net
from lamina.published import ngram_memory, rope, vision
from lamina.published.common import Family, Sizes, decoder, sizes
from lamina.published.config import LATER, Config
from lamina.published.delta_net import LINEAR, OURS
from lamina.published.encoders import split
from lamina.published.experts import moe_of, router
from lamina.published.recurrent import delta_net, ignore_running, kinds
from lamina.published.rules import MULTIMODAL, Layout, Rule, decoder_rules, named
from lamina.published.shared_expert import MIXTURE, experts, experts_keys

INDEXED = "indexed_attention"
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
        memory=ngram_memory.memory(c, s, norm, (i for i, kind in enumerate(found) if kind == LINEAR)),
    )
    ignore_running(c)
    c.ignore(LATER, *(key for key in c.data if key.startswith("mtp")))
    routed = experts(c, s, router(c, experts=512, active=10))
    blocks = {kind: Block(branches=(Branch(op=op), Branch(op=routed))) for kind, op in made.items()}
    arch = decoder(c, "qwen4_exp", s, [blocks[kind] for kind in found], norm)
    return arch.replace(norm=None, stream=stream, encoders=encoders)


def write(arch: Architecture) -> dict[str, Any]:
    stream, (linear, attention) = arch.stream, net.parts(arch)
    indexer = attention.blocks
    assert isinstance(stream, GatedStreams)
    assert isinstance(indexer, PooledIndexer)
    return {
        "model_type": "qwen4_exp_text",
        **net.keys(arch, "Qwen4ExpForCausalLM", moe_of(arch).expert),
        **experts_keys(arch, "norm_topk_prob"),
        **ngram_memory.keys(stream.memory),
        "rms_norm_eps": linear.norm.eps,
        "layer_types": [LINEAR if kind == LINEAR else INDEXED for kind in net.kinds(arch)],
        "output_gate_type": linear.gate,
        "hc_count": stream.count,
        "hc_lowrank": stream.rank,
        "indexer_n_heads": indexer.heads,
        "indexer_kv_heads": 1,
        "indexer_head_dim": indexer.head_dim,
        "indexer_budget": indexer.top_k * indexer.pool,
        "indexer_compress_ratio": indexer.pool,
    }


READING = "hc_norm:norm input_mix_weight_down:down_proj input_mix_weight_up:up_proj"
STREAMS = (
    *named("attn_hyper_connection.", "mixer.stream.", READING + " block_inject_weight:write"),
    *named("mlp_hyper_connection.", "feed_forward.stream.", READING + " block_inject_weight:write"),
)
INDEXER = (
    Rule("self_attn.indexer.index_qk_proj.weight", *(f"{OURS}indexer.{p}_proj.weight" for p in "qk")),
    *named("self_attn.indexer.", OURS + "indexer.", "q_layernorm:q_norm k_layernorm:k_norm"),
)


def layout(arch: Architecture) -> Layout:
    memory = arch.stream.memory if isinstance(arch.stream, GatedStreams) else None
    rules = decoder_rules((*net.mixers(arch, net.APART), *INDEXER, *STREAMS, *MIXTURE, *ngram_memory.RULES))
    rules += named("model.hyper_connection_mixer.", "joining.", READING)
    return Layout(rules, MULTIMODAL, net.SKIP, ngram_memory.constants(memory, arch.vocab))


FAMILIES = (Family("qwen4_exp", ("qwen4_exp_text", "qwen4_exp"), read, write, layout),)
