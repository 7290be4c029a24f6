"""LongCat-Flash, LongCat-Flash-Lite: blocks of two attentions and two GLUs, and experts that land at a block's end.

Source: arXiv 2509.01322 (the shortcut, identities among the experts), 2601.21204 (n-gram embeddings).
"""

from __future__ import annotations

import math
from typing import Any

from lamina.arch import Architecture, Block, Branch, LatentAttention, MoE, NgramTables, Parallel, RMSNorm
from lamina.published import latent, rope
from lamina.published.common import Family, Sizes, decoder
from lamina.published.config import LATER, Config
from lamina.published.experts import mixture, moe_of, respelt, router
from lamina.published.rules import Layout, Rule, decoder_rules

SPELT = {
    "num_hidden_layers": "num_layers",
    "intermediate_size": "ffn_hidden_size",
    "moe_intermediate_size": "expert_ffn_hidden_size",
}
"""Usual keys, and what LongCat calls them. Its num_hidden_layers are the attentions, two for each of num_layers."""


def read(c: Config) -> Architecture:
    c.only("num_hidden_layers", 2 * c.count("num_layers", 28))
    c.data = {key: value for key, value in c.data.items() if key != "num_hidden_layers"}
    for usual, theirs in SPELT.items():
        respelt(c, usual, theirs)
    c.only("attention_method", "MLA")
    c.ignore("training", "params_dtype", "rounter_params_dtype")
    c.ignore(LATER, "nextn_use_scmoe")
    s, ngrams = latent.sizes(c, eps=1e-5, default_context=131072), _ngrams(c)
    norm, attention, moe = RMSNorm(eps=s.eps), _attention(c, s), _mixture(c, s)
    first = Parallel(ops=(s.glu(), moe), lands=(0, 2))  # the experts' output is added two branches later
    branches = tuple(Branch(op=op, before=norm) for op in (attention, first, attention, s.glu()))
    arch = decoder(c, "longcat_flash", s, [Block(branches=branches)] * s.layers, norm)
    return arch.replace(embedding=arch.embedding.replace(ngrams=ngrams))


def _attention(c: Config, s: Sizes) -> LatentAttention:
    """Latents count as if they were as wide as the stream: queries and the key latent times (D / rank)^0.5."""
    op = latent.attention(c, s)
    if c.bool("mla_scale_q_lora", True) and op.query_latent:
        op = op.replace(query_scale=math.sqrt(s.width / op.query_latent))
    if c.bool("mla_scale_kv_lora", True):
        op = op.replace(latent_scale=math.sqrt(s.width / op.latent))
    return latent.rotated(c, s, op, rope.parameters(c, 10000000.0))


def _mixture(c: Config, s: Sizes) -> MoE:
    """The router chooses among experts and identities alike."""
    identities = c.count("zero_expert_num", 256, least=0)
    c.only("zero_expert_type", "identity")
    c.only("router_bias", False)
    gate = router(c, 512, 12, normalise=False, scale=6.0, correction=True)
    return mixture(c, s, gate.replace(experts=gate.experts + identities), 2048, identities=identities)


def _ngrams(c: Config) -> NgramTables | None:
    """LongCat-Flash-Lite's; the tables have about `ngram_vocab_size_ratio` times the vocabulary's rows."""
    ratio, longest = c.float("ngram_vocab_size_ratio", None), c.count("emb_neighbor_num", None)
    tables, rows = c.count("emb_split_num", None), int((ratio or 0.0) * c.count("vocab_size", 131072))
    return NgramTables(longest=longest, tables=tables, rows=rows) if ratio else None  # type: ignore[arg-type]


def write(arch: Architecture) -> dict[str, Any]:
    op, moe = latent.attention_of(arch), moe_of(arch)
    said = latent.keys(arch, "LongcatFlashForCausalLM")
    said = {SPELT.get(key, key): value for key, value in said.items() if key not in UNSAID}
    return {
        "model_type": "longcat_flash",
        **said,
        "head_dim": op.rotary_dim,  # of which the reference makes its frequencies
        "moe_topk": moe.router.active,
        "n_routed_experts": moe.computing,
        "zero_expert_num": moe.identities,
        "mla_scale_q_lora": op.query_scale != 1.0,
        "mla_scale_kv_lora": op.latent_scale != 1.0,
    }


UNSAID = ("num_experts_per_tok", "norm_topk_prob", "n_group", "topk_group", "n_shared_experts", "first_k_dense_replace")
_MOE, _P = "parallel.op.feed_forward_2.", ("gate", "up", "down")
BLOCK = (
    *latent.attention_rules("self_attn.0."),
    *latent.attention_rules("self_attn.1.", "mixer_2.op."),
    *(Rule(f"mlps.0.{p}_proj", f"parallel.op.feed_forward.{p}_proj") for p in _P),
    *(Rule(f"mlps.1.{p}_proj", f"feed_forward.op.{p}_proj") for p in _P),
    *(Rule(f"mlp.experts.{{e}}.{p}_proj", f"{_MOE}experts.{p}_proj") for p in _P),
    Rule("mlp.router.classifier", _MOE + "router.gate"),
    Rule("mlp.router.e_score_correction_bias", _MOE + "router.correction"),
    Rule("input_layernorm.0", "mixer.before"),
    Rule("input_layernorm.1", "mixer_2.before"),
    Rule("post_attention_layernorm.0", "parallel.before"),
    Rule("post_attention_layernorm.1", "feed_forward.before"),
)


def layout(arch: Architecture) -> Layout:
    """The reference has gates of its identities too, which it does not read."""
    moe = moe_of(arch)
    beyond = [str(e) for e in range(moe.computing, moe.router.experts)]
    name, shape = "model.layers.{i}.mlp.experts.", (moe.expert.inner, arch.width)
    blanks = {f"{name}{e}.{p}_proj.weight": shape for e in beyond for p in _P[:2]}
    identity = rf"model\.layers\.\d+\.mlp\.experts\.({'|'.join(beyond)})\..*"
    skip = {identity: "what returns its input has no weights", r"model\.mtp\..*": LATER}
    return Layout(decoder_rules(BLOCK), skip=skip, blanks=blanks)


FAMILIES = (Family("longcat_flash", ("longcat_flash", "longcat_flash_ngram"), read, write, layout),)
