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
    if arch.recursion and arch.embedding.positions:
        yield "embedding.positions", "with a recursion"
    if arch.embedding.task and not arch.recursion:
        yield "embedding.task", "without a recursion"
    for i, block in enumerate(arch.blocks):
        for name, op in ((name, op) for name, branch in block.named_branches().items() for op in _ops(branch)):
            if arch.bidirectional and isinstance(op, values.Attention) and op.window:
                yield f"blocks[{i}].{name}.window", f"{op.window} where attention looks both ways"
            if isinstance(op, values.CrossAttention) and arch.recursion:
                yield f"blocks[{i}].{name}", "CrossAttention with a recursion"
            if isinstance(op, values.CrossAttention) and op.qk_norm and op.qk_norm.over == "width":
                yield f"blocks[{i}].{name}.qk_norm.over", "width"


def _ops(branch: Branch) -> tuple[Node, ...]:
    return branch.op.ops if isinstance(branch.op, values.Parallel) else (branch.op,)
