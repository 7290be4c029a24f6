"""The table of families: one row a reference configuration. Parity, caching, round trip and cost tests all run on it.

Sizes are chosen so that nothing agrees by accident: H != G, head_dim != D / H where the family allows it, odd
counts, windows shorter than the prompt. The files rows_*.py beside this one hold further rows.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """A reference class and the arguments of its tiny config.

    `unread` is how many numbers the reference allocates that nothing reads.
    """

    name: str
    model_class: str
    config_class: str
    config: dict[str, Any] = field(default_factory=dict, hash=False)
    unread: int = 0

    def __str__(self) -> str:
        return self.name


BASE = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
"""D / H is 8; families that name their head_dim take another."""

WIDE = BASE | {"head_dim": 12}
THEN_FULL = ["sliding_attention", "full_attention", "sliding_attention"]
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"rope_type": "yarn", "rope_theta": 900.0, "factor": 4.0, "original_max_position_embeddings": 32}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 900.0,
    "short_factor": [1.0, 1.1, 1.3],
    "long_factor": [1.5, 2.5, 4.0],
    "partial_rotary_factor": 0.75,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


def row(name: str, stem: str, config: dict[str, Any], **more: Any) -> Row:
    return Row(name, f"{stem}ForCausalLM", f"{stem}Config", config | more)


ROWS = [
    Row(
        "gpt2",
        "GPT2LMHeadModel",
        "GPT2Config",
        {"vocab_size": 97, "n_embd": 42, "n_layer": 3, "n_head": 6, "n_positions": 128, "n_inner": 50},
    ),
    row("llama", "Llama", WIDE),
    row("llama-biases", "Llama", WIDE, attention_bias=True, mlp_bias=True, hidden_act="gelu"),
    row("llama-3.2", "Llama", WIDE, tie_word_embeddings=True, rope_parameters=LLAMA3),
    row("llama-yarn", "Llama", WIDE, rope_parameters=YARN | {"beta_fast": 8.0, "beta_slow": 2.0}),
    row("llama-linear", "Llama", BASE, rope_parameters={"rope_type": "linear", "factor": 3.0, "rope_theta": 1e4}),
    row("smollm2", "Llama", BASE, num_attention_heads=9, num_key_value_heads=3, hidden_size=54),
    row("mha", "Llama", BASE, num_key_value_heads=6),
    row("mqa", "Llama", BASE, num_key_value_heads=1),
    row("mistral", "Mistral", WIDE, sliding_window=7),
    row("mistral-unbounded", "Mistral", WIDE, sliding_window=None),
    row("qwen2", "Qwen2", BASE),
    row("qwen2-windows", "Qwen2", BASE, use_sliding_window=True, sliding_window=7, max_window_layers=1),
    row("qwen3", "Qwen3", WIDE),
    row(
        "qwen3-tied-windows",
        "Qwen3",
        WIDE,
        tie_word_embeddings=True,
        use_sliding_window=True,
        sliding_window=7,
        layer_types=THEN_FULL,
        attention_bias=True,
    ),
    row("olmo2", "Olmo2", BASE),
    row("olmo3", "Olmo3", BASE, sliding_window=7, num_hidden_layers=4),
    row(
        "olmo3-yarn",
        "Olmo3",
        BASE,
        sliding_window=7,
        num_hidden_layers=4,
        rope_parameters={
            "full_attention": YARN,
            "sliding_attention": {"rope_type": "default", "rope_theta": 900.0},
        },
    ),
    row("gemma2", "Gemma2", WIDE, sliding_window=7, query_pre_attn_scalar=10, attn_logit_softcapping=3.0),
    Row(
        "gemma3",
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        WIDE | {"sliding_window": 7, "num_hidden_layers": 7, "query_pre_attn_scalar": 10},
    ),
    Row(
        "gemma3-linear",
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        WIDE
        | {
            "sliding_window": 7,
            "layer_types": THEN_FULL,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e5},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            },
        },
    ),
    row("smollm3", "SmolLM3", BASE, no_rope_layers=[1, 0, 1]),
    row("smollm3-windows", "SmolLM3", BASE, use_sliding_window=True, sliding_window=7, no_rope_layers=[1, 0, 1]),
    row("phi3", "Phi3", BASE),
    row(
        "phi3-longrope",
        "Phi3",
        BASE,
        original_max_position_embeddings=64,
        max_position_embeddings=256,
        rope_parameters=LONGROPE,
        sliding_window=30,
    ),
    row(
        "granite",
        "Granite",
        BASE,
        embedding_multiplier=6.0,
        attention_multiplier=0.2,
        residual_multiplier=0.3,
        logits_scaling=7.0,
        attention_bias=True,
    ),
    row("cohere2", "Cohere2", BASE, sliding_window=7, num_hidden_layers=4, logit_scale=0.3),
    row("cwm", "Cwm", WIDE, sliding_window=7, num_hidden_layers=5),
]

if __name__ == "table":
    for file in sorted(Path(__file__).parent.glob("rows_*.py")):
        ROWS += importlib.import_module(file.stem).ROWS
else:  # the same file under its longer name: the rows_*.py know it by the short one
    ROWS = importlib.import_module("table").ROWS
