"""Fields of feed-forwards that change a model."""

from __future__ import annotations

from lamina import arch as values
from lamina.arch import GLU, Clamp, Squash

CLAMP, SQUASH = Clamp(limit=1.0), Squash(gate=1.0)
USED = [
    (GLU(inner=7), {"clamp": CLAMP, "sparsity": 0.5, "squash": SQUASH, "gate_multiplier": 0.5}),
    (CLAMP, {"limit": 0.5, "shift": 1.0, "slope": 1.7, "after": True}),
    (SQUASH, {"gate": 0.5, "up": 0.5}),
]
HOLDING = {
    values.Clamp: lambda part: GLU(inner=7, clamp=part),
    values.Squash: lambda part: GLU(inner=7, squash=part),
}
