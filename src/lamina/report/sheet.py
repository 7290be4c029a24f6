"""The fact sheet of one architecture: as data, and as lines for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from lamina.arch import Architecture, Block, Branch
from lamina.arch.base import Node
from lamina.report import encoders, words
from lamina.report.text import aligned, beside, listed, wrapped

CONTEXTS = (4096, 32768, 131072)


def parameters_by_part(arch: Architecture) -> dict[str, int]:
    """Where the parameters are: a partition of the total. `other` are gates and what recursion adds."""
    parts: dict[str, int] = dict.fromkeys(("embedding", "mixers", "feed_forwards", "norms", "head", "other"), 0)
    for line in arch.bill():
        parts[line.group] = parts.get(line.group, 0) + line.parameters
    return parts


def sheet(
    arch: Architecture, facts: dict[str, Any] | None = None, stored: dict[str, Any] | None = None
) -> dict[str, Any]:
    """All there is to say of an architecture, as JSON holds it.

    `facts` is what its publisher says, `stored` how the weights of the file that it was read from are stored.
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
        "prediction": words.prediction(arch),
        "encoders": [[encoders.title(e), encoders.sentence(e)] for e in arch.encoders],
        "parameters": {"total": total, "active": active, **parameters_by_part(arch)},
        "state": {
            "dtype": "bfloat16",
            "bytes_per_token": arch.state_bytes(context=1) - arch.state_bytes(context=0),
            "bytes_per_token_beyond": arch.state_bytes(CONTEXTS[-1] + 1) - arch.state_bytes(CONTEXTS[-1]),
            "bytes": {str(context): arch.state_bytes(context=context) for context in CONTEXTS},
        },
        "flops_per_token": {str(context): arch.flops(1, context) for context in CONTEXTS},
        "stored": stored,
        "published": facts,
        "architecture": json.loads(arch.to_json()),
    }


def _parts(block: Block) -> Iterator[tuple[str, str]]:
    """Each op of a block by its name, in the field's words, with the norms of its branch."""
    for name, branch in block.named_branches().items():
        around = "; ".join(words.branch(branch))
        if branch.aside:
            yield f"{name}.aside", ", ".join((words.name_of(branch.aside), *words.phrases(branch.aside)))
        for role, op in branch.named_ops(name).items():
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
        yield from _named_fields(name, getattr(arch, name))


def _named_fields(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Of a field by its path; of parts in a row one by one, equal blocks next to each other together."""
    if path.endswith("blocks"):
        yield from _block_fields(path, value)
    elif isinstance(value, tuple) and any(isinstance(part, Node) for part in value):
        for i, part in enumerate(value):
            for name in type(part).model_fields:
                yield from _named_fields(f"{path}[{i}].{name}", getattr(part, name))
    else:
        yield from _fields(path, value)


def _block_fields(path: str, blocks: Sequence[Block]) -> Iterator[tuple[str, str]]:
    _, places = words.kinds(blocks)
    for _, run in groupby(enumerate(places), key=lambda pair: pair[1]):
        at = [i for i, _ in run]
        span = f"{path}[{at[0]}]" if len(at) == 1 else f"{path}[{at[0]}..{at[-1]}]"
        for role, branch in blocks[at[0]].named_branches().items():
            yield from _branch_fields(f"{span}.{role}", role, branch)


def _branch_fields(path: str, role: str, branch: Branch) -> Iterator[tuple[str, str]]:
    ops = branch.named_ops(role)
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


def rendered(said: dict[str, Any], width: int | None = None) -> list[str]:
    """A sheet as lines, the title first; long ones are wrapped to `width`."""
    title = f"{said['name']}: {words.count(said['parameters']['total'])} parameters, family {said['family']}"
    lines = [*wrapped(title, width), "", *listed(_structure(said), width)]
    lines += ["", *beside(_parameters(said), _costs(said), width)]
    if said["stored"]:
        lines += ["", *listed([("stored", _stored(said["stored"]))], width)]
    if said["published"]:
        lines += ["", "published", *listed(_published(said["published"]), width)]
    return lines


def _structure(said: dict[str, Any]) -> list[tuple[str, str]]:
    several = len(said["blocks"]) > 1
    pairs = [("context", f"{said['context']:,} tokens" if said["context"] else "not stated")]
    if said["objective"] != "causal":
        pairs.append(("objective", said["objective"].replace("_", " ")))
    pairs.append(("embedding", said["embedding"]))
    pairs.append(("blocks", f"{said['layers']} = {said['pattern']}" if several else str(said["layers"])))
    if said["recursion"]:
        pairs.append(("recursion", said["recursion"]))
    for block in said["blocks"]:
        pairs.append((f"{block['count']} x [", block["label"] if several else ""))
        pairs += [(f"  {name.replace('_', '-')}", text) for name, text in block["parts"].items()]
        pairs.append(("]", ""))
    if said["prediction"]:
        pairs.append(("prediction", said["prediction"]))
    pairs += [(title, text) for title, text in said["encoders"]]
    return [*pairs, ("final norm", said["norm"] or "none"), ("head", said["head"])]


def _parameters(said: dict[str, Any]) -> list[str]:
    counts = said["parameters"]
    rows = [("parameters", "", "")]
    for name, value in counts.items():
        if name not in ("total", "active") and (value or name == "head"):
            share = f"{100 * value / counts['total']:.1f} %" if value else "tied"
            rows.append((name.replace("_", "-"), f"{value:,}", share))
    rows.append(("total", f"{counts['total']:,}", ""))
    if counts["active"] != counts["total"]:
        rows.append(("active", f"{counts['active']:,}", ""))
    return aligned(rows, (False, True, True))


def _costs(said: dict[str, Any]) -> list[str]:
    rows = [("context", "cache, bfloat16", "FLOPs/token")]
    for context, nbytes in said["state"]["bytes"].items():
        beyond = "*" if said["context"] and int(context) > said["context"] else " "
        flops = words.count(said["flops_per_token"][context])
        rows.append((words.tokens(int(context)) + beyond, words.size(nbytes) if nbytes else "none", flops))
    per, further = said["state"]["bytes_per_token"], said["state"]["bytes_per_token_beyond"]
    if per:
        rows.append(("a token ", f"{per:,} B", ""))
    if further != per:
        rows.append(("past windows ", f"{further:,} B", ""))
    lines = aligned(rows, (True, True, True))
    starred = said["context"] and said["context"] < CONTEXTS[-1]
    return [*lines, "* longer than the published context"] if starred else lines


def _stored(said: dict[str, Any]) -> str:
    bits, formats = said["bits_per_weight"], said["formats"]
    total = f"{bits:.2f} bits a weight" if bits else words.size(said["bytes"])
    each = ", ".join(f"{name} {words.size(nbytes)}" for name, nbytes in formats.items())
    return f"{total}: {each}" if each else total


def _published(facts: dict[str, Any]) -> list[tuple[str, str]]:
    pairs = []
    for key, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(str(v) for v in value.values() if v)
        if value is not None:
            pairs.append((f"  {key.replace('_', ' ')}", f"{value:,}" if isinstance(value, int) else str(value)))
    return pairs
