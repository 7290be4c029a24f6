"""The terms in which a part says what it costs: what it keeps of a sequence, and what work a token is.

Everything about costs is derived from these and from the shapes of the weights: totals, tables, charts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

Shape = tuple[int, ...]
"""Of a weight: rows first, as torch stores it. A vector has one number, a matrix two, a stack of experts three."""

CHUNK = 64
"""Tokens that the chunked form of a recurrence works on at a time."""


Keeping = Literal[
    "full", "window", "chunk", "latent", "index", "compressed", "cross", "recurrent", "convolution", "carry", "tokens"
]
"""What is kept of a sequence, by what it is."""

FIXED = {"float32": 4, "int64": 8}
"""Bytes of a number in the precisions that a state holds whatever the cache's is."""


class Pairs(NamedTuple):
    """FLOPs of each pair of a query and a key that it sees.

    A query sees itself and all before it; at most the last (or best) `window` of them; only those of its own
    `chunk` of so many tokens. With a `stride`, a key stands for that many whole tokens. Only
    those queries count that see more than `after` tokens, and no more than `until`.
    """

    flops: int
    window: int | None = None
    chunk: int | None = None
    stride: int = 1
    after: int = 0
    until: int | None = None

    def count(self, tokens: int, context: int, causal: bool = True) -> int:
        """How many pairs `tokens` new tokens after `context` earlier ones make."""
        if causal and (self.after or self.until is not None):
            end, start = context + tokens, max(context, self.after)
            end = end if self.until is None else min(end, self.until)
            return self._replace(after=0, until=None).count(max(0, end - start), start)
        if not causal and self.chunk:
            whole, rest = divmod(context + tokens, self.chunk)
            return whole * self.chunk**2 + rest**2
        if not causal:
            return tokens * ((context + tokens) // self.stride)
        if self.chunk:
            return _within_chunks(context + tokens, self.chunk) - _within_chunks(context, self.chunk)
        if self.stride > 1:
            return _strided(context + tokens, self) - _strided(context, self)
        return seen(tokens, context, self.window)


class Orders(NamedTuple):
    """FLOPs of sums that can be taken in two orders, of which a pass takes the cheaper, were no key hidden.

    One costs `new` for each new token and `new_pair` for each pair; the other `seen` for each token that is seen, new
    or not, and `seen_pair`. Of queries that see more than `until` tokens only `new` counts: they have pairs elsewhere.
    """

    new: int
    new_pair: int
    seen: int
    seen_pair: int
    until: int | None = None

    def flops(self, tokens: int, context: int, causal: bool = True) -> int:
        whole = self.until is None or context + tokens <= self.until
        queries = tokens if whole or self.until is None else min(tokens, max(0, self.until - context))
        held, pairs = context + queries, Pairs(1).count(queries, context, causal)
        first, other = queries * (self.new + held * self.new_pair), held * (self.seen + queries * self.seen_pair)
        taken = queries * self.new + pairs * self.new_pair
        taken = taken if first < other else held * self.seen + pairs * self.seen_pair
        return taken + (tokens - queries) * self.new


class Work(NamedTuple):
    """Forward FLOPs of matrix products: of every new token, of pairs, once before the first token, in some order.

    Recurrences take new tokens in chunks of CHUNK; `chunked` is what each two of a chunk's n tokens cost, n^2 times,
    and `crossed` what each two different ones do, n (n - 1) / 2 times; a token that is alone in its chunk costs nothing
    more.
    """

    token: int
    pairs: tuple[Pairs, ...] = ()
    once: int = 0
    orders: tuple[Orders, ...] = ()
    chunked: int = 0
    crossed: int = 0

    def flops(self, tokens: int, context: int, causal: bool = True) -> int:
        counted = tokens * self.token + sum(p.flops * p.count(tokens, context, causal) for p in self.pairs)
        counted += sum(order.flops(tokens, context, causal) for order in self.orders if tokens)
        whole, rest = divmod(tokens, CHUNK)
        counted += self.chunked * (whole * CHUNK**2 + (rest**2 if rest > 1 else 0))
        counted += self.crossed * (whole * CHUNK * (CHUNK - 1) + rest * (rest - 1)) // 2
        return counted + (self.once if not context else 0)


class Kept(NamedTuple):
    """What a mixer keeps of a sequence: `numbers` for each token, once a sequence, or for each memory token.

    Fields: `window` is how many of the last tokens are kept; with a `stride`, an entry stands for that many
    whole tokens; `dtype` is the precision where it does not follow the cache's; `read` is how many entries a
    decoded token reads where it does not read all.
    """

    kind: Keeping
    numbers: int
    each: Literal["token", "sequence", "memory"] = "token"
    window: int | None = None
    stride: int = 1
    dtype: str | None = None
    read: int | None = None

    def entries(self, context: int, memory: int = 0) -> int:
        """How many entries a sequence of `context` tokens leaves."""
        if self.each == "sequence":
            return 1
        if self.each == "memory":
            return memory
        kept = context // self.stride
        return min(kept, self.window) if self.window else kept

    def entry_bytes(self, itemsize: float) -> float:
        """Bytes of one entry, in a cache of so many bytes a number."""
        return self.numbers * (FIXED[self.dtype] if self.dtype else itemsize)

    def bytes(self, context: int, itemsize: float, memory: int = 0) -> int:
        """Bytes that a sequence of `context` tokens leaves."""
        return int(self.entries(context, memory) * self.entry_bytes(itemsize))

    def growth(self, context: int, itemsize: float) -> float:
        """Bytes that a token adds to `context` earlier ones; with a stride, its share of the next entry."""
        full = self.each != "token" or (self.window is not None and context // self.stride >= self.window)
        return 0.0 if full else self.entry_bytes(itemsize) / self.stride


def seen(tokens: int, context: int, window: int | None) -> int:
    """Pairs of a query and a key it sees: `tokens` causal queries after `context` earlier tokens.

    The query at position p sees min(p + 1, window) keys.
    """
    if window is None:
        return tokens * context + tokens * (tokens + 1) // 2
    growing = max(0, min(tokens, window - context))  # queries that still see everything before them
    return growing * context + growing * (growing + 1) // 2 + (tokens - growing) * window


def _within_chunks(length: int, chunk: int) -> int:
    """Pairs of the first `length` positions, where position p sees the p mod chunk + 1 last ones."""
    whole, rest = divmod(length, chunk)
    return whole * seen(chunk, 0, None) + seen(rest, 0, None)


def _strided(length: int, pairs: Pairs) -> int:
    """Pairs of the first `length` positions, where position p sees min((p + 1) // stride, window) keys."""
    whole, rest = divmod(length + 1, pairs.stride)  # positions 0 .. length - 1 see 1 // s .. length // s keys
    full = whole - 1 if pairs.window is None else min(whole - 1, pairs.window)
    below = pairs.stride * (full * (full + 1) // 2 + (whole - 1 - full) * full) if whole else 0
    last = whole if pairs.window is None else min(whole, pairs.window)
    return below + rest * last


def numbers(shapes: Iterable[Shape]) -> int:
    """How many numbers weights of these shapes hold."""
    total = 0
    for shape in shapes:
        size = 1
        for n in shape:
            size *= n
        total += size
    return total


def matrices(weights: dict[str, Shape]) -> int:
    """Multiply-accumulates of one vector with every matrix among some weights."""
    return numbers(shape for shape in weights.values() if len(shape) == 2)


def linear(name: str, rows: int, columns: int, bias: bool = False) -> dict[str, Shape]:
    """The weights of a linear map from `columns` numbers to `rows`."""
    weight = {f"{name}.weight": (rows, columns)}
    return weight | {f"{name}.bias": (rows,)} if bias else weight


def within(name: str, weights: dict[str, Shape]) -> dict[str, Shape]:
    """The weights of a part, by their names in the whole."""
    return {f"{name}.{key}": shape for key, shape in weights.items()}
