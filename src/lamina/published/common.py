"""What most published decoders say in the same words, so that a family file holds only what is its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lamina.arch import (
    GLU,
    MLP,
    Architecture,
    Attention,
    Block,
    Branch,
    Embedding,
    Head,
    LayerNorm,
    RMSNorm,
    Rotary,
)
from lamina.arch.base import Op
from lamina.arch.feedforward import Activation
from lamina.errors import LaminaError
from lamina.published import rope
from lamina.published.config import Config
from lamina.published.rules import Layout

ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "relu2": "relu2",
    "xielu": "xielu",
}
"""Published names of activation functions, and ours."""


@dataclass(frozen=True)
class Family:
    """A lineage: its `model_type`s, config -> value, value -> config, and its tensor names.

    `layout` may depend on the value. `signature` names a key by which a config without a model_type is known, `classes`
    what stands in the `architectures` of configs that are read here though another family has their model_type.
    A family without `write` and `layout` is read, priced, compared and drawn, and not run yet.
    """

    name: str
    model_types: tuple[str, ...]
    read: Callable[[Config], Architecture]
    write: Callable[[Architecture], dict[str, Any]] | None = None
    layout: Layout | Callable[[Architecture], Layout] | None = None
    signature: str | None = None
    classes: tuple[str, ...] = ()

    def layout_of(self, arch: Architecture) -> Layout:
        """Raises: LaminaError if the family's tensors are not mapped yet."""
        if self.layout is None:
            raise LaminaError(f"checkpoints of the family {self.name!r} cannot be loaded or saved yet")
        return self.layout if isinstance(self.layout, Layout) else self.layout(arch)

    def written(self, arch: Architecture) -> dict[str, Any]:
        """The config.json. Raises: LaminaError if the family is only read yet."""
        if self.write is None:
            raise LaminaError(f"checkpoints of the family {self.name!r} cannot be loaded or saved yet")
        return self.write(arch)


@dataclass(frozen=True)
class Sizes:
    """The numbers nearly every decoder's config holds."""

    vocab: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    context: int | None
    activation: Activation
    eps: float

    def rotary(self, config: Config, base: float = 10000.0, layout: str = "half") -> Rotary:
        """The one rotary embedding that all layers share."""
        return rope.rotary(config, rope.parameters(config, base), self.head_dim, self.context, layout)

    def attention(self, **fields: Any) -> Attention:
        return Attention(heads=self.heads, kv_heads=self.kv_heads, head_dim=self.head_dim, **fields)

    def glu(self, bias: bool = False) -> GLU:
        return GLU(inner=self.inner, activation=self.activation, bias=bias)


