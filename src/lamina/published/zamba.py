"""Shared transformers beside a stack of mixers, as Zamba's checkpoints and configs say them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lamina.arch import Architecture, Block, Branch, SharedTransformer
from lamina.arch.base import Op
from lamina.arch.norm import Norm
from lamina.published.rules import Layout, Rule, decoder_rules, named

MAMBA, HYBRID = "linear_attention", "hybrid"
KINDS = {"mamba": MAMBA, MAMBA: MAMBA, HYBRID: HYBRID}


def arranged(found: Sequence[str], mixer: Op, shared: SharedTransformer, norm: Norm, different: int) -> list[Block]:
    """A block for each of some kinds; the first `different` hybrid ones have weights, which the others read in turn."""
    places = [i for i, kind in enumerate(found) if kind == HYBRID]
    sources = {i: None if n < different else places[n % different] for n, i in enumerate(places)}
    plain = Branch(op=mixer, before=norm)
    asides = {source: shared.replace(same_as=source) for source in set(sources.values())}
    made = {source: Block(branches=(plain.replace(aside=aside),)) for source, aside in asides.items()}
    alone = Block(branches=(plain,))
    return [made[sources[i]] if i in sources else alone for i in range(len(found))]


def asides(arch: Architecture) -> dict[int, SharedTransformer]:
    """What stands aside of each block that has such a part."""
    found = {i: block.branches[0].aside for i, block in enumerate(arch.blocks)}
    return {i: aside for i, aside in found.items() if aside is not None}


def kind_keys(arch: Architecture) -> dict[str, Any]:
    """The kind of each layer."""
    hybrid = asides(arch)
    return {"layers_block_type": [HYBRID if i in hybrid else MAMBA for i in range(len(arch.blocks))]}


def attention_keys(arch: Architecture, name: str) -> dict[str, Any]:
    """What all configs of this kind say in the same words; `name` is that of the reference's class."""
    aside = next(iter(asides(arch).values()))
    return {
        "architectures": [name],
        "vocab_size": arch.vocab,
        "hidden_size": arch.width,
        "num_hidden_layers": len(arch.blocks),
        **kind_keys(arch),
        "num_attention_heads": aside.attention.heads,
        "num_key_value_heads": aside.attention.kv_heads,
        "intermediate_size": aside.feed_forward.inner,
        "hidden_act": aside.feed_forward.activation,
        "max_position_embeddings": arch.context,
        "rms_norm_eps": arch.norm.eps if arch.norm else None,
        "tie_word_embeddings": arch.head.tied,
    }


def layout(arch: Architecture, mixer: Sequence[Rule], shared: str, feed_forward: Sequence[Rule]) -> Layout:
    """`shared` is the name of a shared transformer; `mixer` and `feed_forward` are the rules of these parts alone."""
    found, rules = asides(arch), list[Rule]()
    for theirs, places in (("", set(range(len(arch.blocks))) - set(found)), ("mamba_decoder.", set(found))):
        part = [rule.within(f"{theirs}mamba.", "mixer.op.") for rule in mixer]
        rules += [rule.limited(places) for rule in (*part, Rule(f"{theirs}input_layernorm", "mixer.before"))]
    aside = "mixer.aside."
    rules += [Rule("linear", f"{aside}o_proj")]
    rules += named(f"{shared}.", aside, "input_layernorm:before pre_ff_layernorm:between")
    rules += named(f"{shared}.self_attn.", f"{aside}attention.", "q_proj k_proj v_proj o_proj")
    rules += [rule.within(f"{shared}.feed_forward.", f"{aside}feed_forward.") for rule in feed_forward]
    return Layout(decoder_rules(rules, norm="final_layernorm"))
