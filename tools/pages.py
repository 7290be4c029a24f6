"""Writes what is generated in docs/: tables between markers, and the drawings: `make docs`, or python -m tools.pages.

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`; the rest of a page is written by hand.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import lamina
import lamina.families
from lamina import catalog
from lamina.arch import Architecture, Block
from lamina.arch.base import Node
from lamina.arch.bill import Line, lines
from lamina.arch.block import kinds
from lamina.arch.measure import Kept, numbers
from lamina.arch.precision import PRECISIONS, Precision
from lamina.families import family_named
from lamina.machine import devices
from lamina.report import words
from tools.mechanisms import MECHANISMS, Mechanism, parts
from tools.plots import plots, ratios, speeds
from tools.tables import table

DOCS = Path(__file__).parents[1] / "docs"
WIDTH = 420.0  # of a drawing, in pixels
PLACE = re.compile(r"^blocks\[[^]]*\]\.")
MARKED = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    changed = [path for path, text in generated().items() if not path.exists() or path.read_text("utf-8") != text]
    for path in changed:
        path.parent.mkdir(exist_ok=True)
        path.write_text(generated()[path], encoding="utf-8")
    for path in stale():
        path.unlink()
    print(f"{len(generated())} files, {len(changed)} written")


@cache
def generated() -> dict[Path, str]:
    """Every file that is generated or holds generated parts, as it should be."""
    found = dict(drawings()) | dict(plots())
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        if MARKED.search(text):
            found[page] = filled(page, text)
    return found


def stale() -> list[Path]:
    """Drawings that no page has any more."""
    return sorted(set((DOCS / "mechanisms" / "drawings").glob("*.svg")) - set(generated()))


def filled(page: Path, text: str) -> str:
    """A page with its generated parts made anew."""

    def one(match: re.Match[str]) -> str:
        name = match[2]
        if page.parent.name == "mechanisms" and page.stem != "README":
            (mechanism,) = (m for m in MECHANISMS if m.slug == page.stem)
            made = OF_MECHANISM[name](mechanism)
        else:
            made = ALONE[name]()
        return f"{match[1]}\n{made}\n\n{match[3]}"

    return MARKED.sub(one, text)


# -- the catalog


@cache
def archs() -> dict[str, Architecture]:
    return {name: lamina.architecture(name) for name in lamina.names()}


@cache
def example(mechanism: Mechanism) -> Architecture:
    return mechanism.example()


@cache
def found(mechanism: Mechanism) -> dict[str, dict[Node, frozenset[int]]]:
    """The parts of each user, and the layers that have them; none of what is in no block."""
    users: dict[str, dict[Node, frozenset[int]]] = {}
    for name, arch in archs().items():
        different, places = kinds(arch.blocks)
        here: dict[Node, frozenset[int]] = {}
        for i, block in enumerate(different):
            layers = frozenset(at for at, place in enumerate(places) if place == i)
            for part in dict.fromkeys(_own(block, mechanism)):
                here[part] = here.get(part, frozenset()) | layers
        if not mechanism.within:
            here |= dict.fromkeys(_outside(arch, mechanism), frozenset())
        if here:
            users[name] = here
    return users


def _own(block: Block, mechanism: Mechanism) -> list[Node]:
    """Those of a block's parts that a page is about; experts are not counted among its feed-forwards."""
    if mechanism.slug == "feed-forward":
        return [op for op in block.ops() if isinstance(op, mechanism.types)]
    return [part for part in parts(block) if isinstance(part, mechanism.types) and mechanism.which(part)]


def _outside(arch: Architecture, mechanism: Mechanism) -> list[Node]:
    """Parts that stand in no block; those of encoders where a page is about them."""
    passed = {"blocks"} if mechanism.encoding else {"blocks", "encoders"}
    others = (getattr(arch, name) for name in type(arch).model_fields if name not in passed)
    return [part for other in others for part in parts(other) if isinstance(part, mechanism.types)]


# -- parts of a mechanism's page


