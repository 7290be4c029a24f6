"""What differs between two architectures, mechanism by mechanism, in the field's words.

Each aspect of an architecture (its attention, norms, positions, ...) is said in a few words, folded over its blocks;
those that are said otherwise of the other one differ. The exact fields, by path, are in `lamina.diff`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from lamina.arch import Architecture, Attention, Block, Branch, LayerNorm, Node, Op, Parallel, RMSNorm, Rotary
from lamina.arch.block import kinds
from lamina.arch.diff import diff
from lamina.report import encoders, words


class Change(NamedTuple):
    """One aspect that differs, as said of each side; empty where a side has no such thing."""

    aspect: str
    left: str
    right: str


NAMED = {
    "attention": ("heads", "kv_heads", "kind"),
    "glu": ("inner", "activation", "kind"),
    "mlp": ("inner", "activation", "kind"),
    "latent_attention": ("heads", "kind"),
    "moe": ("kind",),
}
"""Fields that a part's name says already; of kinds that are not here, all fields are said."""

PLACES = {"before": "before", "after": "after", "joined": "of the sum"}
"""What is said of where a norm stands."""

TITLES = {
    "head_dim": "head size",
    "value_dim": "value size",
    "qk_norm": "QK-norm",
    "softcap": "soft-cap",
    "rotary": "positions",
    "kv_from": "keys and values from block",
    "output_bias": "output bias",
    "dim": "dimensions",
    "loops": "passes of the stack",
}
"""What a field is called where its own name is not what people say."""


def described(left: Architecture, right: Architecture) -> list[Change]:
    """Every aspect that is said otherwise of one than of the other, in the order of a fact sheet."""
    changes = [*_whole(left, right)]
    for role in dict.fromkeys((*_roles(left), *_roles(right))):
        changes += _role(role, _ops(left, role), _ops(right, role))
    for title, say in (("norm", _norm_places), ("norm kind", _norm_kinds), ("norm eps", _norm_eps)):
        changes += _said(title, _per_block(left, say), _per_block(right, say))
    changes += _said("residual", _joinings(left), _joinings(right))
    changes += _values("final norm", [left.norm], [right.norm])
    return [*changes, *_values("head", [left.head], [right.head]), *_encoders(left, right)]


def _said(aspect: str, left: Sequence[str], right: Sequence[str]) -> Iterator[Change]:
    """A change if two patterns of words differ."""
    ours, theirs = folded(left), folded(right)
    if ours != theirs:
        yield Change(aspect, ours, theirs)


def _values(aspect: str, left: Sequence[Any], right: Sequence[Any], skip: Sequence[str] = ()) -> Iterator[Change]:
    """Changes of a value, block by block: field by field where all are parts of one kind, else as a whole."""
    if list(left) == list(right):
        return
    types = {type(value) for value in (*left, *right)}
    only = types.pop()
    if types or not issubclass(only, Node):
        yield from _said(aspect, [_text(value) for value in left], [_text(value) for value in right])
        return
    for name in only.model_fields:
        if name not in skip:
            sides = ([getattr(value, name) for value in side] for side in (left, right))
            title = "bias of q, k, v" if name == "bias" and only is Attention else _title_of(name)
            yield from _values(f"{aspect} {title}".strip(), *sides)


def folded(said: Sequence[str]) -> str:
    """What is said of blocks in turn: once if it is the same of all, as a pattern if one repeats, else in runs."""
    if len(set(said)) <= 1:
        return said[0] if said else ""
    found = words.folds(said)
    times, pattern = max(found, key=lambda fold: fold[0] * sum(many for many, _ in fold[1]))
    if times > 1 and all(_begins(runs, pattern) for _, runs in found):
        return " : ".join(f"{many} x {_or_none(text)}" for many, text in pattern)
    said = []
    for times, runs in found:
        one = ", ".join(f"{many} x {_or_none(text)}" for many, text in runs)
        said.append(f"{times} x ({one})" if times > 1 else one)
    return ", ".join(said)


