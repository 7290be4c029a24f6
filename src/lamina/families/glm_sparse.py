"""GLM-5 and 5.2: sparse latent attention, where a layer may take over the choice of one before.

Source: the published configs and reference; arXiv 2602.15763 (GLM-5), 2603.12201 (shared choices).
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture
from lamina.families.deepseek import blocks_around
from lamina.published import latent, rope
from lamina.published.common import Family
from lamina.published.config import Config
from lamina.published.experts import layer_kinds, mixture, router, sparse_layers
from lamina.published.prediction import drafting


def read(c: Config) -> Architecture:
    s = latent.sizes(c, eps=1e-5, default_context=202752)
    c.only("mlp_bias", False)
    c.only("rope_interleave", True)
    c.only("indexer_rope_interleave", True)
    c.layer_types(s.layers, ["indexed_attention"] * s.layers, ("indexed_attention",))
    op = latent.attention(c, s, query_latent=2048, plain=192, value=256)
    op = latent.rotated(c, s, op, rope.parameters(c, 10000.0))
    moe = mixture(c, s, router(c, 256, 8, "sigmoid", scale=2.5, correction=True), 2048, shared=1)
    own = latent.indexer(c, op.rotary)
    made = {shared: op.replace(indexer=own.replace(shared=shared)) for shared in (False, True)}
    ops = [made[shared] for shared in latent.shared_choices(c, s.layers)]
    return blocks_around(c, "glm_moe_dsa", s, ops, moe, sparse_layers(c, s.layers, 3))


def write(arch: Architecture) -> dict[str, Any]:
    said = latent.keys(arch, "GlmMoeDsaForCausalLM") | latent.indexer_keys(arch) | layer_kinds(arch)
    del said["first_k_dense_replace"]  # which the list says
    return {"model_type": "glm_moe_dsa", **said}


FAMILIES = (
    drafting(Family("glm_moe_dsa", ("glm_moe_dsa",), read, write, latent.sparse_layout), latent.BLOCK + latent.INDEXER),
)