def users(mechanism: Mechanism) -> str:
    if mechanism.traits:
        return _by_trait(mechanism)
    rows, where = [], "an encoder" if mechanism.encoding else "the model"
    for name, here in found(mechanism).items():
        said: dict[str, frozenset[int]] = {}
        for part, layers in here.items():
            said[mechanism.sizes(part)] = said.get(mechanism.sizes(part), frozenset()) | layers
        total = len(archs()[name].blocks)
        rows += [(f"`{name}`", f"{len(at)} of {total}" if at else where, text) for text, at in said.items()]
    if mechanism.slug == "recursion":
        loops = {name: arch.loops for name, arch in archs().items() if arch.loops > 1}
        rows += [(f"`{name}`", "the model", f"all blocks {n} times") for name, n in loops.items()]
    if not rows:
        return "No entry of the catalog. What is said of weights and costs is of the example above."
    return table(("name", "layers", "sizes"), rows)


def _by_trait(mechanism: Mechanism) -> str:
    """A row for each fact, with the entries of which it holds; in how many layers, where not in all."""
    rows = []
    for trait, holds in mechanism.traits.items():
        names = []
        for name, here in found(mechanism).items():
            layers = len(frozenset().union(*(at for part, at in here.items() if holds(part))))
            total = len(archs()[name].blocks)
            outside = any(holds(part) and not at for part, at in here.items())
            if layers or outside:
                names.append(f"`{name}`" + (f" ({layers} of {total})" if 0 < layers < total else ""))
        if names:
            rows.append((trait, str(len(names)), ", ".join(names)))
    if mechanism.slug == "rotary":
        position_free = [n for n in archs() if n not in found(mechanism)]
        rows.append(("neither", str(len(position_free)), ", ".join(f"`{name}`" for name in position_free)))
    return table(("what", "entries", "who"), rows, (1,))


def _lines(mechanism: Mechanism) -> list[Line]:
    wanted = (line for line in lines(example(mechanism)) if line.kind in mechanism.line)
    once: dict[Any, Line] = {}
    for line in wanted:
        once.setdefault((line.kind, str(line.weights), line.keeps, line.prefill), line)
    return list(once.values())


def weights(mechanism: Mechanism) -> str:
    """The weights of the example, one table a different line; then what it keeps and does."""
    arch = example(mechanism)
    said = []
    for line in _lines(mechanism):
        if not line.weights:
            continue
        rows = [(f"`{name}`", _shape(shape), f"{numbers([shape]):,}") for name, shape in line.weights.items()]
        if len(rows) > 24:
            rows = [*rows[:3], ("...", f"{len(rows) - 6} more", ""), *rows[-3:]]
        rows.append(("together", "", f"{numbers(line.weights.values()):,}"))
        said.append(f"{PLACE.sub('', line.path)} of `{arch.name}`, D = {arch.width:,}. {_price(line)}".strip())
        said.append(table(("weight", "shape", "numbers"), rows, (2,)))
    return "\n\n".join(said)


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{n:,}" for n in shape)


def _price(line: Line) -> str:
    state = sum(kept.bytes(32768, 2.0) for kept in line.keeps)
    prefill, decode = line.prefill.flops(32768, 0) / 32768, line.decoding.flops(1, 32768)
    if line.group == "encoder" or not prefill + decode + state:
        return ""
    did = f"{words.count(prefill)} FLOPs for each token of a prompt of 32k, {words.count(decode)} for the next one"
    return f"One does {did}" + (f", and keeps {words.size(state)} of the prompt in bfloat16." if state else ".")


def kept(keeps: Iterable[Kept]) -> tuple[str, str]:
    """What is kept, and how it grows."""
    names = {
        "full": "keys and values",
        "window": "keys and values of a window",
        "chunk": "keys and values of a chunk",
        "latent": "a latent",
        "index": "an indexer's keys",
        "compressed": "compressed entries",
        "cross": "keys and values of the memory",
        "recurrent": "a matrix or vector",
        "convolution": "a convolution's last inputs",
        "carry": "two latents",
        "tokens": "token ids",
    }
    what, growth = [], []
    for one in keeps:
        what.append(names[one.kind])
        if one.each == "sequence":
            growth.append("one size")
        elif one.each == "memory":
            growth.append("with the memory")
        elif one.window:
            growth.append("up to the window")
        else:
            growth.append("with every token" if one.stride == 1 else f"with every {one.stride} tokens")
    return ", ".join(dict.fromkeys(what)) or "nothing", ", ".join(dict.fromkeys(growth)) or "-"


