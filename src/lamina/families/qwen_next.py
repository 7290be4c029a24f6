"""Qwen3-Next, 3.5, 3.6 and 3.8: three of four blocks are Gated DeltaNet, the fourth is attention with an output gate.

Source: the published configs; arXiv 2412.06464 (Gated DeltaNet), 2505.06708 (the gate).
"""

from __future__ import annotations

from lamina.arch import Architecture, MoE, QKNorm, RMSNorm, Router
from lamina.arch.base import Op
from lamina.published import rope, vision
from lamina.published.common import Family, Sizes, decoder, pre_norm, sizes
from lamina.published.config import LATER, Config
from lamina.published.encoders import split
from lamina.published.experts import router, sparse_layers
from lamina.published.recurrent import delta_net, ignore_running

KINDS = ("linear_attention", "full_attention")


def mixers(c: Config, s: Sizes) -> list[Op]:
    """The mixer of each block. Norms are stored as a difference from one, but for the one in Gated DeltaNet."""
    c.only("hidden_act", "silu")  # the reference takes it for the short convolution too
    c.only("attention_bias", False)
    c.only("attn_output_gate", True)
    c.only("use_sliding_window", False)
    values = rope.parameters(c, 10000.0)
    values.setdefault("partial_rotary_factor", 0.25)
    made: dict[str, Op] = {
        "linear_attention": delta_net(c, s.eps),
        "full_attention": s.attention(
            rotary=rope.rotary(c, values, s.head_dim, s.context),
            qk_norm=QKNorm(norm=RMSNorm(eps=s.eps, offset=1.0)),
            gate="elementwise",
        ),
    }
    period = c.count("full_attention_interval", 4)
    usual = ["linear_attention" if (i + 1) % period else "full_attention" for i in range(s.layers)]
    return [made[kind] for kind in c.layer_types(s.layers, usual, KINDS)]


def experts(c: Config, s: Sizes, chosen: Router) -> MoE:
    """Routed experts, and one that all tokens share behind a sigmoid, of a width of its own."""
    inner, shared = c.count("moe_intermediate_size", 512), c.count("shared_expert_intermediate_size", 512)
    glu = s.glu()
    return MoE(router=chosen, expert=glu.replace(inner=inner), shared=glu.replace(inner=shared), shared_gate=True)


def _read(c: Config, family: str, s: Sizes, feed_forwards: list[Op]) -> Architecture:
    norm = RMSNorm(eps=s.eps, offset=1.0)
    both = list(zip(mixers(c, s), feed_forwards, strict=True))
    ignore_running(c)
    c.ignore(LATER, "mtp_num_hidden_layers", "mtp_use_dedicated_embeddings")
    made = {pair: pre_norm(*pair, norm) for pair in set(both)}
    return decoder(c, family, s, [made[pair] for pair in both], norm)


def read_next(c: Config) -> Architecture:
    s = sizes(c, kv_heads=2, head_dim=256, default_context=32768)
    sparse, dense = experts(c, s, router(c, experts=512, active=10)), s.glu()
    return _read(c, "qwen3_next", s, [sparse if has else dense for has in sparse_layers(c, s.layers)])


def read_dense(c: Config) -> Architecture:
    c, encoders = split(c, vision.qwen3)
    s = sizes(c, kv_heads=4, head_dim=256, default_context=32768)
    c.only("output_gate_type", ("silu", "swish"))
    return _read(c, "qwen3_5", s, [s.glu()] * s.layers).replace(encoders=encoders)


def read_moe(c: Config) -> Architecture:
    c, encoders = split(c, vision.qwen3)
    s = sizes(c, kv_heads=2, head_dim=256, default_context=32768, inner=c.count("moe_intermediate_size", 512))
    c.only("norm_topk_prob", True)
    c.only("output_gate_type", ("silu", "swish"))
    c.only("mlp_only_layers", ([],))
    routed = experts(c, s, router(c, experts=256, active=8))
    return _read(c, "qwen3_5_moe", s, [routed] * s.layers).replace(encoders=encoders)


FAMILIES = (
    Family("qwen3_next", ("qwen3_next",), read_next),
    Family("qwen3_5", ("qwen3_5_text", "qwen3_5"), read_dense),
    Family("qwen3_5_moe", ("qwen3_5_moe_text", "qwen3_5_moe"), read_moe),
)
