"""Saving in a published layout: the family's rules backwards."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lamina.arch import Architecture, Rotary
from lamina.arch.diff import differences
from lamina.arch.edit import rewritten
from lamina.arch.mixers import Attention as AttentionValue
from lamina.arch.norm import RMSNorm
from lamina.checkpoint.safetensors import save_sharded
from lamina.checkpoint.staging import staged_directory
from lamina.errors import LaminaError
from lamina.families import family_named, read_config
from lamina.nn.attention import Attention
from lamina.nn.basic import RMSNorm as RMSNormModule
from lamina.nn.build import empty, tables, weights
from lamina.nn.decoder import Model
from lamina.ops.packed import Packed
from lamina.published.rules import Entry, entries

Change = Callable[[Tensor], Tensor]


def save(model: Model, directory: str | os.PathLike[str], layout: str | None = None) -> Path:
    """Writes config.json, safetensors and tokenizer so that `transformers` loads them (and `load` too).

    `layout` is a family's name, the one the architecture was read from if not given; "lamina" is our own, which
    holds any architecture and which only Lamina reads. Rotary layout and norm offset, which a GGUF file stores
    otherwise, are converted. Weights that are kept as stored are written expanded, one at a time, in the type the model
    computes in. Everything is written beside `directory` and renamed: a failure leaves nothing.

    Raises: LaminaError if the layout cannot express the architecture (naming the first path that differs), or
    if the directory holds something already, or cannot be written.
    """
    target = Path(directory).expanduser()
    family = family_named(layout or model.arch.family)
    config, published = _published(model.arch, family.name)
    changes = _changes(model, published)
    parameters = {**weights(model), **tables(model)}
    tensors: dict[str, _Pending | Tensor] = {}
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    for entry in entries(family.layout_of(published).rules, shapes):
        parts = [(parameters[name], changes.get(name)) for name in entry.ours]
        for expert, name in enumerate(entry.theirs):
            tensors[name] = _Pending(parts, entry, entry.shape(shapes), expert)
    layout_of = family.layout_of(published)
    fixed = {
        key: torch.tensor(number, dtype=torch.int64 if isinstance(number, tuple) else model.dtype)
        for key, number in layout_of.constants.items()
    }
    fixed |= {key: torch.zeros((), dtype=model.dtype).expand(shape) for key, shape in layout_of.blanks.items()}
    for key, tensor in fixed.items():
        places = range(len(published.blocks)) if "{i}" in key else range(1)
        tensors |= {key.replace("{i}", str(i)): tensor for i in places}
    token_ids = model.token_ids
    if (end := config.get("eos_token_id")) is not None:  # one that the architecture reads
        token_ids = replace(token_ids, eos=tuple(dict.fromkeys((end, *token_ids.eos))))
    config |= token_ids.as_config() | {"dtype": str(model.dtype).removeprefix("torch.")}
    with staged_directory(target) as stage:
        (stage / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        if generation := {key: value for key, value in token_ids.as_config().items() if value is not None}:
            (stage / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
        if model.tokenizer is not None:
            model.tokenizer.save(stage)
        save_sharded(tensors, stage)
    return target


class _Pending:
    """A published tensor, put together from ours only when it is written."""

    def __init__(
        self, parts: Sequence[tuple[Tensor | Packed, Change | None]], entry: Entry, shape: tuple[int, ...], expert: int
    ) -> None:
        self.parts, self.entry, self.shape, self.expert = parts, entry, shape, expert
        self.dtype = parts[0][0].dtype

    def read(self) -> Tensor:
        chosen = [(part[self.expert] if self.entry.each_expert else part, change) for part, change in self.parts]
        values = [(part.dense() if isinstance(part, Packed) else part.detach(), change) for part, change in chosen]
        changed = [value if change is None else change(value) for value, change in values]
        return self.entry.joined([self.entry.held(value) for value in changed])


def _published(arch: Architecture, family: str) -> tuple[dict, Architecture]:
    """The config that the family writes, and the architecture that it reads back from it."""
    moved = arch if family == "lamina" else arch.replace(family=family)
    try:
        config = family_named(family).written(moved)
        read = read_config(config, "config.json")
    except LaminaError as error:
        raise LaminaError(_cannot(family, str(error))) from None
    except (AssertionError, AttributeError, LookupError, StopIteration, TypeError, ValueError):
        raise LaminaError(_cannot(family, "it has no such parts")) from None
    comparable, other = _comparable(moved), _comparable(read)
    if comparable != other:
        path, ours, theirs = next(iter(differences(comparable, other)))
        raise LaminaError(_cannot(family, f"{path} is {ours!r:.80}, and would become {theirs!r:.80}"))
    return config, read


def _cannot(family: str, why: str) -> str:
    return f"the {family} layout cannot express this architecture: {why}; layout='lamina' holds any"


def _comparable(arch: Architecture) -> Architecture:
    """Without what a GGUF file stores otherwise, which is no difference: `_changes` converts those weights."""

    def in_halves(op: AttentionValue) -> AttentionValue:
        return op.replace(rotary=op.rotary.replace(layout="half")) if op.rotary and _turns(op) else op

    return rewritten(rewritten(arch, RMSNorm, lambda n: n.replace(offset=0.0)), AttentionValue, in_halves)


def _turns(op: AttentionValue) -> bool:
    """Whether the rows of q and k can be put in the order of another rotary layout, with nothing else to follow."""
    return not op.keys_as_values and op.blocks is None and op.source is None


def _changes(model: Model, published: Architecture) -> dict[str, Change]:
    """What must be done to parameters whose rotary layout or norm offset the published layout has otherwise."""
    changes: dict[str, Change] = {}
    theirs = dict(empty(published).named_modules())
    for name, ours in model.named_modules():
        other = theirs.get(name)
        if isinstance(ours, RMSNormModule) and isinstance(other, RMSNormModule) and ours.offset != other.offset:
            changes[f"{name}.weight"] = lambda w, shift=ours.offset - other.offset: w + shift
    for name, ours in model.named_modules():
        twin = theirs.get(name)
        if not isinstance(ours, Attention) or not isinstance(twin, Attention):
            continue
        mine, other = ours.value, twin.value
        if mine.rotary is None or other.rotary is None or mine.rotary.layout == other.rotary.layout:
            continue
        assert _turns(mine)  # else the two architectures were said to differ
        turn = _turned(mine.head_dim, mine.rotary)
        for leaf in ("q_proj.weight", "k_proj.weight", "q_proj.bias", "k_proj.bias", "q_norm.weight", "k_norm.weight"):
            before = changes.get(f"{name}.{leaf}", lambda w: w)
            changes[f"{name}.{leaf}"] = lambda w, turn=turn, before=before: turn(before(w))
    return changes


def _turned(head_dim: int, rotary: Rotary) -> Change:
    """Rows of q and k from one rotary layout to the other: what turns together is put where it is looked for."""
    half = rotary.dim // 2
    interleaved = torch.arange(rotary.dim).view(half, 2).T.flatten()  # 0 2 4 ... 1 3 5 ...
    order = interleaved if rotary.layout == "interleaved" else torch.argsort(interleaved)
    order = torch.cat([order, torch.arange(rotary.dim, head_dim)])

    def turn(weight: Tensor) -> Tensor:
        return weight.unflatten(0, (-1, head_dim))[:, order.to(weight.device)].flatten(0, 1)

    return turn
