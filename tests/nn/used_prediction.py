"""Heads for later tokens change no logits: what they do is tested in tests/generation/test_speculative.py."""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, Node, Prediction

USED: list[tuple[Node, dict[str, Any]]] = []
DRAFTS = "drafts tokens: tests/generation/test_speculative.py"
ELSEWHERE = {
    (Architecture, "prediction"): DRAFTS,
    (Prediction, "blocks"): DRAFTS,
    (Prediction, "norm"): DRAFTS,
    (Prediction, "first"): DRAFTS,
}
