"""nanochat: no norm has weights, queries and keys are normalised after they turn backwards, and logits are soft-capped.

The embedding is normalised as the last sum is; the feed-forward is an MLP with a squared ReLU.
Source: the published nanochat-d32 and the reference's code.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import MLP, Architecture, QKNorm, RMSNorm
from lamina.published.common import Family, attention_of, common_keys, decoder, pre_norm, rope_keys, sizes
from lamina.published.config import Config
from lamina.published.rules import ATTENTION, Layout, Rule, decoder_rules


def read(c: Config) -> Architecture:
    s = sizes(c, activation="relu2")
    norm, bias = RMSNorm(eps=s.eps, weight=False), c.bool("attention_bias", False)
    rotary = s.rotary(c).replace(backwards=True)
    qk_norm = QKNorm(norm=norm, after_rotary=True)
    attention = s.attention(rotary=rotary, qk_norm=qk_norm, bias=bias, output_bias=bias)
    softcap = c.float("final_logit_softcapping", None if "final_logit_softcapping" in c.data else 15.0)
    block = pre_norm(attention, MLP(inner=s.inner, activation=s.activation), norm)
    arch = decoder(c, "nanochat", s, [block] * s.layers, norm, softcap=softcap)
    return arch.replace(embedding=arch.embedding.replace(norm=norm))


def write(arch: Architecture) -> dict[str, Any]:
    mlp = next(op for op in arch.ops() if isinstance(op, MLP))
    return {
        "model_type": "nanochat",
        **common_keys(arch, "NanoChatForCausalLM", feed_forward=mlp),
        **rope_keys(arch),
        "attention_bias": attention_of(arch).bias,
        "final_logit_softcapping": arch.head.softcap,
    }


FEED_FORWARD = (Rule("mlp.fc1", "feed_forward.op.up_proj"), Rule("mlp.fc2", "feed_forward.op.down_proj"))
FAMILIES = (Family("nanochat", ("nanochat",), read, write, Layout(decoder_rules(ATTENTION + FEED_FORWARD))),)
