"""Hunyuan 3 (grouped queries) and 4 (sparse latent attention with sinks, four residual streams that do not mix).

Source: the published Hy3-preview and Hy4-preview configs and the reference's code.
"""

from __future__ import annotations

from lamina.arch import Architecture, Clamp, HyperConnections, LayerNorm, QKNorm, RMSNorm
from lamina.published import latent, rope
from lamina.published.common import Family, decoder, pre_norms, sizes
from lamina.published.config import Config
from lamina.published.experts import mixture, router, sparse_layers

PREDICTION = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_layers")


def read_v3(c: Config) -> Architecture:
    s = sizes(c, eps=1e-5, kv_heads=8, head_dim=128, default_context=131072)
    norm, bias = RMSNorm(eps=s.eps), c.bool("attention_bias", False)
    for key in ("qk_norm", "moe_router_use_sigmoid", "moe_router_enable_expert_bias"):
        c.only(key, True)
    c.only("route_norm", True)
    c.ignore("how the reference runs", "enable_moe_fp32_combine", "enable_lm_head_fp32", "use_grouped_mm")
    c.ignore("how the reference runs", "enable_attention_fp32_softmax")
    c.ignore("multi-token-prediction layers are not built yet", *PREDICTION)
    c.only("mlp_bias", False)
    attention = s.attention(rotary=s.rotary(c, 11_158_840.0), qk_norm=QKNorm(norm=norm), bias=bias, output_bias=bias)
    moe = mixture(c, s, router(c, 192, 8, "sigmoid", scale=2.826, correction=True), 1536, shared=1)
    c.only("expert_hidden_dim", moe.expert.inner)
    feed_forwards = [moe if sparse else s.glu() for sparse in sparse_layers(c, s.layers, 1)]
    return decoder(c, "hy_v3", s, pre_norms([attention] * s.layers, feed_forwards, norm), norm)


def read_v4(c: Config) -> Architecture:
    s = latent.sizes(c, eps=1e-5, default_context=262144)
    norm = RMSNorm(eps=s.eps)
    c.ignore("training", "learnable_sink_init")
    c.layer_types(s.layers, ["indexed_attention"] * s.layers, ("indexed_attention",))
    op = latent.attention(c, s, plain=192, value=256, gate="elementwise", sinks=True)
    op = latent.rotated(c, s, op, rope.parameters(c, 10000.0), "half")
    if "indexer_types" not in c:
        c.data["indexer_types"] = ["full" if i == 0 or i % 4 == 1 else "shared" for i in range(s.layers)]
    own = latent.indexer(c, op.rotary, 16, norm=LayerNorm(eps=s.eps), rotated="last")
    made = {shared: op.replace(indexer=own.replace(shared=shared)) for shared in (False, True)}
    ops = [made[shared] for shared in latent.shared_choices(c, s.layers)]
    limit = c.float("swiglu_limit", 10.0)
    expert = s.glu().replace(clamp=Clamp(limit=limit) if limit > 0 else None)
    gate = router(c, 256, 8, "sigmoid", scale=2.827, correction=True)
    moe = mixture(c, s, gate, 768, shared=1, expert=expert)
    moe = moe.replace(shared=moe.shared.replace(clamp=None) if moe.shared else None)
    feed_forwards = [moe if sparse else s.glu() for sparse in sparse_layers(c, s.layers, 1)]
    streams = HyperConnections(
        count=c.count("hc_mult", 4, most=64),
        iterations=0,
        magnitude=c.float("hc_magnitude", 2.0),
        eps=c.float("hc_eps", 1e-6),
        norm=RMSNorm(eps=s.eps, weight=False),
    )
    return decoder(c, "hy_v4", s, pre_norms(ops, feed_forwards, norm), norm).replace(stream=streams)


FAMILIES = (Family("hy_v3", ("hy_v3",), read_v3), Family("hy_v4", ("hy_v4",), read_v4))
