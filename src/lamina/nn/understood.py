"""What of an architecture does not run: nothing that no module reads is passed over in silence."""

from __future__ import annotations

from collections.abc import Iterator

from lamina import arch as values
from lamina.arch import Architecture, Node
from lamina.arch.block import Block, Branch, kinds
from lamina.errors import LaminaError
from lamina.nn.registry import ALLOWED, discovered


def check(arch: Architecture) -> None:
    """Raises: LaminaError, naming the first part or field that can be priced and drawn, but not run yet."""
    if arch.encoders:
        raise LaminaError(
            "encoders can be priced and drawn, but not run yet; arch.replace(encoders=()) is its text decoder"
        )
    for path, what in (*not_understood(arch), *_at_odds(arch)):
        raise LaminaError(f"{path} ({what}) can be priced and drawn, but not run yet")


def not_understood(part: Node, path: str = "") -> Iterator[tuple[str, str]]:
    """Paths within a part, and what stands there that does not run."""
    understood = discovered()
    if type(part) not in understood:
        yield path, type(part).__name__
        return
    known = {"kind", *understood[type(part)].split()}
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        as_usual = name in known or value == field.get_default(call_default_factory=True)
        if not as_usual or value not in ALLOWED.get((type(part), name), (value,)):
            yield _step(path, name), type(value).__name__ if isinstance(value, Node) else str(value)
    for name, inner in _inner(part):
        yield from not_understood(inner, _step(path, name))


def _inner(part: Node) -> Iterator[tuple[str, Node]]:
    """The parts of a part by the step that leads to each; of equal blocks the first."""
    if isinstance(part, Architecture):
        different, places = kinds(part.blocks)
        yield from ((f"blocks[{places.index(i)}]", block) for i, block in enumerate(different))
    elif isinstance(part, Block):
        yield from part.named_branches().items()
    elif isinstance(part, Branch):
        yield "", part.op
    elif isinstance(part, values.Parallel):
        yield from part.named_ops().items()
    for name in type(part).model_fields:
        if name != "op" and isinstance(value := getattr(part, name), Node):
            yield name, value


def _step(path: str, name: str) -> str:
    return f"{path}.{name}".strip(".")


def _at_odds(arch: Architecture) -> Iterator[tuple[str, str]]:
    """What is understood, but not beside other parts of the same architecture."""
    supervised = isinstance(arch.objective, values.DeepSupervision)
    if supervised != (arch.recursion is not None):
        yield "objective", f"{arch.objective.kind} {'without' if supervised else 'with'} a recursion"
    if arch.loops > 1 and (arch.stream or arch.recursion):
        yield "loops", f"{arch.loops} beside a {'stream' if arch.stream else 'recursion'}"
    if arch.recursion and arch.embedding.positions:
        yield "embedding.positions", "with a recursion"
    if arch.embedding.task and not arch.recursion:
        yield "embedding.task", "without a recursion"
    later = arch.prediction.blocks if arch.prediction else ()
    for path, block in (*((f"prediction.blocks[{d}]", block) for d, block in enumerate(later)), *_recursive(arch)):
        if any(branch.aside for branch in block.branches):
            yield path, "SharedTransformer, which reads what the embedding gave"
    for i, name, aside in _asides(arch):
        for field in ("kv_from", "blocks", "keys_as_values", "sinks"):
            if getattr(aside.attention, field) not in (None, False):
                yield f"blocks[{i}].{name}.aside.attention.{field}", "in a SharedTransformer"
    yield from _beside_streams(arch)
    yield from _indexed(arch)
    yield from _mixed(arch)
    inputs = arch.embedding.per_layer
    if inputs and arch.recursion:
        yield "embedding.per_layer", "with a recursion"
    for i, block in enumerate(arch.blocks):
        for name, op in ((name, op) for name, branch in block.named_branches().items() for op in _ops(branch)):
            if arch.bidirectional and isinstance(op, values.Attention) and op.window:
                yield f"blocks[{i}].{name}.window", f"{op.window} where attention looks both ways"
            if isinstance(op, values.PerLayerInput) and (inputs is None or inputs.width != op.inner):
                yield f"blocks[{i}].{name}", f"{op.inner} numbers, where embedding.per_layer leaves other ones"
            if isinstance(op, values.CompressedAttention) and (arch.bidirectional or arch.recursion):
                yield f"blocks[{i}].{name}", "CompressedAttention where attention looks both ways"
            if isinstance(op, values.CompressedAttention) and op.rotary.depends_on_length:
                yield f"blocks[{i}].{name}.rotary.scaling", "entries would have to be made again as it grows"
            if isinstance(op, values.CrossAttention) and arch.recursion:
                yield f"blocks[{i}].{name}", "CrossAttention with a recursion"
            if isinstance(op, values.CrossAttention) and op.qk_norm and op.qk_norm.over == "width":
                yield f"blocks[{i}].{name}.qk_norm.over", "width"


