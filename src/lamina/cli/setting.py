"""Options that say where a cost is taken: context, batch, precisions, device."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lamina.cli.console import say
from lamina.errors import LaminaError
from lamina.report import words

if TYPE_CHECKING:
    from lamina.arch import Architecture
    from lamina.machine import Device

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20}


def size(text: str, name: str = "context") -> int:
    """A number of tokens: 4096, 4k or 1M.

    Raises: LaminaError if it is none.
    """
    match = re.fullmatch(r"(\d+)([kKmM]?)", text.strip().replace("_", ""))
    if match is None or len(match[1]) > 15:
        raise LaminaError(f"{name} {text!r} is no number of tokens; accepted: 4096, 4k, 128k, 1M")
    return int(match[1]) * _UNITS[match[2].lower()]


def sizes(text: str) -> list[int]:
    """Several of them, parted by commas."""
    return list(dict.fromkeys(size(item) for item in text.split(","))) if text.strip() else [size(text)]


@dataclass(frozen=True)
class CostOptions:
    """Where a cost is taken."""

    context: Annotated[
        str, typer.Option(metavar="N,...", help="Tokens that each sequence holds, as 4096, 4k or 128k.")
    ] = "32k"
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Sequences at once.")] = 1
    weights: Annotated[
        str, typer.Option(metavar="TYPE", help="How weights are stored: bfloat16, fp8, q4_k, bfloat16,experts=mxfp4.")
    ] = "bfloat16"
    cache: Annotated[str, typer.Option(metavar="TYPE", help="How the cache is stored: bfloat16, fp8, q8_0.")] = (
        "bfloat16"
    )
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A device to bound times on: h200, rtx-4090, auto (this machine)."),
    ] = None
    devices: Annotated[int, typer.Option(min=1, metavar="N", help="How many of it work together.")] = 1

    @property
    def contexts(self) -> list[int]:
        return sizes(self.context)

    @property
    def precisions(self) -> dict[str, str]:
        return {"weights": self.weights, "cache": self.cache}

    def found(self) -> Device | None:
        """The device that was named. Raises: LaminaError, listing them, if there is no such one."""
        if self.device is None:
            return None
        from lamina.machine import device

        if self.device != "auto":
            return device(self.device)
        from lamina.machine.here import machine

        return machine()[0]

    def warn(self, arch: Architecture) -> None:
        """A word where a context is longer than what the publisher states; it is computed all the same."""
        longest = max(self.contexts)
        if arch.context and longest > arch.context:
            stated = (
                f"{words.tokens(longest)} tokens are more than the {words.tokens(arch.context)} stated for {arch.name}"
            )
            say(f"warning: {stated}; computed as if it went on")


def bounded(cost: Any, device: Device, count: int) -> dict[str, Any]:
    """Lower bounds on time, as JSON holds them."""
    from lamina.machine.roofline import bounds

    found = bounds(cost, device, count)
    return {
        "device": device.title,
        "devices": count,
        "first_token_seconds": found.first,
        "first_token_limit": found.first_limit,
        "token_seconds": found.next,
        "token_limit": found.next_limit,
    }
