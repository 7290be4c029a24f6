"""Hunyuan 4: sparse latent attention with sinks and gates, and four residual streams that do not mix.

Source: the published Hy4-preview config and the reference's code.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import GLU, Architecture, Clamp, HyperConnections, LayerNorm, RMSNorm
from lamina.published import latent, rope, streams
from lamina.published.common import Family, decoder, pre_norms
from lamina.published.config import Config
from lamina.published.experts import layer_kinds, mixture, moe_of, router, sparse_layers
from lamina.published.rules import CORRECTION, PRE_NORMS, ROUTER, Layout, Rule, decoder_rules, later_layers


def read(c: Config) -> Architecture:
    s = latent.sizes(c, eps=1e-5, default_context=262144)
    norm = RMSNorm(eps=s.eps)
    c.ignore("training", "learnable_sink_init")
    c.layer_types(s.layers, ["indexed_attention"] * s.layers, ("indexed_attention",))
    op = latent.attention(c, s, plain=192, value=256, gate="elementwise", sinks=True)
    op = latent.rotated(c, s, op, rope.parameters(c, 10000.0), "half")
    if "indexer_types" not in c:
        c.data["indexer_types"] = ["full" if i == 0 or i % 4 == 1 else "shared" for i in range(s.layers)]
    own = latent.indexer(c, op.rotary, 16, norm=LayerNorm(eps=s.eps), rotated="last")
    made = {shared: op.replace(indexer=own.replace(shared=shared)) for shared in (False, True)}
    ops = [made[shared] for shared in latent.shared_choices(c, s.layers)]
    limit = c.float("swiglu_limit", 10.0)
    expert = s.glu().replace(clamp=Clamp(limit=limit) if limit > 0 else None)
    gate = router(c, 256, 8, "sigmoid", scale=2.827, correction=True)
    moe = mixture(c, s, gate, 768, shared=1, expert=expert)
    moe = moe.replace(shared=moe.shared.replace(clamp=None) if moe.shared else None)
    feed_forwards = [moe if sparse else s.glu() for sparse in sparse_layers(c, s.layers, 1)]
    stream = streams.hyper_connections(c, s.eps, mixed=False, magnitude=c.float("hc_magnitude", 2.0))
    return decoder(c, "hy_v4", s, pre_norms(ops, feed_forwards, norm), norm).replace(stream=stream)


def write(arch: Architecture) -> dict[str, Any]:
    said = latent.keys(arch, "HYV4ForCausalLM") | latent.indexer_keys(arch) | layer_kinds(arch)
    del said["first_k_dense_replace"]  # which the list says
    expert, stream = moe_of(arch).expert, arch.stream
    assert isinstance(expert, GLU)
    assert isinstance(stream, HyperConnections)
    limit = {"swiglu_limit": expert.clamp.limit if expert.clamp else 0.0, "hc_magnitude": stream.magnitude}
    return {"model_type": "hy_v4", **said, **limit, **streams.hyper_keys(arch)}


def _rules(gate: str, sinks: str, mixer: str, feed_forward: str, end: str) -> tuple[Rule, ...]:
    """The tensors, by what some of them are called."""
    names = {gate: "gate_proj", "up_proj": "up_proj", "down_proj": "down_proj"}
    experts = "feed_forward.op.experts."
    block = (
        *(*latent.attention_rules(), *latent.INDEXER, *PRE_NORMS, *ROUTER, *CORRECTION),
        Rule(f"self_attn.{gate}", "mixer.op.gate_proj"),
        Rule(f"self_attn.{sinks}", "mixer.op.sinks"),
        *(Rule(f"mlp.{theirs}", f"feed_forward.op.{ours}") for theirs, ours in names.items()),
        *(Rule(f"mlp.shared_experts.{theirs}", f"feed_forward.op.shared.{ours}") for theirs, ours in names.items()),
        Rule("mlp.experts.gate_up_proj", experts + "gate_proj.weight", experts + "up_proj.weight", stacked=True),
        Rule("mlp.experts.down_proj", experts + "down_proj.weight", stacked=True),
        *streams.around_branches(mixer, feed_forward),
    )
    return decoder_rules(block) + streams.at_the_end(end)


HYPER = "hc_pre.hc_attn_layer.hc_", "hc_pre.hc_mlp_layer.hc_", "model.hc_pre.hc_head.hc_head_"
RULES = _rules("linear_gate", "learnable_sink_param", *HYPER)
OTHERS = (_rules("gate_proj", "sinks", "attn_hc.", "ffn_hc.", "model.hc_head.hc_"),)
"""As the reference's own modules are called."""


def layout(arch: Architecture) -> Layout:
    return Layout(RULES, skip=later_layers(len(arch.blocks)), others=OTHERS)


FAMILIES = (Family("hy_v4", ("hy_v4",), read, write, layout),)
