"""Kimi Linear and Kimi K3 (text): delta rules with a decay for every channel, and latent attention without positions.

Source: arXiv 2510.26692, 2607.24653.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, AttentionResiduals, KimiDeltaAttention, LatentAttention, RMSNorm, Squash
from lamina.errors import LaminaError
from lamina.published import latent
from lamina.published.common import Family, Sizes, decoder, pre_norm, text_part
from lamina.published.config import Config
from lamina.published.experts import mixture, respelt, router, sparse_layers

KINDS = ("full_attention", "linear_attention")


def read(c: Config) -> Architecture:
    c = text_part(c, "the image encoder stands beside the text decoder, and is not read: its connector is not public")
    respelt(c, "max_position_embeddings", "model_max_length")
    squash = _squash(c)
    s = latent.sizes(c, eps=1e-5, default_context=1048576)
    dense = s.glu().replace(squash=squash)
    gate = router(c, 256, 8, "sigmoid", scale=2.446, correction=True)
    c.only("use_grouped_topk", True)
    moe = mixture(c, s, gate, 1024, shared=1, expert=dense, **_latent_experts(c, s))
    linear, kinds = _linear(c, s)
    mixers = {"linear_attention": linear, "full_attention": _full(c, s)}
    layers = list(zip(kinds, sparse_layers(c, s.layers, 1), strict=True))
    norm = RMSNorm(eps=s.eps)
    made = {key: pre_norm(mixers[key[0]], moe if key[1] else dense, norm) for key in set(layers)}
    run = c.count("attn_res_block_size", None)
    arch = decoder(c, "kimi_linear", s, [made[key] for key in layers], norm)
    return arch.replace(stream=AttentionResiduals(blocks=run, norm=norm)) if run else arch


def _squash(c: Config) -> Squash | None:
    """Kimi K3's activation; what is left to be read is the SiLU that it bends."""
    gate, up = c.float("activation_situ_beta", None), c.float("activation_situ_linear_beta", None)
    if c.data.get("hidden_act") != "situ":
        return None
    c.data = c.data | {"hidden_act": "silu"}
    return Squash(gate=gate or 1.0, up=up or None)


def _latent_experts(c: Config, s: Sizes) -> dict[str, Any]:
    """The width that routed experts work at, and the norm of their sum."""
    width, normed = c.count("routed_expert_hidden_size", None), c.bool("latent_moe_use_norm", False)
    return {"latent": width, "latent_norm": RMSNorm(eps=s.eps) if width and normed else None}


def _full(c: Config, s: Sizes) -> LatentAttention:
    c.only("mla_use_nope", True)
    c.ignore("no layer rotates", "rope_theta", "rope_scaling", "rope_parameters")
    gate = "elementwise" if c.bool("mla_use_output_gate", False) else None
    return latent.attention(c, s, query_latent=None, gate=gate)


def _linear(c: Config, s: Sizes) -> tuple[KimiDeltaAttention, list[str]]:
    """The linear layers, and which kind each layer is; published in an object of their own, or beside the rest."""
    own = c.sub("linear_attn_config") if "linear_attn_config" in c else Config({}, c.where)
    dim = own.count("head_dim", c.count("linear_head_dim", 128))
    op = KimiDeltaAttention(
        heads=own.count("num_heads", c.count("linear_num_heads", 32)),
        key_dim=dim,
        value_dim=dim,
        convolution=own.count("short_conv_kernel_size", c.count("linear_conv_kernel_dim", 4)),
        decay_rank=dim,
        gate_rank=None if own.bool("use_full_rank_gate", False) else dim,
        decay_floor=own.float("gate_lower_bound", None),
        norm=RMSNorm(eps=s.eps),
    )
    kinds = _kinds(c, own.list("full_attn_layers", []), own.list("kda_layers", []), s.layers)
    own.finish()
    return op, kinds


def _kinds(c: Config, full: list[int], linear: list[int], layers: int) -> list[str]:
    """The kind of each layer; published layers count from one. Raises: LaminaError if what says so disagrees."""
    usual = ["full_attention" if i and i % 4 == 0 else "linear_attention" for i in range(layers)]
    if full or linear:
        if sorted(full + linear) != list(range(1, layers + 1)):
            raise LaminaError(f"{c.where}: full_attn_layers and kda_layers must hold each of 1 to {layers} once")
        usual = ["full_attention" if i + 1 in full else "linear_attention" for i in range(layers)]
    kinds = c.layer_types(layers, usual, KINDS)
    if (full or linear) and kinds != usual:
        raise LaminaError(f"{c.where}: layer_types and linear_attn_config disagree on which layers are linear")
    return kinds


FAMILIES = (Family("kimi_linear", ("kimi_linear", "kimi_k3"), read),)
