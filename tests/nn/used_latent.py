"""Fields of latent attention that change a model."""

from __future__ import annotations

from lamina.arch import LatentAttention, LayerNorm, LearnedTemperature, LengthTemperature, Rotary

TURN = Rotary(base=100.0, dim=6)
LATENT = LatentAttention(heads=3, latent=5, query_latent=7, plain_dim=4, rotary_dim=6, value_dim=8)
LARGER = {"heads": 2, "latent": 6, "query_latent": None, "plain_dim": 3, "rotary_dim": 4, "value_dim": 5}
USED = [
    (LATENT, LARGER),
    (LATENT, {"rotary": TURN, "norm": LayerNorm(eps=1e-3), "scale": 0.9, "query_scale": 1.5, "latent_scale": 1.5}),
    (LATENT, {"gate": "head", "bias": True, "sinks": True, "temperature": LengthTemperature(floor=4, scale=0.3)}),
    (LATENT.replace(gate="head"), {"gate": "elementwise"}),
    (LATENT.replace(temperature=LengthTemperature(floor=4, scale=0.3)), {"temperature": LearnedTemperature()}),
]
ELSEWHERE = {(LatentAttention, "kv_from"): "reads an earlier block: test_latent.py"}
