"""LLaDA: a Llama whose attention looks both ways, trained to fill in masked tokens.

Source: arXiv 2502.09992 and the published config and tensor names of LLaDA-8B.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import GLU, Architecture, Attention, Embedding, Head, MaskedDiffusion, RMSNorm
from lamina.published import rope
from lamina.published.common import ACTIVATIONS, Family, attention_of, glu_of, pre_norm
from lamina.published.config import Config
from lamina.published.rules import Layout, Rule


def read(c: Config) -> Architecture:
    width, heads = c.count("d_model"), c.count("n_heads", most=1 << 16)
    context = c.count("max_sequence_length", 4096)
    head_dim, bias = max(1, width // heads), c.bool("include_bias", False)
    qkv_bias = c.bool("include_qkv_bias", bias)
    norm = RMSNorm(eps=c.float("rms_norm_eps", 1e-5))
    c.only("rope", True)
    attention = Attention(
        heads=heads,
        kv_heads=c.count("n_kv_heads", heads, most=1 << 16),
        head_dim=head_dim,
        rotary=rope.rotary(c, rope.parameters(c, 500_000.0), head_dim, context),
        bias=qkv_bias,
        output_bias=bias,
    )
    activation = ACTIVATIONS[c.choice("activation_type", ACTIVATIONS, "silu")]
    inner = c.count("mlp_hidden_size", width * c.count("mlp_ratio", 4))
    glu = GLU(inner=inner, activation=activation, bias=bias)  # type: ignore[arg-type]
    for key, accepted in {
        "block_type": "llama",
        "layer_norm_type": "rms",
        "attention_layer_norm": False,
        "alibi": False,
        "multi_query_attention": (None, False),
        "scale_logits": False,
        "bias_for_layer_norm": False,
        "layer_norm_with_affine": True,
        "input_emb_norm": False,
        "block_group_size": 1,
        "clip_qkv": None,
    }.items():
        c.only(key, accepted)
    vocab = c.count("vocab_size")
    rows = c.count("embedding_size", vocab)
    layers, mask = c.count("n_layers", most=4096), c.int("mask_token_id")
    tied = c.bool("weight_tying", False)
    c.ignore("training", "embedding_dropout", "residual_dropout", "init_device", "init_fn", "init_std")
    c.ignore(
        "training",
        "init_cutoff_factor",
        "attention_layer_norm_with_affine",
        "rope_full_precision",
        "precision",
    )
    c.ignore("how the reference runs", "flash_attention", "alibi_bias_max")
    c.finish()
    return Architecture(
        family="llada",
        embedding=Embedding(vocab=rows, width=width),
        blocks=(pre_norm(attention, glu, norm),) * layers,
        norm=norm,
        head=Head(tied=tied),
        objective=MaskedDiffusion(mask_token=mask),
        context=context,
    )


def write(arch: Architecture) -> dict[str, Any]:
    attention, glu = attention_of(arch), glu_of(arch)
    assert isinstance(arch.objective, MaskedDiffusion)
    assert arch.norm
    return {
        "model_type": "llada",
        "architectures": ["LLaDAModelLM"],
        "d_model": arch.width,
        "n_heads": attention.heads,
        "n_kv_heads": attention.kv_heads,
        "n_layers": len(arch.blocks),
        "mlp_hidden_size": glu.inner,
        "vocab_size": arch.vocab,
        "embedding_size": arch.vocab,
        "max_sequence_length": arch.context,
        "rope": True,
        "rope_theta": attention.rotary.base if attention.rotary else None,
        "rms_norm_eps": arch.norm.eps,
        "weight_tying": arch.head.tied,
        "mask_token_id": arch.objective.mask_token,
        "activation_type": glu.activation,
        "block_type": "llama",
        "layer_norm_type": "rms",
        "include_bias": glu.bias,
        "include_qkv_bias": attention.bias,
    }


_B, _T = "model.transformer.blocks.{i}.", "blocks.{i}."
LAYOUT = Layout(
    rules=(
        Rule("model.transformer.wte.weight", "embedding.table"),
        *(Rule(f"{_B}{p}_proj", f"{_T}mixer.op.{p}_proj") for p in "qkv"),
        Rule(_B + "attn_out", _T + "mixer.op.o_proj"),
        Rule(_B + "attn_norm", _T + "mixer.before"),
        Rule(_B + "ff_norm", _T + "feed_forward.before"),
        Rule(_B + "ff_proj", _T + "feed_forward.op.gate_proj"),
        Rule(_B + "up_proj", _T + "feed_forward.op.up_proj"),
        Rule(_B + "ff_out", _T + "feed_forward.op.down_proj"),
        Rule("model.transformer.ln_f", "norm"),
        Rule("model.transformer.ff_out", "head"),
    )
)
FAMILIES = (Family("llada", ("llada",), read, write, LAYOUT),)
