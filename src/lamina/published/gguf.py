"""GGUF files as architectures: their metadata as a config, their tensor names as rules.

Two facts differ from the Hugging Face layout and are fields of the value, so no weight is rewritten: files of
the llama architecture hold q and k in the interleaved rotary layout, and norms are stored with their offset added.
Source: the GGUF specification's standardised keys, and the files themselves.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lamina.arch import Architecture, LongRopeScaling, Rotary
from lamina.arch.edit import rewritten
from lamina.arch.norm import RMSNorm
from lamina.errors import LaminaError, closest
from lamina.families import read_config
from lamina.published.config import shown
from lamina.published.rules import Layout, Rule

if TYPE_CHECKING:
    from lamina.checkpoint.headers.table import Entry, Header
    from lamina.checkpoint.tensors import StoredTensor, TensorFile


@dataclass(frozen=True)
class Dialect:
    """What a GGUF architecture is called elsewhere, and how it differs.

    Fields: `routed` is what it is called where it has experts, and `experts` the config's key for how many;
    `normalised` says that the weights of the chosen sum to one, `second_norm` what stands before the feed-forward
    """

    model_type: str
    interleaved: bool = False
    sandwich: bool = False
    qk_norm: bool = False
    routed: str | None = None
    experts: str = "num_experts"
    normalised: bool | None = None
    second_norm: str = "ffn_norm"


DIALECTS = {
    "llama": Dialect("llama", interleaved=True, routed="mixtral", experts="num_local_experts"),
    "qwen2": Dialect("qwen2"),
    "qwen3": Dialect("qwen3", qk_norm=True),
    "gemma3": Dialect("gemma3_text", sandwich=True, qk_norm=True),
    "qwen2moe": Dialect("qwen2_moe", routed="qwen2_moe", normalised=False),
    "qwen3moe": Dialect("qwen3_moe", qk_norm=True, routed="qwen3_moe", normalised=True),
    "gpt-oss": Dialect("gpt_oss", routed="gpt_oss", experts="num_local_experts", second_norm="post_attention_norm"),
}


_SAID_ELSEWHERE = (
    *("attention.value_length", "rope.dimension_count", "vocab_size"),
    *("rope.scaling.finetuned", "rope.scaling.attn_factor", "tensor_data_layout"),
)
"""Keys that repeat what tensors or other keys say, or concern other architectures."""

_FLOATS = {"F32": "f", "F16": "e", "F64": "d"}
_MOST_DIVISORS = 1 << 16  # bytes; there is one for each pair of a head's dimensions


@dataclass(frozen=True)
class Said:
    """What a GGUF file says: its architecture, the layout of its tensors, and what was passed over and why."""

    arch: Architecture
    layout: Layout
    ignored: dict[str, str]


def read_gguf(file: Header | TensorFile) -> Said:
    """The architecture of a GGUF file, from its header; `rope_freqs.weight` is the one tensor that is read.

    Raises: LaminaError, naming the file and the key, for one that is unknown, missing or wrong.
    """
    kind = file.metadata.get("general.architecture")
    if not isinstance(kind, str) or kind not in DIALECTS:
        raise LaminaError(f"{file.path}: general.architecture is {shown(kind)}; {closest(str(kind), DIALECTS)}")
    dialect = DIALECTS[kind]
    keys = _Keys(file, kind)
    config = _config(keys, dialect)
    arch = read_config(config, str(file.path), file.stem)
    arch = rewritten(arch, RMSNorm, lambda norm: norm.replace(offset=0.0))
    if dialect.interleaved:
        arch = rewritten(arch, Rotary, lambda r: r.replace(layout="interleaved"))
    if (divisors := file.tensors.get("rope_freqs.weight")) is not None:
        arch = _divided(arch, divisors, str(file.path))
    ignored = keys.finish()
    return Said(arch, Layout(_rules(dialect), (), {r"rope_freqs\.weight": "read as the rotary scaling"}), ignored)


def _divided(arch: Architecture, divisors: Entry | StoredTensor, path: str) -> Architecture:
    """The angles of each pair of dimensions divided by a number of its own (Llama 3's scaling, worked out)."""
    try:
        numbers = _floats(divisors)
        scaling = LongRopeScaling(short=numbers, long=numbers, original_context=arch.context or 1, attention_factor=1.0)
        return rewritten(arch, Rotary, lambda rotary: rotary.replace(scaling=scaling))
    except LaminaError as error:
        raise LaminaError(f"{path}: the tensor 'rope_freqs.weight' cannot be used ({error})") from None


def _floats(stored: Entry | StoredTensor) -> tuple[float, ...]:
    """The values of a small tensor.

    Raises: LaminaError if it is large, or not of an ordinary type
    """
    code = _FLOATS.get(stored.format)
    if code is None or stored.nbytes > _MOST_DIVISORS:
        raise LaminaError(
            f"it has {stored.nbytes} bytes of {stored.format}; at most {_MOST_DIVISORS} of {', '.join(_FLOATS)}"
            " are accepted"
        )
    return struct.unpack(f"<{stored.nbytes // struct.calcsize(code)}{code}", stored.data())


class _Keys:
    """Metadata under the architecture's own prefix; `read` collects what was looked at."""

    def __init__(self, file: Header | TensorFile, kind: str) -> None:
        self.file, self.kind = file, kind
        self.read = {"general.architecture"}

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(f"{self.kind}.{key}")
        return self.file.metadata.get(f"{self.kind}.{key}", default)

    def need(self, key: str) -> Any:
        value = self.get(key)
        if value is None:
            raise LaminaError(f"{self.file.path}: the key '{self.kind}.{key}' is missing")
        return value

    def finish(self) -> dict[str, str]:
        """What was passed over, with the reason.

        Raises: LaminaError for a key of the architecture's own that nothing read.
        """
        ignored = {}
        for key in self.file.metadata:
            if key.startswith(f"{self.kind}.") and key not in self.read:
                value = shown(self.file.metadata[key])
                raise LaminaError(
                    f"{self.file.path}: the key {shown(key)} ({value}) is not understood for this architecture"
                )
            if key not in self.read:
                ignored[key] = "tokenizer" if key.startswith("tokenizer.") else "provenance"
        return ignored


def _config(keys: _Keys, dialect: Dialect) -> dict[str, Any]:
    """The same facts as a config.json says them."""
    table = keys.file.tensors.get("token_embd.weight")
    if table is None or len(table.shape) != 2:
        raise LaminaError(f"{keys.file.path}: the tensor 'token_embd.weight' of two dimensions is missing")
    width, heads = keys.need("embedding_length"), keys.need("attention.head_count")
    config: dict[str, Any] = {
        "model_type": dialect.model_type,
        "vocab_size": table.shape[0],
        "hidden_size": width,
        "num_hidden_layers": keys.need("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": keys.get("attention.head_count_kv", heads),
        "intermediate_size": keys.need("feed_forward_length"),
        "max_position_embeddings": keys.need("context_length"),
        "rms_norm_eps": keys.need("attention.layer_norm_rms_epsilon"),
        "rope_theta": keys.get("rope.freq_base"),
        "tie_word_embeddings": "output.weight" not in keys.file.tensors,
    }
    for key in _SAID_ELSEWHERE:
        keys.get(key)
    config |= _experts(keys, dialect, config)
    if dialect.model_type != "qwen2" and keys.get("attention.key_length") is not None:
        config["head_dim"] = keys.get("attention.key_length")
    if config["model_type"] == "llama" and "blk.0.attn_q.bias" in keys.file.tensors:
        config["attention_bias"] = True
    if (scaling := _scaling(keys)) is not None:
        config["rope_scaling"] = scaling
    if dialect.model_type == "gpt_oss":
        config["sliding_window"] = keys.need("attention.sliding_window")
        config["rope_scaling"] = {**scaling, "truncate": False} if scaling else {"rope_type": "default"}
    if dialect.sandwich:
        config["sliding_window"] = keys.need("attention.sliding_window")
        config["sliding_window_pattern"] = keys.get("attention.sliding_window_pattern", 6)
        config["rope_local_base_freq"] = keys.get("rope.freq_base_swa")
        config["attn_logit_softcapping"] = keys.get("attn_logit_softcapping")
        config["final_logit_softcapping"] = keys.get("final_logit_softcapping")
        # 62 blocks is Gemma 3 27B, the one size that scales scores by width / heads and not by the head
        per_head = isinstance(width, int) and isinstance(heads, int) and heads > 0 and config["num_hidden_layers"] == 62
        config["query_pre_attn_scalar"] = width // heads if per_head else config.get("head_dim", 256)
    return config


def _experts(keys: _Keys, dialect: Dialect, config: dict[str, Any]) -> dict[str, Any]:
    """What is said of experts, where there are any.

    Raises: LaminaError if the router and the weights of a block's experts differ in how many there are
    """
    count, active = keys.get("expert_count", 0), keys.get("expert_used_count", 0)
    inner, shared = keys.get("expert_feed_forward_length"), keys.get("expert_shared_feed_forward_length")
    if not count or dialect.routed is None:
        return {}
    tensors, layers = keys.file.tensors, config["num_hidden_layers"]
    found: dict[str, Any] = {"model_type": dialect.routed, dialect.experts: count, "num_experts_per_tok": active}
    for i in range(layers if isinstance(layers, int) else 0):
        router, stack = tensors.get(f"blk.{i}.ffn_gate_inp.weight"), tensors.get(f"blk.{i}.ffn_up_exps.weight")
        if router is not None and stack is not None and router.shape[0] != stack.shape[0]:
            raise LaminaError(
                f"{keys.file.path}: the router of block {i} chooses among {router.shape[0]} experts, and "
                f"'blk.{i}.ffn_up_exps.weight' holds {stack.shape[0]}; they must agree"
            )
    if dialect.experts == "num_local_experts":
        return found | ({} if inner is None else {"intermediate_size": inner})
    dense = [i for i in range(layers) if f"blk.{i}.ffn_gate_inp.weight" not in tensors]
    found |= {"norm_topk_prob": dialect.normalised, "mlp_only_layers": dense}
    found |= {} if inner is None else {"moe_intermediate_size": inner}
    return found | ({} if shared is None else {"shared_expert_intermediate_size": shared})


def _scaling(keys: _Keys) -> dict[str, Any] | None:
    kind, factor = keys.get("rope.scaling.type", "linear"), keys.get("rope.scaling.factor")
    if factor is None or kind == "none":
        return None
    scaling: dict[str, Any] = {"rope_type": kind, "factor": factor}
    if (original := keys.get("rope.scaling.original_context_length")) is not None and kind == "yarn":
        scaling["original_max_position_embeddings"] = original
    return scaling


def _rules(dialect: Dialect) -> tuple[Rule, ...]:
    b, o = "blk.{i}.", "blocks.{i}."
    norms = [("attn_norm", "mixer.before"), (dialect.second_norm, "feed_forward.before")]
    if dialect.sandwich:
        norms += [("post_attention_norm", "mixer.after"), ("post_ffw_norm", "feed_forward.after")]
    if dialect.qk_norm:
        norms += [("attn_q_norm", "mixer.op.q_norm"), ("attn_k_norm", "mixer.op.k_norm")]
    parts = [(f"attn_{p}", f"mixer.op.{p}_proj") for p in "qkv"] + [("attn_output", "mixer.op.o_proj")]
    for p in ("gate", "up", "down"):
        parts += [(f"ffn_{p}", f"feed_forward.op.{p}_proj"), (f"ffn_{p}_exps", f"feed_forward.op.experts.{p}_proj")]
        parts.append((f"ffn_{p}_shexp", f"feed_forward.op.shared.{p}_proj"))
    parts += [("ffn_gate_inp", "feed_forward.op.router.gate"), ("attn_sinks.weight", "mixer.op.sinks")]
    return (
        Rule("token_embd.weight", "embedding.table"),
        Rule("output_norm", "norm"),
        Rule("output", "head"),
        Rule(b + "ffn_gate_inp_shexp", o + "feed_forward.op.shared_gate", without=0),
        *(Rule(b + theirs, o + ours) for theirs, ours in norms + parts),
    )
