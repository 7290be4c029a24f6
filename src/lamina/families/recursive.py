"""TRM and HRM: small stacks applied again and again; a norm of the sum after each sublayer, nothing learned in it.

Source: arXiv 2510.04871 (TRM), 2506.21734 (HRM), their published configs and outputs.
"""

from __future__ import annotations

import math
from typing import Any

from lamina.arch import (
    GLU,
    Architecture,
    Attention,
    Block,
    Branch,
    DeepSupervision,
    Embedding,
    Recursion,
    RMSNorm,
    Rotary,
    SequenceGLU,
    Span,
    TaskEmbedding,
)
from lamina.published.common import Family
from lamina.published.config import Config
from lamina.published.rules import Layout, Rule


def _glu(width: int, expansion: float) -> GLU:
    """An inner width of 2/3 of the expansion, rounded up to 256."""
    return GLU(inner=-(-round(expansion * width * 2 / 3) // 256) * 256)


def read(c: Config, family: str) -> Architecture:
    width, heads = c.count("hidden_size"), c.count("num_heads", most=1 << 16)
    length, expansion = c.count("seq_len"), c.float("expansion")
    ndim, stated = c.int("puzzle_emb_ndim", 0), c.int("puzzle_emb_len", 0)
    task = None
    if ndim > 0:
        tokens = stated if stated > 0 else -(-ndim // width)
        task = TaskEmbedding(count=c.count("num_puzzle_identifiers"), width=ndim, tokens=tokens)
    c.ignore("no puzzle has an embedding", "num_puzzle_identifiers")
    norm = RMSNorm(eps=c.float("rms_norm_eps", 1e-5), weight=False)
    positions, base = c.choice("pos_encodings", ("rope", "none"), "rope"), c.float("rope_theta", 10000.0)
    head_dim = max(1, width // heads)
    rotary = Rotary(base=base, dim=head_dim) if positions == "rope" else None
    mixer: Any = Attention(heads=heads, kv_heads=heads, head_dim=head_dim, rotary=rotary)
    if c.bool("mlp_t", False):
        along = length + (task.tokens if task else 0)
        mixer = SequenceGLU(length=along, glu=_glu(along, expansion))
    block = Block(branches=(Branch(op=mixer, joined=norm), Branch(op=_glu(width, expansion), joined=norm)))
    low, high = c.count("L_layers", most=4096), c.count("H_layers", 0, most=4096, least=0)
    two = family == "hrm"
    recursion = Recursion(
        low=Span(start=0, stop=low),
        high=Span(start=low, stop=low + high) if two else Span(start=0, stop=low),
        low_cycles=c.count("L_cycles", most=1 << 16),
        high_cycles=c.count("H_cycles", most=1 << 16),
        gradient="last_step" if two else "last_cycle",
    )
    steps = DeepSupervision(max_steps=c.count("halt_max_steps"), exploration=c.float("halt_exploration_prob", 0.1))
    c.ignore("training and storage", "batch_size", "no_ACT_continue", "loss", "puzzle_emb_lr", "name", "forward_dtype")
    embedding = Embedding(vocab=c.count("vocab_size"), width=width, scale=math.sqrt(width), task=task)
    c.finish()
    return Architecture(
        family=family,
        embedding=embedding,
        blocks=(block,) * (low + (high if two else 0)),
        objective=steps,
        recursion=recursion,
        context=length,
    )


def write(arch: Architecture) -> dict[str, Any]:
    r, task, mixer, glu = arch.recursion, arch.embedding.task, *(b.op for b in arch.blocks[0].branches)
    assert r
    assert isinstance(arch.objective, DeepSupervision)
    assert isinstance(glu, GLU)
    attention = mixer if isinstance(mixer, Attention) else None
    joined = arch.blocks[0].branches[0].joined
    rotary = attention.rotary if attention else None
    out = {"model_type": arch.family, "hidden_size": arch.width, "num_heads": attention.heads if attention else 1}
    out |= {"vocab_size": arch.vocab, "seq_len": arch.context, "expansion": glu.inner * 3 / (2 * arch.width)}
    out |= {"pos_encodings": "rope" if rotary else "none", "rope_theta": rotary.base if rotary else 10000.0}
    out |= {"rms_norm_eps": joined.eps if joined else 1e-5, "mlp_t": attention is None}
    out |= {"num_puzzle_identifiers": task.count if task else 1, "puzzle_emb_ndim": task.width if task else 0}
    out |= {"puzzle_emb_len": task.tokens if task else 0, "L_layers": r.low.stop}
    out |= {"H_layers": len(arch.blocks) - r.low.stop, "L_cycles": r.low_cycles, "H_cycles": r.high_cycles}
    steps = arch.objective
    return out | {"halt_max_steps": steps.max_steps, "halt_exploration_prob": steps.exploration}


def layout(arch: Architecture) -> Layout:
    outside = {"embed_tokens.embedding_weight": "embedding.table", "puzzle_emb.weights": "task_table"}
    outside |= {"H_init": "high_start", "L_init": "low_start", "lm_head": "head", "q_head": "halting"}
    rules = [Rule("inner." + theirs, ours) for theirs, ours in outside.items()]
    assert arch.recursion
    low, high = arch.recursion.low, arch.recursion.high
    for level, span in {"L": low, "H": high}.items() if low != high else {"L": low}.items():
        for theirs, *ours in _BLOCK:
            name = f"inner.{level}_level.layers.{{i}}.{theirs}"
            rules.append(Rule(name, *("blocks.{i}." + o for o in ours), blocks=range(span.start, span.stop)))
    return Layout(tuple(rules))


_BLOCK = (
    ("self_attn.qkv_proj", *(f"mixer.op.{p}_proj" for p in "qkv")),
    ("self_attn.o_proj", "mixer.op.o_proj"),
    ("mlp_t.gate_up_proj", "mixer.op.glu.gate_proj", "mixer.op.glu.up_proj"),
    ("mlp_t.down_proj", "mixer.op.glu.down_proj"),
    ("mlp.gate_up_proj", "feed_forward.op.gate_proj", "feed_forward.op.up_proj"),
    ("mlp.down_proj", "feed_forward.op.down_proj"),
)
FAMILIES = (
    Family("trm", ("trm",), lambda c: read(c, "trm"), write, layout, signature="mlp_t"),
    Family("hrm", ("hrm",), lambda c: read(c, "hrm"), write, layout, signature="H_cycles"),
)
