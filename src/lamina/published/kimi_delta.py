"""Kimi Delta Attention as a config.json and its tensors write it."""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, KimiDeltaAttention, LatentAttention, RMSNorm
from lamina.errors import LaminaError
from lamina.published import latent
from lamina.published.common import Sizes
from lamina.published.config import Config
from lamina.published.experts import layer_kinds
from lamina.published.rules import Rule, named

LINEAR, FULL = "linear_attention", "full_attention"
SPELT = {"max_position_embeddings": "model_max_length", "n_routed_experts": "num_experts"}
SPELT |= {"num_experts_per_tok": "num_experts_per_token", "n_shared_experts": "num_shared_experts"}
SPELT |= {"norm_topk_prob": "moe_renormalize", "n_group": "num_expert_group"}
"""How Kimi Linear and Ling 3.0 spell keys."""
_NAMES = """q_proj k_proj v_proj b_proj:step_proj f_proj:decay_proj f_a_proj:decay_a_proj f_b_proj:decay_b_proj
dt_bias:decay_bias g_proj:gate_proj g_a_proj:gate_a_proj g_b_proj:gate_b_proj o_norm:norm"""


def rules(theirs: str = "self_attn.", output: str = "o_proj", ones: tuple[int, ...] = ()) -> tuple[Rule, ...]:
    """The tensors of one; `ones` are the places of dimensions of one that its rates are published with.

    Rates that have none may be padded: those of the 96 heads of Kimi K3 are 128 numbers.
    """
    ours = "mixer.op."
    parts = {part: f"{ours}{part}_proj" for part in "qkv"}
    rates = Rule(f"{theirs}A_log", f"{ours}decay_log_rate", ones=ones)
    return (
        *named(theirs, ours, _NAMES),
        rates if ones else rates.padded(),
        Rule(f"{theirs}{{part}}_conv1d", f"{ours}convolution", parts=parts),
        Rule(theirs + output, f"{ours}o_proj"),
    )


def sized(
    dim: int, eps: float, decay_rank: int | None, gate_rank: int | None, floor: float | None, **sizes: int
) -> KimiDeltaAttention:
    """One whose keys are as wide as its values."""
    ranks: dict[str, Any] = {"decay_rank": decay_rank, "gate_rank": gate_rank, "decay_floor": floor}
    return KimiDeltaAttention(key_dim=dim, value_dim=dim, norm=RMSNorm(eps=eps), **ranks, **sizes)


def read(c: Config, s: Sizes) -> tuple[KimiDeltaAttention, list[str]]:
    """The linear layers, and which kind each layer is; published in an object of their own, or beside the rest."""
    own = c.sub("linear_attn_config") if "linear_attn_config" in c else Config({}, c.where)
    dim = own.count("head_dim", c.count("linear_head_dim", 128))
    op = KimiDeltaAttention(
        heads=own.count("num_heads", c.count("linear_num_heads", 32)),
        key_dim=dim,
        value_dim=dim,
        convolution=own.count("short_conv_kernel_size", c.count("linear_conv_kernel_dim", 4)),
        decay_rank=dim,
        gate_rank=None if own.bool("use_full_rank_gate", False) else dim,
        decay_floor=own.float("gate_lower_bound", None),
        norm=RMSNorm(eps=s.eps),
    )
    kinds = _kinds(c, own.list("full_attn_layers", []), own.list("kda_layers", []), s.layers)
    own.finish()
    return op, kinds


def _kinds(c: Config, full: list[int], linear: list[int], layers: int) -> list[str]:
    """The kind of each layer; published layers count from one. Raises: LaminaError if what says so disagrees."""
    usual = [FULL if i and i % 4 == 0 else LINEAR for i in range(layers)]
    if full or linear:
        if sorted(full + linear) != list(range(1, layers + 1)):
            raise LaminaError(f"{c.where}: full_attn_layers and kda_layers must hold each of 1 to {layers} once")
        usual = [FULL if i + 1 in full else LINEAR for i in range(layers)]
    kinds = c.layer_types(layers, usual, (FULL, LINEAR))
    if (full or linear) and kinds != usual:
        raise LaminaError(f"{c.where}: layer_types and linear_attn_config disagree on which layers are linear")
    return kinds


def decoder_keys(arch: Architecture, architecture: str) -> dict[str, Any]:
    """What `latent.keys` says, in that spelling; which layers are dense as a list only where they are not the first."""
    said = {SPELT.get(key, key): value for key, value in latent.keys(arch, architecture).items()}
    if (kinds := layer_kinds(arch))["mlp_layer_types"] != sorted(kinds["mlp_layer_types"]):
        said = {key: value for key, value in said.items() if key != "first_k_dense_replace"} | kinds
    return said


def of(arch: Architecture) -> KimiDeltaAttention:
    """The first linear layer."""
    return next(op for op in arch.ops() if isinstance(op, KimiDeltaAttention))


def kinds_of(arch: Architecture, full: str = FULL) -> list[str]:
    """`layer_types`; `full` is what the layers are called that attend."""
    mixers = (next(block.ops()) for block in arch.blocks)
    return [full if isinstance(mixer, LatentAttention) else LINEAR for mixer in mixers]


def own_keys(arch: Architecture) -> dict[str, Any]:
    """What `read` reads in the object of the linear layers' own."""
    op, kinds = of(arch), kinds_of(arch)
    said = {
        "head_dim": op.key_dim,
        "num_heads": op.heads,
        "short_conv_kernel_size": op.convolution,
        "use_full_rank_gate": op.gate_rank is None,
        "full_attn_layers": [i + 1 for i, kind in enumerate(kinds) if kind == FULL],
        "kda_layers": [i + 1 for i, kind in enumerate(kinds) if kind == LINEAR],
    }
    return said | ({"gate_lower_bound": op.decay_floor} if op.decay_floor else {})
