"""Recurrences: a state of one size at any length, how it fades, is written and is read."""

from __future__ import annotations

from lamina.arch import DeltaNet, GatedDeltaNet, KimiDeltaAttention, Mamba, Mamba2, Mamba3, Op, ShortConvolution
from lamina.arch.mixers import (
    MLSTM,
    RGLRU,
    RWKV7,
    SLSTM,
    GatedLinearAttention,
    LightningAttention,
    LinearAttention,
    Retention,
)
from lamina.report.drawing.hues import family
from lamina.report.drawing.insets.base import Inset, insets, node
from lamina.report.drawing.parts import SMALL
from lamina.report.drawing.scene import Box, Cells, Piece, label
from lamina.report.drawing.sketch import Place, Sketch

ROWS, COLUMNS = 9, 9


def state(
    op: Op,
    width: float,
    size: tuple[int, int],
    fades: str,
    writes: str,
    reads: str,
    rows: bool = False,
    name: str = "S",
    columns: int = COLUMNS,
) -> Piece:
    """A matrix of `size` that fades, is written from the left and is read upwards; by `rows` if each has a decay."""
    colour, s = family(op), Sketch()
    pitch = 11.0
    side = columns * pitch
    left = (width - side) / 2
    out = s.put_middle(node(reads, colour, 150), left + side / 2, 0)
    grid = s.put(_grid(colour, pitch, rows, columns), left, out.below + 20)
    s.arrow((grid.middle, grid.y), (grid.middle, out.below))
    s.put(label(f"{size[0]:,}", SMALL, colour="muted"), grid.x - 6 - label(f"{size[0]:,}", SMALL).width, grid.y + 4)
    written = s.put_middle(node(writes, "accent", min(width, 240)), grid.middle, grid.below + 38)
    s.arrow((written.middle, written.y), (written.middle, grid.below + 20))
    s.put_middle(label(f"{size[1]:,}", SMALL, colour="muted"), grid.middle, grid.below + 3)
    _fade(s, grid, fades, name, colour)
    return s.piece(width)


def _grid(colour: str, pitch: float, rows: bool, columns: int) -> Piece:
    """The cells of a state; darker ones hold more."""
    tones: dict[str, list[tuple[float, float, float, float]]] = {}
    for i in range(ROWS):
        for j in range(columns):
            strong = (i * 2) % 5 < 3 if rows else (i * 5 + j * 7 + i * j) % 4 < 2
            tones.setdefault(f"{colour}-{'edge' if strong else 'soft'}", []).append(
                (j * pitch, i * pitch, pitch - 1.5, pitch - 1.5)
            )
    frame = Box(-3, -3, columns * pitch + 4.5, ROWS * pitch + 4.5, None, f"{colour}-edge", 4)
    return Piece(columns * pitch - 1.5, ROWS * pitch - 1.5, (frame, *(Cells(tuple(c), t) for t, c in tones.items())))


def _fade(s: Sketch, grid: Place, text: str, name: str, colour: str) -> None:
    """The loop from the state to itself, with what it is multiplied by."""
    right = grid.right + 26
    s.arrow(
        (grid.right + 3, grid.below - 14),
        (right, grid.below - 14),
        (right, grid.y + 14),
        (grid.right + 4, grid.y + 14),
        stroke=f"{colour}-edge",
    )
    s.put(label(text, SMALL, True, f"{colour}-deep"), right + 6, grid.centre - 8)
    s.put(label(name, SMALL, True), grid.x - 16, grid.below - 16)


@insets.register
def _(op: GatedDeltaNet, width: float) -> tuple[Inset, ...]:
    picture = state(op, width, (op.key_dim, op.value_dim), "× α", "+ β k (v − S′ k)′", "o = S′ q")
    note = (
        f"{op.value_heads} states of {op.key_dim} × {op.value_dim}. One decay α a head; the step β writes "
        "what the state got wrong about k. ′ is transposed."
    )
    return (Inset("Gated delta rule", picture, note),)


