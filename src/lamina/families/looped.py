"""Ouro and Nanbeige 4.2: a decoder whose whole stack is passed again and again, its last norm after each pass.

Source: arXiv 2510.25741 (Ouro), 2607.22083 (Nanbeige 4.2); their published configs and code.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, Block, Branch, RMSNorm
from lamina.published.common import Family, common_keys, decoder, pre_norm, rope_keys, sizes
from lamina.published.config import Config
from lamina.published.rope import LAYER_TYPES
from lamina.published.rules import ATTENTION, COMPUTED, GLU, PRE_NORMS, Layout, decoder_rules


def read_ouro(c: Config) -> Architecture:
    """Norms before and after each sublayer; a gate scores every pass, and stops none at the published threshold."""
    s = sizes(c, default_context=32768, kv_heads=32)
    loops = c.count("total_ut_steps", 4, most=1 << 10)
    c.only("early_exit_threshold", 1.0)
    use, usual = c.bool("use_sliding_window", False), c.count("sliding_window", 4096)
    first, window = c.int("max_window_layers", 28), usual if use else None
    named = [LAYER_TYPES[1] if window and i >= first else LAYER_TYPES[0] for i in range(s.layers)]
    kinds = c.layer_types(s.layers, named, LAYER_TYPES)
    rotary, norm = s.rotary(c), RMSNorm(eps=s.eps)

    def block(seen: int | None) -> Block:
        ops = (s.attention(rotary=rotary, window=seen), s.glu())
        return Block(branches=tuple(Branch(op=op, before=norm, after=norm) for op in ops))

    made = {LAYER_TYPES[0]: block(None), LAYER_TYPES[1]: block(window)}
    arch = decoder(c, "ouro", s, [made[kind] for kind in kinds], norm)
    return arch.replace(loops=loops, exit_gate=True)


def read_nanbeige(c: Config) -> Architecture:
    """Llama's blocks; what the code further offers (hyper-connections, n-grams, split loops) is not published."""
    s = sizes(c, 1e-5)
    loops = c.count("num_loops", 1, most=1 << 10)
    c.only("kv_channels", s.head_dim)
    c.only("skip_loop_final_norm", False)
    c.only("attention_bias", False)
    c.only("qk_layernorm", False)
    c.only("loop_loss_weights", ([],))
    attention, norm = s.attention(rotary=s.rotary(c)), RMSNorm(eps=s.eps)
    arch = decoder(c, "nanbeige", s, [pre_norm(attention, s.glu(), norm)] * s.layers, norm)
    return arch.replace(loops=loops)


def write_nanbeige(arch: Architecture) -> dict[str, Any]:
    return {
        "model_type": "nanbeige",
        **common_keys(arch, "NanbeigeForCausalLM"),
        **rope_keys(arch),
        "num_loops": arch.loops,
    }


LAYOUT = Layout(decoder_rules(ATTENTION + GLU + PRE_NORMS), skip=COMPUTED)
FAMILIES = (
    Family("ouro", ("ouro",), read_ouro),
    Family("nanbeige", ("nanbeige",), read_nanbeige, write_nanbeige, LAYOUT),
)
