"""What Inkling and Inkling 2 say alike: relative attention by layer type, short filters, a padded head."""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, LengthTemperature, RelativeAttention, RMSNorm
from lamina.errors import LaminaError
from lamina.published.common import Sizes, common_keys
from lamina.published.config import Config
from lamina.published.experts import dense_of
from lamina.published.rules import MULTIMODAL, PRE_NORMS, VISION, Layout, Rule, decoder_rules, named

KINDS = ("hybrid_sliding", "hybrid")
ALIASES = {
    "conv_kernel_size": ("sconv_kernel_size",),
    "max_position_embeddings": ("model_max_length",),
    "sliding_window_size": ("sliding_window",),
    "logits_mup_width_multiplier": ("embedding_multiplier",),
}


def layer_kinds(c: Config, layers: int) -> list[str]:
    """Every sixth layer sees everything, unless the config lists those that have a window."""
    local = c.list("local_layer_ids", [i for i in range(layers) if (i + 1) % 6])
    return c.layer_types(layers, [KINDS[0] if i in local else KINDS[1] for i in range(layers)], KINDS)


def attentions(c: Config, s: Sizes, usual: tuple[int, int, int], **fields: Any) -> dict[str, RelativeAttention]:
    """Of each kind of layer; `usual` are the window, and the heads and key/value heads of layers that have one."""
    window = c.count("sliding_window_size", usual[0])
    full = RelativeAttention(
        heads=s.heads,
        kv_heads=s.kv_heads,
        head_dim=s.head_dim,
        relative_dim=c.count("d_rel", 16),
        extent=c.count("rel_extent", 1024),
        **fields,
    )
    own = {
        "heads": c.count("swa_num_attention_heads", usual[1]),
        "kv_heads": c.count("swa_num_key_value_heads", usual[2]),
        "head_dim": c.count("swa_head_dim", 128),
    }
    return {"hybrid": full, "hybrid_sliding": full.replace(**own, window=window, extent=window)}


def temperature(c: Config, floor: int | None) -> LengthTemperature | None:
    floor, scale = c.count("log_scaling_n_floor", floor), c.float("log_scaling_alpha", 0.1)
    return LengthTemperature(floor=floor, scale=scale, steps=False) if floor else None


def padded(c: Config, arch: Architecture, eps: float, usual: int | None = None) -> Architecture:
    """What is read of the table is normalised; logits of rows beyond `unpadded_vocab_size` are dropped."""
    tokens = c.count("unpadded_vocab_size", usual) or arch.vocab
    if tokens > arch.vocab:
        raise LaminaError(f"{c.where}: unpadded_vocab_size ({tokens}) exceeds vocab_size ({arch.vocab})")
    embedding, head = arch.embedding.replace(norm=RMSNorm(eps=eps)), arch.head.replace(padding=arch.vocab - tokens)
    return arch.replace(embedding=embedding, head=head)


def keys(arch: Architecture, architecture: str) -> dict[str, Any]:
    """What both say: of layers with a window under keys of their own."""
    ops = [op for op in arch.ops() if isinstance(op, RelativeAttention)]
    full, local = ([op for op in ops if (op.window is None) is whole] or ops for whole in (True, False))
    growth, filter_ = full[0].temperature, ops[0].filter
    assert filter_
    written = common_keys(arch, architecture, feed_forward=dense_of(arch), attention=full[0])
    written |= {"final_logit_softcapping": arch.head.softcap} if arch.head.softcap else {}
    return written | {
        "swa_num_attention_heads": local[0].heads,
        "swa_num_key_value_heads": local[0].kv_heads,
        "swa_head_dim": local[0].head_dim,
        "sliding_window_size": local[0].window or 512,
        "d_rel": full[0].relative_dim,
        "rel_extent": full[0].extent,
        "log_scaling_n_floor": growth.floor if growth else None,
        "log_scaling_alpha": growth.scale if growth else 0.1,
        "conv_kernel_size": filter_.kernel,
        "unpadded_vocab_size": arch.vocab - arch.head.padding,
        "layer_types": [KINDS[op.window is None] for op in ops],
    }


_EXPERTS = "feed_forward.op.experts."
_BLOCK = (
    *PRE_NORMS,
    *named("self_attn.", "mixer.op.", "q_proj k_proj v_proj r_proj:relative_proj o_proj"),
    *named("self_attn.", "mixer.op.", "rel_logits_proj.proj:distances"),
    *(Rule(f"self_attn.{p}_sconv.conv1d", f"mixer.op.{p}_filter.convolution") for p in "kv"),
    Rule("mlp.experts.gate_up_proj", _EXPERTS + "gate_proj.weight", _EXPERTS + "up_proj.weight", stacked=True),
    Rule("mlp.experts.down_proj", _EXPERTS + "down_proj.weight", stacked=True),
    *named("attn_sconv.", "mixer.filter.", "conv1d:convolution"),
    *named("mlp_sconv.", "feed_forward.filter.", "conv1d:convolution"),
)


def layout(block: tuple[Rule, ...], ends: tuple[Rule, ...]) -> Layout:
    """Names of tensors; `block` and `ends` are those that are the family's own."""
    norm = Rule("model.embed_tokens.embed_norm", "embedding.norm")
    return Layout((norm, *ends, *decoder_rules(block + _BLOCK)), spellings=MULTIMODAL, skip=VISION)
