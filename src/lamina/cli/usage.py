"""What a run has cost: speed, and predicted beside actual bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lamina.arch import Architecture
from lamina.report import words


@dataclass
class Usage:
    """Tokens and seconds of one run or one conversation, and the state at its end.

    Units: `capacity` is how many tokens the state was made for; bytes as allocated
    """

    prompt_tokens: int = 0
    prefill_seconds: float = 0.0
    new_tokens: int = 0
    decoded_tokens: int = 0  # without those that a prefill gave
    decode_seconds: float = 0.0
    capacity: int = 0
    state_bytes: int = 0
    drafted: int = 0
    accepted: int = 0

    @classmethod
    def of(cls, stats: Any, capacity: int) -> Usage:
        """From what a generation says of itself."""
        return cls(
            stats.prompt_tokens,
            stats.prefill_seconds,
            stats.new_tokens,
            max(0, stats.new_tokens - stats.rows),
            stats.decode_seconds,
            capacity,
            stats.state_bytes,
            stats.drafted,
            stats.accepted,
        )

    def lines(self, model: Any) -> list[str]:
        """What to print after a run of `model`."""
        arch: Architecture = model.arch
        dtype = str(model.dtype).removeprefix("torch.")
        state = arch.state_bytes(context=self.capacity, batch=1, dtype=dtype)
        stood = f"{self.accepted / self.drafted:.0%}" if self.drafted else ""
        return [
            f"prefill  {self.prompt_tokens:,} tokens, {_rate(self.prompt_tokens, self.prefill_seconds)}",
            f"decode   {self.new_tokens:,} tokens, {_rate(self.decoded_tokens, self.decode_seconds)}",
            *([f"drafted  {self.drafted:,} tokens, {stood} of them stood"] if self.drafted else []),
            _weights(model, dtype),
            f"state    {_bytes(state, self.state_bytes)} for {self.capacity:,} tokens)",
        ]


def weight_bytes(model: Any) -> tuple[int, int]:
    """(predicted, actual) bytes of the weights: the count of the formula, and what is held, as stored or not."""
    predicted = model.arch.parameters().total * model.dtype.itemsize
    return predicted, held((*model.parameters(), *_packed(model)))


def _packed(model: Any) -> list[Any]:
    """The tensors of weights that are kept as stored."""
    from lamina.ops.packed import Packed

    found = (module.parts for module in model.modules() if isinstance(module, Packed))
    return [part for parts in found for part in parts if part is not None]


def _weights(model: Any, dtype: str) -> str:
    predicted, actual = weight_bytes(model)
    if _packed(model):
        return f"weights  {actual:,} bytes as stored ({words.size(actual)}; {words.size(predicted)} as {dtype})"
    return f"weights  {_bytes(predicted, actual)} {dtype})"


def held(tensors: Iterable[Any]) -> int:
    """Bytes of tensors, those that share memory once."""
    return sum({t.data_ptr(): t.nbytes for t in tensors}.values())


def _rate(tokens: int, seconds: float) -> str:
    return f"{tokens / seconds:,.1f} tokens/s" if seconds and tokens else "no time"


def _bytes(predicted: int, actual: int) -> str:
    return f"predicted {predicted:,} bytes, held {actual:,} ({words.size(actual)}"
