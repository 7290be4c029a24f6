"""Models as flash-linear-attention writes them: one mixer, attention in the layers that say so, and a GLU."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from lamina.arch import Architecture, Attention, RMSNorm, Rotary
from lamina.arch.base import Op
from lamina.errors import LaminaError
from lamina.published.common import Sizes, decoder, glu_of, pre_norms
from lamina.published.config import Config
from lamina.published.rules import ATTENTION, Layout, Rule, named
from lamina.published.rules import GLU as GLU_RULES

RUNNING = ("attn_mode", "fuse_norm", "fuse_swiglu", "fuse_cross_entropy", "fuse_linear_cross_entropy", "use_l2warp")
WIDTHS = 256
"""What the width of a GLU that no key names is a multiple of."""


def sizes(c: Config, heads: int, layers: int, width: int = 2048) -> Sizes:
    """The numbers that their configs share; the arguments are the model's values for absent keys."""
    width, heads = c.count("hidden_size", width), c.count("num_heads", heads, most=1 << 16)
    usual = int(width * c.count("hidden_ratio", 4, most=1 << 10) * 2 / 3)
    c.only("hidden_act", ("swish", "silu"))
    c.only("norm_first", True)
    c.only("elementwise_affine", True)
    if "attnres_block_size" in c:
        raise LaminaError(f"{c.where}: attnres_block_size is {c.data['attnres_block_size']!r}; only null is known")
    c.ignore("how the reference runs", *RUNNING)
    return Sizes(
        vocab=c.count("vocab_size", 32000),
        width=width,
        layers=c.count("num_hidden_layers", layers, most=1 << 12),
        heads=heads,
        kv_heads=heads,
        head_dim=max(1, width // heads),
        inner=c.count("intermediate_size", -(-usual // WIDTHS) * WIDTHS),
        context=c.count("max_position_embeddings", 2048),
        activation="silu",
        eps=c.float("norm_eps", 1e-6),
    )


def read(c: Config, family: str, s: Sizes, mixer: Op) -> Architecture:
    """The model of a mixer, and of attention where `attn` has it."""
    found, norm = _attentions(c, s), RMSNorm(eps=s.eps)
    blocks = pre_norms([found.get(i, mixer) for i in range(s.layers)], [s.glu()] * s.layers, norm)
    return decoder(c, family, s, blocks, norm)


def _attentions(c: Config, s: Sizes) -> dict[int, Attention]:
    """The attention of each layer that has it; `attn` is one object, or several for layers that differ.

    Raises: LaminaError for a layer that there is not, or that is named twice
    """
    said, found = c.data.get("attn"), {}
    c.ignore("read by itself", "attn")
    c.ignored.pop("attn", None)
    for i, one in enumerate(said if isinstance(said, list) else [said] if said is not None else []):
        own = Config(one, f"{c.where}: attn{f'[{i}]' if isinstance(said, list) else ''}")
        heads = own.count("num_heads", most=1 << 16)
        layers, dim = own.list("layers"), s.width // heads
        if any(type(n) is not int or not 0 <= n < s.layers or n in found for n in layers) or s.width % heads:
            raise LaminaError(
                f"{own.where}: layers are {layers} of {heads} heads; expected are numbers of layers, 0 to "
                f"{s.layers - 1}, each once, and heads that divide {s.width}"
            )
        attention = Attention(
            heads=heads,
            kv_heads=own.count("num_kv_heads", heads, most=1 << 16),
            head_dim=dim,
            rotary=Rotary(dim=dim, base=own.float("rope_theta", 10000.0)),
            window=own.count("window_size", None),
            bias=own.bool("qkv_bias", False),
        )
        own.finish()
        found |= dict.fromkeys(layers, attention)
    return found


def keys(arch: Architecture, name: str) -> dict[str, Any]:
    """What `sizes` and `read` read, written."""
    found: dict[Attention, list[int]] = {}
    for i, block in enumerate(arch.blocks):
        for op in block.ops():
            if isinstance(op, Attention):
                found.setdefault(op, []).append(i)
    specs = [_written(op, layers) for op, layers in found.items()]
    return {
        "architectures": [name],
        "vocab_size": arch.vocab,
        "hidden_size": arch.width,
        "num_hidden_layers": len(arch.blocks),
        "intermediate_size": glu_of(arch).inner,
        "max_position_embeddings": arch.context,
        "norm_eps": arch.norm.eps if arch.norm else None,
        "tie_word_embeddings": arch.head.tied,
        "attn": specs[0] if len(specs) == 1 else specs or None,
    }


def _written(op: Attention, layers: list[int]) -> dict[str, Any]:
    assert op.rotary
    return {
        "layers": layers,
        "num_heads": op.heads,
        "num_kv_heads": op.kv_heads,
        "qkv_bias": op.bias,
        "window_size": op.window,
        "rope_theta": op.rotary.base,
    }


def layout(mixer: Iterable[Rule]) -> Callable[[Architecture], Layout]:
    """The tensor names of a model whose mixer has these; those of attention are the same in all of them."""
    own = tuple(mixer)

    def made(arch: Architecture) -> Layout:
        attending = [i for i, block in enumerate(arch.blocks) if any(isinstance(op, Attention) for op in block.ops())]
        others = set(range(len(arch.blocks))) - set(attending)
        block = [rule.limited(others) for rule in own]
        block += [Rule(rule.theirs.replace("self_attn.", "attn."), *rule.ours).limited(attending) for rule in ATTENTION]
        block += named("", "", "attn_norm:mixer.before mlp_norm:feed_forward.before")
        return Layout(_around((*block, *GLU_RULES)), others=(_around((*block, *TOGETHER)),))

    return made


TOGETHER = (
    Rule("mlp.gate_proj.weight", "feed_forward.op.gate_proj.weight", "feed_forward.op.up_proj.weight"),
    Rule("mlp.down_proj", "feed_forward.op.down_proj"),
)
"""The GLU of checkpoints from before its two inputs were tensors of their own."""


def _around(block: Iterable[Rule]) -> tuple[Rule, ...]:
    inside = (rule.within("model.layers.{i}.", "blocks.{i}.") for rule in block)
    return (
        Rule("model.embeddings.weight", "embedding.table"),
        *inside,
        Rule("model.norm", "norm"),
        Rule("lm_head", "head"),
    )
