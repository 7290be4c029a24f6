"""The fact sheet of one architecture: as data, and as lines for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

from lamina.arch import Architecture, Block, Branch, Causal
from lamina.arch.base import Node
from lamina.arch.feedforward import FeedForward
from lamina.arch.model import norm_parameters
from lamina.report import words

if TYPE_CHECKING:
    from rich.console import RenderableType

CONTEXTS = (4096, 32768, 131072)


def parameters_by_part(arch: Architecture) -> dict[str, int]:
    """Where the parameters are: a partition of the total. `other` are gates and what recursion adds."""
    width = arch.width
    total, _, embedding = arch.parameters()
    parts = {"embedding": embedding, "mixers": 0, "feed_forwards": 0, "norms": 0}
    for block in arch.blocks:
        for op in block.ops():
            parts["feed_forwards" if isinstance(op, FeedForward) else "mixers"] += op.parameters(width)
        parts["norms"] += sum(norm_parameters(b, n, width) for b in block.branches for n in b.norms)
    parts["norms"] += arch.norm.parameters(width) if arch.norm else 0
    parts["head"] = arch.head.parameters(arch.vocab, width)
    return parts | {"other": total - sum(parts.values())}


def sheet(arch: Architecture, facts: dict[str, Any] | None = None) -> dict[str, Any]:
    """All there is to say of an architecture, as JSON holds it; `facts` is what its publisher says.

    Units: state in bytes of one sequence in bfloat16; FLOPs of one token after that much context
    """
    total, active, _ = arch.parameters()
    different, places = words.kinds(arch.blocks)
    names = words.labels(different)
    return {
        "name": arch.name,
        "family": arch.family,
        "objective": arch.objective.kind,
        "vocab": arch.vocab,
        "width": arch.width,
        "context": arch.context,
        "layers": len(arch.blocks),
        "attention": words.attention(arch),
        "pattern": words.folded(names[place] for place in places),
        "blocks": [
            {
                "label": name,
                "count": places.count(i),
                "places": [at for at, place in enumerate(places) if place == i],
                "parts": dict(_parts(block)),
            }
            for i, (name, block) in enumerate(zip(names, different, strict=True))
        ],
        "embedding": _embedding(arch),
        "norm": words.norm(arch.norm) if arch.norm else None,
        "head": _head(arch),
        "recursion": _recursion(arch),
        "parameters": {"total": total, "active": active, **parameters_by_part(arch)},
        "state": {
            "dtype": "bfloat16",
            "bytes_per_token": arch.state_bytes(context=1) - arch.state_bytes(context=0),
            "bytes_per_token_beyond": arch.state_bytes(CONTEXTS[-1] + 1) - arch.state_bytes(CONTEXTS[-1]),
            "bytes": {str(context): arch.state_bytes(context=context) for context in CONTEXTS},
        },
        "flops_per_token": {str(context): arch.flops(1, context) for context in CONTEXTS},
        "published": facts,
        "architecture": json.loads(arch.to_json()),
    }


def _parts(block: Block) -> Iterator[tuple[str, str]]:
    """Each op of a block by its name, in the field's words, with the norms of its branch."""
    for name, branch in block.named_branches().items():
        around = "; ".join(words.branch(branch))
        for role, op in words.ops_of(name, branch).items():
            said = ", ".join((words.name_of(op), *words.phrases(op)))
            yield role, f"{said}; {around}" if role == name else f"{said}; {around}, in parallel"


def _embedding(arch: Architecture) -> str:
    e = arch.embedding
    said = [f"{e.vocab:,} x {e.width:,}"]
    if e.placeholders:
        said.append(f"{e.placeholders} placeholder rows")
    if e.scale != 1:
        said.append(f"times {words.number(e.scale)}")
    if e.positions:
        said.append(f"{e.positions.length:,} learned positions")
    if e.task:
        said.append(f"{e.task.count:,} tasks of {e.task.tokens} tokens")
    return ", ".join(said)


def _head(arch: Architecture) -> str:
    h = arch.head
    said = ["tied to the embedding" if h.tied else "a matrix of its own"]
    if h.scale != 1:
        said.append(f"times {words.number(h.scale)}")
    if h.softcap:
        said.append(f"soft-cap {words.number(h.softcap)}")
    return ", ".join([*said, "bias"] if h.bias else said)


def _recursion(arch: Architecture) -> str | None:
    if (r := arch.recursion) is None:
        return None
    low, high = (f"blocks {s.start} to {s.stop - 1}" for s in (r.low, r.high))
    return f"{r.high_cycles} x ({r.low_cycles} x low [{low}] + high [{high}])"


# -- every field by its path


