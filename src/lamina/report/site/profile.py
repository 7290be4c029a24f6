"""The profile of an architecture: what the browser needs to price it in any setting, and to tell it from others.

assets/cost.js prices a profile as arch/cost.py prices the bill it is made from, under the same names;
assets/difference.js compares `fields` as arch/diff.py compares values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from lamina.arch import Architecture, Block
from lamina.arch.bill import Line
from lamina.arch.cost import Cost
from lamina.arch.measure import FIXED, Kept, Work, numbers
from lamina.arch.precision import PRECISIONS, Precision, plan, precision
from lamina.errors import LaminaError
from lamina.machine.devices import WIDER, Device, devices
from lamina.report import words
from lamina.report.sheet import fields

PLANS = (
    "bfloat16",
    "float32",
    "fp8",
    "int8",
    "int4",
    "mxfp4",
    "nvfp4",
    "bfloat16,experts=mxfp4",
    "fp8,experts=nvfp4",
    "q8_0",
    "q6_k",
    "q5_k",
    "q4_k",
)
"""How weights can be stored in the pages, by the names of `lamina.arch.precision.plan`."""

CACHES = ("bfloat16", "float32", "fp8", "int4")
"""How state can be kept that follows the cache's precision."""

Record = dict[str, Any]

_IN_BLOCK = re.compile(r"(encoders\[\d+\]\.)?blocks\[")


class Choices(NamedTuple):
    """What can be chosen in the pages: ways of storing weights (by the names of plans) and the cache, and devices."""

    plans: tuple[str, ...] = PLANS
    caches: tuple[str, ...] = CACHES
    devices: tuple[Device, ...] = ()

    def record(self) -> Record:
        """As the scripts read them, devices with their rates."""
        return {
            "plans": [{"name": name, **_stored(plan(name).other)} for name in self.plans],
            "caches": [{"name": name, "bits": precision(name).bits} for name in self.caches],
            "devices": [_device(device) for device in (*devices().values(), *self.devices)],
        }


def _stored(general: Precision) -> Record:
    """Of what weights are stored in: what a number is multiplied in, and bits of that."""
    return {"products": general.products, "computeBits": PRECISIONS[_compute(general)].bits}


def _compute(general: Precision) -> str:
    """The precision to name as what is computed in, so that it is multiplied as `general` is."""
    return general.products if general.products in PRECISIONS else general.name


def priced(arch: Architecture, weights: str = "bfloat16", **setting: Any) -> Cost:
    """The cost of an architecture in the precision that its weights are multiplied in."""
    return arch.cost(weights=weights, compute=_compute(plan(weights).other), **setting)


def _device(device: Device) -> Record:
    rates = {kind: rate for kind in WIDER if (rate := _rate(device, kind))}
    known = {"name": device.name, "title": device.title, "memory": device.memory, "bandwidth": device.bandwidth}
    return known | {"rates": rates, "source": device.source, "url": device.url}


def _rate(device: Device, products: str) -> float | None:
    try:
        return device.rate(products)
    except LaminaError:
        return None


def profile(arch: Architecture, said: Record, facts: Record, plans: Sequence[str] = PLANS) -> Record:
    """All that the pages compute of an architecture; `said` is its sheet, `facts` what its publisher says."""
    costs = [priced(arch, name) for name in plans]
    bill = costs[0].bill
    return {
        "name": arch.name,
        "family": arch.family,
        "parameters": said["parameters"]["total"],
        "active": said["parameters"]["active"],
        "layers": len(arch.blocks),
        "width": arch.width,
        "vocab": arch.vocab,
        "context": arch.context,
        "attention": said["attention"],
        "pattern": said["pattern"],
        "released": facts.get("released"),
        "licence": facts.get("licence"),
        "bidirectional": arch.bidirectional,
        "prefix": arch.prefix,
        "widest": max((line.saved for line in bill if line.path.startswith("blocks")), default=0),
        "lines": [_line(line, costs, arch.head.tied) for line in bill],
        "fields": compared(arch, said),
    }


