"""`lamina diff`: what differs between two architectures."""

from __future__ import annotations

from typing import Annotated

import typer

from lamina.cli.console import print_json, print_lines
from lamina.cli.loading import Json
from lamina.cli.show import Described


def diff(
    left: Described,
    right: Described,
    json: Json = False,
    paths: Annotated[bool, typer.Option("--paths", help="Every field that differs, by its path.")] = False,
) -> None:
    """What differs, mechanism by mechanism. The exit code is 0 if nothing does, 1 if something does."""
    import lamina
    from lamina.arch.diff import diff as differences
    from lamina.report.differences import record, rendered

    sides = lamina.architecture(left), lamina.architecture(right)
    found = differences(*sides)
    if json:
        print_json(record(*sides))
    elif paths and found:
        print_lines([f"{sides[0].name} -> {sides[1].name}", *str(found).splitlines()])
    else:
        print_lines(rendered(*sides))
    raise typer.Exit(1 if found else 0)
