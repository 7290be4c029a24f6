"""Nemotron-H and Nemotron 3: blocks of one branch each, a Mamba-2, an attention, a feed-forward or experts.

No attention has positions; feed-forwards and experts are plain MLPs with a squared ReLU. Nemotron 3 Super's experts
work at a smaller width between two projections.
Source: arXiv 2504.03624 (Nemotron-H), 2512.20856 (Nemotron 3).
"""

from __future__ import annotations

from lamina.arch import MLP, Architecture, Block, Branch, Mamba2, MoE, Prediction, RMSNorm
from lamina.arch.base import Op
from lamina.errors import LaminaError
from lamina.published import nemotron
from lamina.published.common import Family, Sizes, decoder, sizes
from lamina.published.config import Config
from lamina.published.experts import router
from lamina.published.recurrent import ignore_running, kinds

LETTERS = {"M": "mamba", "E": "moe", "*": "attention", "-": "mlp"}
NAMES = {kind: kind for kind in LETTERS.values()} | {"linear_attention": "mamba", "full_attention": "attention"}


def _kinds(c: Config) -> list[str]:
    """What each block is, from a list of names or a pattern of letters."""
    lettered = list(c.str("hybrid_override_pattern", "ME*-"))
    key = "layers_block_type" if "layers_block_type" in c else "hybrid_override_pattern"
    listed = c.list(key) if key == "layers_block_type" else lettered
    found = kinds(c, key, listed, c.count("num_hidden_layers", len(listed), most=1 << 12), LETTERS | NAMES)
    if "hybrid_override_pattern" in c and found != [LETTERS.get(letter) for letter in lettered]:
        raise LaminaError(f"{c.where}: layers_block_type and hybrid_override_pattern disagree")
    return found


def _predicting(c: Config) -> tuple[int, list[str]]:
    """How many tokens after the next have a head, and what each block of a head is."""
    heads = c.count("num_nextn_predict_layers", 0, least=0, most=64)
    lettered, key = list(c.str("mtp_hybrid_override_pattern", "*E")), "mtp_layers_block_type"
    listed = c.list(key, None) or lettered
    found = kinds(c, key if key in c else "mtp_hybrid_override_pattern", listed, len(listed), LETTERS | NAMES)
    return heads, found


def _mamba(c: Config, eps: float) -> Mamba2:
    """The reference holds steps above `time_step_min` in a prompt (and forgets to, one token at a time)."""
    c.only("mamba_hidden_act", "silu")
    c.ignore("time_step_min is what the reference reads", "time_step_limit")
    c.ignore("heads and their size say it", "expand")
    c.ignore("use_bias is what the reference reads", "mamba_proj_bias")
    bias, groups = c.bool("use_bias", False), c.count("n_groups", 8, most=1 << 16)
    return Mamba2(
        heads=c.count("mamba_num_heads", 128, most=1 << 16),
        head_dim=c.count("mamba_head_dim", 64, most=1 << 16),
        groups=groups,
        state=c.count("ssm_state_size", 128, most=1 << 16),
        convolution=c.count("conv_kernel", 4, most=1 << 16),
        convolution_bias=c.bool("use_conv_bias", True),
        bias=bias,
        output_bias=bias,
        norm=RMSNorm(eps=eps),
        norm_groups=groups,
        step_min=c.float("time_step_min", 0.001),
    )


def _experts(c: Config, s: Sizes) -> MoE:
    c.only("n_shared_experts", 1)
    c.ignore("how experts are run", "moe_shared_expert_overlap")
    mlp = MLP(inner=s.inner, activation=s.activation)
    return MoE(
        router=router(c, experts=8, active=2, score="sigmoid", correction=True),
        expert=mlp.replace(inner=c.count("moe_intermediate_size", 7688)),
        shared=mlp.replace(inner=c.count("moe_shared_expert_intermediate_size", 7688)),
        latent=c.count("moe_latent_size", None),
    )


def read(c: Config) -> Architecture:
    found = _kinds(c)
    s = sizes(
        c,
        *(1e-5, "mlp_hidden_act", "relu2", "layer_norm_epsilon"),
        head_dim=128,
        kv_heads=8,
        default_context=4096,
        inner=21504,
        layers=len(found),
    )
    c.only("norm_eps", s.eps)
    c.only("mlp_bias", False)
    c.only("attention_bias", False)
    c.only("sliding_window", None)
    c.only("tie_word_embeddings", False)  # the reference ties nothing, whatever it says
    c.ignore("attention has no positions", "rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor")
    heads, later = _predicting(c)
    made: dict[str, Op] = {
        "mamba": _mamba(c, s.eps),
        "attention": s.attention(),
        "mlp": MLP(inner=s.inner, activation=s.activation),
        "moe": _experts(c, s),
    }
    ignore_running(c)
    norm = RMSNorm(eps=s.eps)
    branches = {kind: Branch(op=op, before=norm) for kind, op in made.items()}
    blocks = {kind: Block(branches=(branch,)) for kind, branch in branches.items()}
    arch = decoder(c, "nemotron_h", s, [blocks[kind] for kind in found], norm)
    head = Block(branches=tuple(branches[kind] for kind in later))
    return arch.replace(prediction=Prediction(blocks=(head,) * heads, norm=norm)) if heads else arch


FAMILIES = (Family("nemotron_h", ("nemotron_h",), read, nemotron.write, nemotron.layout),)
