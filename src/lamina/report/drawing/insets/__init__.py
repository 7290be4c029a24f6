"""Insets: one mechanism alone, drawn from its own numbers. One file a kind of mechanism; each registers its types."""

from __future__ import annotations

from lamina.report.drawing.insets import attention, experts, latent, recurrent, stream
from lamina.report.drawing.insets.base import Inset, insets

__all__ = ["Inset", "attention", "experts", "insets", "latent", "recurrent", "stream"]