@insets.register
def _(op: DeltaNet, width: float) -> tuple[Inset, ...]:
    picture = state(op, width, (op.key_dim, op.value_dim), "kept", "+ β k (v − S′ k)′", "o = S′ q")
    step = "the step β writes" if op.learned_step else "a step of β = 1 writes"
    if op.negative_eigenvalues:
        step = step.replace("β", "β, up to 2,") if op.learned_step else step.replace("1", "2")
    note = (
        f"{op.heads} states of {op.key_dim} × {op.value_dim}. Nothing fades; {step} what the state got wrong "
        "about k. ′ is transposed."
    )
    return (Inset("Delta rule", picture, note),)


@insets.register
def _(op: KimiDeltaAttention, width: float) -> tuple[Inset, ...]:
    picture = state(op, width, (op.key_dim, op.value_dim), "× α, a row", "+ β k (v − S′ k)′", "o = S′ q", rows=True)
    note = (
        f"{op.heads} states of {op.key_dim} × {op.value_dim}. Each row has a decay of its own; the step β "
        "writes what the state got wrong about k. ′ is transposed."
    )
    return (Inset("Kimi delta rule", picture, note),)


@insets.register
def _(op: LightningAttention, width: float) -> tuple[Inset, ...]:
    picture = state(op, width, (op.head_dim, op.head_dim), "× fixed", "+ k v′", "o = S′ q")
    note = (
        f"{op.heads} states of {op.head_dim} × {op.head_dim}; each head fades at a fixed "
        f"rate{', slower in deeper layers' if op.by_depth else ''}. ′ is transposed."
    )
    return (Inset("Lightning attention", picture, note),)


@insets.register
def _(op: LinearAttention, width: float) -> tuple[Inset, ...]:
    reads = "o = S′ q / (z·q)" if op.normalise else "o = S′ q"
    picture = state(op, width, (op.key_dim, op.value_dim), "kept", "+ k v′", reads)
    features = {"elu": "behind elu + 1", "relu": "behind a ReLU", "identity": "as projected"}[op.features]
    summed = " z is the sum of all k." if op.normalise else ""
    note = f"{op.heads} states of {op.key_dim} × {op.value_dim}; q and k {features}.{summed} ′ is transposed."
    return (Inset("Linear attention", picture, note),)


@insets.register
def _(op: Retention, width: float) -> tuple[Inset, ...]:
    picture = state(op, width, (op.key_dim, op.value_dim), "× fixed", "+ k v′", "o = S′ q")
    turned = "; q and k are rotated" if op.rotary else ""
    note = f"{op.heads} states of {op.key_dim} × {op.value_dim}; head h keeps 1 − 2^(−5 − h){turned}. ′ is transposed."
    return (Inset("Retention", picture, note),)


@insets.register
def _(op: GatedLinearAttention, width: float) -> tuple[Inset, ...]:
    picture = state(op, width, (op.key_dim, op.value_dim), "× α, a row", "+ k v′", "o = S′ q", rows=True)
    note = (
        f"{op.heads} states of {op.key_dim} × {op.value_dim}. Each row has a decay of its own, a projection of the "
        f"input through {op.decay_rank} numbers. ′ is transposed."
    )
    return (Inset("Gated linear attention", picture, note),)


@insets.register
def _(op: MLSTM, width: float) -> tuple[Inset, ...]:
    picture = state(op, width, (op.key_dim, op.value_dim), "× f", "+ i k v′", "C′ q / |n·q|", name="C")
    note = (
        f"{op.heads} matrices of {op.key_dim} × {op.value_dim}, with an exponential input gate i, a forget "
        "gate f, and a vector n that keeps the scale. ′ is transposed."
    )
    return (Inset("mLSTM", picture, note),)


