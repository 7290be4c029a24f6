"""What Inkling and Inkling 2 say alike: relative attention by layer type, short filters, a padded head."""

from __future__ import annotations

from collections.abc import Iterator
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


# -- the names of Inkling 2, as it was published


_PUBLISHED = (
    Rule("mlp_norm", "feed_forward.before"),
    *named("attn.", "mixer.op.", "wq_du:q_proj wk_dv:k_proj wv_dv:v_proj wr_du:relative_proj wo_ud:o_proj"),
    *named("attn.", "mixer.op.", "rel_logits_proj.proj:distances gate_attn:gate_proj attn_sink_proj:sink_proj"),
    Rule("attn_sconv", "mixer.filter.convolution"),
    Rule("mlp_sconv", "feed_forward.filter.convolution"),
    *named("mlp.", "feed_forward.op.", "gate.bias:router.correction gate:router.gate"),
    Rule(
        "mlp.experts.w13_weight",
        *(f"{_EXPERTS}{p}_proj.weight" for p in ("gate", "up")),
        stacked=True,
        interleaved=True,
    ),
    Rule("mlp.experts.w2_weight", _EXPERTS + "down_proj.weight", stacked=True),
)


def _of_block(i: int, op: RelativeAttention, separate: bool) -> Iterator[Rule]:
    """What is named otherwise from block to block: norms, taps, scales of heads, and scores of earlier sums."""
    theirs, ours = f"model.llm.layers.{i}.", f"blocks.{i}.mixer."
    taps = {"transpose": True, "without": 1} if op.filter and op.filter.heads else {}
    for p in "kv":
        name, filter_ = f"{theirs}attn.{p}_sconv", f"{ours}op.{p}_filter."
        yield Rule(f"{name}.{'static_w' if taps else 'weight'}", f"{filter_}convolution.weight", **taps)
        yield Rule(f"{name}.weight_proj", f"{filter_}taps.weight")
    for name, scale in (("q", "q_scale"), ("rel", "relative_scale")):
        yield Rule(f"{theirs}attn.{name}_l2_clip.scale", f"{ours}op.{scale}", folded=op.heads)
    yield Rule(theirs + ("q_input_norm" if separate else "attn_norm"), ours + "before")
    scores, where = f"model.llm.attn_res.attn_queries.{i - 1}", [f"{ours}stream.{p}" for p in ("", "keys.", "values.")]
    yield from named(theirs, ours + "stream.", "k_input_norm:keys.before v_input_norm:values.before")
    yield (
        Rule(scores, *(f"{p}score.weight" for p in where))
        if separate
        else Rule(scores, where[0] + "score.weight", without=0)
    )
    yield Rule(f"model.llm.attn_res.mlp_queries.{i}", f"blocks.{i}.feed_forward.stream.score.weight", without=0)


def published(arch: Architecture) -> Layout:
    """Names of tensors of Inkling 2."""
    ops = [op for op in arch.ops() if isinstance(op, RelativeAttention)]
    separate = getattr(arch.stream, "separate", ())
    rules = [rule.within("model.llm.layers.{i}.", "blocks.{i}.") for rule in _PUBLISHED]
    own = (rule for i, op in enumerate(ops) for rule in _of_block(i, op, i in separate))
    ends = (
        *named("model.llm.", "", "embed.weight:embedding.table embed_norm:embedding.norm norm unembed:head"),
        Rule("model.llm.attn_res.output_query", "joining.score.weight", without=0),
    )
    skip = {r"model\.visual\..*": "the image encoder is not part of this model"}
    return Layout((*ends, *own, *rules), spellings=(), skip=skip)
