"""Options that commands share, as a value: a command takes the dataclass, typer sees its fields."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

import typer


def takes(kind: type, **defaults: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a command's parameter of type `kind`, a dataclass of options, one option for each field.

    `defaults` replace those of the dataclass for this command.
    """
    hints = get_type_hints(kind, include_extras=True)
    added = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=defaults.get(field.name, field.default),
            annotation=hints[field.name],
        )
        for field in dataclasses.fields(kind)
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = get_type_hints(command, include_extras=True)
        name = next(parameter for parameter, hint in own.items() if hint is kind)
        kept = [
            parameter.replace(annotation=own[parameter.name])
            for parameter in inspect.signature(command).parameters.values()
            if parameter.name != name
        ]

        def wrapped(**given: Any) -> None:
            value = kind(**{parameter.name: given.pop(parameter.name) for parameter in added})
            command(**given, **{name: value})

        parameters = [*kept, *added]
        wrapped.__doc__, wrapped.__name__ = command.__doc__, command.__name__
        wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return wrapped

    return decorate


@dataclass(frozen=True)
class SamplingOptions:
    """How the next token is chosen, and when to end."""

    max_new_tokens: Annotated[int, typer.Option(min=1, metavar="N", help="The most tokens to write.")] = 256
    temperature: Annotated[float, typer.Option(metavar="T", help="0 is greedy.")] = 0.0
    top_k: Annotated[int, typer.Option(metavar="K", help="Choose among the K likeliest tokens; 0 is all.")] = 0
    top_p: Annotated[
        float, typer.Option(metavar="P", help="Choose among the likeliest that together reach P; 1 is all.")
    ] = 1.0
    min_p: Annotated[
        float, typer.Option(metavar="P", help="Leave out what is P times less likely than the likeliest.")
    ] = 0.0
    repetition_penalty: Annotated[
        float, typer.Option(metavar="X", help="Above 1 makes tokens that were seen less likely.")
    ] = 1.0
    seed: Annotated[int | None, typer.Option(metavar="N", help="The same seed draws the same tokens.")] = None
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="End where this comes (may be given again).")
    ] = None

    @property
    def sampling(self) -> dict[str, Any]:
        """What `lamina.generation.Sampling` takes."""
        names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")
        return {name: getattr(self, name) for name in names}
