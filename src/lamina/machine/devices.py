"""Devices: memory, bandwidth and peak rates, from a small sourced table."""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

from pydantic import NonNegativeInt, PositiveFloat

from lamina.arch.base import Node
from lamina.errors import LaminaError, closest

WIDER = {
    "fp4": ("fp8", "bfloat16", "float32"),
    "fp8": ("bfloat16", "float32"),
    "int8": ("bfloat16", "float32"),
    "bfloat16": ("float32",),
    "float32": ("float64",),
    "float64": (),
}
"""What a device computes in where it does not multiply a precision."""


class Device(Node):
    """What a device holds and how fast it is at best.

    Units: memory in bytes, bandwidth in bytes a second, peak in FLOP/s by precision (dense products).
    """

    name: str
    title: str
    memory: NonNegativeInt
    bandwidth: PositiveFloat
    peak: dict[str, PositiveFloat]
    source: str = ""
    url: str = ""

    def rate(self, products: str) -> float:
        """FLOP/s in a precision, or in the next wider one that it multiplies.

        Raises: LaminaError if it multiplies none of them.
        """
        wanted = "float32" if products not in WIDER else products
        for kind in (wanted, *WIDER[wanted]):
            if kind in self.peak:
                return self.peak[kind]
        raise LaminaError(f"no rate is known for {products} on {self.title}; known: {', '.join(self.peak)}")


@functools.cache
def devices() -> dict[str, Device]:
    """The table, by name."""
    table = json.loads((resources.files("lamina.machine") / "devices.json").read_text())
    return {row["name"]: _device(row) for row in table["devices"]}


def _device(row: dict[str, Any]) -> Device:
    scaled = {
        "memory": round(row["memory"] * 1e9),
        "bandwidth": row["bandwidth"] * 1e9,
        "peak": {kind: rate * 1e12 for kind, rate in row["peak"].items()},
    }
    return Device(**(row | scaled))


def device(name: str) -> Device:
    """A device by name; case, spaces and dashes do not matter.

    Raises: LaminaError, listing them, if there is none.
    """
    plain = _plain(name)
    for known, found in devices().items():
        if plain in (_plain(known), _plain(found.title)):
            return found
    raise LaminaError(f"device {name!r} is not known; {closest(name.lower(), ['auto', *devices()])}")


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
