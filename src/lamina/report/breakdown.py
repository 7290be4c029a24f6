"""What an architecture costs in a setting, part by part: as a table that adds up, and as a summary."""

from __future__ import annotations

from typing import Any

from lamina.arch.cost import Cost
from lamina.report import words
from lamina.report.text import aligned, listed

COLUMNS = ("part", "of", "parameters", "active", "weights", "state", "prefill FLOPs", "FLOPs/token")


def rendered(cost: Cost, bounds: dict[str, Any] | None = None, width: int | None = None) -> list[str]:
    """A title, the parts with their sum, and what follows from them; `bounds` are lower bounds on time."""
    s = cost.setting
    said = cost.record()
    at = f"{s.batch} x {words.tokens(s.context)} tokens, {s.weights.name} weights, {s.cache.name} cache"
    return [
        f"{cost.arch.name}: {at}",
        "",
        *parts(said),
        "",
        *listed(_summary(said) + _bounds(bounds), width),
    ]


def parts(said: dict[str, Any]) -> list[str]:
    """A line for each part of a cost's record, and one for the sum of all."""
    rows: list[tuple[str, ...]] = [COLUMNS]
    for part in said["parts"]:
        times = f"{part['times']} x " if part["times"] > 1 else ""
        rows.append((_short(part["path"]), times + part["mechanism"].replace("_", " "), *_cells(part)))
    total = {key: sum(part[key] for part in said["parts"]) for key in _KEYS}
    rows.append(("total", "", *_cells(total)))
    return aligned(rows, (False, False, *(True,) * (len(COLUMNS) - 2)))


_KEYS = ("parameters", "active_parameters", "weight_bytes", "state_bytes", "prefill_flops", "decode_flops")


def _cells(part: dict[str, Any]) -> tuple[str, ...]:
    say = (words.count, words.count, words.size, words.size, words.count, words.count)
    return tuple(f(part[key]) if part[key] else "-" for f, key in zip(say, _KEYS, strict=True))


def _short(path: str) -> str:
    """A path whose list of blocks is cut where it is long."""
    head, bracket, rest = path.partition("]")
    return path if len(head) <= 24 or not bracket else head[:23].rsplit(",", 1)[0] + ",...]" + rest


def _summary(said: dict[str, Any]) -> list[tuple[str, str]]:
    state, flops, training, moved = said["state"], said["flops"], said["training_bytes"], said["decode_moves"]
    size, count = words.size, words.count
    growth = f"{state['per_token']:,} B a token"
    if state["per_token_beyond"] != state["per_token"]:
        growth += f", {state['per_token_beyond']:,} B here"
    reads = f"{size(moved['weights'])} of weights, {size(moved['state_read'])} of state"
    again = f"{count(flops['training_recomputed'])} with recomputation"
    smaller = f"{size(training['activations_recomputed'])} with recomputation"
    kept = f"{size(training['adamw'])} with AdamW, {size(training['muon'])} with Muon"
    return [
        ("state", f"{size(state['theoretical'])} as the mechanisms need, {growth}"),
        ("  allocated", f"{size(state['allocated'])} by lamina"),
        ("  paged", f"{size(state['paged'])} in pages of {said['setting']['page']} tokens"),
        ("decode reads", f"{reads}; {said['intensity']:.3g} FLOPs for each byte that moves"),
        ("training step", f"{count(flops['training'])} FLOPs, {again}"),
        ("  activations", f"{size(training['activations'])}, {smaller}"),
        ("  held", f"{kept}: weights, gradients and the optimizer's own"),
    ]


def _bounds(bounds: dict[str, Any] | None) -> list[tuple[str, str]]:
    if bounds is None:
        return []
    count = f"{bounds['devices']} x " if bounds["devices"] > 1 else ""
    return [
        ("lower bounds", f"on {count}{bounds['device']}; no machine of its kind is faster"),
        ("  first token", f"{words.seconds(bounds['first_token_seconds'])}, by {bounds['first_token_limit']}"),
        ("  each further", f"{words.seconds(bounds['token_seconds'])}, by {bounds['token_limit']}"),
    ]