def _line(line: Line, costs: Sequence[Cost], tied: bool) -> Record:
    """A line of the bill, without what stands at its default; weights in bytes of one place, a number a plan.

    `tables` are those of its weights of which a token reads a share alone.
    """
    record: Record = {"path": line.path, "kind": line.kind, "group": line.group, "parameters": line.parameters}
    record |= {name: getattr(line, name) for name in ("times", "runs") if getattr(line, name) != 1}
    if line.active != line.parameters:
        record["active"] = line.active
    if line.weights:
        record["always"] = [cost.stored(line, experts=False) for cost in costs]
    if line.experts:
        record |= {"experts": line.experts, "chosen": line.chosen}
        record["routed"] = [cost.stored(line, experts=True) for cost in costs]
    if tables := [name for name in line.looked_up if not (name == "weight" and tied)]:
        record["tables"] = [_table(line, name, costs) for name in tables]
    for name in ("keeps", "borrows"):
        if kept := getattr(line, name):
            record[name] = [_kept(one) for one in kept]
    if line.prefill != Work(0):
        record["prefill"] = _work(line.prefill)
    if line.decoding != line.prefill:
        record["decoding"] = _work(line.decoding)
    return record


def _table(line: Line, name: str, costs: Sequence[Cost]) -> Record:
    shape = line.weights[name]
    stored = [cost.setting.weights.stored(f"{line.path}.{name}", shape) for cost in costs]
    return {"bytes": stored, "share": line.looked_up[name] / numbers([shape])}


def _kept(kept: Kept) -> Record:
    fixed = {"fixed": FIXED[kept.dtype]} if kept.dtype else {}
    rest = {name: value for name in ("window", "read") if (value := getattr(kept, name)) is not None}
    stride = {"stride": kept.stride} if kept.stride != 1 else {}
    return {"kind": kept.kind, "numbers": kept.numbers, "each": kept.each} | fixed | rest | stride


def _work(work: Work) -> Record:
    lists = {
        name: [{key: v for key, v in part._asdict().items() if v is not None} for part in parts]
        for name, parts in (("pairs", work.pairs), ("orders", work.orders))
    }
    said = {name: parts for name, parts in lists.items() if parts}
    rest = {name: value for name in ("once", "chunked", "crossed") if (value := getattr(work, name))}
    return {"token": work.token} | said | rest


def compared(arch: Architecture, said: Record) -> Record:
    """What a diff looks at: what stands around the blocks in words, and every field by its path.

    `top` are fields of the whole; the blocks of a stack are in `stacks`, by the path of the stack.
    """
    top = [[path, value] for path, value in fields(arch) if path != "name" and not _IN_BLOCK.match(path)]
    stacks = {"blocks": arch.blocks} | {f"encoders[{i}].blocks": e.blocks for i, e in enumerate(arch.encoders)}
    around = [
        ("embedding", said["embedding"]),
        ("recursion", said["recursion"]),
        *said["encoders"],
        ("final norm", said["norm"] or "none"),
        ("head", said["head"]),
    ]
    kinds = [{"label": block["label"], "parts": block["parts"]} for block in said["blocks"]]
    return {
        "around": [pair for pair in around if pair[1]],
        "kinds": kinds,
        "top": top,
        "stacks": {path: _stack(arch, blocks) for path, blocks in stacks.items() if blocks},
    }


def _stack(arch: Architecture, blocks: Sequence[Block]) -> Record:
    """Fields of blocks: those that all have alike, what each different block says for itself, and where it stands."""
    different, places = words.kinds(blocks)
    each = [dict(_block_fields(arch, kind)) for kind in different]
    shared = {path: value for path, value in each[0].items() if all(own.get(path) == value for own in each)}
    kinds = [[pair for pair in own.items() if pair[0] not in shared] for own in each]
    return {"shared": list(shared.items()), "kinds": kinds, "places": places}


def _block_fields(arch: Architecture, block: Block) -> Iterator[tuple[str, str]]:
    """Every field of a block by its path within it, its own first."""
    for name in type(block).model_fields:
        if name != "branches":
            yield name, repr(getattr(block, name))
    alone = arch.model_copy(update={"blocks": (block,), "encoders": (), "recursion": None})
    for path, value in fields(alone):
        if path.startswith("blocks[0]."):
            yield path.removeprefix("blocks[0]."), value
