"""Blocks: residual branches around mixers and feed-forwards."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from lamina.arch import block as value
from lamina.arch.base import Op
from lamina.arch.feedforward import GLU, MLP
from lamina.arch.mixers import Attention, CrossAttention, SequenceGLU
from lamina.nn import attention, cross_attention, feedforward
from lamina.nn.basic import norm
from lamina.nn.step import Step


def op_module(op: Op, width: int, slots: Iterator[int]) -> nn.Module:
    """The module of a mixer or feed-forward; those that keep a state take the next slot.

    Which of its fields the modules read is declared in nn/understood.py, and checked before anything is built.
    """
    if isinstance(op, Attention):
        return attention.Attention(op, width, next(slots))
    if isinstance(op, CrossAttention):
        return cross_attention.CrossAttention(op, width, next(slots))
    if isinstance(op, SequenceGLU):
        return feedforward.SequenceGLU(op)
    if isinstance(op, MLP):
        return feedforward.MLP(op, width)
    if isinstance(op, GLU):
        return feedforward.GLU(op, width)
    if isinstance(op, value.Parallel):
        return Parallel(op, width, slots)
    raise TypeError(f"{type(op).__name__} has no module")


class Parallel(nn.Module):
    """Several ops of the same input, added up.

    Shapes: x [B T D] -> [B T D]
    """

    def __init__(self, parallel: value.Parallel, width: int, slots: Iterator[int]) -> None:
        super().__init__()
        for name, op in parallel.named_ops().items():
            self.add_module(name, op_module(op, width, slots))

    def forward(self, x: Tensor, step: Step) -> Tensor:
        return functools.reduce(torch.add, (op(x, step) for op in self.children()))


class Branch(nn.Module):
    """joined(x + multiplier * tanh(gate) * after(op(before(x)))).

    Shapes: x [B T D] -> [B T D]
    """

    def __init__(self, branch: value.Branch, width: int, slots: Iterator[int]) -> None:
        super().__init__()
        self.op = op_module(branch.op, width, slots)
        self.before, self.after = norm(branch.before, width), norm(branch.after, width)
        along_sequence = isinstance(branch.op, SequenceGLU)
        self.joined = norm(branch.joined, branch.op.length if isinstance(branch.op, SequenceGLU) else width)
        self.gate = nn.Parameter(torch.empty(1)) if branch.gate else None
        self.multiplier, self.attended_only = branch.multiplier, branch.attended_only
        self.along_sequence = along_sequence

    def forward(self, x: Tensor, step: Step) -> Tensor:
        y = self.op(x if self.before is None else self.before(x), step)
        if self.after is not None:
            y = self.after(y)
        if self.attended_only and step.attended is not None:
            y = y * step.attended
        if self.gate is not None:
            y = y * self.gate.tanh()
        x = x + y if self.multiplier == 1.0 else x + y * self.multiplier
        if self.joined is None:
            return x
        return self.joined(x.transpose(1, 2)).transpose(1, 2) if self.along_sequence else self.joined(x)


class Block(nn.Module):
    """Its branches, one after the other; passed over when it reads a memory and there is none.

    Shapes: x [B T D] -> [B T D]
    """

    def __init__(self, block: value.Block, width: int, slots: Iterator[int]) -> None:
        super().__init__()
        for name, branch in block.named_branches().items():
            self.add_module(name, Branch(branch, width, slots))
        self.reads_memory = any(isinstance(op, CrossAttention) for op in block.ops())

    def forward(self, x: Tensor, step: Step) -> Tensor:
        if self.reads_memory and not step.has_memory:
            return x
        for branch in self.children():
            x = branch(x, step)
        return x


def blocks(values: tuple[value.Block, ...], width: int) -> nn.ModuleList:
    """The modules of a stack; states are numbered through it."""
    slots = itertools.count()
    return nn.ModuleList(Block(block, width, slots) for block in values)
