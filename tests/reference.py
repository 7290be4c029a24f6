"""The reference implementation: tiny random checkpoints of it, written by its own save_pretrained."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

_ROOT = tempfile.TemporaryDirectory(prefix="lamina-reference-")


def randomise(model: torch.nn.Module, seed: int = 0) -> None:
    """Weights that make every part matter: spread-out scores, norms and biases away from one and zero."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=random)
            if p.ndim >= 2:
                p.copy_(noise * (1.2 / p.shape[-1] ** 0.5))
            elif "norm" in name or "ln_" in name:
                p.add_(0.3 * noise)
            else:
                p.copy_(0.5 * noise)
        for b in kept_buffers(model).values():
            b.add_(0.1 * torch.randn(b.shape, generator=random))


def kept_buffers(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The buffers that a checkpoint holds: routing corrections, scalars of layers."""
    saved = model.state_dict()
    return {name: b for name, b in model.named_buffers() if name in saved and b.is_floating_point()}


@functools.cache
def reference(row: Any) -> tuple[torch.nn.Module, Path]:
    """The reference model of a row of the table, and the directory that holds its checkpoint."""
    import transformers

    config = getattr(transformers, row.config_class)(**row.config)
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model = getattr(transformers, row.model_class)(config).eval()
    randomise(model)
    directory = Path(_ROOT.name) / row.name
    model.save_pretrained(directory)
    return model, directory


def ids(batch: int, tokens: int, vocab: int = 97, seed: int = 1) -> torch.Tensor:
    return torch.randint(3, vocab, (batch, tokens), generator=torch.Generator().manual_seed(seed))


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference, relative to the largest of `b`."""
    return float((a - b).abs().max() / b.abs().max())