def _begins(part: Sequence[tuple[int, str]], pattern: Sequence[tuple[int, str]]) -> bool:
    """Whether runs are the beginning of a pattern, cut off where the blocks end."""
    return len(part) <= len(pattern) and all(a[1] == b[1] and a[0] <= b[0] for a, b in zip(part, pattern, strict=False))


def _or_none(text: str) -> str:
    return text or "none"


# -- the aspects


def _whole(left: Architecture, right: Architecture) -> Iterator[Change]:
    for title, name in (("layers", "blocks"), ("width", "width"), ("vocabulary", "vocab"), ("context", "context")):
        sides = (getattr(arch, name) for arch in (left, right))
        ours, theirs = (len(value) if name == "blocks" else value for value in sides)
        yield from _said(title, [_text(ours)], [_text(theirs)])
    yield from _values("embedding", [left.embedding], [right.embedding], skip=("vocab", "width"))
    for name in type(left).model_fields:
        if name not in ("name", "family", "embedding", "blocks", "norm", "head", "context", "encoders", "prediction"):
            yield from _values(_title_of(name), [getattr(left, name)], [getattr(right, name)])
    if left.prediction != right.prediction:
        yield from _said("prediction", *([words.prediction(arch) or "none"] for arch in (left, right)))


def _encoders(left: Architecture, right: Architecture) -> Iterator[Change]:
    """What encodes images and sound, each as a whole."""
    sides = [{encoders.title(e): encoders.sentence(e) for e in arch.encoders} for arch in (left, right)]
    for title in dict.fromkeys((*sides[0], *sides[1])):
        yield from _said(title, *([side[title]] if title in side else ["none"] for side in sides))


def _roles(arch: Architecture) -> list[str]:
    return list(dict.fromkeys(role for block in kinds(arch.blocks)[0] for role in _named_ops(block)))


def _named_ops(block: Block) -> dict[str, Op]:
    return {role: op for name, branch in block.named_branches().items() for role, op in branch.named_ops(name).items()}


def _per_block(arch: Architecture, say: Callable[[Block], Any]) -> list[Any]:
    """Something about every block, worked out once for equal ones."""
    different, places = kinds(arch.blocks)
    found = [say(block) for block in different]
    return [found[place] for place in places]


def _ops(arch: Architecture, role: str) -> list[Op | None]:
    """The op of a role in every block."""
    return _per_block(arch, lambda block: _named_ops(block).get(role))


def _role(role: str, left: Sequence[Op | None], right: Sequence[Op | None]) -> Iterator[Change]:
    """What differs in one role: as a whole where other mechanisms stand there, else mechanism by mechanism."""
    attention = role.startswith("mixer") and all("attention" in op.kind for op in (*left, *right) if op)
    title = role.replace("mixer", "attention") if attention else role
    title = title.replace("feed_forward", "feed-forward").replace("_", " ")
    places = ([f"{title}" if op else "none" for op in side] for side in (left, right))
    yield from _said(f"blocks with {title}", *places)
    left, right = [op for op in left if op], [op for op in right if op]
    ours, theirs = ({type(op): op for op in side} for side in (left, right))
    if ours.keys() != theirs.keys():
        yield from _said(title, [_text(op) for op in left], [_text(op) for op in right])
        return
    yield from _said(title, [words.name_of(op) for op in left], [words.name_of(op) for op in right])
    for kind in ours:
        of_kind = ([op for op in side if type(op) is kind] for side in (left, right))
        several = f"{words.kind_of(ours[kind])}" if len(ours) > 1 else "" if attention else title
        yield from _values(several, *of_kind, skip=NAMED.get(ours[kind].kind, ("kind",)))


