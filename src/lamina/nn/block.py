"""Blocks: residual branches around mixers and feed-forwards."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from lamina.arch import block as value
from lamina.arch.base import Op
from lamina.arch.mixers import CrossAttention, SequenceGLU
from lamina.nn.basic import norm
from lamina.nn.registry import MODULES, Place, reads, runs
from lamina.nn.step import Step

reads(value.Block, "branches scaled")
reads(value.Branch, "op before after joined gate multiplier attended_only")


def op_module(op: Op, width: int, place: Place) -> nn.Module:
    """The module of a mixer or feed-forward; those that keep a state take the next slot."""
    return MODULES[type(op)](op, width, place)


@runs(value.Parallel, "ops multipliers")
class Parallel(nn.Module):
    """Several ops of the same input, added up.

    Shapes: x [B T D] -> [B T D]
    """

    def __init__(self, parallel: value.Parallel, width: int, place: Place) -> None:
        super().__init__()
        self.names = list(parallel.named_ops())
        self.multipliers = parallel.multipliers or (1.0,) * len(self.names)
        for name, op in parallel.named_ops().items():
            self.add_module(name, op_module(op, width, place))

    def forward(self, x: Tensor, step: Step) -> Tensor:
        given = (self.get_submodule(name)(x, step) for name in self.names)
        scaled = (y if m == 1.0 else y * m for y, m in zip(given, self.multipliers, strict=True))
        return functools.reduce(torch.add, scaled)


class Branch(nn.Module):
    """joined(x + multiplier * gate * after(op(before(x)))).

    Shapes: x [B T D] -> [B T D]
    """

    def __init__(self, branch: value.Branch, width: int, place: Place) -> None:
        super().__init__()
        self.op = op_module(branch.op, width, place)
        self.before, self.after = norm(branch.before, width), norm(branch.after, width)
        along_sequence = isinstance(branch.op, SequenceGLU)
        self.joined = norm(branch.joined, branch.op.length if isinstance(branch.op, SequenceGLU) else width)
        self.gate = nn.Parameter(torch.empty(1)) if branch.gate else None
        self.behind_tanh = branch.gate == "tanh"
        self.multiplier, self.attended_only = branch.multiplier, branch.attended_only
        self.along_sequence = along_sequence

    def forward(self, x: Tensor, step: Step) -> Tensor:
        y = self.op(x if self.before is None else self.before(x), step)
        if self.after is not None:
            y = self.after(y)
        if self.attended_only and step.attended is not None:
            y = y * step.attended
        if self.gate is not None:
            y = y * (self.gate.tanh() if self.behind_tanh else self.gate)
        x = x + y if self.multiplier == 1.0 else x + y * self.multiplier
        if self.joined is None:
            return x
        return self.joined(x.transpose(1, 2)).transpose(1, 2) if self.along_sequence else self.joined(x)


class Block(nn.Module):
    """Its branches, one after the other; passed over when it reads a memory and there is none.

    Shapes: x [B T D] -> [B T D]
    """

    def __init__(self, block: value.Block, width: int, place: Place) -> None:
        super().__init__()
        self.names = list(block.named_branches())
        for name, branch in block.named_branches().items():
            self.add_module(name, Branch(branch, width, place))
        self.scale = nn.Parameter(torch.empty(1), requires_grad=False) if block.scaled else None
        self.reads_memory = any(isinstance(op, CrossAttention) for op in block.ops())

    def forward(self, x: Tensor, step: Step) -> Tensor:
        if self.reads_memory and not step.has_memory:
            return x
        for name in self.names:
            x = self._modules[name](x, step)  # type: ignore[misc]
        return x if self.scale is None else x * self.scale


def blocks(values: tuple[value.Block, ...], width: int) -> nn.ModuleList:
    """The modules of a stack; states are numbered through it."""
    place, made = Place(), nn.ModuleList()
    for place.block, block in enumerate(values):
        made.append(Block(block, width, place))
    return made
