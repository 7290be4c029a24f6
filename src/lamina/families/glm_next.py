"""GLM-5.3-Flash: pools of keys chosen in latent attention, linear attention between, several residual streams.

Source: the published config and reference.
"""

from __future__ import annotations

from lamina.arch import Architecture, Clamp, HyperConnections, KeyPool, KimiDeltaAttention, RMSNorm
from lamina.errors import LaminaError
from lamina.families.deepseek import blocks_around
from lamina.published import latent, vision_more
from lamina.published.common import Family
from lamina.published.config import Config
from lamina.published.encoders import split
from lamina.published.experts import mixture, router, sparse_layers


def read(c: Config) -> Architecture:
    c, encoders = split(c, vision_more.glm)
    s = latent.sizes(c, eps=1e-5, default_context=1048576)
    norm, clamp = RMSNorm(eps=s.eps), Clamp(limit=c.float("swiglu_limit", 10.0))
    if s.activation != "silu":
        raise LaminaError(f"{c.where}: hidden_act is {s.activation}; a clamped feed-forward is known with 'silu'")
    op = latent.attention(c, s, plain=256, rotary=0, value=256, norm=norm)
    if op.rotary_dim or not op.query_latent:
        raise LaminaError(f"{c.where}: qk_rope_head_dim must be 0 and q_lora_rank a number for this model_type")
    if any(latent.shared_choices(c, s.layers)):
        raise LaminaError(f"{c.where}: indexer_types must be 'full': a linear layer passes no choice on")
    pool = KeyPool(size=c.count("index_kpool", 16), tail=c.bool("index_kpool_always_select_tail", True))
    op = op.replace(indexer=latent.indexer(c, None, pool=pool))
    usual = ["indexed_attention" if i % 4 == 3 else "linear_attention" for i in range(s.layers)]
    known = {"linear_attention": _delta(c, norm), "indexed_attention": op, "full_attention": op}
    mixers = [known[kind] for kind in c.layer_types(s.layers, usual, known)]
    gate = router(c, 288, 8, "sigmoid", scale=2.5, correction=True)
    moe = mixture(c, s, gate, 2048, shared=1, expert=s.glu().replace(clamp=clamp))
    stream = HyperConnections(
        count=c.count("hc_mult", 4),
        iterations=c.count("hc_sinkhorn_iters", 20),
        eps=c.float("hc_eps", 1e-6),
        norm=RMSNorm(eps=s.eps, weight=False),
        joining="mean",
    )
    arch = blocks_around(c, "glm5_next", s, mixers, moe, sparse_layers(c, s.layers, 3))
    return arch.replace(stream=stream, encoders=encoders)


def _delta(c: Config, norm: RMSNorm) -> KimiDeltaAttention:
    """The linear layers: decay and gate come from bottlenecks as wide as a head."""
    size = c.count("linear_head_dim", 128)
    floor = None if "linear_lower_bound" in c.data else -5.0
    return KimiDeltaAttention(
        heads=c.count("linear_num_heads", 64),
        key_dim=size,
        value_dim=size,
        convolution=c.count("linear_conv_kernel_dim", 4),
        decay_rank=size,
        gate_rank=size,
        decay_floor=c.float("linear_lower_bound", floor),
        norm=norm,
    )


FAMILIES = (Family("glm5_next", ("glm5_next", "glm5_next_text"), read),)
