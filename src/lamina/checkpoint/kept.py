"""Weights that stay as they are stored: from the tensors of a checkpoint into the modules that compute with them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from lamina.checkpoint.tensors import StoredTensor
from lamina.nn.basic import Packable
from lamina.ops.grid import Grid
from lamina.ops.packed import Packed, stacked
from lamina.published.rules import Entry


def keep(
    model: nn.Module, entry: Entry, tensors: Sequence[StoredTensor], dtype: torch.dtype, device: torch.device
) -> bool:
    """Puts the tensors of an entry where its parameters were, byte for byte; False where they must be expanded.

    They must be where a plain format is stored, a module needs the values at hand, a matrix would be turned or have
    other dimensions, a tile of scales cut, rows taken in turns, or one parameter put together of several tensors.
    """
    owners = [(model.get_submodule(path), leaf) for path, _, leaf in (name.rpartition(".") for name in entry.ours)]
    if not all(isinstance(owner, Packable) and leaf in owner.packable for owner, leaf in owners):
        return False
    forms = [form for tensor in tensors if tensor.transposed == entry.transpose and (form := tensor.packed(dtype))]
    one = forms[0].format if forms else None
    if len(forms) < len(tensors) or any(form.format != one for form in forms):
        return False
    if entry.turns or entry.folded or entry.ones or entry.without is not None or entry.rows:
        return False
    if entry.interleaved and isinstance(one, Grid) and one.rows > 1:
        return False
    sizes = [getattr(owner, leaf).shape[-2] for owner, leaf in owners]
    columns = zip(*(_cut(form, sizes, entry.interleaved) for form in forms), strict=True)
    for (owner, leaf), parts in zip(owners, columns, strict=True):
        delattr(owner, leaf)
        setattr(owner, leaf, stacked(parts).to(device) if entry.each_expert else parts[0].copy(device))
    return True


def _cut(form: Packed, sizes: Sequence[int], interleaved: bool) -> list[Packed]:
    """The parts of several parameters, of so many rows each."""
    if len(sizes) == 1:
        return [form]
    total = sum(sizes)
    if interleaved:
        return [form.cut(i, total, len(sizes)) for i in range(len(sizes))]
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return [form.cut(end - size, end) for size, end in zip(sizes, ends, strict=True)]