def index() -> str:
    rows = []
    for m in MECHANISMS:
        keeps = [k for line in _lines(m) for k in line.keeps]
        what, growth = kept(keeps if m.slug not in ("masked-diffusion", "rotary") else ())
        users_of = [*found(m)]
        if m.slug == "recursion":
            users_of += [name for name, arch in archs().items() if arch.loops > 1]
        who = ", ".join(f"`{name}`" for name in users_of[:3])
        more = f" and {len(users_of) - 3} more" if len(users_of) > 3 else ""
        rows.append((f"[{m.title}]({m.slug}.md)", what, growth, (who + more) or "none yet"))
    return table(("mechanism", "state", "it grows", "who uses it"), rows)


# -- drawings


def drawings() -> Iterable[tuple[Path, str]]:
    for mechanism in MECHANISMS:
        yield DOCS / "mechanisms" / "drawings" / f"{mechanism.slug}.svg", drawing(mechanism)


def drawing(mechanism: Mechanism) -> str:
    """The mechanism at the example's sizes: its diagrams, a block that has it, or the whole model around it."""
    from lamina.report.drawing import inset
    from lamina.report.drawing.block import block_piece, spans
    from lamina.report.drawing.overview import overview
    from lamina.report.drawing.parts import PADDING, card
    from lamina.report.drawing.pattern import pattern
    from lamina.report.drawing.svg import svg

    arch = example(mechanism)
    part = mechanism.drawn(arch)
    if isinstance(part, Architecture):
        body = overview(arch, pattern(arch.blocks), WIDTH - 2 * PADDING)
        return svg(card(f"{arch.name} as a whole", body, WIDTH), mechanism.title, f"{arch.name} as a whole")
    if not isinstance(part, Block):
        return inset(part, WIDTH)
    width, title = WIDTH * spans(part), f"A block of {arch.name}"
    return svg(card(title, block_piece([part], width - 2 * PADDING), width), mechanism.title, title)


# -- pages about everything


def index_of_catalog() -> str:
    titles = ("name", "family", "made of", "parameters", "active", "context", "state a token", "at 32k")
    rows = []
    for name, arch in archs().items():
        total, active, _ = arch.parameters()
        told = catalog.source(name)
        a_token = (arch.state_bytes(128) - arch.state_bytes(0)) / 128
        at = arch.state_bytes(32768)
        rows.append(
            (
                f"`{name}`",
                arch.family,
                _made_of(arch),
                words.count(total),
                words.count(active) if active != total else "all",
                words.tokens(arch.context) if arch.context else "-",
                f"{a_token:,.0f} B" if a_token else "none",
                words.size(at) if at else "none",
                str(told.get("released") or "-"),
                str(told.get("licence") or "-"),
                _source(told),
                runs(name),
            )
        )
    return table((*titles, "released", "licence", "config", "runs"), rows, (3, 4, 5, 6, 7))


def _made_of(arch: Architecture) -> str:
    fed = dict.fromkeys(words.name_of(op) for op in arch.ops() if op.role == "feed_forward")
    some = list(fed) if len(fed) <= 2 else [*list(fed)[:2], f"{len(fed) - 2} more"]
    stream = [_stream_name(arch)] if arch.stream else []
    loops = [f"{arch.loops} loops"] if arch.loops > 1 else ["recursion"] if arch.recursion else []
    return "; ".join([words.attention(arch), ", ".join(some), *stream, *loops])


def _stream_name(arch: Architecture) -> str:
    return str(getattr(arch.stream, "kind", "")).replace("_", " ")


def _source(told: dict[str, Any]) -> str:
    kind, repository = told["config"]["kind"], told.get("repository")
    return f"[{kind}](https://huggingface.co/{repository})" if repository else kind