def _norm_places(block: Block) -> str:
    """Where norms stand: said once where it is alike for every branch of a block."""
    places = {n: [_place(place) for place in branch.norms] for n, branch in block.named_branches().items()}
    return _each({name: " and ".join(at) or "none" for name, at in places.items()})


def _place(place: str) -> str:
    """Where a norm stands; one around a single op of several side by side says which."""
    role, _, where = place.rpartition(".")
    return f"{PLACES[where]} {role.replace('_', '-')}".strip()


def _norm_kinds(block: Block) -> str:
    found = (words.norm(norm) for branch in block.branches for norm in branch.norms.values())
    return " and ".join(dict.fromkeys(found)) or "none"


def _norm_eps(block: Block) -> str:
    found = (f"{norm.eps:g}" for branch in block.branches for norm in branch.norms.values())
    return " and ".join(dict.fromkeys(found)) or "none"


def _joinings(arch: Architecture) -> list[str]:
    """How outputs join the stream, and which ops stand side by side."""
    return _per_block(arch, lambda block: _each({n: _joining(b) for n, b in block.named_branches().items()}))


def _joining(branch: Branch) -> str:
    side = [" and ".join(branch.op.named_ops()) + " side by side"] if isinstance(branch.op, Parallel) else []
    fields = ((name, field.default) for name, field in type(branch).model_fields.items())
    unusual = [
        f"{_title_of(name)} {_text(getattr(branch, name))}"
        for name, default in fields
        if name not in ("op", *PLACES) and getattr(branch, name) != default
    ]
    return ", ".join([*side, *unusual]).replace("_", "-")


def _each(said: dict[str, str]) -> str:
    texts = set(said.values())
    if len(texts) > 1:
        return "; ".join(f"{name.replace('_', '-')}: {text or 'plain'}" for name, text in said.items())
    only = texts.pop()
    return f"{only} each sublayer" if only.endswith(("before", "after")) else only


def _title_of(name: str) -> str:
    return TITLES.get(name, name).replace("_", " ")


def _text(value: Any) -> str:
    """A value in words."""
    if value is None:
        return "none"
    if isinstance(value, RMSNorm | LayerNorm):
        return words.norm(value)
    if isinstance(value, Rotary):
        return words.rotary(value, value.dim)
    if isinstance(value, Node):
        named, said = words.name_of(value), words.phrases(value)
        return ", ".join((named, *said)) if hasattr(value, "kind") or not said else ", ".join(said)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return words.number(value)
    if isinstance(value, tuple):
        return f"{len(value)} numbers" if len(value) > 8 else ", ".join(map(_text, value))
    return str(value).replace("_", " ")


# -- for people and for programs


def rendered(left: Architecture, right: Architecture) -> list[str]:
    """A heading, then a line for each aspect that differs; one line if none does."""
    changes = described(left, right)
    if not changes and not diff(left, right):
        return [f"{left.name} and {right.name} are the same architecture"]
    counts = " -> ".join(words.count(arch.parameters().total) for arch in (left, right))
    width = max(len(change.aspect) for change in changes) + 1 if changes else 0
    lines = [
        f"{change.aspect + ':':<{width}} {change.left or 'none'} -> {change.right or 'none'}" for change in changes
    ]
    return [f"{left.name} -> {right.name}: {counts} parameters", *lines]


def record(left: Architecture, right: Architecture) -> dict[str, Any]:
    """The same, and every field that differs by path, as JSON holds it."""
    return {
        "left": left.name,
        "right": right.name,
        "same": not diff(left, right),
        "differences": [change._asdict() for change in described(left, right)],
        "paths": [{"path": path, "left": _data(a), "right": _data(b)} for path, a, b in diff(left, right).folded()],
    }


def _data(value: Any) -> Any:
    if isinstance(value, Node):
        return value.model_dump(mode="json", exclude_defaults=True) | {"kind": getattr(value, "kind", None)}
    return [_data(part) for part in value] if isinstance(value, tuple) else value
