"""Mistral Large 4: sparse latent attention; rotary frequencies and the temperature of queries are learned.

Source: the published config and reference.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, LatentAttention, LayerNorm, LearnedTemperature, RMSNorm
from lamina.errors import LaminaError
from lamina.families.deepseek import blocks_around
from lamina.published import latent, vision
from lamina.published.common import Family, Sizes
from lamina.published.config import LATER, Config
from lamina.published.encoders import split
from lamina.published.experts import layer_kinds, mixture, router, sparse_layers
from lamina.published.rules import Layout, Rule

ROTARY = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 2048.0,
    "original_max_position_embeddings": 512,
    "attention_factor": 1.0,
}
"""What a config means that says nothing of rotary embeddings."""


def read(c: Config) -> Architecture:
    c, encoders = split(c, vision.pixtral)
    s = latent.sizes(c, eps=1e-5, default_context=1048576)
    c.only("norm_topk_prob", True)
    c.only("rope_interleave", True)
    c.layer_types(s.layers, ["indexed_attention"] * s.layers, ("indexed_attention",))
    learned = LearnedTemperature()
    op = latent.attention(c, s, query_latent=None, plain=64, norm=RMSNorm(eps=s.eps), temperature=learned)
    if op.query_latent:
        raise LaminaError(f"{c.where}: q_lora_rank is {op.query_latent}; queries of this model_type have no latent")
    turned = latent.rotated(c, s, op, latent.rotary_or(c, ROTARY))
    assert turned.rotary
    turned = turned.replace(rotary=turned.rotary.replace(learned=True))
    unturned = op.replace(plain_dim=op.head_dim, rotary_dim=0, scale=turned.scale)
    interval = c.count("no_rope_layer_interval", 4)
    turn = c.list("no_rope_layers", [int((i + 1) % interval != 0) for i in range(s.layers)])
    if len(turn) < s.layers or any(t not in (0, 1) for t in turn):
        raise LaminaError(f"{c.where}: no_rope_layers needs {s.layers} entries of 0 or 1 (1: the layer is rotated)")
    index = latent.indexer(c, None, query_norm=LayerNorm(eps=1e-6), temperature=learned)
    shared, sources = latent.shared_choices(c, s.layers), _sources(c, s, turn)
    ops = []
    for i in range(s.layers):
        base = turned if turn[i] else unturned
        indexer = index.replace(rotary=base.rotary, shared=shared[i])
        ops.append(base.replace(indexer=indexer, kv_from=sources[i]))
    moe = mixture(c, s, router(c, 128, 4), 6144, shared=1)
    softcap = c.float("final_logit_softcapping", 30.0)
    arch = blocks_around(c, "mistral_large4", s, ops, moe, sparse_layers(c, s.layers, 1), softcap=softcap)
    return arch.replace(encoders=encoders)


def _sources(c: Config, s: Sizes, turn: list[int]) -> list[int | None]:
    """The block whose latents each layer reads; None where it has its own."""
    sources = c.list("kv_source_layers", list(range(s.layers)))
    if len(sources) != s.layers:
        raise LaminaError(f"{c.where}: kv_source_layers has {len(sources)} entries for {s.layers} layers")
    for i, source in enumerate(sources):
        if not isinstance(source, int) or not 0 <= source <= i or sources[source] != source or turn[source] != turn[i]:
            raise LaminaError(
                f"{c.where}: kv_source_layers[{i}] is {source}; expected is the layer itself or an earlier one "
                "that has its own, and is rotated if it is"
            )
    return [None if source == i else source for i, source in enumerate(sources)]


def write(arch: Architecture) -> dict[str, Any]:
    ops = [op for op in arch.ops() if isinstance(op, LatentAttention)]
    said = latent.keys(arch, "MistralLarge4ForConditionalGeneration") | latent.indexer_keys(arch) | layer_kinds(arch)
    return {
        "model_type": "mistral_large4_text",
        **{key: value for key, value in said.items() if key not in ("q_lora_rank", "first_k_dense_replace")},
        "no_rope_layers": [int(op.rotary is not None) for op in ops],
        "kv_source_layers": [i if op.kv_from is None else op.kv_from for i, op in enumerate(ops)],
        "final_logit_softcapping": arch.head.softcap,
    }


_GLU = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
_INDEXER = {"wq_b": "q_proj", "wk": "k_proj", "k_norm": "k_norm", "q_input_norm": "q_input_norm"}
_BLOCK = {
    "attention.wq": "mixer.op.q_proj",
    "attention.wkv_a_with_mqa": "mixer.op.kv_a_proj",
    "attention.kv_a_norm": "mixer.op.kv_a_norm",
    "attention.wkv_b": "mixer.op.kv_b_proj",
    "attention.wo": "mixer.op.o_proj",
    **{f"attention.indexer.{theirs}": f"mixer.op.indexer.{ours}" for theirs, ours in _INDEXER.items()},
    "attention.indexer.weights_proj": "mixer.op.indexer.head_weights",
    **{f"attention.{part}ssmax_scaling.s": f"mixer.op.{part}temperature.scale" for part in ("", "indexer.")},
    **{f"attention.{part}ssmax_scaling.b": f"mixer.op.{part}temperature.bias" for part in ("", "indexer.")},
    "attention_norm": "mixer.before",
    "ffn_norm": "feed_forward.before",
    **{f"feed_forward.{theirs}": f"feed_forward.op.{ours}" for theirs, ours in _GLU.items()},
    **{f"experts.{{e}}.{theirs}": f"feed_forward.op.experts.{ours}" for theirs, ours in _GLU.items()},
    **{f"shared_experts.{theirs}": f"feed_forward.op.shared.{ours}" for theirs, ours in _GLU.items()},
    "gate": "feed_forward.op.router.gate",
}
SKIP = {
    r"(vision_encoder|vision_language_adapter|patch_merger|pre_mm_projector_norm)\..*": "the image encoder is not part",
    r"mtp_dspark\..*": LATER,
}


def layout(arch: Architecture) -> Layout:
    turned = [op.rotary.dim // 2 for op in arch.ops() if isinstance(op, LatentAttention) and op.rotary]
    around = {"tok_embeddings.weight": "embedding.table", "norm": "norm", "output": "head"}
    around |= {"lerope.alpha": f"frequencies.scale_{turned[0]}"} if turned else {}
    block = (Rule("layers.{i}." + theirs, "blocks.{i}." + ours) for theirs, ours in _BLOCK.items())
    return Layout((*(Rule(theirs, ours) for theirs, ours in around.items()), *block), spellings=(), skip=SKIP)


FAMILIES = (Family("mistral_large4", ("mistral_large4", "mistral_large4_text"), read, write, layout),)
