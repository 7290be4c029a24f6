"""What every part of an architecture has in common: it is a frozen, comparable, serialisable value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, PlainValidator, ValidationError
from pydantic_core import PydanticCustomError

from lamina.arch.measure import Kept, Shape, Work, numbers
from lamina.errors import LaminaError


def describe(error: ValidationError) -> str:
    """The first thing wrong in a value, as `path: what is wrong`."""
    first = error.errors()[0]
    path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in first["loc"]).lstrip(".")
    message = first["msg"].removeprefix("Value error, ")
    more = "" if error.error_count() == 1 else f" (and {error.error_count() - 1} more)"
    return f"{path}: {message}{more}" if path else f"{message}{more}"


class _OneSentence(type(BaseModel)):
    """Turns what pydantic says of a wrong value into one sentence of ours."""

    def __call__(cls, *args: Any, **fields: Any) -> Any:
        try:
            return super().__call__(*args, **fields)
        except ValidationError as error:
            raise LaminaError(f"{cls.__name__}: {describe(error)}") from None


class Node(BaseModel, metaclass=_OneSentence):
    """A part of an architecture: immutable, compared by content, lossless in JSON.

    Raises: LaminaError, naming the field, when a value contradicts itself.
    """

    if TYPE_CHECKING:  # pydantic makes it, from the fields

        def __hash__(self) -> int: ...

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    def replace(self, **fields: Any) -> Any:
        """The same value with some fields changed, checked again."""
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields} | fields)


def one_of(first: type[Node], *others: type[Node]) -> Any:
    """The type of a field that holds a part of one of some kinds, told apart by `kind` where there are several.

    A union would build the schemas of all of them when a field is first used, which takes longer than reading most
    architectures; this builds a kind's when one is met.
    """
    kinds = (first, *others)
    known = {kind.model_fields["kind"].default: kind for kind in kinds} if others else {}

    def read(value: Any) -> Any:
        if isinstance(value, kinds):
            return value
        names = ", ".join(known) or first.__name__
        if not isinstance(value, dict):
            raise PydanticCustomError("part", "Input should be one of {names}", {"names": names})
        if not known:
            return first.model_validate(value)
        if value.get("kind") not in known:
            said = {"kind": repr(value.get("kind"))[:60], "names": names}
            raise PydanticCustomError("part", "kind {kind} is not known; known: {names}", said)
        return known[value["kind"]].model_validate(value)

    return Annotated[Any, PlainValidator(read)]


class Op(Node):
    """What a residual branch computes: a mixer, a feed-forward, or several in parallel.

    Each knows its own cost, given the width D of the stream it reads and writes: the shapes of its weights,
    what it keeps of a sequence, the work that a token is, and what training saves. The rest is derived, and the
    totals of an architecture are sums of these.
    """

    if TYPE_CHECKING:
        kind: Any  # each op's own, by which JSON tells them apart

    @property
    def role(self) -> str:
        """The name of this part within its block, in paths and in parameter names."""
        raise TypeError(f"{type(self).__name__} has no role")

    def weights(self, width: int) -> dict[str, Shape]:
        """The shape of everything learned, by the name it has in the module."""
        raise TypeError(f"{type(self).__name__} does not name its weights")

    def work(self, width: int, memory: int = 0, decoding: bool = False) -> Work:
        """Forward FLOPs of matrix products; `decoding` is one token after others, where its form may differ."""
        raise TypeError(f"{type(self).__name__} does not count its FLOPs")

    def keeps(self, width: int) -> tuple[Kept, ...]:
        """What it keeps of a sequence."""
        return ()

    def borrows(self, width: int) -> tuple[Kept, ...]:
        """What it reads of a sequence that another block keeps."""
        return ()

    @property
    def source(self) -> int | None:
        """The block whose keys and values (or weights) it reads in place of its own."""
        return None

    def borrows_of(self, other: Op) -> bool:
        """Whether another is such that it can read what that has."""
        return type(other) is type(self)

    def saved(self, width: int) -> int:
        """Numbers of each token that the backward pass needs, when nothing is computed again."""
        raise TypeError(f"{type(self).__name__} does not say what training saves")

    def unused(self, width: int) -> int:
        """How many of its parameters one token does not use."""
        return 0

    # -- derived

    def parameters(self, width: int) -> int:
        """How many numbers are learned."""
        return numbers(self.weights(width).values())

    def active_parameters(self, width: int) -> int:
        """How many of them one token uses."""
        return self.parameters(width) - self.unused(width)

    def state_bytes(self, width: int, context: int, itemsize: float, memory: int = 0) -> int:
        """Bytes that one sequence of `context` tokens (and `memory` cross-attended ones) leaves behind."""
        return sum(kept.bytes(context, itemsize, memory) for kept in self.keeps(width))

    def flops(self, width: int, tokens: int, context: int, memory: int = 0, causal: bool = True) -> int:
        """Forward FLOPs of `tokens` new tokens after `context` earlier ones; a multiply-accumulate is 2.

        Tokens see those before them when `causal`, and all others when not.
        """
        decoding = causal and tokens == 1 and context > 0
        return self.work(width, memory, decoding).flops(tokens, context, causal)
