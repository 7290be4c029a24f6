"""Bounds that follow from memory, bandwidth and peak rates. No machine is faster than these; all are slower.

Source: the roofline model, Williams, Waterman and Patterson, CACM 52(4), 2009.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from lamina.arch.cost import Cost
from lamina.machine.devices import Device

PROMPT_CHUNK = 2048
"""Tokens of a prompt that are computed at once; what they need beside weights and state is working memory."""
LONGEST = 1 << 40


class Bounds(NamedTuple):
    """Seconds at least: to the first token of the batch, and for each further token of every sequence.

    `first_limit` and `next_limit` say what bounds them: "compute" or "bandwidth".
    """

    first: float
    first_limit: str
    next: float
    next_limit: str


def bounds(cost: Cost, device: Device, count: int = 1) -> Bounds:
    """Lower bounds on time, on `count` devices that share all work perfectly.

    A prompt needs its FLOPs, and its weights read and state written once; a further token needs its FLOPs, and
    weights and state read. Neither counts what overlaps badly, waits, or is sent between devices. Weights that are
    passed several times are read as often: a loop over weights so small that the chip holds them may be faster.
    """
    s = cost.setting
    rate, bandwidth = count * device.rate(s.compute.products), count * device.bandwidth
    reading = cost.total(lambda line: cost.read(line, s.batch * max(s.context, 1)))
    first = cost.prefill_flops / rate, (reading + cost.state_bytes) / bandwidth
    after = cost.decode_flops / rate, cost.moved_bytes / bandwidth
    return Bounds(max(first), _limit(first), max(after), _limit(after))


def _limit(times: tuple[float, float]) -> str:
    return "compute" if times[0] >= times[1] else "bandwidth"


def working_bytes(cost: Cost) -> int:
    """Memory for what is computed on the way: the widest part over a chunk of a prompt, and the last logits."""
    s, arch = cost.setting, cost.arch
    itemsize = max(2.0, s.compute.bits / 8)
    widest = max((line.saved for line in cost.bill if line.path.startswith("blocks")), default=0)
    tokens = min(s.batch * max(s.context, 1), max(PROMPT_CHUNK, s.batch))
    return math.ceil(tokens * (2 * arch.width + widest) * itemsize + 4 * s.batch * arch.vocab)


def needed_bytes(cost: Cost) -> int:
    """Weights, state and working memory together."""
    return cost.weight_bytes + cost.state_bytes + working_bytes(cost)


def devices_needed(cost: Cost, device: Device) -> int:
    """How many devices hold it, at least: memory divided perfectly, nothing held twice."""
    return max(1, math.ceil(needed_bytes(cost) / max(device.memory, 1)))


def largest(fits: Callable[[int], bool], most: int = LONGEST) -> int:
    """The largest number up to `most` that fits, where every smaller one fits too; 0 if none does."""
    if not fits(1):
        return 0
    low, high = 1, 2
    while high < most and fits(high):
        low, high = high, high * 2
    high = high if high < most else most + 1  # what was found too large, or is more than may be asked
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def largest_context(price: Callable[..., Cost], memory: int, most: int = LONGEST) -> int:
    """The longest context whose needs `memory` bytes hold; `price` gives the cost at a context. `most` if unbounded."""
    return largest(lambda context: needed_bytes(price(context=context)) <= memory, most)


def largest_batch(price: Callable[..., Cost], memory: int, most: int = 1 << 24) -> int:
    """The largest batch whose needs `memory` bytes hold; `price` gives the cost at a batch."""
    return largest(lambda batch: needed_bytes(price(batch=batch)) <= memory, most)
