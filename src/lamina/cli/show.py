"""`lamina show`: the fact sheet of one architecture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lamina.cli.console import print_json, print_lines, terminal_width
from lamina.cli.loading import Json
from lamina.cli.options import takes
from lamina.cli.setting import CostOptions, bounded

if TYPE_CHECKING:
    from lamina.arch import Architecture

Described = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        show_default=False,
        help="A catalog name, a config.json, a model directory, a .gguf or .safetensors file, the address of one, or a "
        "Hugging Face id; edited or not.",
    ),
]


@takes(CostOptions)
def show(
    source: Described,
    options: CostOptions,
    json: Json = False,
    parts: Annotated[bool, typer.Option("--parts", help="What each part costs, with the options below.")] = False,
    paths: Annotated[bool, typer.Option("--paths", help="Every field, by its path.")] = False,
) -> None:
    """The fact sheet of an architecture: what it is made of, and what that costs."""
    from lamina import catalog
    from lamina.lookup import find
    from lamina.report.sheet import fields, rendered, sheet
    from lamina.report.text import listed

    found = find(source)
    arch = found.arch
    if paths:
        print_lines(["every field that is set", *listed(list(fields(arch)))])
        return
    if parts:
        _print_parts(arch, options, json)
        return
    known = catalog.canonical(source)
    stored = found.stored()
    said = sheet(arch, catalog.source(known) if known else None, stored.as_json() if stored else None)
    if json:
        print_json(said)
    else:
        print_lines(rendered(said, terminal_width()))


def _print_parts(arch: Architecture, options: CostOptions, json: bool) -> None:
    """What each part costs, at each context that was asked for."""
    from lamina.report.breakdown import rendered

    device = options.found()
    costs = [arch.cost(context=context, batch=options.batch, **options.precisions) for context in options.contexts]
    options.warn(arch)
    bounds = [bounded(cost, device, options.devices) if device else None for cost in costs]
    if json:
        records = [
            cost.record() | ({"bounds": bound} if bound else {}) for cost, bound in zip(costs, bounds, strict=True)
        ]
        print_json(records if len(records) > 1 else records[0])
        return
    for cost, bound in zip(costs, bounds, strict=True):
        print_lines([*rendered(cost, bound, terminal_width()), *([""] if cost is not costs[-1] else [])])
