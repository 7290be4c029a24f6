"""Nemotron-H as it is published: its config, and its tensors."""

from __future__ import annotations

from typing import Any, TypeVar

from lamina.arch import MLP, Architecture, Attention, Block, Mamba2, MoE
from lamina.arch.base import Op
from lamina.published.common import published
from lamina.published.config import LATER
from lamina.published.recurrent import mamba2_rules
from lamina.published.rules import Layout, Rule, named

Found = TypeVar("Found", bound=Op)

KINDS: dict[type[Op], str] = {Mamba2: "linear_attention", Attention: "full_attention", MLP: "mlp", MoE: "moe"}
ROOT = "backbone."
USUAL = Attention(heads=32, kv_heads=8, head_dim=128)
"""The attention that the reference's config speaks of, whether or not a block has one."""


def _first(arch: Architecture, kind: type[Found]) -> Found | None:
    return next((op for op in arch.ops() if isinstance(op, kind)), None)


def _kinds(block: Block) -> list[str]:
    """What its branches are."""
    return [KINDS[type(op)] for op in block.ops()]


def write(arch: Architecture) -> dict[str, Any]:
    attention = _first(arch, Attention) or USUAL
    keys: dict[str, Any] = {
        "model_type": "nemotron_h",
        "architectures": ["NemotronHForCausalLM"],
        "vocab_size": arch.vocab,
        "hidden_size": arch.width,
        "layers_block_type": [kind for block in arch.blocks for kind in _kinds(block)],
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.kv_heads,
        "head_dim": attention.head_dim,
        "max_position_embeddings": arch.context,
        "layer_norm_epsilon": arch.norm.eps if arch.norm else None,
        "tie_word_embeddings": arch.head.tied,
    }
    if op := _first(arch, Mamba2):
        keys |= _mamba(op)
    if op := _first(arch, MLP):
        keys |= {"intermediate_size": op.inner, "mlp_hidden_act": published(op.activation)}
    if op := _first(arch, MoE):
        keys |= _experts(op)
    if arch.prediction:
        heads = arch.prediction.blocks
        keys |= {"num_nextn_predict_layers": len(heads), "mtp_layers_block_type": _kinds(heads[0])}
    return keys


def _mamba(op: Mamba2) -> dict[str, Any]:
    return {
        "mamba_num_heads": op.heads,
        "mamba_head_dim": op.head_dim,
        "n_groups": op.groups,
        "ssm_state_size": op.state,
        "conv_kernel": op.convolution,
        "use_conv_bias": op.convolution_bias,
        "use_bias": op.bias,
        "time_step_min": op.step_min,
    }


def _experts(moe: MoE) -> dict[str, Any]:
    router = moe.router
    return {
        "n_routed_experts": router.experts,
        "num_experts_per_tok": router.active,
        "norm_topk_prob": router.normalise,
        "routed_scaling_factor": router.scale,
        "n_group": router.groups,
        "topk_group": router.active_groups,
        "n_shared_experts": 1,
        "moe_intermediate_size": moe.expert.inner,
        "moe_shared_expert_intermediate_size": moe.shared.inner if moe.shared else None,
        "moe_latent_size": moe.latent,
        "mlp_hidden_act": published(moe.expert.activation),
    }


EXPERTS = (
    *named("experts.{e}.", "experts.", "up_proj down_proj"),
    *named("shared_experts.", "shared.", "up_proj down_proj"),
    *named("gate", "router.", ":gate .e_score_correction_bias:correction"),
    *named("", "", "fc1_latent_proj:latent_down fc2_latent_proj:latent_up"),
)
TENSORS: dict[type[Op], tuple[Rule, ...]] = {
    Mamba2: mamba2_rules("", ""),
    Attention: named("", "", "q_proj k_proj v_proj o_proj"),
    MLP: named("", "", "up_proj down_proj"),
    MoE: EXPERTS,
}
"""The tensors of an op, by its kind."""


def _branch(theirs: str, ours: str, op: Op) -> tuple[Rule, ...]:
    """The tensors of a branch, which is a layer of theirs."""
    ops = (rule.within(f"{theirs}mixer.", f"{ours}.op.") for rule in TENSORS[type(op)])
    return (Rule(f"{theirs}norm", f"{ours}.before"), *ops)


def _heads(arch: Architecture) -> list[Rule]:
    """The tensors of the heads for later tokens: layers of their own, with what is around a head in the outer ones.

    Source: published checkpoints and vLLM, for the reference passes over them.
    """
    rules: list[Rule] = []
    layer = 0
    for d, block in enumerate(arch.prediction.blocks if arch.prediction else ()):
        first, ours = f"mtp.layers.{layer}.", f"prediction.{d}."
        rules += named(first, ours, "enorm:embedding_norm hnorm:hidden_norm eh_proj:joining")
        for role, branch in block.named_branches().items():
            rules += _branch(f"mtp.layers.{layer}.", f"{ours}block.{role}", branch.op)
            layer += 1
        rules.append(Rule(f"mtp.layers.{layer - 1}.final_layernorm", f"{ours}norm"))
    return rules


def layout(arch: Architecture) -> Layout:
    rules = [Rule(f"{ROOT}embeddings.weight", "embedding.table"), Rule(f"{ROOT}norm_f", "norm")]
    ops = [block.branches[0].op for block in arch.blocks]
    for kind, op in {type(op): op for op in ops}.items():
        places = [i for i, other in enumerate(ops) if isinstance(other, kind)]
        rules += (rule.limited(places) for rule in _branch(f"{ROOT}layers.{{i}}.", f"blocks.{{i}}.{op.role}", op))
    skip = {} if arch.prediction else {r"(.*\.)?mtp\..*": LATER}
    spellings = ((ROOT, "model."), (ROOT, f"language_model.{ROOT}"))
    return Layout((*rules, *_heads(arch), Rule("lm_head", "head")), spellings=spellings, skip=skip)
