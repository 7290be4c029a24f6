"""Precisions: how many bytes numbers take in each, as weights and in a cache."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fnmatch import fnmatch
from typing import NamedTuple

from lamina.arch.measure import Shape, numbers
from lamina.errors import LaminaError, closest


class Precision(NamedTuple):
    """A way of storing numbers.

    Fields: `bits` is what one number of a matrix takes, its share of what the block's scale takes included; a
    row is cut into blocks of `block` numbers, and one that cannot be is kept in `rest`, as is what is no matrix.
    Scales that do not belong to a row: `tile` rows and columns share one of 4 bytes (fp8), or `by_row` a row does.
    `tables` says whether embedding, head and router are stored so too. `products` is what a device multiplies in.
    """

    name: str
    bits: float
    block: int = 1
    rest: str = "float32"
    tile: int | None = None
    by_row: bool = False
    tables: bool = True
    products: str = "bfloat16"

    @property
    def nbytes(self) -> float:
        """Bytes of one number of a matrix; a whole number wherever it is one, so that sizes stay exact."""
        return self.bits / 8 if self.bits % 8 else self.bits // 8

    @property
    def whole(self) -> bool:
        """Whether every number is stored alike, so that nothing is quantised."""
        return self.block == 1 and not self.tile and not self.by_row


def _plain(name: str, bits: float, products: str) -> Precision:
    return Precision(name, bits, rest=name, products=products)


def _gguf(name: str, block: int, nbytes: int) -> Precision:
    """A block format of GGUF: `nbytes` for every `block` numbers. Source: the format's own description, ggml-quants."""
    return Precision(name, 8 * nbytes / block, block)


_ALL = (
    _plain("float64", 64, "float64"),
    _plain("int64", 64, "int64"),
    _plain("float32", 32, "float32"),
    _plain("bfloat16", 16, "bfloat16"),
    _plain("float16", 16, "bfloat16"),
    Precision("fp8", 8, rest="bfloat16", tile=128, tables=False, products="fp8"),
    Precision("int8", 8, rest="bfloat16", by_row=True, tables=False, products="int8"),
    Precision("int4", 4 + 16 / 128, 128, "bfloat16", tables=False),
    Precision("mxfp4", 4 + 8 / 32, 32, "bfloat16", tables=False, products="fp4"),
    Precision("nvfp4", 4 + 8 / 16, 16, "bfloat16", tables=False, products="fp4"),
    _gguf("q8_0", 32, 34),
    _gguf("q6_k", 256, 210),
    _gguf("q5_k", 256, 176),
    _gguf("q5_1", 32, 24),
    _gguf("q5_0", 32, 22),
    _gguf("q4_k", 256, 144),
    _gguf("q4_1", 32, 20),
    _gguf("q4_0", 32, 18),
    _gguf("q3_k", 256, 110),
    _gguf("q2_k", 256, 84),
)
PRECISIONS = {precision.name: precision for precision in _ALL}
"""Every precision by name. fp8 has a float32 scale for every 128 x 128 numbers (arXiv 2412.19437, section 3.3), int8
one a row, int4 a bfloat16 scale for 128 numbers; mxfp4 and nvfp4 as their specifications say (8-bit scales for 32 and
16 numbers)."""

ALIASES = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "f16": "float16",
    "fp32": "float32",
    "f32": "float32",
    "f64": "float64",
}


def precision(name: str) -> Precision:
    """The precision that a name means.

    Raises: LaminaError, listing them, for one that does not exist.
    """
    plain = str(name).removeprefix("torch.").lower().replace("-", "_")
    plain = ALIASES.get(plain, plain)
    if plain not in PRECISIONS:
        raise LaminaError(f"precision {name!r} is not known; {closest(plain, PRECISIONS)}")
    return PRECISIONS[plain]


def cache_bytes(name: str) -> float:
    """Bytes of one number of a cache held in a precision."""
    return precision(name).nbytes


TABLES = ("embedding", "head.weight")
SMALL = ("router", "convolution", "depthwise", "grouped")
"""Parts of paths to weights that nothing quantises, though they have two dimensions or more."""
PARTS = ("embedding", "head", "mixer", "cross_attention", "feed_forward", "experts", "shared", "router", "norms")
"""Parts that a plan may name although an architecture has none, so that one plan fits several."""


class Plan(NamedTuple):
    """In which precision each weight is stored: the first pattern that a weight's path matches decides."""

    rules: tuple[tuple[str, Precision], ...]
    other: Precision

    @property
    def name(self) -> str:
        return ",".join([self.other.name, *(f"{pattern}={kind.name}" for pattern, kind in self.rules)])

    def check(self, paths: Iterable[str]) -> None:
        """Raises: LaminaError for a rule that none of these paths to weights matches, and that names no usual part."""
        for pattern, kind in self.rules:
            alone = Plan(((pattern, kind),), self.other)
            if pattern not in PARTS and not any(alone.rule(path) for path in paths):
                raise LaminaError(f"weights: {pattern!r} matches no weight; {closest(pattern, PARTS)}")

    def rule(self, path: str) -> Precision | None:
        """What the first rule that matches a path says."""
        return next((k for p, k in self.rules if fnmatch(path, p) or p in path.replace("[", ".").split(".")), None)

    def of(self, path: str) -> Precision:
        """The precision of the weight at a path."""
        return self.rule(path) or self.other

    def stored(self, path: str, shape: Shape) -> int:
        """Bytes of one weight. Only matrices are quantised, by themselves or in a stack of experts."""
        kind = self.of(path)
        if kind.whole:
            return math.ceil(numbers([shape]) * kind.bits / 8)
        one = shape[1:] if ".experts." in path else shape
        table = not kind.tables and any(word in path for word in TABLES)
        plain = not path.endswith("weight") or table or any(word in path for word in SMALL)
        if len(one) < 2 or plain or one[-1] % kind.block:
            return math.ceil(numbers([shape]) * PRECISIONS[kind.rest].bits / 8)
        *stack, rows, columns = shape
        size = numbers([shape]) * kind.bits / 8
        if kind.tile:
            size += 4 * math.prod(stack) * math.ceil(rows / kind.tile) * math.ceil(columns / kind.tile)
        if kind.by_row:
            size += 4 * math.prod(stack) * rows
        return math.ceil(size)


def plan(text: str | Plan) -> Plan:
    """How weights are stored, from its description: `bfloat16`, or `bfloat16,experts=mxfp4` with exceptions.

    An exception names a part of a path (experts, mixer, head) or a pattern of whole ones.
    Raises: LaminaError for a precision that does not exist, or a plan without a general one.
    """
    if isinstance(text, Plan):
        return text
    rules, general = [], []
    for item in _items(text):
        pattern, equals, kind = item.rpartition("=")
        if equals:
            rules.append((pattern, precision(kind)))
        else:
            general.append(precision(item))
    if len(general) != 1:
        raise LaminaError(f"weights {text!r} must name one general precision, as in 'bfloat16,experts=mxfp4'")
    return Plan(tuple(rules), general[0])


def _items(text: str) -> Iterable[str]:
    return [item.strip() for item in str(text).split(",") if item.strip()]
