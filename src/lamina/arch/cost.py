"""What an architecture costs in a setting: bytes, FLOPs and what is moved. Every total is a sum over the bill.

Units: bytes, FLOPs (a multiply-accumulate is 2), tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from lamina.arch.bill import Line
from lamina.arch.measure import Kept, numbers
from lamina.arch.precision import PRECISIONS, Plan, Precision, plan, precision
from lamina.errors import LaminaError

if TYPE_CHECKING:
    from lamina.arch.model import Architecture


class Setting(NamedTuple):
    """Where a cost is taken: `batch` sequences that each hold `context` tokens, and precisions.

    `memory` is how many cross-attended tokens (image patches) each sequence has; `page` how many tokens a paged
    engine reserves at a time; `images` how many images each sequence brings, of `patches` patches each.
    """

    context: int
    batch: int
    weights: Plan
    compute: Precision
    cache: Precision
    page: int
    memory: int
    images: int = 0
    patches: int = 0


def price(
    arch: Architecture,
    context: int = 4096,
    batch: int = 1,
    weights: str | Plan = "bfloat16",
    compute: str | None = None,
    cache: str = "bfloat16",
    page: int = 16,
    memory: int = 0,
    images: int = 0,
    patches: int | None = None,
) -> Cost:
    """The cost of an architecture.

    `weights` may name exceptions by part: `bfloat16,experts=mxfp4`. `compute` is what products are done in; as the
    weights, if a device multiplies those, when None. The encoding of `images` is priced beside the text: the tokens
    that they become are part of `context` (or of `memory`). `patches` is how many each has, as published when None.
    Raises: LaminaError for a negative size, a precision that does not exist, or images that nothing encodes.
    """
    sizes = {"context": (context, 0), "batch": (batch, 1), "page": (page, 1), "memory": (memory, 0)}
    sizes |= {"images": (images, 0), "patches": (patches or 0, 0)}
    for name, (value, least) in sizes.items():
        if value < least:
            raise LaminaError(f"{name} must be at least {least}, not {value}")
    stored = plan(weights)
    if stored.rules:
        stored.check([f"{line.path}.{name}" for line in arch.bill(memory) for name in line.weights])
    own = stored.other.products
    products = precision(compute or (own if own in PRECISIONS else stored.other.name))
    each = _patches(arch, patches) if images else 0
    return Cost(arch, Setting(context, batch, stored, products, precision(cache), page, memory, images, each))


def _patches(arch: Architecture, patches: int | None) -> int:
    """Patches of an image: as given, or as the publisher states."""
    encoders = [encoder for encoder in arch.encoders if encoder.modality == "image"]
    if not encoders:
        raise LaminaError("images: this architecture has no image encoder")
    usual = next((encoder.input.usual for encoder in encoders if encoder.input.usual), None)
    if (found := patches or usual) is None:
        raise LaminaError("patches: how many patches an image has is not published here; give a number")
    return found


@dataclass(frozen=True)
class Cost:
    """An architecture, priced."""

    arch: Architecture
    setting: Setting

    @cached_property
    def bill(self) -> tuple[Line, ...]:
        return self.arch.bill(self.setting.memory)

    def total(self, measure: Callable[[Line], float]) -> int:
        """A measure of every line, added up."""
        return math.ceil(sum(measure(line) for line in self.bill))

    # -- weights

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """Numbers learned: total, active (what one token uses), embedding, and by mechanism."""
        by_kind: dict[str, int] = {}
        for line in self.bill:
            by_kind[line.kind] = by_kind.get(line.kind, 0) + line.parameters
        total, active, embedding = self.arch.parameters()
        return {"total": total, "active": active, "embedding": embedding, "by_mechanism": by_kind}

    def stored(self, line: Line, experts: bool | None = None) -> int:
        """Bytes of one place's weights; of routed experts alone, or of all but those, when `experts` is set."""
        return sum(
            self.setting.weights.stored(f"{line.path}.{name}", shape)
            for name, shape in line.weights.items()
            if experts is None or name.startswith("experts.") == experts
        )

    @cached_property
    def weight_bytes(self) -> int:
        """Of all weights, as they are stored."""
        return self.total(lambda line: line.times * self.stored(line))

    # -- state

    def state(self, line: Line) -> int:
        """Bytes that the mechanism needs for the batch."""
        s = self.setting
        return s.batch * line.state_bytes(s.context, s.cache.nbytes, s.memory)

    @cached_property
    def state_bytes(self) -> int:
        """What the state object of the batch holds: what the mechanisms need, and the tokens where keys go stale."""
        return self.total(self.state)

    def growth(self, context: int) -> int:
        """Bytes that a token adds to `context` earlier ones; of an entry of several tokens, its share."""
        itemsize = self.setting.cache.nbytes
        return self.total(lambda line: line.runs * sum(kept.growth(context, itemsize) for kept in line.keeps))

    @cached_property
    def paged_bytes(self) -> int:
        """What an engine reserves that hands out pages of `page` tokens.

        Where some layers keep a state of one size, all pages are made as large as the largest state needs, and each
        such layer takes one. A window's layers hold the pages that it can touch.
        Source: vLLM's hybrid KV cache manager, as its design notes describe it.
        """
        s, itemsize = self.setting, self.setting.cache.nbytes
        kept = [(line.runs, line.keeps) for line in self.bill if line.keeps]
        fixed = [sum(k.entry_bytes(itemsize) for k in keeps if k.each == "sequence") for _, keeps in kept]
        growing = [sum(k.entry_bytes(itemsize) / k.stride for k in keeps if k.each == "token") for _, keeps in kept]
        page, size = s.page, 0.0
        if any(fixed):
            largest = max(growing) or max(fixed) / s.page
            page = s.page * math.ceil(max(fixed) / (largest * s.page)) if max(growing) else s.page
            size = max(page * largest, max(fixed))
        total = 0.0
        for (times, keeps), once, per in zip(kept, fixed, growing, strict=True):
            pages = math.ceil(max((_page_tokens(k, s.context, page) for k in keeps), default=0) / page) if per else 0
            cross = sum(k.bytes(s.context, itemsize, s.memory) for k in keeps if k.each == "memory")
            total += times * (pages * max(size, page * per) + (size if once else 0) + cross)
        return s.batch * math.ceil(total)

    # -- FLOPs

    def encoded(self, line: Line) -> int:
        """FLOPs of encoding the images of a sequence, in one line."""
        s = self.setting
        return s.images * line.encoding_flops(s.patches) if line.modality == "image" else 0

    def flops(self, line: Line, tokens: int, context: int) -> int:
        arch = self.arch
        if arch.bidirectional:
            tokens, context = tokens + context, 0
        return line.flops(tokens, context, not arch.bidirectional, arch.prefix)

    @cached_property
    def prefill_flops(self) -> int:
        """To read the contexts of the batch, and to encode its images; of logits, those of the last token."""
        return self.setting.batch * self.total(self.prefilling)

    def prefilling(self, line: Line) -> int:
        """Of one line and one sequence."""
        context = self.setting.context
        return self.flops(line, min(1, context) if line.kind == "head" else context, 0) + self.encoded(line)

    @cached_property
    def decode_flops(self) -> int:
        """Of one more token for every sequence (of a pass over all, where attention looks both ways)."""
        return self.setting.batch * self.total(lambda line: self.flops(line, 1, self.setting.context))

    def training_flops(self, recompute: bool = False) -> int:
        """Of a step on the batch: forward, and twice that backward; with recomputation blocks go forward twice.

        Backward counts what gradients flow through: all, but for recursions, whose `gradient` says what. Chunks of
        recurrences are computed again on the way back, which is not counted unless blocks are.
        """
        s = self.setting

        def step(line: Line) -> int:
            again = recompute and line.path.startswith("blocks")
            forward = self.flops(line, s.context, 0)
            return forward + (3 if again else 2) * forward * line.trained // max(1, line.runs) + 3 * self.encoded(line)

        return s.batch * self.total(step)

    # -- training memory

    def activation_bytes(self, recompute: bool = False) -> int:
        """What a training step on the batch holds where it turns from forward to backward.

        The inputs of products, norms and activations, once where several read the same, in the compute precision; of
        a norm also a number or two a row; of attention queries, keys and values as they meet, the output, and one
        number a head and token, no scores; of the logits their softmax and their gradient, in float32. Left out are
        tokens, rotary angles and masks, which blocks share, and keys and values of a memory. With recomputation the
        input of every block, and all of the largest block at once; what encodes images is not computed again.
        """
        s, arch = self.setting, self.arch
        itemsize = max(2.0, s.compute.bits / 8)
        logits = 2 * 4 * arch.vocab
        outside = sum(line.trained * line.saved for line in self.bill if not line.path.startswith("blocks"))
        inside: dict[str, int] = {}
        passes: dict[str, int] = {}
        for line in self.bill:
            if line.path.startswith("blocks"):
                span = line.path.split("]")[0]
                inside[span] = inside.get(span, 0) + line.saved
                passes[span] = line.trained
        if recompute:
            blocks = sum(passes.values()) * arch.width + max(inside.values(), default=0)
        else:
            blocks = sum(passes[span] * inside[span] for span in inside)
        images = s.images * sum(line.encoding_saved(s.patches) for line in self.bill if line.modality == "image")
        ends, within = s.context * (outside * itemsize + logits), (s.context + arch.prefix) * blocks * itemsize
        return math.ceil(s.batch * (ends + within + images * itemsize))

    def optimizer_bytes(self, optimizer: str = "adamw") -> int:
        """Weights, gradients and what the optimizer keeps.

        In a precision below float32: weights and gradients in it, and a float32 copy of the weights. AdamW keeps
        two float32 numbers a weight; Muon one for matrices of blocks, and AdamW's two for all else.
        Source: arXiv 1711.05101 (AdamW), 2502.16982 (Muon).
        Raises: LaminaError for another optimizer.
        """
        if optimizer not in ("adamw", "muon"):
            raise LaminaError(f"optimizer {optimizer!r} is not known; known: adamw, muon")
        itemsize = max(2.0, self.setting.compute.bits / 8)
        master = 0 if itemsize >= 4 else 4

        def held(line: Line) -> float:
            dims = {name: 3 if name.startswith("experts.") else 2 for name in line.weights}
            matrices = numbers(shape for name, shape in line.weights.items() if len(shape) == dims[name])
            one = matrices * line.times if optimizer == "muon" and line.path.startswith("blocks") else 0
            return line.parameters * (2 * itemsize + master + 8) - 4 * one

        return self.total(held)

    # -- what moves

    def read(self, line: Line, tokens: int) -> float:
        """Bytes of weights that so many tokens, computed at once, read in one line.

        All but routed experts; of those, the ones that the tokens reach if each chooses at random:
        E (1 - (1 - k / E)^tokens). Of tables, a row for each token, but all where the head is the table; of encoders,
        nothing. What is passed several times is read as often.
        """
        if line.group == "encoder":
            return 0
        reached = 1 - (1 - line.chosen / line.experts) ** tokens if line.experts else 1.0
        total = 0.0
        for name, shape in line.weights.items():
            nbytes = self.setting.weights.stored(f"{line.path}.{name}", shape)
            if name in line.looked_up and not (name == "weight" and self.arch.head.tied):
                nbytes *= min(1.0, tokens * line.looked_up[name] / numbers([shape]))
            total += nbytes * (reached if name.startswith("experts.") else 1)
        return max(line.times, line.runs) * total

    @cached_property
    def moved(self) -> dict[str, int]:
        """Bytes that one decode step of the batch reads and writes: weights, state read, state written."""
        s, itemsize = self.setting, self.setting.cache.nbytes

        def state_read(line: Line) -> float:
            kept = (k for k in line.keeps + line.borrows if line.path != "history")
            return sum(min(k.entries(s.context, s.memory), k.read or math.inf) * k.entry_bytes(itemsize) for k in kept)

        def written(line: Line) -> float:
            return sum(k.entry_bytes(itemsize) / k.stride for k in line.keeps if k.each != "memory")

        return {
            "weights": self.total(lambda line: self.read(line, s.batch)),
            "state_read": s.batch * self.total(lambda line: line.runs * state_read(line)),
            "state_written": s.batch * self.total(lambda line: line.runs * written(line)),
        }

    @property
    def moved_bytes(self) -> int:
        return sum(self.moved.values())

    @property
    def intensity(self) -> float:
        """FLOPs of a decode step for each byte it moves."""
        return self.decode_flops / self.moved_bytes

    # -- as data

    def breakdown(self) -> list[dict[str, Any]]:
        """A record for each part, by path; the numbers of each column add up to its total."""
        s = self.setting
        return [
            {
                "path": line.path,
                "mechanism": line.kind,
                "times": line.times,
                "parameters": line.parameters,
                "active_parameters": line.active,
                "weight_bytes": line.times * self.stored(line),
                "state_bytes": self.state(line),
                "prefill_flops": s.batch * self.prefilling(line),
                "decode_flops": s.batch * self.flops(line, 1, s.context),
            }
            for line in self.bill
        ]

    def record(self) -> dict[str, Any]:
        """All of it, as JSON holds it."""
        s = self.setting
        return {
            "setting": {
                "context": s.context,
                "batch": s.batch,
                "weights": s.weights.name,
                "compute": s.compute.name,
                "cache": s.cache.name,
                "page": s.page,
                "memory": s.memory,
                "images": s.images,
                "patches": s.patches,
            },
            "parameters": self.parameters,
            "weight_bytes": self.weight_bytes,
            "state": {
                "per_token": self.growth(0),
                "per_token_beyond": self.growth(s.context),
                "theoretical": self.total(lambda line: self.state(line) if line.path != "history" else 0),
                "allocated": self.state_bytes,
                "paged": self.paged_bytes,
            },
            "flops": {
                "prefill": self.prefill_flops,
                "decode": self.decode_flops,
                "training": self.training_flops(),
                "training_recomputed": self.training_flops(recompute=True),
            },
            "training_bytes": {
                "activations": self.activation_bytes(),
                "activations_recomputed": self.activation_bytes(recompute=True),
                "adamw": self.optimizer_bytes("adamw"),
                "muon": self.optimizer_bytes("muon"),
            },
            "decode_moves": self.moved,
            "intensity": self.intensity,
            "parts": self.breakdown(),
        }


def _page_tokens(kept: Kept, context: int, page: int) -> int:
    """Tokens that the pages of one kind of entry must hold: a window may begin and end within a page."""
    if kept.each != "token":
        return 0
    if kept.window is None or context <= kept.window:
        return context
    return min(context, (math.ceil((kept.window - 1) / page) + 1) * page)
