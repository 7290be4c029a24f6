"""GPT-2: learned positions, LayerNorm, biases everywhere, matrices stored [in, out], one matrix for q, k, v.

Source: Radford et al. 2019, "Language models are unsupervised multitask learners".
"""

from __future__ import annotations

from typing import Any

from lamina.arch import MLP, Architecture, Attention, Embedding, Head, LayerNorm, LearnedPositions
from lamina.published.common import ACTIVATIONS, Family, attention_of, pre_norm
from lamina.published.config import Config
from lamina.published.rules import Layout, Rule


def read(c: Config) -> Architecture:
    width, heads = c.count("n_embd", 768), c.count("n_head", 12)
    layers, context = c.count("n_layer", 12, most=4096), c.count("n_positions", 1024)
    norm = LayerNorm(eps=c.float("layer_norm_epsilon", 1e-5))
    scaled = c.bool("scale_attn_weights", True)
    attention = Attention(
        heads=heads,
        kv_heads=heads,
        head_dim=max(1, width // heads),
        scale=None if scaled else 1.0,
        bias=True,
        output_bias=True,
    )
    activation = ACTIVATIONS[c.choice("activation_function", ACTIVATIONS, "gelu_new")]
    mlp = MLP(inner=c.count("n_inner", 4 * width), activation=activation, bias=True)  # type: ignore[arg-type]
    c.only("scale_attn_by_inverse_layer_idx", False)
    c.only("add_cross_attention", False)
    c.only("n_ctx", context)
    c.ignore("how the reference runs", "reorder_and_upcast_attn")
    c.ignore("a classification head", *(k for k in c.data if k.startswith("summary_")))
    tied, vocab = c.bool("tie_word_embeddings", True), c.count("vocab_size", 50257)
    c.finish()
    return Architecture(
        family="gpt2",
        embedding=Embedding(vocab=vocab, width=width, positions=LearnedPositions(length=context)),
        blocks=(pre_norm(attention, mlp, norm),) * layers,
        norm=norm,
        head=Head(tied=tied),
        context=context,
    )


def write(arch: Architecture) -> dict[str, Any]:
    mlp, norm = arch.blocks[0].branches[1].op, arch.norm
    assert isinstance(mlp, MLP)
    assert norm
    published = {"gelu_tanh": "gelu_new"}.get(mlp.activation, mlp.activation)
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": arch.vocab,
        "n_embd": arch.width,
        "n_layer": len(arch.blocks),
        "n_head": attention_of(arch).heads,
        "n_positions": arch.context,
        "n_inner": mlp.inner,
        "activation_function": published,
        "layer_norm_epsilon": norm.eps,
        "scale_attn_weights": attention_of(arch).scale is None,
        "tie_word_embeddings": arch.head.tied,
    }


_H = "transformer.h.{i}."
LAYOUT = Layout(
    rules=(
        Rule("transformer.wte.weight", "embedding.table"),
        Rule("transformer.wpe.weight", "embedding.positions"),
        Rule(_H + "ln_1", "blocks.{i}.mixer.before"),
        Rule(_H + "attn.c_attn", *("blocks.{i}.mixer.op." + p + "_proj" for p in "qkv"), transpose=True),
        Rule(_H + "attn.c_proj", "blocks.{i}.mixer.op.o_proj", transpose=True),
        Rule(_H + "ln_2", "blocks.{i}.feed_forward.before"),
        Rule(_H + "mlp.c_fc", "blocks.{i}.feed_forward.op.up_proj", transpose=True),
        Rule(_H + "mlp.c_proj", "blocks.{i}.feed_forward.op.down_proj", transpose=True),
        Rule("transformer.ln_f", "norm"),
        Rule("lm_head", "head"),
    ),
    spellings=(("transformer.", ""),),
    skip={r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias": "the causal mask, which follows from the config"},
)
FAMILIES = (Family("gpt2", ("gpt2",), read, write, LAYOUT),)
