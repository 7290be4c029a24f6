"""GLM-4.7-Flash: latent attention, and experts.

Source: the published config and reference.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture
from lamina.families.deepseek import blocks_around
from lamina.published import latent, rope
from lamina.published.common import Family
from lamina.published.config import Config
from lamina.published.experts import mixture, router, sparse_blocks, sparse_layers
from lamina.published.prediction import drafting


def read_lite(c: Config) -> Architecture:
    s = latent.sizes(c, eps=1e-5, default_context=202752)
    op = latent.attention(c, s, query_latent=768, plain=192, value=256)
    op = latent.rotated(c, s, op, rope.parameters(c, 10000.0), latent.layout(c))
    gate = router(c, 64, 4, "sigmoid", scale=1.8, correction=True)
    moe = mixture(c, s, gate, 1536, shared=1)
    return blocks_around(c, "glm4_moe_lite", s, [op] * s.layers, moe, sparse_layers(c, s.layers, 1))


def write_lite(arch: Architecture) -> dict[str, Any]:
    said = latent.keys(arch, "Glm4MoeLiteForCausalLM") | {"rope_interleave": latent.interleaved(arch)}
    said["mlp_layer_types"] = ["sparse" if has else "dense" for has in sparse_blocks(arch)]
    del said["first_k_dense_replace"]  # which the list says
    return {"model_type": "glm4_moe_lite", **said}


FAMILIES = (
    drafting(Family("glm4_moe_lite", ("glm4_moe_lite",), read_lite, write_lite, latent.layout_of), latent.BLOCK),
)
