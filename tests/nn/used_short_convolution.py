"""Fields of the gated short convolution that change a model."""

from __future__ import annotations

from lamina.arch import ShortConvolution

USED = [(ShortConvolution(kernel=3), {"kernel": 4, "bias": True})]