def fields(arch: Architecture) -> Iterator[tuple[str, str]]:
    """Every field that is set, by its path; a run of equal blocks is one, `blocks[0..4]`."""
    for name in type(arch).model_fields:
        if name != "blocks":
            yield from _fields(name, getattr(arch, name))
            continue
        _, places = words.kinds(arch.blocks)
        for _, run in groupby(enumerate(places), key=lambda pair: pair[1]):
            at = [i for i, _ in run]
            span = f"blocks[{at[0]}]" if len(at) == 1 else f"blocks[{at[0]}..{at[-1]}]"
            for role, branch in arch.blocks[at[0]].named_branches().items():
                yield from _branch_fields(f"{span}.{role}", role, branch)


def _branch_fields(path: str, role: str, branch: Branch) -> Iterator[tuple[str, str]]:
    ops = words.ops_of(role, branch)
    for name, op in ops.items():
        yield from _fields(path if name == role else f"{path}.{name}", op)
    for name in type(branch).model_fields:
        if name != "op":
            yield from _fields(f"{path}.{name}", getattr(branch, name))


def _fields(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Node):
        for name in type(value).model_fields:
            yield from _fields(f"{path}.{name}", getattr(value, name))
    elif value is not None:
        yield path, value if isinstance(value, str) else f"{value!r}"


# -- for people


def rendered(said: dict[str, Any]) -> Iterator[RenderableType]:
    """A sheet as what rich prints."""
    yield f"[bold]{said['name']}[/bold]  {words.count(said['parameters']['total'])} parameters, family {said['family']}"
    yield ""
    yield _structure(said)
    yield ""
    yield _costs(said)
    if said["published"]:
        yield ""
        yield _published(said["published"])


def _grid() -> Any:
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column()
    return grid


def _structure(said: dict[str, Any]) -> RenderableType:
    from rich.markup import escape

    grid = _grid()
    grid.add_row("context", f"{said['context']:,} tokens" if said["context"] else "not stated")
    if said["objective"] != Causal().kind:
        grid.add_row("objective", said["objective"].replace("_", " "))
    grid.add_row("embedding", said["embedding"])
    grid.add_row("blocks", f"{said['layers']} = {escape(said['pattern'])}")
    if said["recursion"]:
        grid.add_row("recursion", escape(said["recursion"]))
    for block in said["blocks"]:
        grid.add_row(f"{block['count']} x [", f"[dim]{block['label']}[/dim]" if len(said["blocks"]) > 1 else "")
        for name, text in block["parts"].items():
            grid.add_row(f"  {name.replace('_', '-')}", escape(text))
        grid.add_row("]", "")
    grid.add_row("final norm", said["norm"] or "none")
    grid.add_row("head", said["head"])
    return grid


def _costs(said: dict[str, Any]) -> RenderableType:
    from rich.columns import Columns
    from rich.table import Table

    parts = Table.grid(padding=(0, 2))
    for justify in ("left", "right", "right"):
        parts.add_column(justify=justify, no_wrap=True)
    counts = said["parameters"]
    parts.add_row("[bold]parameters[/bold]", "", "")
    for name, value in counts.items():
        if name not in ("total", "active") and (value or name == "head"):
            share = f"{100 * value / counts['total']:.1f} %" if value else "tied"
            parts.add_row(name.replace("_", "-"), f"{value:,}", share)
    parts.add_row("total", f"{counts['total']:,}", "")
    if counts["active"] != counts["total"]:
        parts.add_row("active", f"{counts['active']:,}", "")

    costs = Table.grid(padding=(0, 2))
    for justify in ("right", "right", "right"):
        costs.add_column(justify=justify, no_wrap=True)
    costs.add_row("[bold]context[/bold]", "[bold]cache, bfloat16[/bold]", "[bold]FLOPs/token[/bold]")
    for context, nbytes in said["state"]["bytes"].items():
        beyond = "*" if said["context"] and int(context) > said["context"] else ""
        flops = words.count(said["flops_per_token"][context])
        costs.add_row(words.tokens(int(context)) + beyond, words.size(nbytes), flops)
    per, beyond = said["state"]["bytes_per_token"], said["state"]["bytes_per_token_beyond"]
    costs.add_row("a token", f"{per:,} B", "")
    if beyond != per:
        costs.add_row("beyond windows", f"{beyond:,} B", "")
    if said["context"] and said["context"] < CONTEXTS[-1]:
        costs.add_row("[dim]* not published[/dim]", "", "")
    return Columns([parts, "    ", costs])


def _published(facts: dict[str, Any]) -> RenderableType:
    from rich.markup import escape

    grid = _grid()
    grid.add_row("[bold]published[/bold]", "")
    for key, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(str(v) for v in value.values() if v)
        if value is not None:
            text = f"{value:,}" if isinstance(value, int) else str(value)
            grid.add_row(key.replace("_", " "), escape(text))
    return grid
