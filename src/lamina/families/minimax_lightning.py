"""MiniMax-Text-01 and MiniMax-M1: seven blocks of lightning attention for one of softmax attention, experts in all.

The residual is what the branch read, times a number that grows with depth.
Source: arXiv 2501.08313 (MiniMax-01), 2506.13585 (M1); the published config and code, and the reference.
"""

from __future__ import annotations

from lamina.arch import Architecture, Block, Branch, LightningAttention, MoE, RMSNorm, ScaledResidual
from lamina.arch.base import Op
from lamina.errors import LaminaError
from lamina.published import rope
from lamina.published.common import Family, decoder, sizes
from lamina.published.config import Config
from lamina.published.experts import router

FULL, LINEAR = KINDS = ("full_attention", "linear_attention")


def _kinds(c: Config, layers: int) -> list[str]:
    """The kind of each layer, by name or, as published, by number: 1 for softmax attention."""
    if "attn_type_list" not in c:
        return c.layer_types(layers, [FULL if i % 2 == 0 else LINEAR for i in range(layers)], KINDS)
    listed = c.list("attn_type_list")
    if len(listed) != layers or any(kind not in (0, 1) for kind in listed):
        raise LaminaError(f"{c.where}: attn_type_list needs {layers} entries of 0 (lightning) or 1 (softmax)")
    return [FULL if kind else LINEAR for kind in listed]


def _branch(c: Config, op: Op, place: str, norm: RMSNorm, normed: bool) -> Branch:
    """alpha * residual + beta * output, under the reference's names or the published ones."""
    ours, theirs = f"{place}_{{}}_factor", f"layernorm_{place.replace('attn', 'attention')}_{{}}"
    alpha, beta = (c.float(ours.format(k), c.float(theirs.format(k), 1.0)) for k in ("alpha", "beta"))
    residual = ScaledResidual(scale=alpha, normed=normed)
    return Branch(op=op, before=norm, multiplier=beta, residual=residual)  # type: ignore[arg-type]


def read(c: Config) -> Architecture:
    s = sizes(c, 1e-5, default_context=131072, kv_heads=8)
    c.only("shared_intermediate_size", 0)
    c.ignore("no expert is shared", "shared_moe_mode")
    c.ignore("how the reference runs", "block_size")
    values = rope.parameters(c, 1e6)
    values.setdefault("partial_rotary_factor", c.count("rotary_dim", s.head_dim) / s.head_dim)
    rotary = rope.rotary(c, values, s.head_dim, s.context)
    norm, normed = RMSNorm(eps=s.eps), c.bool("postnorm", c.str("model_type") == "minimax")
    lightning = LightningAttention(heads=s.heads, head_dim=s.head_dim, activation=s.glu().activation)
    mixers: dict[str, tuple[str, Op]] = {
        LINEAR: ("linear_attn", lightning),
        FULL: ("full_attn", s.attention(rotary=rotary, window=c.count("sliding_window", None))),
    }
    feed_forward = _branch(c, MoE(router=router(c, 8, 2), expert=s.glu()), "mlp", norm, normed)
    mixing = {kind: _branch(c, op, place, norm, normed) for kind, (place, op) in mixers.items()}
    made = {kind: Block(branches=(branch, feed_forward)) for kind, branch in mixing.items()}
    blocks = [made[kind] for kind in _kinds(c, s.layers)]
    return decoder(c, "minimax", s, blocks, norm)


FAMILIES = (Family("minimax", ("minimax", "minimax_m1", "minimax_text_01"), read),)
