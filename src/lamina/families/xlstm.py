"""xLSTM-7B: blocks of mLSTM and a GLU, and no attention. Source: arXiv 2503.13427, 2405.04517."""

from __future__ import annotations

import math
from typing import Any

from lamina.arch import GLU, MLSTM, Architecture, Embedding, Head, LayerNorm, RMSNorm
from lamina.errors import LaminaError
from lamina.published.common import Family, glu_of, pre_norm
from lamina.published.config import Config
from lamina.published.rules import Layout, Rule

UNREAD = ("head_dim", "cell_norm_eps", "add_post_blocks_norm", "add_post_norm", "add_qk_norm", "igate_bias_init_range")
UNREAD += ("mlstm_round_up_to_multiple_of", "force_bos_token_insert", "add_forward_backend_padding")


def read(c: Config) -> Architecture:
    width = c.count("hidden_size", c.count("embedding_dim", 4096))
    c.only("embedding_dim", width)
    layers = c.count("num_hidden_layers", c.count("num_blocks", 32), most=1 << 12)
    c.only("num_blocks", layers)
    heads, eps = c.count("num_heads", 8, most=1 << 16), c.float("norm_eps", 1e-6)
    keys, values = (int(width * c.float(key, usual)) for key, usual in (("qk_dim_factor", 0.5), ("v_dim_factor", 1.0)))
    for key, wide in (("qk_dim_factor", keys), ("v_dim_factor", values)):
        if wide < heads or wide % heads:
            raise LaminaError(f"{c.where}: {key} of the width {width} is {wide}, which must fill num_heads ({heads})")
    c.only("use_bias", False)
    c.only("add_out_norm", True)
    c.ignore("how the reference runs", "chunkwise_kernel", "sequence_kernel", "step_kernel", "mode", "chunk_size")
    c.ignore("how the reference runs", "return_last_states", "autocast_kernel_dtype", "max_inference_chunksize")
    c.ignore("storage", "norm_reduction_force_float32", "inference_state_dtype", "weight_mode")
    c.ignore("published, and read nowhere", *UNREAD, "add_embedding_dropout")
    mixer = MLSTM(
        heads=heads,
        key_dim=keys // heads,
        value_dim=values // heads,
        softcap=c.float("gate_soft_cap", 15.0),
        eps=c.float("eps", 1e-6),
        norm=LayerNorm(eps=eps, bias=False),
    )
    inner = _rounded_up(width * c.float("ffn_proj_factor", 2.667), c.count("ffn_round_up_to_multiple_of", 64))
    norm, vocab = RMSNorm(eps=eps), c.count("vocab_size", 50304)
    head = Head(tied=c.bool("tie_word_embeddings", False), softcap=c.float("output_logit_soft_cap", 30.0))
    c.finish()
    return Architecture(
        family="xlstm",
        embedding=Embedding(vocab=vocab, width=width),
        blocks=(pre_norm(mixer, GLU(inner=inner), norm),) * layers,
        norm=norm,
        head=head,
    )


def _rounded_up(wide: float, multiple: int) -> int:
    return int((wide + multiple - 1) // multiple) * multiple


def _factor(wanted: int, width: int, multiple: int = 1) -> float:
    """The number of fewest digits that, times the width, makes the wanted one."""
    near = wanted / width
    tried = (*(float(f"{near:.{digits}g}") for digits in range(1, 18)), math.nextafter(near, math.inf))
    return next(number for number in tried if _rounded_up(width * number, multiple) == wanted)


def write(arch: Architecture) -> dict[str, Any]:
    mixer = next(op for op in arch.ops() if isinstance(op, MLSTM))
    width, inner = arch.width, glu_of(arch).inner
    multiple = math.gcd(inner, 64)
    return {
        "model_type": "xlstm",
        "architectures": ["xLSTMForCausalLM"],
        "vocab_size": arch.vocab,
        **dict.fromkeys(("hidden_size", "embedding_dim"), width),
        **dict.fromkeys(("num_hidden_layers", "num_blocks"), len(arch.blocks)),
        "num_heads": mixer.heads,
        "norm_eps": mixer.norm.eps,
        "eps": mixer.eps,
        "qk_dim_factor": _factor(mixer.heads * mixer.key_dim, width),
        "v_dim_factor": _factor(mixer.heads * mixer.value_dim, width),
        "ffn_proj_factor": _factor(inner, width, multiple),
        "ffn_round_up_to_multiple_of": multiple,
        "gate_soft_cap": mixer.softcap,
        "output_logit_soft_cap": arch.head.softcap,
        "tie_word_embeddings": arch.head.tied,
    }


NAMES = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "ogate_preact": "gate_proj", "igate_preact": "input_gate_proj"}
NAMES |= {"fgate_preact": "forget_gate_proj", "multihead_norm": "norm", "out_proj": "o_proj"}
FUSED = {"qkv_opreact": ("q", "k", "v", "ogate_preact"), "ifgate_preact": ("igate_preact", "fgate_preact")}


def _rules(fused: bool) -> tuple[Rule, ...]:
    """With a tensor for each projection, or for those together that read the same (weight_mode)."""
    joined = FUSED if fused else {}
    apart = [name for name in NAMES if not any(name in parts for parts in joined.values())]
    gate, up = "feed_forward.op.gate_proj", "feed_forward.op.up_proj"
    block = (
        *(Rule(f"mlstm_layer.{name}", f"mixer.op.{NAMES[name]}") for name in apart),
        *(Rule(f"mlstm_layer.{name}", *(f"mixer.op.{NAMES[part]}" for part in joined[name])) for name in joined),
        *(
            (Rule("ffn.proj_up_gate_z", gate, up),)
            if fused
            else (Rule("ffn.proj_up_gate", gate), Rule("ffn.proj_up", up))
        ),
        Rule("ffn.proj_down", "feed_forward.op.down_proj"),
        Rule("norm_mlstm", "mixer.before"),
        Rule("norm_ffn", "feed_forward.before"),
    )
    return (
        Rule("backbone.embeddings.weight", "embedding.table"),
        *(rule.within("backbone.blocks.{i}.", "blocks.{i}.") for rule in block),
        Rule("backbone.out_norm", "norm"),
        Rule("lm_head", "head"),
    )


LAYOUT = Layout(_rules(False), spellings=(("backbone.", ""),), others=(_rules(True),))
FAMILIES = (Family("xlstm", ("xlstm",), read, write, LAYOUT),)