@cache
def missing(name: str) -> tuple[str, ...]:
    """What of an entry has no module: the class, or the field."""
    from lamina.nn.registry import discovered
    from lamina.nn.understood import not_understood

    arch = archs()[name]
    gaps = ((path.rpartition(".")[2], what) for path, what in not_understood(arch))
    known = {kind.__name__ for kind in discovered()}
    return tuple(sorted({what if hasattr(lamina.arch, what) and what not in known else step for step, what in gaps}))


def runs(name: str) -> str:
    """Whether weights load, of all or of the text, random ones can be built, or it is priced and drawn alone."""
    gaps, layout = missing(name), family_named(archs()[name].family).layout
    if gaps and gaps != ("encoders",):
        return "not yet"
    if not layout:
        return "random weights" if not gaps else "not yet"
    return "its text" if gaps else "yes"


def families_that(run: bool) -> str:
    """Families that run, or that are only read, with what their module says of itself."""
    rows = []
    for info in pkgutil.iter_modules(lamina.families.__path__):
        module = importlib.import_module(f"lamina.families.{info.name}")
        said = (module.__doc__ or "").split("\n\n")[0].replace("\n", " ").split(" Source:")[0].rstrip(".")
        for family in getattr(module, "FAMILIES", ()):
            if (family.layout is not None) == run:
                users = [f"`{name}`" for name, arch in archs().items() if arch.family == family.name]
                rows.append((f"`{family.name}`", said, ", ".join(users) or "-"))
    return table(("family", "its file reads", "in the catalog"), sorted(rows))


def unrun() -> str:
    """What is missing, by the entries that wait for it."""
    waiting: dict[str, list[str]] = {}
    for name in archs():
        for gap in missing(name):
            waiting.setdefault(f"`{gap}`", []).append(name)
        if runs(name) == "random weights":
            waiting.setdefault("tensor names alone", []).append(name)
    rows = sorted(waiting.items(), key=lambda pair: (-len(pair[1]), pair[0].lower()))
    told = [(gap, str(len(names)), ", ".join(f"`{n}`" for n in names)) for gap, names in rows]
    return table(("what is missing", "entries", "who waits"), told, (1,))


def precisions() -> str:
    def scales(kind: Precision) -> str:
        if kind.tile:
            return f"4 bytes for {kind.tile} x {kind.tile} numbers"
        return "4 bytes a row" if kind.by_row else f"in blocks of {kind.block}" if kind.block > 1 else "none"

    rows = [
        (
            f"`{kind.name}`",
            f"{kind.bits:g}",
            scales(kind),
            "as the rest" if kind.tables else f"`{kind.rest}`",
            f"`{kind.rest}`",
            f"`{kind.products}`",
        )
        for kind in PRECISIONS.values()
    ]
    return table(("name", "bits a number", "scales", "embedding, head, router", "vectors", "multiplied in"), rows, (1,))


def device_table() -> str:
    rows = [
        (
            f"`{d.name}`",
            d.title,
            f"{d.memory / 1e9:,.0f}",
            f"{d.bandwidth / 1e9:,.0f}",
            ", ".join(f"{kind} {rate / 1e12:,g}" for kind, rate in d.peak.items()),
            f"[{d.source}]({d.url})" if d.url else d.source,
        )
        for d in devices().values()
    ]
    return table(("name", "device", "memory, GB", "GB/s", "TFLOP/s at best", "source"), rows, (2, 3))


OF_MECHANISM: dict[str, Callable[[Mechanism], str]] = {"users": users, "weights": weights}
ALONE: dict[str, Callable[[], str]] = {
    "index": index,
    "catalog": index_of_catalog,
    "unrun": unrun,
    "families": lambda: families_that(run=False),
    "running": lambda: families_that(run=True),
    "precisions": precisions,
    "devices": device_table,
    "decoding": ratios,
    "speeds": speeds,
}

__all__ = ["drawing", "filled", "generated", "main", "stale"]

if __name__ == "__main__":
    main()
