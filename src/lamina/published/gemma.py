"""What Gemma 3, 3n and 4 say alike: rotary bases by layer type, shared keys and values, per-layer inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lamina.arch import Architecture, Attention, PerLayerInputs, QKNorm, RMSNorm
from lamina.errors import LaminaError
from lamina.published import common, rope
from lamina.published.config import Config
from lamina.published.rules import MULTIMODAL, Layout, Rule, decoder_rules

FULL, SLIDING = rope.LAYER_TYPES
ACTIVATION = "gelu_pytorch_tanh"
PER_LAYER = (
    Rule("per_layer_input_gate", "per_layer_input.op.gate_proj"),
    Rule("per_layer_projection", "per_layer_input.op.down_proj"),
    Rule("post_per_layer_input_norm", "per_layer_input.after"),
)
PER_LAYER_INPUTS = (
    Rule("model.embed_tokens_per_layer.weight", "embedding.per_layer.table"),
    Rule("model.per_layer_model_projection", "embedding.per_layer.projection"),
    Rule("model.per_layer_projection_norm", "embedding.per_layer.norm"),
)
_EXPERTS = "parallel.op.feed_forward_2."
BESIDE = (
    *(Rule(f"mlp.{p}_proj", f"parallel.op.feed_forward.{p}_proj") for p in ("gate", "up", "down")),
    Rule("post_feedforward_layernorm", "parallel.after"),
    Rule("pre_feedforward_layernorm", "parallel.op.before.feed_forward"),
    Rule("post_feedforward_layernorm_1", "parallel.op.after.feed_forward"),
    Rule("post_feedforward_layernorm_2", "parallel.op.after.feed_forward_2"),
    Rule("pre_feedforward_layernorm_2", _EXPERTS + "expert_norm"),
    Rule("router.proj", _EXPERTS + "router.gate"),
    Rule("router.scale", _EXPERTS + "router.norm.weight"),
    Rule("router.per_expert_scale", _EXPERTS + "router.expert_scale"),
    Rule("experts.gate_up_proj", *(f"{_EXPERTS}experts.{p}_proj.weight" for p in ("gate", "up")), stacked=True),
    Rule("experts.down_proj", _EXPERTS + "experts.down_proj.weight", stacked=True),
)
"""A GLU and experts beside it, which read the stream under norms of their own."""
ENCODERS = {
    r"(model\.)?(vision_tower|embed_vision)\..*": "the image encoder is not part of this model",
    r"(model\.)?(audio_tower|embed_audio)\..*": "the encoder of sound is not part of this model",
}
"""The tensors of a multimodal checkpoint that its text decoder does not have."""


def two_bases(c: Config) -> dict[str, dict[str, Any]]:
    """Full layers have their own base and scaling; sliding layers a base of 10,000 and no scaling."""
    new = rope.by_layer_type(c)
    full = dict(new.get("full_attention") or {}) | (c.dict("rope_scaling", None) or {})
    sliding = dict(new.get("sliding_attention") or {})
    full.setdefault("rope_theta", c.float("rope_theta", 1_000_000.0))
    sliding.setdefault("rope_theta", c.float("rope_local_base_freq", 10_000.0))
    return {"full_attention": full, "sliding_attention": sliding}


def each_layer(c: Config, key: str, default: Any) -> list:
    """A key that holds a number for all layers or a list with one for each."""
    layers, value = c.count("num_hidden_layers", most=1 << 12), c.data.get(key)
    listed = default if value is None else value if isinstance(value, list) else [value] * layers
    if len(listed) != layers or not all(isinstance(v, int | float) and v >= 0 for v in listed):
        raise LaminaError(f"{c.where}: {key} needs a number, or one for each of the {layers} layers")
    return listed


def kv_sources(c: Config, kinds: list[str], shared: int) -> list[int | None]:
    """For each layer, whose keys and values it reads: the last `shared` those of the last before them of their kind."""
    first = len(kinds) - shared
    own = {kind: i for i, kind in enumerate(kinds[: max(first, 0)])}
    if shared and not set(kinds) <= set(own):
        raise LaminaError(f"{c.where}: num_kv_shared_layers is {shared}, which leaves a layer type nothing to share")
    return [None if i < first else own[kind] for i, kind in enumerate(kinds)]


def per_layer_inputs(c: Config, layers: int, norm: RMSNorm, width: int) -> PerLayerInputs:
    vocab = c.count("vocab_size_per_layer_input", 262144)
    return PerLayerInputs(vocab=vocab, width=width, blocks=layers, scale=math.sqrt(width), norm=norm)


def _large_heads(c: Config, s: common.Sizes, kinds: list[str], same: bool) -> tuple[int, int]:
    """The size of full attention's heads and how many key/value heads it has.

    New configs list them layer by layer. Raises: LaminaError unless full layers agree and are all that are listed.
    """
    if "per_layer_config" not in c:
        size, groups = c.count("global_head_dim", 512), c.count("num_global_key_value_heads", s.kv_heads)
        return size, groups if same else s.kv_heads
    c.ignore("per_layer_config says it", "global_head_dim", "num_global_key_value_heads")
    listed, where = c.dict("per_layer_config"), [str(i) for i, kind in enumerate(kinds) if kind == FULL]
    first = next(iter(listed.values()), None)
    if sorted(listed) != sorted(where) or not isinstance(first, dict) or any(v != first for v in listed.values()):
        raise LaminaError(f"{c.where}: per_layer_config must say the same of layers {', '.join(where)} alone")
    each = Config(first, f"{c.where}: per_layer_config")
    sizes = each.count("head_dim", s.head_dim), each.count("num_key_value_heads", s.kv_heads)
    each.finish()
    return sizes


def attentions(c: Config, s: common.Sizes, kinds: list[str]) -> dict[str, Attention]:
    """Gemma 4's of each layer type; `attention_k_eq_v` makes the keys of full attention, before their norm, its values.

    Values are normalised too, and keys of full attention turn in their first quarter of pairs alone.
    """
    bias, same, norm = c.bool("attention_bias", False), c.bool("attention_k_eq_v", False), RMSNorm(eps=s.eps)
    values, (large, groups) = rope.by_layer_type(c), _large_heads(c, s, kinds, same)
    full = values.get(FULL) or {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6}
    sliding = values.get(SLIDING) or {"rope_type": "default", "rope_theta": 1e4}
    shared: dict[str, Any] = {"heads": s.heads, "scale": 1.0, "bias": bias, "output_bias": bias}
    shared |= {"qk_norm": QKNorm(norm=norm), "value_norm": RMSNorm(eps=s.eps, weight=False)}
    return {
        FULL: Attention(
            kv_heads=groups,
            head_dim=large,
            rotary=rope.rotary(c, full, large, s.context),
            keys_as_values=same,
            **shared,
        ),
        SLIDING: Attention(
            kv_heads=s.kv_heads,
            head_dim=s.head_dim,
            rotary=rope.rotary(c, sliding, s.head_dim, s.context),
            window=c.count("sliding_window", 512),
            **shared,
        ),
    }


def by_kind(arch: Architecture) -> dict[str, Attention]:
    """The attention of each layer type that there is; the first of each has keys and values of its own."""
    found: dict[str, Attention] = {}
    for i, kind in enumerate(common.windows(arch)[1]):
        found.setdefault(kind, common.attention_of(arch, i))
    return found


def keys(arch: Architecture, architecture: str) -> dict[str, Any]:
    """What all of them say; the sizes of a head are those of sliding layers, where there are such."""
    found, (window, kinds) = by_kind(arch), common.windows(arch)
    attention = found.get("sliding_attention") or found["full_attention"]
    return {
        **common.common_keys(arch, architecture, "hidden_activation"),
        "num_key_value_heads": attention.kv_heads,
        "head_dim": attention.head_dim,
        "attention_bias": attention.bias,
        "final_logit_softcapping": arch.head.softcap,
        "sliding_window": window or 4096,
        "layer_types": kinds,
        "rope_parameters": {k: rope.written(a.rotary, a.head_dim) for k, a in found.items() if a.rotary},
    }


def shared_keys(arch: Architecture) -> dict[str, Any]:
    """Which layers share keys and values, and the sizes of per-layer inputs."""
    inputs, reading = arch.embedding.per_layer, (op for op in arch.ops() if isinstance(op, Attention))
    return {
        "num_kv_shared_layers": sum(op.kv_from is not None for op in reading),
        "hidden_size_per_layer_input": inputs.width if inputs else 0,
        "vocab_size_per_layer_input": inputs.vocab if inputs else arch.vocab,
    }


def layout(arch: Architecture, block: tuple[Rule, ...], more: tuple[Rule, ...] = ()) -> Layout:
    """Names of tensors; `more` are outside of blocks. Checkpoints hold unused keys and values of layers that share."""
    reading = [i for i in range(len(arch.blocks)) if common.attention_of(arch, i).kv_from is not None]
    unused = rf"(.*\.)?layers\.({'|'.join(map(str, reading))})\.self_attn\.[kv]_(proj|norm)\..*"
    skip: Mapping[str, str] = {unused: "the layer reads the keys and values of an earlier one"} if reading else {}
    return Layout(decoder_rules(block) + more, spellings=MULTIMODAL, skip=ENCODERS | skip)