def sizes(
    config: Config,
    eps: float = 1e-6,
    activation_key: str = "hidden_act",
    activation: str = "silu",
    eps_key: str = "rms_norm_eps",
    head_dim: int | None = None,
    default_context: int = 2048,
    kv_heads: int | None = None,
    vocab: int | None = None,
    inner: int | None = None,
    layers: int | None = None,
) -> Sizes:
    """Reads them; the arguments are the family's defaults for keys that are absent.

    `head_dim` is D / H where neither the config nor the family says another.
    """
    width, heads = config.count("hidden_size"), config.count("num_attention_heads", most=1 << 16)
    return Sizes(
        vocab=config.count("vocab_size", vocab) if vocab else config.count("vocab_size"),
        width=width,
        layers=config.count("num_hidden_layers", layers, most=1 << 12)
        if layers
        else config.count("num_hidden_layers", most=1 << 12),
        heads=heads,
        kv_heads=config.count("num_key_value_heads", kv_heads or heads, most=1 << 16),
        head_dim=config.count("head_dim", head_dim or max(1, width // heads), most=1 << 16),
        inner=config.count("intermediate_size", inner) if inner else config.count("intermediate_size"),
        context=config.count("max_position_embeddings", default_context),
        activation=ACTIVATIONS[config.choice(activation_key, ACTIVATIONS, activation)],
        eps=config.float(eps_key, eps),
    )


def text_part(config: Config, beside: str = "the image encoder is not part of the text decoder") -> Config:
    """The text decoder's config within a multimodal one, of which nothing else is read; a text config as it is.

    `beside` says why what stands beside it is passed over; families whose encoders are read use `encoders.split`.
    """
    if "text_config" not in config:
        return config
    outer = set(config.data) - {"text_config", "model_type", "tie_word_embeddings"}
    config.ignore(beside, *outer)
    return config.text()


def pre_norm(mixer: Op, feed_forward: Op, norm: RMSNorm | LayerNorm, multiplier: float = 1.0) -> Block:
    """The usual block: a norm before each sublayer."""
    return Block(
        branches=(
            Branch(op=mixer, before=norm, multiplier=multiplier),
            Branch(op=feed_forward, before=norm, multiplier=multiplier),
        )
    )


def pre_norms(mixers: Sequence[Op], feed_forwards: Sequence[Op], norm: RMSNorm | LayerNorm) -> list[Block]:
    """The usual blocks, of mixers and feed-forwards that differ from layer to layer."""
    pairs = list(zip(mixers, feed_forwards, strict=True))
    made = {pair: pre_norm(*pair, norm) for pair in set(pairs)}
    return [made[pair] for pair in pairs]


def decoder(
    config: Config,
    family: str,
    s: Sizes,
    blocks: Sequence[Block],
    norm: RMSNorm | LayerNorm,
    tied: bool = False,
    embedding_scale: float = 1.0,
    **head: Any,
) -> Architecture:
    """The decoder around its blocks; raises on config keys that nobody read."""
    tied = config.bool("tie_word_embeddings", tied)
    config.finish()
    return Architecture(
        family=family,
        embedding=Embedding(vocab=s.vocab, width=s.width, scale=embedding_scale),
        blocks=tuple(blocks),
        norm=norm,
        head=Head(tied=tied, **head),
        context=s.context,
    )


def attention_of(arch: Architecture, block: int = 0) -> Attention:
    """The attention of a block, which every decoder of these families has."""
    return next(op for op in arch.blocks[block].ops() if isinstance(op, Attention))


def glu_of(arch: Architecture) -> GLU:
    return next(op for op in arch.blocks[0].ops() if isinstance(op, GLU))


def published(name: str) -> str:
    """The published name of an activation function."""
    return {"gelu_tanh": "gelu_pytorch_tanh"}.get(name, name)


def pick(keys: dict[str, Any], *names: str) -> dict[str, Any]:
    """Those of the keys that a family has."""
    return {name: keys[name] for name in names}


def common_keys(
    arch: Architecture,
    architecture: str,
    activation_key: str = "hidden_act",
    feed_forward: GLU | MLP | None = None,
    attention: Any = None,
) -> dict[str, Any]:
    """What `sizes` reads, written; `architecture` is the name of the reference's class.

    `feed_forward` is the dense one where it is not the first block's, `attention` that whose heads are counted.
    """
    attention, glu = attention or attention_of(arch), feed_forward or glu_of(arch)
    return {
        "architectures": [architecture],
        "vocab_size": arch.vocab,
        "hidden_size": arch.width,
        "num_hidden_layers": len(arch.blocks),
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.kv_heads,
        "head_dim": attention.head_dim,
        "intermediate_size": glu.inner,
        activation_key: published(glu.activation),
        "max_position_embeddings": arch.context,
        "rms_norm_eps": arch.norm.eps if arch.norm else None,
        "tie_word_embeddings": arch.head.tied,
    }


def rope_keys(arch: Architecture) -> dict[str, Any]:
    """`rope_parameters` of a decoder whose rotary layers all share them."""
    found = (rope.written(op.rotary, op.head_dim) for op in arch.ops() if isinstance(op, Attention) and op.rotary)
    shared = next(found, None)
    return {} if shared is None else {"rope_parameters": shared}


def windows(arch: Architecture) -> tuple[int | None, list[str]]:
    """The window of the sliding layers (None if there are none), and the type of each layer."""
    found = [attention_of(arch, i).window for i in range(len(arch.blocks))]
    kinds = ["full_attention" if w is None else "sliding_attention" for w in found]
    return next((w for w in found if w), None), kinds


def alternating(layers: int, period: int, full: int) -> list[str]:
    """Layer types that repeat: layer `full` of each `period` looks at everything."""
    return ["full_attention" if i % period == full else "sliding_attention" for i in range(layers)]


def rounded(value: float) -> float:
    """A number that was inverted or squared on reading, as it was published (a whole one without a point)."""
    near = float(f"{value:.12g}")
    return int(near) if near.is_integer() else near


def factor(product: float, by: float) -> float:
    """The number of fewest digits that makes `product` when multiplied by `by`."""
    return next((number for number in _near(product / by) if number * by == product), product / by)


def inverse(value: float) -> float:
    """The number of fewest digits whose inverse is `value` (a whole one without a point)."""
    found = next((number for number in _near(1 / value) if 1 / number == value), 1 / value)
    return int(found) if found.is_integer() else found


def _near(quotient: float) -> list[float]:
    """Numbers of ever more digits near a quotient, which was rounded itself."""
    near = [float(f"{quotient:.{digits}g}") for digits in range(1, 18)]
    for towards in (math.inf, -math.inf):
        near += [last := math.nextafter(quotient, towards), math.nextafter(last, towards)]
    return [number for number in near if number]
