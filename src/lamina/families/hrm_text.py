"""HRM-Text: HRM's two recursive stacks as a causal language model. Source: the published config; 2506.21734 (HRM)."""

from __future__ import annotations

from lamina.arch import Architecture, Causal, Recursion, RMSNorm, Span
from lamina.errors import LaminaError
from lamina.published.common import Family, decoder, pre_norm, sizes
from lamina.published.config import Config


def read(c: Config) -> Architecture:
    s = sizes(c, head_dim=128, default_context=2048)
    low, high = c.count("L_cycles", 3, most=1 << 10), c.count("H_cycles", 2, most=1 << 10)
    stack = c.count("num_layers_per_stack", s.layers, most=1 << 12)
    if "num_layers_per_stack" in c and s.layers != stack * high * (low + 1):
        raise LaminaError(
            f"{c.where}: num_hidden_layers is {s.layers}, and {high} cycles of {low} + 1 passes of "
            f"{stack} layers are {stack * high * (low + 1)}"
        )
    c.only("num_key_value_heads", s.heads)
    c.only("attention_bias", False)
    given = c.list("L_bp_cycles", [2])
    steps = tuple([1] * max(0, high - len(given)) + given)[:high]
    norm = RMSNorm(eps=s.eps, weight=False)
    attention = s.attention(rotary=s.rotary(c), gate="elementwise")
    block = pre_norm(attention, s.glu(c.bool("mlp_bias", False)), norm)
    scale = c.float("embedding_scale", 1 / c.float("initializer_range", 0.02))
    prefix = c.bool("prefix_lm", True)
    recursion = Recursion(
        low=Span(start=0, stop=stack),
        high=Span(start=stack, stop=2 * stack),
        low_cycles=low,
        high_cycles=high,
        gradient=steps,
        enters="start",
        norm=norm,
        halting=False,
    )
    arch = decoder(c, "hrm_text", s, [block] * (2 * stack), norm, embedding_scale=scale)
    return arch.replace(norm=None, recursion=recursion, objective=Causal(prefix=prefix))


FAMILIES = (Family("hrm_text", ("hrm_text",), read),)
