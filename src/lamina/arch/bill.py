"""The bill: an architecture as lines that each say what one part weighs, keeps and does.

A line does not depend on context, batch or precision; pricing it is arithmetic (cost.py). All totals of an
architecture are sums over its lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from lamina.arch.base import Op
from lamina.arch.block import Block, Branch, Parallel, kinds
from lamina.arch.feedforward import FeedForward
from lamina.arch.measure import Kept, Shape, Work, linear, matrices, numbers
from lamina.arch.moe import MoE
from lamina.arch.paths import runs

if TYPE_CHECKING:
    from lamina.arch.encoder import Encoder
    from lamina.arch.model import Architecture, Recursion


class Line(NamedTuple):
    """One part, and how often it stands in the architecture.

    Fields: `path` names all places at once (`blocks[0-2,5].mixer`); `times` is how many there are, `runs` how many
    of them one token passes (more where blocks are applied again); `unused` are parameters of one that a token does
    not use; `experts` are the routed experts with weights of one, of which a token uses `chosen`; what stands in
    `weights`, `keeps`, `prefill`, `decoding` and `saved` is of one; `borrows` is what it reads that other lines keep.
    Of a weight in `looked_up` a token reads so many numbers, of others all. Training goes back through `back` of the
    runs, all of them where it is None. What encodes images or sound is passed by no token of text (`runs` is zero) but
    `encodes` times by each vector of theirs; one stands for `each` of their units, and `beside` more stand with them;
    `modality` says what is encoded.
    """

    path: str
    kind: str
    group: str
    weights: dict[str, Shape]
    times: int = 1
    runs: int = 1
    unused: int = 0
    experts: int = 0
    chosen: float = 0.0
    keeps: tuple[Kept, ...] = ()
    prefill: Work = Work(0)
    decoding: Work = Work(0)
    saved: int = 0
    borrows: tuple[Kept, ...] = ()
    looked_up: Mapping[str, int] = {}
    back: int | None = None
    encodes: int = 0
    each: int = 1
    beside: int = 0
    modality: str = ""

    def state_bytes(self, context: int, itemsize: float, memory: int = 0) -> int:
        """Bytes that one sequence leaves behind, in all places."""
        return self.runs * sum(kept.bytes(context, itemsize, memory) for kept in self.keeps)

    def flops(self, tokens: int, context: int, causal: bool, prefix: int = 0) -> int:
        """Forward FLOPs of new tokens, in all places; `prefix` vectors more are computed where blocks are."""
        tokens += prefix if self.group in ("mixers", "feed_forwards") else 0
        work = self.decoding if causal and tokens == 1 and context else self.prefill
        return self.runs * work.flops(tokens, context, causal)

    def encoding_flops(self, units: int) -> int:
        """Forward FLOPs of one image or sound of so many units, in all places."""
        return self.encodes * self.prefill.flops(self._vectors(units), 0, causal=False) if units else 0

    def encoding_saved(self, units: int) -> int:
        """Numbers of one image or sound that the backward pass needs, in all places."""
        return self.encodes * self._vectors(units) * self.saved if units else 0

    def _vectors(self, units: int) -> int:
        return -(-units // self.each) + self.beside

    @property
    def trained(self) -> int:
        """How many of the runs training goes back through."""
        return self.runs if self.back is None else self.back

    @property
    def parameters(self) -> int:
        """Numbers learned, in all places."""
        return self.times * numbers(self.weights.values())

    @property
    def active(self) -> int:
        """Numbers that one token uses, in all places."""
        return self.parameters - self.times * self.unused


def lines(arch: Architecture, memory: int = 0) -> Iterator[Line]:
    """The bill of an architecture; `memory` is how many cross-attended tokens each sequence has."""
    yield from _embedding(arch)
    for block, places in kinds_with_places(arch.blocks):
        span = f"blocks[{runs(places)}]"
        passes = sum(_passes(arch, place) for place in places)
        back = sum(_trained(arch.recursion, place) for place in places) if arch.recursion else None
        for name, branch in block.named_branches().items():
            for line in _branch(arch, f"{span}.{name}", branch, name, (len(places), passes, memory)):
                yield line._replace(back=back)
        if block.scaled:
            yield Line(f"{span}.scale", "scale", "other", {"scale": (1,)}, len(places), passes, saved=arch.width)
    yield from _stream(arch)
    yield from _ending(arch)
    for i, encoder in enumerate(arch.encoders):
        for line in of_encoder(encoder, f"encoders[{i}]"):
            yield line._replace(modality=encoder.modality)


def of_prediction(arch: Architecture) -> Iterator[Line]:
    """The bill of the heads for later tokens, which no total counts: they run where tokens are drafted."""
    if (heads := arch.prediction) is None:
        return
    weights = heads.head_weights(arch.width)
    work, saved = Work(2 * matrices(weights)), 2 * arch.width + 3 * heads.norm.saved(arch.width)
    for i, block in enumerate(heads.blocks):
        path = f"prediction.blocks[{i}]"
        yield Line(f"prediction.heads[{i}]", "prediction", "prediction", weights, 1, 1, prefill=work, saved=saved)
        for name, branch in block.named_branches().items():
            for line in _branch(arch, f"{path}.{name}", branch, name, (1, 1, 0)):
                yield line._replace(group="prediction")


def of_encoder(encoder: Encoder, path: str) -> Iterator[Line]:
    """The bill of an encoder: a token of text uses none of it."""
    for place in encoder.places():
        line = Line(f"{path}.{place.path}", place.kind, "encoder", place.weights, saved=place.saved)
        yield _encoding(line, Work(place.flops), 1, place.each)
    for block, places in kinds_with_places(encoder.blocks):
        span, often = f"{path}.blocks[{runs(places)}]", (len(places), 0, 0)
        passed = sum(at < encoder.needed for at in places)
        found = [
            line
            for name, branch in block.named_branches().items()
            for line in _branch(encoder, f"{span}.{name}", branch, name, often)
        ]
        if block.scaled:
            found.append(Line(f"{span}.scale", "scale", "encoder", {"scale": (1,)}, len(places), saved=encoder.width))
        for line in found:
            yield _encoding(line, line.prefill, passed, encoder.each, int(encoder.class_token))


def _encoding(line: Line, work: Work, passed: int, each: int, beside: int = 0) -> Line:
    cost = {"prefill": work, "decoding": Work(0), "unused": numbers(line.weights.values())}
    return line._replace(group="encoder", runs=0, encodes=passed, each=each, beside=beside, **cost)


def kinds_with_places(blocks: Sequence[Block]) -> list[tuple[Block, list[int]]]:
    """The different blocks in order of appearance, with the places where each stands."""
    different, places = kinds(blocks)
    return [(block, [at for at, i in enumerate(places) if i == k]) for k, block in enumerate(different)]


def _passes(arch: Architecture, place: int) -> int:
    """How often a token passes the block at a place."""
    if (r := arch.recursion) is None:
        return arch.loops
    low = r.low_cycles if r.low.start <= place < r.low.stop else 0
    return r.high_cycles * (low + (r.high.start <= place < r.high.stop))


def _trained(r: Recursion, place: int) -> int:
    """How many passes of the block at a place gradients flow through."""
    lows = {"last_cycle": r.low_cycles, "last_step": 1}
    low = lows[r.gradient] if isinstance(r.gradient, str) else sum(r.gradient)
    high = 1 if isinstance(r.gradient, str) else r.high_cycles
    return low * (r.low.start <= place < r.low.stop) + high * (r.high.start <= place < r.high.stop)


def _branch(
    arch: Architecture | Encoder, path: str, branch: Branch, name: str, often: tuple[int, int, int]
) -> Iterator[Line]:
    """What stands aside of a branch, its ops, then what stands around them."""
    times, passes, _ = often
    if branch.aside:
        yield _op(arch, f"{path}.aside", branch.aside, often)
        if branch.aside.same_as is not None:  # read here too, and counted where they are
            yield Line(f"{path}.aside.shared", "shared_weights", "other", branch.aside.shared(arch.width), 0, passes)
    shared = 0  # what ops side by side read alike is saved once
    for role, op in branch.named_ops(name).items():
        line = _op(arch, path if role == name else f"{path}.{role}", op, often)
        yield line._replace(saved=line.saved - shared)
        shared = 0 if isinstance(branch.op, Parallel) and branch.op.before else arch.width
    if branch.norms:
        saved = sum(norm.saved(arch.width) for norm in branch.norms.values())
        yield Line(f"{path}.norms", "norm", "norms", branch.norm_weights(arch.width), times, passes, saved=saved)
    if branch.gate:
        yield Line(f"{path}.gate", "gate", "other", branch.gate_weights(), times, passes)
    if f := branch.filter:
        weights, work = f.weights(arch.width, arch.width), Work(f.flops(arch.width, arch.width))
        keeps = () if arch.bidirectional else f.keeps(arch.width)
        cost = {"keeps": keeps, "prefill": work, "decoding": work, "saved": f.saved(arch.width)}
        yield Line(f"{path}.filter", "filter", "other", weights, times, passes, **cost)
    if r := branch.residual:
        weights, work, saved = r.weights(arch.width), r.work(arch.width), r.saved(arch.width)
        path = f"{path}.residual"
        yield Line(path, r.kind, "other", weights, times, passes, prefill=work, decoding=work, saved=saved)


def _op(arch: Architecture | Encoder, path: str, op: Op, often: tuple[int, int, int]) -> Line:
    times, passes, memory = often
    width = arch.width
    return Line(
        path=path,
        kind=op.kind,
        group="feed_forwards" if isinstance(op, FeedForward) else "mixers",
        weights=op.weights(width),
        times=times,
        runs=passes,
        unused=op.unused(width),
        experts=op.computing if isinstance(op, MoE) else 0,
        chosen=op.used if isinstance(op, MoE) else 0.0,
        keeps=() if arch.bidirectional else op.keeps(width),
        borrows=() if arch.bidirectional else op.borrows(width),
        prefill=op.work(width, memory),
        decoding=op.work(width, memory, decoding=True),
        saved=op.saved(width),
    )


def _embedding(arch: Architecture) -> Iterator[Line]:
    """The table, and what a model remembers that is of no block."""
    e = arch.embedding
    beside = {"unused": e.unused(), "prefill": e.work(), "decoding": e.work(), "saved": e.saved()}
    yield Line("embedding", "embedding", "embedding", e.weights(), looked_up=e.looked_up(), **beside)
    if ngrams := arch.embedding.ngrams:
        work = Work(ngrams.flops(arch.width))
        cost = {"unused": ngrams.unused(arch.width), "prefill": work, "decoding": work, "saved": arch.width}
        cost["looked_up"] = {f"tables.{i}": arch.width // ngrams.count for i in range(ngrams.count)}
        yield Line("ngrams", "ngrams", "embedding", ngrams.weights(arch.width), **cost)
    if r := arch.recursion:  # the carry: two latents over the whole sequence, whatever came before
        carry = Kept("carry", 2 * arch.width), Kept("carry", 2 * arch.width * arch.prefix, each="sequence")
        once, keeps = Work(0, once=4 * arch.width if r.halting else 0), carry if arch.bidirectional else ()
        yield Line("recursion", "recursion", "other", r.weights(arch.width), keeps=keeps, prefill=once)
    if frequencies := sorted({rotary.dim // 2 for rotary in arch.rotaries() if rotary.learned}):  # all blocks share
        yield Line("frequencies", "rotary", "other", {f"scale_{n}": (n,) for n in frequencies})
    if arch.depends_on_length:  # the tokens themselves, to compute keys again
        yield Line("history", "history", "other", {}, keeps=(Kept("tokens", 1, dtype="int64"),))


def _stream(arch: Architecture) -> Iterator[Line]:
    """What branches, blocks and the ends have around them where the residual stream is more than one sum."""
    if arch.stream is None:
        return
    for part in arch.stream.parts(arch.width, [len(block.branches) for block in arch.blocks]):
        work, often = Work(part.flops), {"times": part.times, "runs": part.times}
        cost = {"prefill": work, "decoding": work, "saved": part.saved, "unused": part.unused}
        cost["keeps"] = () if arch.bidirectional else part.keeps
        if part.unused:
            cost["looked_up"] = {"table": numbers([part.weights["table"]]) - part.unused}
        yield Line(f"stream.{part.name}", arch.stream.kind, "other", part.weights, **often, **cost)


def _ending(arch: Architecture) -> Iterator[Line]:
    if arch.norm:
        weights = arch.norm.weights(arch.width)
        yield Line("norm", "norm", "norms", weights, runs=arch.loops, saved=arch.norm.saved(arch.width))
    if arch.exit_gate:
        work, weights = Work(2 * arch.width), linear("exit_gate", 1, arch.width, bias=True)
        yield Line("exit_gate", "gate", "other", weights, runs=arch.loops, prefill=work, decoding=work)
    logits = Work(2 * arch.width * arch.vocab)
    weights = arch.head.weights(arch.vocab, arch.width)
    yield Line("head", "head", "head", weights, prefill=logits, decoding=logits, saved=arch.width)
