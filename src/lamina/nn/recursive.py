"""Recursive models: small stacks applied again and again to a carry (HRM, TRM)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lamina.arch import Architecture
from lamina.arch.model import DeepSupervision, Recursion, Span, TaskEmbedding
from lamina.errors import LaminaError
from lamina.nn.basic import Linear
from lamina.nn.decoder import Model
from lamina.nn.made import SNAPSHOT, STATE, Made, given
from lamina.nn.registry import reads
from lamina.nn.state import Fresh, Snapshot, row_indices
from lamina.nn.step import Step
from lamina.ops.linear import lookup

reads(Recursion, "low high low_cycles high_cycles gradient", gradient=("last_cycle", "last_step"))
reads(DeepSupervision, "max_steps exploration")
reads(Span, "start stop")
reads(TaskEmbedding, "count width tokens")


class Carry:
    """What passes from one outer step to the next: a high and a low latent, and the steps taken by each row.

    Shapes: high, low [B T D] or None before the first step; `halt`, `go_on` [B], the scores of the last step
    """

    def __init__(self, batch: int, made: Made | None = None) -> None:
        self.made = made
        self.steps = [0] * batch
        self.high: Tensor | None = None
        self.low: Tensor | None = None
        self.halt: Tensor | None = None
        self.go_on: Tensor | None = None

    @property
    def batch(self) -> int:
        return len(self.steps)

    @property
    def nbytes(self) -> int:
        """Bytes of the two latents."""
        return 0 if self.high is None or self.low is None else self.high.nbytes + self.low.nbytes

    def snapshot(self) -> Any:
        held = self.high, self.low, self.halt, self.go_on  # replaced at a step, never written
        return Snapshot(list(self.steps), list(held), None, None, self.made)

    def restore(self, saved: Any) -> None:
        """Raises: LaminaError if the snapshot is of another architecture or number of rows."""
        given(saved, Snapshot, SNAPSHOT)
        if saved.made is not None and self.made is not None:
            saved.made.check(self.made, "the snapshot")
        steps, latents = saved.lengths, saved.layers
        if len(steps) != self.batch:
            raise LaminaError(f"the snapshot holds {len(steps)} rows and the state {self.batch}; they must agree")
        self.steps = list(steps)
        self.high, self.low, self.halt, self.go_on = latents

    def select(self, rows: Sequence[int] | Tensor) -> None:
        """Keep these rows, in this order."""
        rows = row_indices(rows, self.batch)
        self.steps = [self.steps[row] for row in rows.tolist()]
        for name in ("high", "low", "halt", "go_on"):
            if (part := getattr(self, name)) is not None:
                setattr(self, name, part[rows])


class Recursive(Model):
    """One call is one outer step: the stacks are run `high_cycles` times over, and an answer is read off.

    `model(inputs, state, puzzle=ids)`: logits of every input token; the state's latents, its `halt` and
    `go_on` scores and its count of steps move on. A row that reached `max_steps` begins anew.
    Source: arXiv 2506.21734 (HRM), 2510.04871 (TRM), and their published code's outputs.
    """

    def __init__(self, arch: Architecture) -> None:
        super().__init__(arch)
        task = arch.embedding.task
        self.task_table = nn.Parameter(torch.empty(task.count, task.width)) if task else None
        self.high_start = nn.Parameter(torch.empty(arch.width), requires_grad=False)
        self.low_start = nn.Parameter(torch.empty(arch.width), requires_grad=False)
        self.halting = Linear(arch.width, 2, bias=True)

    def init_state(self, batch: int = 1, capacity: int | None = None) -> Carry:
        """A fresh carry for `batch` rows; its latents take the length of the first input."""
        if type(batch) is not int or batch < 1:
            raise LaminaError(f"batch ({batch}) must be a whole number of at least 1")
        return Carry(batch, Made(self.arch, self.dtype, self.device))

    @property
    def _recursion(self) -> Recursion:
        assert self.arch.recursion is not None
        return self.arch.recursion

    def forward(
        self,
        ids: Int[Tensor, "B T"],
        state: Carry | None = None,
        *,
        puzzle: Int[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B T vocab"]:
        """Logits after one outer step from `state` (from a fresh carry if there is none).

        Raises: LaminaError for ids or puzzles out of range, or a state of other rows or length.
        """
        self.check_ids(ids)
        carry = self.init_state(len(ids)) if state is None else state
        given(carry, Carry, STATE)
        if carry.made is not None:
            carry.made.check(Made(self.arch, self.dtype, self.device), "the state")
        if carry.batch != len(ids):
            raise LaminaError(f"the state holds {carry.batch} rows and ids {len(ids)}; they must agree")
        x, prefix = self._embed(ids, puzzle)
        high, low = self._latents(carry, x)
        step = Step(x[..., 0], x.dtype, lambda slot: Fresh(), [0] * len(ids), None, bidirectional=True)
        high, low = self._outer_step(x, high, low, step)
        scores = self.halting(high[:, 0]).float()
        most = self.arch.objective.max_steps if isinstance(self.arch.objective, DeepSupervision) else 1
        carry.steps = [1 if taken >= most else taken + 1 for taken in carry.steps]
        carry.high, carry.low = high.detach(), low.detach()
        carry.halt, carry.go_on = scores[:, 0].detach(), scores[:, 1].detach()
        out = high[:, prefix:]
        return self.head(out if self.norm is None else self.norm(out), self.embedding.table)

    def _embed(self, ids: Tensor, puzzle: Tensor | None) -> tuple[Tensor, int]:
        """The input, with the task's vectors before it, and how many those are."""
        scale, task = self.embedding.scale, self.arch.embedding.task
        x = lookup(ids, self.embedding.table)
        if task is None or self.task_table is None:
            return x * scale, 0
        if puzzle is None:
            raise LaminaError(f"this model needs puzzle=: one id of 0 to {task.count - 1} for each row")
        puzzle = torch.as_tensor(puzzle, device=ids.device)
        if puzzle.shape != (len(ids),) or not bool(((puzzle >= 0) & (puzzle < task.count)).all()):
            raise LaminaError(f"puzzle must hold one id of 0 to {task.count - 1} for each of {len(ids)} rows")
        flat = self.task_table[puzzle]
        flat = nn.functional.pad(flat, (0, task.tokens * self.arch.width - flat.shape[1]))
        return torch.cat([flat.view(len(ids), task.tokens, self.arch.width), x], 1) * scale, task.tokens

    def _latents(self, carry: Carry, x: Tensor) -> tuple[Tensor, Tensor]:
        """The carry's latents, those of fresh and finished rows at their learned start."""
        high, low = (start.to(x.dtype).expand_as(x) for start in (self.high_start, self.low_start))
        if carry.high is None or carry.low is None:
            return high, low
        if carry.high.shape != x.shape:
            raise LaminaError(
                f"the state holds {list(carry.high.shape)} and the input {list(x.shape)}; they must agree"
            )
        most = self.arch.objective.max_steps if isinstance(self.arch.objective, DeepSupervision) else 1
        anew = torch.tensor([taken >= most for taken in carry.steps], device=x.device)[:, None, None]
        return torch.where(anew, high, carry.high), torch.where(anew, low, carry.low)

    def _outer_step(self, x: Tensor, high: Tensor, low: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """The cycles. Gradients flow through the last high cycle, or the last step of each level."""
        r = self._recursion
        grad = torch.is_grad_enabled()
        for cycle in range(r.high_cycles):
            last_cycle = cycle == r.high_cycles - 1
            for i in range(r.low_cycles):
                counted = last_cycle and (r.gradient == "last_cycle" or i == r.low_cycles - 1)
                with torch.set_grad_enabled(grad and counted):
                    low = self._run(r.low, low + (high + x), step)
            with torch.set_grad_enabled(grad and last_cycle):
                high = self._run(r.high, high + low, step)
        return high, low

    def _run(self, span: Span, x: Tensor, step: Step) -> Tensor:
        for block in self.blocks[span.start : span.stop]:
            x = block(x, step)
        return x
