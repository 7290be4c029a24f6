"""Fields of routers and mixtures of experts that change a model."""

from __future__ import annotations

from lamina import arch as values
from lamina.arch import GLU, MLP, MoE, RMSNorm, Router, RouterMLP

RMS = RMSNorm(eps=1e-3)
CHOICE = Router(experts=6, active=2)
GROUPS = Router(experts=20, active=3, groups=4, active_groups=1, group_best=1, score="sigmoid", logit_scale=0.1)
DEEP = RouterMLP(width=5)
EXPERTS = MoE(router=CHOICE, expert=GLU(inner=7))
USED = [
    (CHOICE, {"experts": 7, "active": 3, "score": "sigmoid", "normalise": False, "scale": 2.0, "correction": True}),
    (CHOICE, {"groups": 3, "bias": True, "softcap": 0.5, "hashed": True, "norm": RMS, "logit_scale": 0.3}),
    (CHOICE, {"mlp": DEEP, "expert_scale": True, "sparse_mixer": 0.4, "shared": 2}),
    (GROUPS, {"active_groups": 2, "group_best": 3}),
    (DEEP, {"width": 4, "layers": 3, "carried": True, "norm": RMSNorm(eps=1.0)}),
    (
        EXPERTS,
        {
            "router": CHOICE.replace(scale=2.0),
            "expert": MLP(inner=7),
            "shared": GLU(inner=4),
            "latent": 5,
            "expert_norm": RMS,
        },
    ),
    (EXPERTS, {"identities": 2, "scaled": "input", "given_norm": RMS, "scale": 0.5}),
    (EXPERTS.replace(shared=GLU(inner=4)), {"shared_gate": True}),
    (EXPERTS.replace(latent=5), {"latent_norm": RMS}),
    (EXPERTS.replace(identities=2), {"identities_give": "nothing"}),
]
HOLDING = {
    values.Router: lambda part: EXPERTS.replace(router=part, shared=GLU(inner=4) if part.shared else None),
    values.RouterMLP: lambda part: EXPERTS.replace(router=CHOICE.replace(mlp=part)),
}
