"""Qwen3-Next, 3.5, 3.6 and 3.8: three of four blocks are Gated DeltaNet, the fourth is attention with an output gate.

Source: the published configs; arXiv 2412.06464 (Gated DeltaNet), 2505.06708 (the gate).
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, QKNorm, RMSNorm
from lamina.arch.base import Op
from lamina.published import rope, vision
from lamina.published.common import Family, Sizes, decoder, glu_of, pre_norms, sizes
from lamina.published.config import LATER, Config
from lamina.published.delta_net import APART, FULL, LINEAR, SKIP, keys, parts, together
from lamina.published.delta_net import mixers as mixer_rules
from lamina.published.encoders import split
from lamina.published.experts import dense_of, moe_of, router, sparse_blocks, sparse_layers
from lamina.published.recurrent import delta_net, ignore_running
from lamina.published.rules import GLU as GLU_RULES
from lamina.published.rules import MULTIMODAL, PRE_NORMS, Layout, Rule, decoder_rules
from lamina.published.shared_expert import MIXTURE, experts, experts_keys


def mixers(c: Config, s: Sizes) -> list[Op]:
    """The mixer of each block. Norms are stored as a difference from one, but for the one in Gated DeltaNet."""
    c.only("hidden_act", "silu")  # the reference takes it for the short convolution too
    c.only("attention_bias", False)
    c.only("attn_output_gate", True)
    c.only("use_sliding_window", False)
    values = rope.parameters(c, 10000.0)
    values.setdefault("partial_rotary_factor", 0.25)
    made: dict[str, Op] = {
        LINEAR: delta_net(c, s.eps),
        FULL: s.attention(
            rotary=rope.rotary(c, values, s.head_dim, s.context),
            qk_norm=QKNorm(norm=RMSNorm(eps=s.eps, offset=1.0)),
            gate="elementwise",
        ),
    }
    period = c.count("full_attention_interval", 4)
    usual = [LINEAR if (i + 1) % period else FULL for i in range(s.layers)]
    return [made[kind] for kind in c.layer_types(s.layers, usual, made)]


def _read(c: Config, family: str, s: Sizes, feed_forwards: list[Op]) -> Architecture:
    norm = RMSNorm(eps=s.eps, offset=1.0)
    blocks = pre_norms(mixers(c, s), feed_forwards, norm)
    ignore_running(c)
    c.ignore(LATER, "mtp_num_hidden_layers", "mtp_use_dedicated_embeddings")
    return decoder(c, family, s, blocks, norm)


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


def write_next(arch: Architecture) -> dict[str, Any]:
    dense = [i for i, has in enumerate(sparse_blocks(arch)) if not has]
    own = {"model_type": "qwen3_next", **keys(arch, "Qwen3NextForCausalLM", dense_of(arch))}
    return own | experts_keys(arch, "norm_topk_prob") | {"mlp_only_layers": dense}


def write_dense(arch: Architecture) -> dict[str, Any]:
    return {"model_type": "qwen3_5_text", **keys(arch, "Qwen3_5ForCausalLM", glu_of(arch))}


def write_moe(arch: Architecture) -> dict[str, Any]:
    own = {"model_type": "qwen3_5_moe_text", **keys(arch, "Qwen3_5MoeForCausalLM", moe_of(arch).expert)}
    return own | experts_keys(arch)


def layout(arch: Architecture, linear: tuple[Rule, ...] = APART) -> Layout:
    block = (*mixer_rules(arch, linear), *PRE_NORMS, *GLU_RULES, *MIXTURE)
    return Layout(decoder_rules(block), spellings=MULTIMODAL, skip=SKIP)


def layout_next(arch: Architecture) -> Layout:
    return layout(arch, together(parts(arch)[0]))


FAMILIES = (
    Family("qwen3_next", ("qwen3_next",), read_next, write_next, layout_next),
    Family("qwen3_5", ("qwen3_5_text", "qwen3_5"), read_dense, write_dense, layout),
    Family("qwen3_5_moe", ("qwen3_5_moe_text", "qwen3_5_moe"), read_moe, write_moe, layout),
)
