"""The profile of an architecture: what the browser needs to price it in any setting, and to tell it from others.

assets/cost.js prices a profile as arch/cost.py prices the bill it is made from, under the same names;
assets/difference.js compares `fields` as arch/diff.py compares values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lamina.arch import Architecture, Block
from lamina.arch.bill import Line
from lamina.arch.cost import Cost
from lamina.arch.measure import FIXED, Kept, Work
from lamina.arch.precision import PRECISIONS, Precision, plan
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

Record = dict[str, Any]


def choices() -> Record:
    """What can be chosen in the pages: ways of storing weights and the cache, and devices with their rates."""
    return {
        "plans": [{"name": name, **_stored(plan(name).other)} for name in PLANS],
        "caches": [{"name": name, "bits": PRECISIONS[name].bits} for name in CACHES],
        "devices": [_device(device) for device in devices().values()],
    }


def _stored(general: Precision) -> Record:
    """Of what weights are stored in: bits of a number, what it is multiplied in, and bits of that."""
    return {"bits": general.bits, "products": general.products, "computeBits": PRECISIONS[_compute(general)].bits}


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


def profile(arch: Architecture, said: Record, facts: Record) -> Record:
    """All that the pages compute of an architecture; `said` is its sheet, `facts` what its publisher says."""
    costs = [priced(arch, name) for name in PLANS]
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
        "tied": arch.head.tied,
        "prefix": arch.prefix,
        "widest": max((line.saved for line in bill if line.path.startswith("blocks")), default=0),
        "lines": [_line(line, costs) for line in bill],
        "fields": compared(arch, said),
    }


def _line(line: Line, costs: Sequence[Cost]) -> Record:
    """A line of the bill, without what stands at its default; weights in bytes of one place, a number a plan."""
    record: Record = {"path": line.path, "kind": line.kind, "group": line.group, "parameters": line.parameters}
    record |= {name: getattr(line, name) for name in ("times", "runs") if getattr(line, name) != 1}
    if line.active != line.parameters:
        record["active"] = line.active
    if line.weights:
        record["always"] = [cost.stored(line, experts=False) for cost in costs]
    if line.experts:
        record |= {"experts": line.experts, "chosen": line.chosen}
        record["routed"] = [cost.stored(line, experts=True) for cost in costs]
    if line.group == "embedding":
        record["row"] = sum(shape[-1] for shape in line.weights.values())
    if line.keeps:
        record["keeps"] = [_kept(kept) for kept in line.keeps]
    if line.prefill != Work(0):
        record["prefill"] = _work(line.prefill)
    if line.decoding != line.prefill:
        record["decoding"] = _work(line.decoding)
    return record


def _kept(kept: Kept) -> Record:
    fixed = {"fixed": FIXED[kept.dtype]} if kept.dtype else {}
    rest = {name: value for name in ("window", "read") if (value := getattr(kept, name)) is not None}
    stride = {"stride": kept.stride} if kept.stride != 1 else {}
    return {"kind": kept.kind, "numbers": kept.numbers, "each": kept.each} | fixed | rest | stride


def _work(work: Work) -> Record:
    pairs = [{name: v for name, v in p._asdict().items() if v is not None} for p in work.pairs]
    return {"token": work.token} | ({"pairs": pairs} if pairs else {}) | ({"once": work.once} if work.once else {})


def compared(arch: Architecture, said: Record) -> Record:
    """What a diff looks at: every field by its path, those of each different block once, and where it stands.

    `shared` are fields that all blocks have alike; what a kind of block says for itself comes after them.
    """
    different, places = words.kinds(arch.blocks)
    top = [[path, value] for path, value in fields(arch) if not path.startswith(("blocks[", "name"))]
    each = [dict(_block_fields(arch, kind)) for kind in different]
    shared = {path: value for path, value in each[0].items() if all(own.get(path) == value for own in each)}
    kinds = [
        {
            "label": block["label"],
            "parts": block["parts"],
            "fields": [[path, value] for path, value in own.items() if path not in shared],
        }
        for own, block in zip(each, said["blocks"], strict=True)
    ]
    return {"top": top, "shared": list(shared.items()), "kinds": kinds, "places": places}


def _block_fields(arch: Architecture, block: Block) -> Iterator[tuple[str, str]]:
    """Every field of a block by its path within it."""
    alone = arch.model_copy(update={"blocks": (block,), "recursion": None})
    for path, value in fields(alone):
        if path.startswith("blocks[0]."):
            yield path.removeprefix("blocks[0]."), value
