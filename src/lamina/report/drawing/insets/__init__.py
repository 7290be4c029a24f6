"""Insets: one mechanism alone, drawn from its own numbers. One file a kind of mechanism; each registers its types."""

from __future__ import annotations

from lamina.report.drawing.insets import attention, differential, experts, latent, recurrent, shared, stream
from lamina.report.drawing.insets.base import Inset, insets

__all__ = ["Inset", "attention", "differential", "experts", "insets", "latent", "recurrent", "shared", "stream"]
