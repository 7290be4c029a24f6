"""MiniMax-Text-01 and MiniMax-M1: seven blocks of lightning attention for one of softmax attention, experts in all.

The residual is what the branch read, times a number that grows with depth.
Source: arXiv 2501.08313 (MiniMax-01), 2506.13585 (M1); the published config and code, and the reference.
Differs: the reference has no words for heads that are rotated in part, nor for residuals of the stream itself: a model
that has them is saved in the publisher's words, which the reference does not read. Tensors are called alike in both.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, Attention, Block, Branch, LightningAttention, MoE, RMSNorm, ScaledResidual
from lamina.arch.base import Op
from lamina.errors import LaminaError
from lamina.published import rope
from lamina.published.common import Family, common_keys, decoder, pick, rope_keys, sizes
from lamina.published.config import Config
from lamina.published.experts import moe_of, router, router_keys
from lamina.published.rules import ATTENTION, BLOCK_SPARSE, PRE_NORMS, Layout, Rule, decoder_rules, named

FULL, LINEAR = KINDS = ("full_attention", "linear_attention")


def _kinds(c: Config, layers: int) -> list[str]:
    """The kind of each layer, by name or, as published, by number: 1 for softmax attention."""
    if "attn_type_list" not in c:
        return c.layer_types(layers, [FULL if i % 2 == 0 else LINEAR for i in range(layers)], KINDS)
    listed = c.list("attn_type_list")
    if len(listed) != layers or any(kind not in (0, 1) for kind in listed):
        raise LaminaError(f"{c.where}: attn_type_list needs {layers} entries of 0 (lightning) or 1 (softmax)")
    return [FULL if kind else LINEAR for kind in listed]


def _published(place: str) -> str:
    return f"layernorm_{place.replace('attn', 'attention')}_{{}}"


def _branch(c: Config, op: Op, place: str, norm: RMSNorm, normed: bool) -> Branch:
    """alpha * residual + beta * output, under the reference's names or the published ones."""
    ours, theirs = f"{place}_{{}}_factor", _published(place)
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


def _linear(block: Block) -> bool:
    return any(isinstance(op, LightningAttention) for op in block.ops())


def write(arch: Architecture) -> dict[str, Any]:
    first: Any = next(op for op in arch.ops() if isinstance(op, Attention | LightningAttention))
    alone = Attention(heads=first.heads, kv_heads=first.heads, head_dim=first.head_dim)
    attention = next((op for op in arch.ops() if isinstance(op, Attention)), alone)
    moe, linear = moe_of(arch), [_linear(block) for block in arch.blocks]
    branches: dict[str, Any] = {}
    for block in arch.blocks:
        branches |= {"linear_attn" if _linear(block) else "full_attn": block.branches[0], "mlp": block.branches[1]}
    normed = branches["mlp"].residual.normed
    keys = {
        **common_keys(arch, "MiniMaxForCausalLM", feed_forward=moe.expert, attention=attention),
        **pick(router_keys(moe.router, "num_local_experts"), "num_local_experts", "num_experts_per_tok"),
        "sliding_window": attention.window,
    }
    theirs = normed and not (attention.rotary and attention.rotary.dim < attention.head_dim)
    factors = {
        (f"{place}_{{}}_factor" if theirs else _published(place)).format(k): number
        for place, branch in branches.items()
        for k, number in (("alpha", branch.residual.scale), ("beta", branch.multiplier))
    }
    if theirs:
        kinds = [LINEAR if is_linear else FULL for is_linear in linear]
        return {"model_type": "minimax", **keys, **rope_keys(arch), **factors, "layer_types": kinds}
    own = {"architectures": ["MiniMaxM1ForCausalLM"], "attn_type_list": [int(not is_linear) for is_linear in linear]}
    return {"model_type": "minimax_m1", **keys, **own, **rope_keys(arch), **factors, "postnorm": normed}


LIGHTNING = named("self_attn.", "mixer.op.", "norm out_proj:o_proj output_gate:gate_proj")
CONSTANT = r".*\.self_attn\.(slope_rate|query_decay|key_decay|diagonal_decay)"


def layout(arch: Architecture) -> Layout:
    """The projection to q, k and v of lightning attention goes head by head."""
    heads = next((op.heads for op in arch.ops() if isinstance(op, LightningAttention)), 1)
    fused = Rule("self_attn.qkv_proj.weight", *(f"mixer.op.{p}_proj.weight" for p in "qkv"), turns=heads)
    linear = [i for i, block in enumerate(arch.blocks) if _linear(block)]
    full = [i for i in range(len(arch.blocks)) if i not in linear]
    mixing = [rule.limited(linear) for rule in (fused, *LIGHTNING)] + [rule.limited(full) for rule in ATTENTION]
    constants = {CONSTANT: "decays that follow from the heads and the depth"}
    return Layout(decoder_rules((*mixing, *PRE_NORMS, *BLOCK_SPARSE)), skip=constants)


FAMILIES = (Family("minimax", ("minimax", "minimax_m1", "minimax_text_01"), read, write, layout),)
