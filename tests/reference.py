"""The reference implementation: tiny random checkpoints of it, written by its own save_pretrained."""

from __future__ import annotations

import functools
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import lamina

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
        for name, b in model.named_buffers():
            if name.endswith("tid2eid"):  # the experts of each token, no two alike
                experts: int = model.config.num_local_experts  # type: ignore[assignment]
                b.copy_(torch.rand(len(b), experts, generator=random).argsort(-1)[:, : b.shape[1]])


CONSTANT = ("slope_rate", "query_decay", "key_decay", "diagonal_decay")
"""Buffers that checkpoints hold and that follow from the config: they are left as they are, and counted nowhere."""


def kept_buffers(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The buffers that a checkpoint holds: routing corrections, scalars of layers; no constants, which have no size."""
    saved = {name for name in model.state_dict() if not name.endswith(CONSTANT)}
    return {name: b for name, b in model.named_buffers() if name in saved and b.is_floating_point() and b.ndim}


@functools.cache
def reference(row: Any) -> tuple[torch.nn.Module, Path]:
    """The reference model of a row of the table, and the directory that holds its checkpoint."""
    import transformers

    config = getattr(transformers, row.config_class)(**row.config)
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model = getattr(transformers, row.model_class)(config).eval().float()  # some make parameters in bfloat16
    randomise(model)
    directory = Path(_ROOT.name) / row.name
    model.save_pretrained(directory)
    return model, directory


def loaded(row: Any, directory: Path) -> torch.nn.Module:
    """What the reference loads of a directory; of an image-text row, the text decoder among the row's own encoders."""
    import transformers

    made, options = getattr(transformers, row.model_class), {"attn_implementation": "eager"}
    if "text_config" not in row.config:
        return made.from_pretrained(directory, **options)
    text = json.loads((directory / "config.json").read_text())
    config = getattr(transformers, row.config_class)(**row.config | {"text_config": text})
    return made.from_pretrained(directory, config=config, **options).float()


def held(row: Any, model: torch.nn.Module) -> list[torch.Tensor]:
    """What a checkpoint holds of a reference model, each tensor once; of an image-text row, of its text decoder."""
    parts: list[Any] = [model]
    if "text_config" in row.config:
        parts = [model.get_decoder(), model.get_output_embeddings()]  # type: ignore[operator]
    found = [tensor for part in parts for tensor in (*part.parameters(), *kept_buffers(part).values())]
    return list({id(tensor): tensor for tensor in found}.values())


def ids(batch: int, tokens: int, vocab: int = 97, seed: int = 1) -> torch.Tensor:
    return torch.randint(3, vocab, (batch, tokens), generator=torch.Generator().manual_seed(seed))


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference, relative to the largest of `b`."""
    return float((a - b).abs().max() / b.abs().max())


def saves_what_it_read(model: Any, tensors: dict[str, torch.Tensor], directory: Path) -> dict[str, Any]:
    """Asserts that a model is saved with the tensors of its checkpoint, and is counted by them; returns its config."""
    lamina.save(model, directory)
    saved = load_file(directory / "model.safetensors")
    assert set(saved) == set(tensors)
    assert all(torch.equal(saved[name], tensor) for name, tensor in tensors.items())
    assert lamina.load(directory).arch == model.arch
    assert lamina.Architecture.from_json(model.arch.to_json()) == model.arch
    assert model.arch.parameters().total == sum(tensor.numel() for tensor in tensors.values())
    return json.loads((directory / "config.json").read_text())


@torch.inference_mode()
def changes_nothing(model: Any) -> None:
    """Asserts that a model gives the same in pieces, padded, restored and with rows chosen as at once and alone."""
    x, lengths = ids(3, 29, model.arch.vocab), [17, 29, 5]
    whole = model(x)
    for pieces in ([29], [1] * 29, [5, 1, 7, 9, 7], [3, 20, 1, 1, 4]):
        state = model.init_state(3, 31)
        assert relative(torch.cat([model(piece, state) for piece in x.split(pieces, 1)], 1), whole) <= 1e-5
        assert state.nbytes == model.arch.state_bytes(31, 3, "float32")
    state = model.init_state(3, 31)
    padded = model(x, state, lengths=torch.tensor(lengths))
    saved = state.snapshot()
    after = model(x[:, :1], state)
    for i, n in enumerate(lengths):
        assert relative(padded[i, :n], whole[i, :n]) <= 1e-5
        assert relative(after[i, 0], model(torch.cat([x[i : i + 1, :n], x[i : i + 1, :1]], 1))[0, -1]) <= 1e-5
    state.restore(saved)
    state.select([2, 0, 2])
    assert relative(model(x[[2, 0, 2], :1], state), after[[2, 0, 2]]) <= 1e-5
