"""MiMo-V2-Flash: windows with sinks and twice the key/value heads, values smaller than keys and scaled.

Source: arXiv 2601.02780.
Differs: the reference takes the key/value heads of windowed layers to be twice those of the others; here their own
keys (swa_...) are read, as the publisher's code does.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, Attention, RMSNorm
from lamina.errors import LaminaError
from lamina.published import by_type, rope
from lamina.published.common import Family, Sizes, common_keys, decoder, pre_norms, sizes
from lamina.published.config import LATER, Config
from lamina.published.experts import dense_of, key_of, layer_kinds, mixture, moe_of, router, router_keys, sparse_layers
from lamina.published.rules import ATTENTION, CORRECTION, EXPERTS, GLU, PRE_NORMS, ROUTER, Layout, Rule, decoder_rules

FULL, WINDOWED = rope.LAYER_TYPES
PATTERN = {0: FULL, 1: WINDOWED}
NUMBERS = {"num_attention_heads": "heads", "num_key_value_heads": "kv_heads", "head_dim": "head_dim"}
NUMBERS |= {"v_head_dim": "values"}


def _kinds(c: Config, layers: int) -> list[str]:
    """Which layers have a window: all but the first and every sixth, where no key says otherwise."""
    usual = [FULL if i == 0 or (i + 1) % 6 == 0 else WINDOWED for i in range(layers)]
    listed = c.list("hybrid_layer_pattern", None)
    if listed is not None:
        if len(listed) != layers or any(kind not in PATTERN for kind in listed):
            raise LaminaError(f"{c.where}: hybrid_layer_pattern needs {layers} entries of 0 or 1 (1: a window)")
        usual = [PATTERN[kind] for kind in listed]
    return c.layer_types(layers, usual, rope.LAYER_TYPES)


def _window(c: Config) -> int:
    """The reference lets a query see `sliding_window_size` earlier tokens and itself, or `sliding_window` in all."""
    size = c.count("sliding_window_size", None)
    if size:
        c.only("sliding_window", (size, size + 1))
    return size + 1 if size else c.count("sliding_window", 129)


def _rotary(c: Config, s: Sizes, kind: str, base: float, head_dim: int) -> Any:
    """New configs hold rotary parameters by layer type; old ones a base of each."""
    given = dict(rope.by_layer_type(c).get(kind, {}))
    given.setdefault("rope_theta", c.float("rope_theta" if kind == FULL else "swa_rope_theta", base))
    given.setdefault("partial_rotary_factor", c.float("partial_rotary_factor", 0.334))
    return rope.rotary(c, given, head_dim, s.context)


def _attentions(c: Config, s: Sizes) -> dict[str, Attention]:
    shared: dict[str, Any] = {"bias": c.bool("attention_bias", False)}
    shared["value_scale"] = c.float("attention_value_scale", 1.0 if "attention_value_scale" in c.data else 0.707)
    size, value = s.head_dim, c.count("v_head_dim", 128)
    full = s.attention(
        rotary=_rotary(c, s, FULL, 5_000_000.0, size),
        value_dim=value,
        sinks=c.bool("add_full_attention_sink_bias", False),
        **shared,
    )
    size = c.count("swa_head_dim", size)
    windowed = Attention(
        heads=c.count("swa_num_attention_heads", s.heads, most=1 << 16),
        kv_heads=c.count("swa_num_key_value_heads", 2 * s.kv_heads, most=1 << 16),
        head_dim=size,
        rotary=_rotary(c, s, WINDOWED, 10_000.0, size),
        value_dim=c.count("swa_v_head_dim", value),
        sinks=c.bool("add_swa_attention_sink_bias", True),
        window=_window(c),
        **shared,
    )
    return {FULL: full, WINDOWED: windowed}


def read(c: Config) -> Architecture:
    eps_key = key_of(c, "layernorm_epsilon", "rms_norm_eps")
    s = sizes(c, eps=1e-5, eps_key=eps_key, kv_heads=4, head_dim=192, default_context=131072)
    attentions, norm = _attentions(c, s), RMSNorm(eps=s.eps)
    c.ignore("no layer is chunked; the window says what is seen", "attention_chunk_size")
    experts = mixture(c, s, router(c, experts=256, active=8, score="sigmoid", correction=True), inner=2048)
    mixers = [attentions[kind] for kind in _kinds(c, s.layers)]
    feed_forwards = [experts if has else s.glu() for has in sparse_layers(c, s.layers, dense=1)]
    return decoder(c, "mimo", s, pre_norms(mixers, feed_forwards, norm), norm)


def write(arch: Architecture) -> dict[str, Any]:
    ops, turned = by_type.attentions(arch), by_type.keys(arch, 129)
    full, near = ops[FULL], ops[WINDOWED]
    for values in turned["rope_parameters"].values():
        values.setdefault("partial_rotary_factor", 1.0)
    return {
        "model_type": "mimo_v2_flash",
        **common_keys(arch, "MiMoV2FlashForCausalLM", feed_forward=dense_of(arch)),
        **turned,
        **{key: getattr(full, field) for key, field in NUMBERS.items()},
        **{f"swa_{key}": getattr(near, field) for key, field in NUMBERS.items()},
        "attention_value_scale": full.value_scale,
        "add_full_attention_sink_bias": full.sinks,
        "add_swa_attention_sink_bias": near.sinks,
        **layer_kinds(arch),
        **router_keys(moe_of(arch).router, "n_routed_experts"),
        "moe_intermediate_size": moe_of(arch).expert.inner,
    }


BLOCK = ATTENTION + GLU + PRE_NORMS + EXPERTS + ROUTER + CORRECTION
SINKS = Rule("self_attn.attention_sink_bias", "mixer.op.sinks")
SKIP = {r"model\.mtp\..*": LATER}
LAYOUT = Layout(decoder_rules((*BLOCK, SINKS)), skip=SKIP)
FAMILIES = (Family("mimo", ("mimo_v2_flash",), read, write, LAYOUT),)
