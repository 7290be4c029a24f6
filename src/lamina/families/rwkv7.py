"""RWKV-7 (Goose), as flash-linear-attention lays it out: no attention, and two parts that read the token before.

Source: arXiv 2503.14456.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import RWKV7, Architecture, ChannelMix, Embedding, Head, LayerNorm
from lamina.arch.feedforward import Activation
from lamina.errors import LaminaError
from lamina.published.common import Family, pre_norms
from lamina.published.config import Config
from lamina.published.rules import Layout, Rule, named

ACTIVATIONS: dict[str, Activation] = {"sqrelu": "relu2", "relu": "relu", "silu": "silu", "swish": "silu"}
RANKS = {"decay_rank": "decay_low_rank_dim", "step_rank": "a_low_rank_dim", "gate_rank": "gate_low_rank_dim"}
RANKS, FUSED = RANKS | {"value_rank": "v_low_rank_dim"}, ("fuse_cross_entropy", "fuse_linear_cross_entropy")
USUAL = {"decay_rank": (64, 2.5), "step_rank": (64, 2.5), "gate_rank": (128, 5.0), "value_rank": (16, 1.7)}


def _ranks(c: Config, width: int, head_dim: int) -> dict[str, int]:
    """Where a key is null, so many times the root of the width."""
    found = {}
    for name, key in RANKS.items():
        usual, factor = USUAL[name]
        grown = factor * width**0.5 * (1.0 if name == "gate_rank" else head_dim / 64)
        found[name] = c.count(key, max(32, round(grown / 32) * 32) if key in c.data else usual, most=1 << 16)
    return found


def _values(c: Config, width: int, layers: int) -> int:
    """How wide the values are together; a config may say it for each layer.

    Raises: LaminaError if not all are as wide, for those of the first layer are mixed with all others.
    """
    if not isinstance(c.data.get("value_dim"), list):
        return c.count("value_dim", width)
    each = c.list("value_dim")
    if len(each) != layers or any(wide != each[0] or type(wide) is not int or wide < 1 for wide in each):
        raise LaminaError(f"{c.where}: value_dim must hold one number, the same for each of {layers} layers")
    return each[0]


def read(c: Config) -> Architecture:
    width, layers = c.count("hidden_size", 2048), c.count("num_hidden_layers", 24, most=1 << 12)
    counted = c.count("num_heads", None) if c.data.get("head_dim", 64) is None else None
    head_dim = c.count("head_dim", max(1, width // counted) if counted else 64)
    c.ignore("head_dim says how many heads there are", "num_heads")
    values, heads, eps = _values(c, width, layers), max(1, width // head_dim), c.float("norm_eps", 1e-5)
    if width % head_dim or values % heads:
        raise LaminaError(f"{c.where}: heads of {head_dim} (head_dim) must fill hidden_size and value_dim evenly")
    own = {"heads": heads, "key_dim": head_dim, "value_dim": values // heads, "norm": LayerNorm(eps=head_dim * eps)}
    later = RWKV7(**own, **_ranks(c, width, head_dim))
    mixers = [later.replace(value_rank=None), *[later] * (layers - 1)]
    inner = c.count("intermediate_size", -(-int(width * c.float("hidden_ratio", 4.0)) // 32) * 32)
    mix = ChannelMix(inner=inner, activation=ACTIVATIONS[c.choice("hidden_act", ACTIVATIONS, "sqrelu")])
    vocab, norm = c.count("vocab_size", 32000), LayerNorm(eps=eps, bias=c.bool("norm_bias", True))
    first = norm if c.bool("norm_first", True) else None
    c.only("attn", None)
    c.ignore("how it runs and trains", "attn_mode", "fuse_norm", "use_l2warp", *FUSED)
    context, tied = c.count("max_position_embeddings", 2048), c.bool("tie_word_embeddings", False)
    c.finish()
    return Architecture(
        family="rwkv7",
        embedding=Embedding(vocab=vocab, width=width, norm=first),
        blocks=tuple(pre_norms(mixers, [mix] * layers, norm)),
        norm=norm,
        head=Head(tied=tied),
        context=context,
    )


def write(arch: Architecture) -> dict[str, Any]:
    mixer, mix = (branch.op for branch in arch.blocks[-1].branches)
    assert isinstance(mixer, RWKV7)
    assert isinstance(mix, ChannelMix)
    assert isinstance(arch.norm, LayerNorm)
    return {
        "model_type": "rwkv7",
        "architectures": ["RWKV7ForCausalLM"],
        "vocab_size": arch.vocab,
        "hidden_size": arch.width,
        "num_hidden_layers": len(arch.blocks),
        "head_dim": mixer.key_dim,
        "num_heads": mixer.heads,
        "value_dim": [mixer.heads * mixer.value_dim] * len(arch.blocks),
        **{key: getattr(mixer, name) for name, key in RANKS.items() if getattr(mixer, name)},
        "intermediate_size": mix.inner,
        "hidden_act": next(name for name, ours in ACTIVATIONS.items() if ours == mix.activation),
        "norm_first": arch.embedding.norm is not None,
        "norm_bias": arch.norm.bias,
        "norm_eps": arch.norm.eps,
        "max_position_embeddings": arch.context,
        "tie_word_embeddings": arch.head.tied,
    }


OURS, USES = "mixer.op.", {"r": "r", "w": "decay", "k": "k", "v": "v", "a": "step", "g": "gate"}
LORAS = {"w": "decay", "a": "step", "v": "value", "g": "gate"}
SHIFTS = tuple(Rule(f"attn.x_{x}", f"{OURS}{use}_shift", ones=(0, 1)) for x, use in USES.items())
JOINED = (Rule("attn.x_x", *(f"{OURS}{use}_shift" for use in USES.values()), folded=6),)  # in older checkpoints
REST = (
    *named("attn.", OURS, "r_proj k_proj v_proj o_proj k_k:direction k_a:key_step r_k:bonus g_norm:norm"),
    *(Rule(f"attn.{x}_lora.lora.0", f"{OURS}{name}_a_proj") for x, name in LORAS.items()),
    *(Rule(f"attn.{x}_lora.lora.2", f"{OURS}{name}_b_proj") for x, name in LORAS.items()),
    *named("ffn.", "feed_forward.op.", "x_k:shift key:up_proj value:down_proj"),
    *(Rule("attn_norm", "mixer.before"), Rule("ffn_norm", "feed_forward.before")),
)


def _rules(shifts: tuple[Rule, ...]) -> tuple[Rule, ...]:
    around = named("model.", "", "embeddings.weight:embedding.table layers.0.pre_norm:embedding.norm norm")
    block = (rule.within("model.layers.{i}.", "blocks.{i}.") for rule in shifts + REST)
    return (*around, *block, Rule("lm_head", "head"))


LAYOUT = Layout(_rules(SHIFTS), others=(_rules(JOINED),))
FAMILIES = (Family("rwkv7", ("rwkv7",), read, write, LAYOUT),)