@insets.register
def _(op: SLSTM, width: float) -> tuple[Inset, ...]:
    cells = op.heads * op.head_dim
    picture = state(op, width, (cells, 1), "× f", "+ i z", "h = o c / n", rows=True, name="c", columns=1)
    note = (
        f"{cells:,} cells with one number each. z and the gates i, f and o also read the last h, through a "
        f"matrix of {op.head_dim} × {op.head_dim} a head for each."
    )
    return (Inset("sLSTM", picture, note),)


@insets.register
def _(op: RWKV7, width: float) -> tuple[Inset, ...]:
    picture = state(op, width, (op.key_dim, op.value_dim), "× w, a row", "+ k v′ − a c (S′ c)′", "o = S′ r", rows=True)
    note = (
        f"{op.heads} states of {op.key_dim} × {op.value_dim}. Each row has a decay w and a step a of its own; what "
        "stands in the direction c is taken out before k is written. ′ is transposed."
    )
    return (Inset("RWKV-7", picture, note),)


@insets.register
def _(op: Mamba2, width: float) -> tuple[Inset, ...]:
    picture = state(op, width, (op.head_dim, op.state), "× a", "+ Δ x B′", "y = S C + skip x")
    note = (
        f"{op.heads} states of {op.head_dim} × {op.state}; one decay a = exp(−rate Δ) a head. B and C are "
        f"shared by {op.heads // op.groups} heads. ′ is transposed."
    )
    return (Inset("State-space dual", picture, note),)


@insets.register
def _(op: Mamba3, width: float) -> tuple[Inset, ...]:
    picture = state(op, width, (op.head_dim, op.state), "× a", "+ Δ x B′, of two tokens", "y = S C + skip x")
    note = (
        f"{op.heads} states of {op.head_dim} × {op.state}. What enters is a mean of this token and the last; "
        f"{op.turning} pairs of numbers of B and C turn from token to token. ′ is transposed."
    )
    return (Inset("State-space dual, turning", picture, note),)


@insets.register
def _(op: Mamba, width: float) -> tuple[Inset, ...]:
    picture = state(op, width, (op.inner, op.state), "× a, each", "+ Δ x B′", "y = S C + skip x", rows=True)
    note = (
        f"{op.inner:,} channels with {op.state} states each; every state has its own decay exp(−rate Δ). ′ "
        "is transposed."
    )
    return (Inset("Selective scan", picture, note),)


@insets.register
def _(op: ShortConvolution, width: float) -> tuple[Inset, ...]:
    return (convolution(op.kernel, width),)


def convolution(kernel: int, width: float) -> Inset:
    """The last few tokens make one output, each channel by itself."""
    s, count = Sketch(), 9
    pitch = min(30.0, width / count)
    left = (width - count * pitch) / 2
    out = s.put_middle(node(["c × sum"], "convolution", 70), left + (count - 0.5) * pitch - 14, 0)
    y = out.below + 44
    taps = range(count - kernel, count)
    for i in range(count):
        family_of = "convolution" if i in taps else "norm"
        x = left + i * pitch
        s.mark(Box(x, y, pitch - 6, 18, f"{family_of}-soft", f"{family_of}-edge", 4))
        if i in taps:
            s.line((x + pitch / 2 - 3, y), (out.middle, out.below), stroke="convolution-edge")
    s.put_middle(label("b × x of the last tokens", SMALL, colour="muted"), width / 2, y + 24)
    note = (
        f"A token sees the last {kernel}. Two gates, b and c, are made from the input; only {kernel - 1} "
        "earlier inputs are kept."
    )
    return Inset("Short convolution", s.piece(width), note)


@insets.register
def _(op: RGLRU, width: float) -> tuple[Inset, ...]:
    picture = state(op, width, (op.inner, 1), "× a", "+ sqrt(1 − a²) i u", "h", rows=True, name="h", columns=1)
    note = (
        f"{op.inner:,} channels with one number each. The decay a and the gate i are made from the input of "
        f"each; u passed a convolution of {op.convolution}."
    )
    return (Inset("Real-gated linear recurrence", picture, note),)