def _asides(arch: Architecture) -> Iterator[tuple[int, str, values.SharedTransformer]]:
    """What stands aside of branches, and where."""
    for i, block in enumerate(arch.blocks):
        yield from ((i, name, branch.aside) for name, branch in block.named_branches().items() if branch.aside)


def _recursive(arch: Architecture) -> Iterator[tuple[str, Block]]:
    """The blocks of a recursion, by path."""
    yield from ((f"blocks[{i}]", block) for i, block in enumerate(arch.blocks if arch.recursion else ()))


def _indexed(arch: Architecture) -> Iterator[tuple[str, str]]:
    """What chooses the keys of a query: only earlier ones, and a choice that is taken over must have been made."""
    made = False
    for i, block in enumerate(arch.blocks):
        for name, op in ((name, op) for name, branch in block.named_branches().items() for op in _ops(branch)):
            field = {values.LatentAttention: "indexer", values.Attention: "blocks"}.get(type(op), "")
            if not field or (chooses := getattr(op, field)) is None:
                continue
            if arch.bidirectional:
                yield f"blocks[{i}].{name}.{field}", f"{type(chooses).__name__} where attention looks both ways"
            if isinstance(chooses, values.Indexer) and chooses.shared and not made:
                yield f"blocks[{i}].{name}.{field}.shared", "where no block before has an indexer of its own"
            made = made or (isinstance(chooses, values.Indexer) and not chooses.shared)


def _mixed(arch: Architecture) -> Iterator[tuple[str, str]]:
    """Values that are mixed with those of an earlier block, which must be there and as wide."""
    left = 0
    for i, block in enumerate(arch.blocks):
        for name, op in ((name, op) for name, branch in block.named_branches().items() for op in _ops(branch)):
            if not isinstance(op, values.RWKV7):
                continue
            if op.value_rank and left != op.heads * op.value_dim:
                yield f"blocks[{i}].{name}.value_rank", f"{op.value_rank} where no block before leaves as many values"
            left = left if op.value_rank else op.heads * op.value_dim


def _beside_streams(arch: Architecture) -> Iterator[tuple[str, str]]:
    """What stands where a stream says itself how outputs are added; that of AltUp which is computed is a sum."""
    if arch.stream is None:
        return
    if arch.recursion:
        yield "stream", f"{arch.stream.kind} with a recursion"
    for i in arch.stream.separate if isinstance(arch.stream, values.AttentionResiduals) else ():
        first = arch.blocks[i].branches[0] if i < len(arch.blocks) else None
        normed = first is not None and isinstance(first.before, values.RMSNorm) and first.before.weight
        if first is None or not normed or not isinstance(first.op, values.RelativeAttention):
            yield "stream.separate", f"{i}, a block that does not begin with relative attention behind a norm"
    fields = ("aside",) if isinstance(arch.stream, values.AltUp) else ("residual", "joined", "aside")
    for i, block in enumerate(arch.blocks):
        if block.scaled and isinstance(arch.stream, values.AttentionResiduals):
            yield f"blocks[{i}].scaled", f"beside {arch.stream.kind}"
        for name, branch in block.named_branches().items():
            if isinstance(branch.op, values.Parallel) and any(branch.op.lands):
                yield f"blocks[{i}].{name}.lands", f"beside {arch.stream.kind}"
            for field in fields:
                if getattr(branch, field):
                    yield f"blocks[{i}].{name}.{field}", f"beside {arch.stream.kind}"


def _ops(branch: Branch) -> tuple[Node, ...]:
    return branch.op.ops if isinstance(branch.op, values.Parallel) else (branch.op,)
