"""Does it fit, and what would make it fit: as data, and as lines for people."""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture
from lamina.arch.cost import Cost
from lamina.machine.devices import Device
from lamina.machine.roofline import (
    LONGEST,
    bounds,
    devices_needed,
    largest_batch,
    largest_context,
    needed_bytes,
    working_bytes,
)
from lamina.report import words

SMALLER = ("bfloat16", "fp8", "q8_0", "q6_k", "q4_k", "q2_k")
"""Precisions of weights that are tried in turn, from wide to narrow."""


def fit(
    arch: Architecture,
    device: Device,
    count: int = 1,
    context: int = 4096,
    batch: int = 1,
    weights: str = "bfloat16",
    cache: str = "bfloat16",
) -> dict[str, Any]:
    """Whether `count` devices hold an architecture at work, what they could hold, and what would help.

    Units: bytes, seconds, tokens. Times are lower bounds; memory divides perfectly over the devices.
    """

    def price(**other: Any) -> Cost:
        return arch.cost(**({"context": context, "batch": batch, "weights": weights, "cache": cache} | other))

    cost, memory = price(), count * device.memory
    needed, found = needed_bytes(cost), bounds(cost, device, count)
    fits = needed <= memory
    longest = largest_context(price, memory)
    return {
        "architecture": arch.name,
        "device": device.model_dump(exclude={"peak"}),
        "devices": count,
        "context": context,
        "batch": batch,
        "weights": cost.setting.weights.name,
        "cache": cost.setting.cache.name,
        "fits": fits,
        "bytes": {
            "weights": cost.weight_bytes,
            "state": cost.state_bytes,
            "working": working_bytes(cost),
            "needed": needed,
            "memory": memory,
        },
        "largest_context": None if longest == LONGEST else longest,
        "largest_batch": largest_batch(price, memory),
        "devices_needed": devices_needed(cost, device),
        "bounds": {"first_token_seconds": found.first, "token_seconds": found.next, "token_limit": found.next_limit},
        "would_fit": [] if fits else _remedies(price, device, count, (context, batch)),
    }


def _remedies(price: Any, device: Device, count: int, asked: tuple[int, int]) -> list[dict[str, Any]]:
    """Changes that make it fit, smallest first: narrower weights or cache, less context or batch, more devices."""
    context, batch = asked
    memory, found = count * device.memory, []
    now = price().weight_bytes
    narrower = [kind for kind in SMALLER if price(weights=kind).weight_bytes < now]
    if kind := next((k for k in narrower if needed_bytes(price(weights=k)) <= memory), None):
        found.append({"weights": kind})
    if needed_bytes(price(cache="fp8")) <= memory:
        found.append({"cache": "fp8"})
    if 0 < (shorter := largest_context(price, memory, context)) < context:
        found.append({"context": shorter})
    if 0 < (fewer := largest_batch(price, memory, batch)) < batch:
        found.append({"batch": fewer})
    found.append({"devices": devices_needed(price(), device)})
    if not any("devices" not in change for change in found):
        short = min(context, 2048)
        both = next((k for k in narrower if needed_bytes(price(weights=k, context=short)) <= memory), None)
        if both:
            found.insert(0, {"weights": both, "context": short})
    return found


def rendered(said: dict[str, Any]) -> list[Any]:
    """A title, then pairs of what and how much."""
    nbytes, device = said["bytes"], said["device"]
    count = f"{said['devices']} x " if said["devices"] > 1 else ""
    verdict = "fits" if said["fits"] else "does not fit"
    at = f"{said['weights']} weights, {said['cache']} cache, {said['batch']} x {words.tokens(said['context'])} tokens"
    pairs: list[Any] = [f"{said['architecture']} {verdict} on {count}{device['title']}: {at}"]
    pairs += [(name, words.size(nbytes[name])) for name in ("weights", "state", "working")]
    pairs.append(("needed", f"{words.size(nbytes['needed'])} of {words.size(nbytes['memory'])}"))
    longest = said["largest_context"]
    pairs.append(("longest context", "any: the state does not grow" if longest is None else _limit(longest, "tokens")))
    pairs.append(("largest batch", _limit(said["largest_batch"], "sequences")))
    pairs.append(("devices needed", f"at least {said['devices_needed']}"))
    if said["fits"]:
        pairs.append(("first token", f"at least {words.seconds(said['bounds']['first_token_seconds'])}"))
        limit = said["bounds"]["token_limit"]
        pairs.append(("each further", f"at least {words.seconds(said['bounds']['token_seconds'])}, bound by {limit}"))
    for change in said["would_fit"]:
        pairs.append(("would fit with", ", ".join(_change(*item) for item in change.items())))
    return [*pairs, ("device", device["source"])]


def _limit(value: int, what: str) -> str:
    return f"{value:,} {what}" if value else "none"


def _change(name: str, value: Any) -> str:
    if name == "devices":
        return f"{value} devices"
    return f"{name} of {value:,}" if isinstance(value, int) else f"{name} in {value}"
