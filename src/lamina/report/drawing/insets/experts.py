"""Mixture of experts: every expert as a dot, those of one token filled."""

from __future__ import annotations

from math import ceil, sqrt

from lamina.arch import MoE
from lamina.report import words
from lamina.report.drawing.insets.base import Inset, insets, node
from lamina.report.drawing.parts import SMALL
from lamina.report.drawing.scene import Box, Dots, Mark, Piece, Point, label
from lamina.report.drawing.sketch import Place, Sketch

PAD, APART = 9.0, 5.0


@insets.register
def _(op: MoE, width: float) -> tuple[Inset, ...]:
    s, side = Sketch(), 78.0 if op.shared else 0.0
    room = width - side - (12 if side else 0)
    total = s.put_middle(node("sum, weighed", "norm", 100), room / 2, 0)
    field = s.put_middle(_dots(op, room), room / 2, total.below + 20)
    best = f"router: the best {op.router.active} of {op.router.experts:,}"
    router = s.put_middle(node(best, "experts", min(room, 190)), room / 2, field.below + 20)
    x = s.put_middle(label("x", SMALL, True), room / 2, router.below + 26)
    s.arrow((router.middle, router.y), (router.middle, field.below))
    s.arrow((field.middle, field.y), (field.middle, total.below))
    s.arrow((x.middle, x.y), (router.middle, router.below))
    if op.shared:
        _shared(op, s, (room + 12, side), total, field, x)
    return (Inset("Experts", s.piece(width), _note(op)),)


def _shared(op: MoE, s: Sketch, at: tuple[float, float], total: Place, field: Place, x: Place) -> None:
    """The expert that every token shares, at the side."""
    piece = node(["shared", "expert", *(["× sigmoid"] if op.shared_gate else [])], "experts", at[1])
    place = s.put(piece, at[0], field.centre - piece.height / 2)
    s.arrow((place.middle, place.y), (place.middle, total.centre), (total.right, total.centre))
    s.arrow((x.middle, x.y - 10), (place.middle, x.y - 10), (place.middle, place.below))


def _dots(op: MoE, room: float) -> Piece:
    """All experts in their groups: chosen ones large, others small; choices that are no experts are grey."""
    r, groups = op.router, op.router.groups
    each = r.experts // groups
    across = _across(each, 1.6 if groups == 1 else 0.6)
    side = 1 if groups == 1 else max(d for d in range(1, groups + 1) if d * (across * 6 + PAD + APART) <= room + APART)
    pitch = min(11.0, ((room + APART) / side - APART - PAD) / across)
    radius = min(5.0, pitch * 0.36)
    wide, tall = across * pitch + PAD, ceil(each / across) * pitch + PAD
    marks: list[Mark] = []
    chosen, used = _chosen(op, each), _used(op)
    kinds: dict[str, list[Point]] = {"chosen": [], "expert": [], "identity": []}
    for g in range(groups):
        left, top = (g % side) * (wide + APART), (g // side) * (tall + APART)
        marks.append(Box(left, top, wide, tall, "experts-soft", "experts-edge" if g in used else None, 6))
        for i in range(each):
            at = (left + PAD / 2 + (i % across + 0.5) * pitch, top + PAD / 2 + (i // across + 0.5) * pitch)
            index = g * each + i
            kinds["chosen" if index in chosen else "identity" if index >= op.computing else "expert"].append(at)
    rows = ceil(groups / side)
    marks.append(Dots(tuple(kinds["expert"]), radius * 0.55, "experts-pale"))
    marks.append(Dots(tuple(kinds["identity"]), radius * 0.55, "norm-edge"))
    marks.append(Dots(tuple(kinds["chosen"]), radius, "experts-edge"))
    return Piece(min(side, groups) * (wide + APART) - APART, rows * (tall + APART) - APART, tuple(marks))


def _across(each: int, shape: float) -> int:
    """How many dots a row has: a divisor if one is near the goal, so that no row is left open."""
    goal = sqrt(each * shape)
    near = min((d for d in range(1, each + 1) if each % d == 0), key=lambda d: abs(d - goal))
    return near if abs(near - goal) <= 0.5 * goal else ceil(goal)


def _used(op: MoE) -> list[int]:
    """Groups that a token's experts come from, in the picture."""
    r = op.router
    return [i * r.groups // r.active_groups for i in range(r.active_groups)]


def _chosen(op: MoE, each: int) -> set[int]:
    """Some experts, strewn over the groups that may be chosen from; the same ones every time."""
    groups, found, number = _used(op), set(), 12345
    while len(found) < op.router.active:
        number = (number * 1103515245 + 12345) % (1 << 31)
        at = groups[len(found) % len(groups)] * each + (number >> 8) % each
        found.add(at) if at < op.computing or op.computing < op.router.active else None
    return found


def _note(op: MoE) -> str:
    r = op.router
    said = f"{op.computing:,} experts, each {words.name_of(op.expert)}"
    said += (
        f", and {op.identities} {'choices' if op.identities > 1 else 'choice'} (grey) of x itself"
        if op.identities
        else ""
    )
    said += f"; a token uses {r.active}"
    return f"{said}, from the {r.active_groups} best of {r.groups} groups." if r.groups > 1 else f"{said}."
