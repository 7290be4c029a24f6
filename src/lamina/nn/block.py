"""Blocks: residual branches around mixers and feed-forwards."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from lamina.arch import block as value
from lamina.arch.base import Op
from lamina.arch.mixers import CrossAttention, SequenceGLU
from lamina.arch.norm import Norm
from lamina.arch.streams import Streams
from lamina.nn import streams
from lamina.nn.basic import norm
from lamina.nn.registry import MODULES, Place, reads, runs
from lamina.nn.residual import residual
from lamina.nn.short_filter import ShortFilter
from lamina.nn.step import Step

reads(value.Block, "branches scaled")
reads(value.Branch, "op before after joined gate multiplier attended_only residual filter aside")


def op_module(op: Op, width: int, place: Place) -> nn.Module:
    """The module of a mixer or feed-forward; those that keep a state take the next slot."""
    return MODULES[type(op)](op, width, place)


@runs(value.Parallel, "ops multipliers before after lands")
class Parallel(nn.Module):
    """Several ops of the same input, added up; what lands later waits in the step until it does.

    Shapes: x [B T D] -> [B T D]
    """

    def __init__(self, parallel: value.Parallel, width: int, place: Place) -> None:
        super().__init__()
        self.names = list(parallel.named_ops())
        self.multipliers = parallel.multipliers or (1.0,) * len(self.names)
        self.lands = parallel.lands or (0,) * len(self.names)
        for name, op in parallel.named_ops().items():
            self.add_module(name, op_module(op, width, place))
        self.before = self._norms(parallel.before, width)
        self.after = self._norms(parallel.after, width)

    def _norms(self, values: tuple[Norm | None, ...], width: int) -> nn.ModuleDict:
        """Those that there are, by the name of the op they stand before or after."""
        made = {name: norm(value, width) for name, value in zip(self.names, values, strict=False)}  # or none at all
        return nn.ModuleDict({name: module for name, module in made.items() if module is not None})

    def _given(self, name: str, x: Tensor, step: Step) -> Tensor:
        y = self.get_submodule(name)(self.before[name](x) if name in self.before else x, step)
        return self.after[name](y) if name in self.after else y

    def forward(self, x: Tensor, step: Step) -> Tensor:
        given = (self._given(name, x, step) for name in self.names)
        scaled = [y if m == 1.0 else y * m for y, m in zip(given, self.multipliers, strict=True)]
        landing = [y for y, later in zip(scaled, self.lands, strict=True) if not later]
        waiting = [(later, y) for y, later in zip(scaled, self.lands, strict=True) if later]
        if waiting:
            step.shared["waiting"] = [*step.shared.get("waiting", ()), *waiting]
        return functools.reduce(torch.add, landing) if landing else torch.zeros_like(x)


def landed(x: Tensor, step: Step) -> Tensor:
    """x after a branch, with what landed there; what waits still comes one branch nearer."""
    still = []
    for later, y in step.shared.pop("waiting", ()):
        if later:
            still.append((later - 1, y))
        else:
            x = x + y
    if still:
        step.shared["waiting"] = still
    return x


class Branch(nn.Module):
    """joined(x + multiplier * gate * after(filter(op(before(x + aside(x)))))), or with a residual, or a stream.

    Shapes: x [B T D] -> [B T D], or the streams that the model has
    """

    def __init__(self, branch: value.Branch, width: int, place: Place, around: nn.Module | None = None) -> None:
        super().__init__()
        self.aside = op_module(branch.aside, width, place) if branch.aside else None
        self.op = op_module(branch.op, width, place)
        self.filter = ShortFilter(branch.filter, width, width, place) if branch.filter else None
        self.before, self.after = norm(branch.before, width), norm(branch.after, width)
        along_sequence = isinstance(branch.op, SequenceGLU)
        self.joined = norm(branch.joined, branch.op.length if isinstance(branch.op, SequenceGLU) else width)
        self.gate = nn.Parameter(torch.empty(1)) if branch.gate else None
        self.behind_tanh = branch.gate == "tanh"
        self.multiplier, self.attended_only = branch.multiplier, branch.attended_only
        self.along_sequence = along_sequence
        self.residual, self.stream = residual(branch.residual, width), around

    def given(self, x: Tensor, step: Step, *others: Tensor) -> Tensor:
        """What is added to x; `others` are what the op reads besides."""
        return self._of(self._read(x, step), step, *others)

    def _read(self, x: Tensor, step: Step) -> Tensor:
        x = x if self.aside is None else x + self.aside(x, step)
        return x if self.before is None else self.before(x)

    def _of(self, z: Tensor, step: Step, *others: Tensor) -> Tensor:
        y = self.op(z, step, *others)
        if self.filter is not None:
            y = self.filter(y, z, step)
        if self.after is not None:
            y = self.after(y)
        if self.attended_only and step.attended is not None:
            y = y * step.attended
        if self.gate is not None:
            y = y * (self.gate.tanh() if self.behind_tanh else self.gate)
        return y if self.multiplier == 1.0 else y * self.multiplier

    def forward(self, x: Any, step: Step) -> Any:
        if self.stream is not None:
            read, write, *others = self.stream(x)
            return write(self.given(read, step, *others))
        z = self._read(x, step)
        y = self._of(z, step)
        x = x + y if self.residual is None else self.residual(x, y, z)
        if self.joined is None:
            return x
        return self.joined(x.transpose(1, 2)).transpose(1, 2) if self.along_sequence else self.joined(x)


class Block(nn.Module):
    """Its branches, one after the other; passed over when it reads a memory and there is none.

    Shapes: x [B T D] -> [B T D], or the streams that the model has
    """

    def __init__(self, block: value.Block, width: int, place: Place, stream: Streams | None = None) -> None:
        super().__init__()
        self.names = list(block.named_branches())
        for i, (name, branch) in enumerate(block.named_branches().items()):
            around = streams.around_branch(stream, width, place.block, i, branch.before)
            self.add_module(name, Branch(branch, width, place, around))
        self.stream, self.memory = streams.around_block(stream, width, block), streams.memory(stream, width, place)
        self.scale = nn.Parameter(torch.empty(1), requires_grad=False) if block.scaled else None
        self.reads_memory = any(isinstance(op, CrossAttention) for op in block.ops())
        self.lands = any(isinstance(branch.op, value.Parallel) and any(branch.op.lands) for branch in block.branches)

    def forward(self, x: Any, step: Step) -> Any:
        if self.reads_memory and not step.has_memory:
            return x
        if self.memory is not None:
            x = self.memory(x, step)
        if self.stream is not None:
            x = self.stream(x, [self._modules[name] for name in self.names], step)
        for name in () if self.stream is not None else self.names:
            x = self._modules[name](x, step)  # type: ignore[misc]
            x = landed(x, step) if self.lands else x
        return x if self.scale is None else x * self.scale


def blocks(values: tuple[value.Block, ...], width: int, stream: Streams | None = None, vocab: int = 0) -> nn.ModuleList:
    """The modules of a stack; states are numbered through it."""
    place, made = Place(vocab, len(values)), nn.ModuleList()
    for place.block, block in enumerate(values):
        made.append(Block(block, width, place, stream))
    return made
