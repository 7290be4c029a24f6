"""xLSTM-7B: blocks of mLSTM and a GLU, and no attention. Source: arXiv 2503.13427, 2405.04517."""

from __future__ import annotations

from lamina.arch import GLU, MLSTM, Architecture, Embedding, Head, LayerNorm, RMSNorm
from lamina.published.common import Family, pre_norm
from lamina.published.config import Config


def read(c: Config) -> Architecture:
    width = c.count("hidden_size", c.data.get("embedding_dim") or 4096)
    c.only("embedding_dim", width)
    layers = c.count("num_hidden_layers", c.data.get("num_blocks") or 32, most=1 << 12)
    c.only("num_blocks", layers)
    heads, eps = c.count("num_heads", 8, most=1 << 16), c.float("norm_eps", 1e-6)
    keys, values = (int(width * c.float(key, usual)) for key, usual in (("qk_dim_factor", 0.5), ("v_dim_factor", 1.0)))
    c.only("use_bias", False)
    c.only("add_out_norm", True)
    c.ignore("how the reference runs", "chunkwise_kernel", "sequence_kernel", "step_kernel", "mode", "chunk_size")
    c.ignore("how the reference runs", "return_last_states", "autocast_kernel_dtype", "max_inference_chunksize")
    c.ignore("storage", "norm_reduction_force_float32", "inference_state_dtype", "weight_mode")
    mixer = MLSTM(
        heads=heads,
        key_dim=max(1, keys // heads),
        value_dim=max(1, values // heads),
        softcap=c.float("gate_soft_cap", 15.0),
        eps=c.float("eps", 1e-6),
        norm=LayerNorm(eps=eps, bias=False),
    )
    multiple = c.count("ffn_round_up_to_multiple_of", 64)
    inner = int((width * c.float("ffn_proj_factor", 2.667) + multiple - 1) // multiple) * multiple
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


FAMILIES = (Family("xlstm", ("xlstm",), read),)
