"""DeepSeek V4: attention to a window and compressed entries, hyper-connections, experts chosen by token id.

Source: the publisher's report on DeepSeek-V4; arXiv 2512.24880 (hyper-connections).
"""

from __future__ import annotations

from typing import Any

from lamina.arch import GLU, Architecture, Clamp, MoE, RMSNorm
from lamina.published import compressed, streams
from lamina.published.common import Family, Sizes, decoder, pre_norm, sizes
from lamina.published.common import published as activation
from lamina.published.compressed import RULES as ATTENTION
from lamina.published.config import LATER, Config
from lamina.published.experts import PUBLISHED_SCORES, mixture, moe_of, router, router_keys
from lamina.published.rules import Layout, Rule


def read(c: Config) -> Architecture:
    c.ignore(LATER, "num_nextn_predict_layers")
    c.ignore("storage", "expert_dtype")
    c.only("attention_bias", False)
    c.only("mlp_bias", False)
    c.data = c.data | {"intermediate_size": c.count("moe_intermediate_size", 2048)}  # no layer is dense
    c.only("num_key_value_heads", 1)
    s = sizes(c, kv_heads=1, head_dim=512, default_context=1048576)
    norm, kinds, hashed = RMSNorm(eps=s.eps), compressed.kinds(c, s.layers), _hashed(c, s.layers)
    mixers, experts = compressed.mixers(c, s, norm), _mixtures(c, s)
    layers = list(zip(kinds, hashed, strict=True))
    made = {(kind, by_id): pre_norm(mixers[kind], experts[by_id], norm) for kind, by_id in set(layers)}
    stream = streams.hyper_connections(c, s.eps)
    return decoder(c, "deepseek_v4", s, [made[layer] for layer in layers], norm).replace(stream=stream)


def _hashed(c: Config, layers: int) -> list[bool]:
    """Which layers choose experts by token id."""
    first = c.count("num_hash_layers", 3, least=0)
    usual = ["hash_moe" if i < first else "moe" for i in range(layers)]
    kinds = compressed.listed(c, "mlp_layer_types", usual, ("hash_moe", "moe"), layers)
    return [kind == "hash_moe" for kind in kinds]


def _mixtures(c: Config, s: Sizes) -> dict[bool, MoE]:
    """By whether the token's id chooses."""
    c.only("norm_topk_prob", True)
    c.only("n_shared_experts", 1)
    expert = GLU(inner=s.inner, activation=s.activation, clamp=Clamp(limit=c.float("swiglu_limit", 10.0)))
    gate = router(c, 256, 6, "sqrt_softplus", scale=1.5, correction=True, other_scores=("softmax", "sigmoid"))
    moe = mixture(c, s, gate, 2048, shared=1, expert=expert)
    return {False: moe, True: moe.replace(router=gate.replace(hashed=True, correction=False))}


def write(arch: Architecture) -> dict[str, Any]:
    moe, norm = moe_of(arch), arch.norm
    assert norm
    assert isinstance(moe.expert, GLU)
    assert moe.expert.clamp
    routers = [op.router for op in arch.ops() if isinstance(op, MoE)]
    counts = router_keys(moe.router, "n_routed_experts")
    del counts["n_group"], counts["topk_group"]
    return {
        "model_type": "deepseek_v4",
        "architectures": ["DeepseekV4ForCausalLM"],
        "vocab_size": arch.vocab,
        "hidden_size": arch.width,
        "num_hidden_layers": len(arch.blocks),
        "hidden_act": activation(moe.expert.activation),
        "max_position_embeddings": arch.context,
        "rms_norm_eps": norm.eps,
        "tie_word_embeddings": arch.head.tied,
        "moe_intermediate_size": moe.expert.inner,
        "mlp_layer_types": ["hash_moe" if gate.hashed else "moe" for gate in routers],
        "scoring_func": next(name for name, score in PUBLISHED_SCORES.items() if score == moe.router.score),
        "swiglu_limit": moe.expert.clamp.limit,
        "num_nextn_predict_layers": 0,
        **counts,
        **compressed.keys(arch),
        **streams.hyper_keys(arch),
    }


_GLU = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
BLOCK = (
    *ATTENTION,
    Rule("attn_norm", "mixer.before"),
    Rule("ffn_norm", "feed_forward.before"),
    Rule("ffn.gate.bias", "feed_forward.op.router.correction"),
    Rule("ffn.gate.tid2eid", "feed_forward.op.router.by_token"),
    Rule("ffn.gate", "feed_forward.op.router.gate"),
    *(Rule(f"ffn.experts.{{e}}.{w}", f"feed_forward.op.experts.{name}") for w, name in _GLU.items()),
    *(Rule(f"ffn.shared_experts.{w}", f"feed_forward.op.shared.{name}") for w, name in _GLU.items()),
    *streams.around_branches("hc_attn_", "hc_ffn_"),
)


def _rules(root: str, embedding: str, end: str) -> tuple[Rule, ...]:
    around = (Rule(embedding, "embedding.table"), Rule(f"{root}norm", "norm"), Rule("head", "head"))
    return (*around, *(rule.within(f"{root}layers.{{i}}.", "blocks.{i}.") for rule in BLOCK), *streams.at_the_end(end))


LAYOUT = Layout(
    _rules("model.", "model.embed_tokens.weight", "model.hc_head.hc_"),
    spellings=(),
    skip={r"(model\.)?mtp\..*": LATER},
    others=(_rules("", "embed.weight", "hc_head_"),),
)
FAMILIES = (Family("deepseek_v4", ("deepseek_v4",), read, write, LAYOUT),)
