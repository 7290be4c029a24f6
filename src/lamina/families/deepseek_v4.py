"""DeepSeek V4: attention to a window and compressed entries, hyper-connections, experts chosen by token id.

Source: the publisher's report on DeepSeek-V4; arXiv 2512.24880 (hyper-connections).
"""

from __future__ import annotations

from typing import Any

from lamina.arch import (
    GLU,
    Architecture,
    Clamp,
    CompressedAttention,
    Compressor,
    EntryIndexer,
    HyperConnections,
    MoE,
    RMSNorm,
)
from lamina.errors import LaminaError
from lamina.published import rope
from lamina.published.common import Family, Sizes, decoder, pre_norm, sizes
from lamina.published.config import Config
from lamina.published.experts import mixture, router

SLIDING, SPARSE, HEAVY = "sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"
BY_RATIO = {0: SLIDING, 4: SPARSE, 128: HEAVY}
"""What the published compress_ratios mean."""


def read(c: Config) -> Architecture:
    c.ignore("multi-token-prediction layers are not built yet", "num_nextn_predict_layers")
    c.ignore("storage", "expert_dtype")
    c.only("attention_bias", False)
    c.only("mlp_bias", False)
    c.data = c.data | {"intermediate_size": c.count("moe_intermediate_size", 2048)}  # no layer is dense
    c.only("num_key_value_heads", 1)
    s = sizes(c, kv_heads=1, head_dim=512, default_context=1048576)
    norm, kinds, hashed = RMSNorm(eps=s.eps), _kinds(c, s.layers), _hashed(c, s.layers)
    mixers, experts = _mixers(c, s, norm), _mixtures(c, s)
    layers = list(zip(kinds, hashed, strict=True))
    made = {(kind, by_id): pre_norm(mixers[kind], experts[by_id], norm) for kind, by_id in set(layers)}
    count, times, eps = c.count("hc_mult", 4), c.count("hc_sinkhorn_iters", 20), c.float("hc_eps", 1e-6)
    stream = HyperConnections(count=count, iterations=times, eps=eps, norm=norm.replace(weight=False))
    return decoder(c, "deepseek_v4", s, [made[layer] for layer in layers], norm).replace(stream=stream)


def _kinds(c: Config, layers: int) -> list[str]:
    """The kind of each layer: by name, or by how many tokens an entry stands for."""
    kinds = [HEAVY if i < 2 or i % 2 == 0 else SPARSE for i in range(layers)]
    if ratios := _listed(c, "compress_ratios", [], tuple(BY_RATIO), layers):
        kinds = [BY_RATIO[ratio] for ratio in ratios]
    listed = _listed(c, "layer_types", kinds, tuple(BY_RATIO.values()), layers)
    if ratios and listed != kinds:
        raise LaminaError(f"{c.where}: layer_types and compress_ratios disagree")
    return listed


def _hashed(c: Config, layers: int) -> list[bool]:
    """Which layers choose experts by token id."""
    first = c.count("num_hash_layers", 3, least=0)
    usual = ["hash_moe" if i < first else "moe" for i in range(layers)]
    return [kind == "hash_moe" for kind in _listed(c, "mlp_layer_types", usual, ("hash_moe", "moe"), layers)]


def _listed(c: Config, key: str, usual: list, known: tuple, layers: int) -> list:
    """What a list says of each layer; a published one may go on with the prediction layers."""
    listed = c.list(key, usual)
    if listed and (len(listed) < layers or any(kind not in known for kind in listed)):
        raise LaminaError(f"{c.where}: {key} needs {layers} entries, each of {', '.join(map(repr, known))}")
    return listed[:layers]


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


def _mixers(c: Config, s: Sizes, norm: RMSNorm) -> dict[str, CompressedAttention]:
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


def _mixtures(c: Config, s: Sizes) -> dict[bool, MoE]:
    """By whether the token's id chooses."""
    c.only("norm_topk_prob", True)
    c.only("n_shared_experts", 1)
    expert = GLU(inner=s.inner, activation=s.activation, clamp=Clamp(limit=c.float("swiglu_limit", 10.0)))
    gate = router(c, 256, 6, "sqrt_softplus", scale=1.5, correction=True, other_scores=("softmax", "sigmoid"))
    moe = mixture(c, s, gate, 2048, shared=1, expert=expert)
    return {False: moe, True: moe.replace(router=gate.replace(hashed=True, correction=False))}


FAMILIES = (Family("deepseek_v4", ("deepseek_v4",), read),)
