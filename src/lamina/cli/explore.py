"""`lamina explore`: the catalog as a static site."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lamina.cli.console import working


def explore(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where to write the site; index.html is in it.")
    ] = Path("site"),
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", show_default=False, help="Only these of the catalog (default: all)."),
    ] = None,
) -> None:
    """Write a static site of the catalog: search, compare, diff. It opens from a file, without a network."""
    import lamina
    from lamina import catalog
    from lamina.report import words
    from lamina.report.site import write

    wanted = list(dict.fromkeys(map(_known, names or catalog.names())))
    with working(f"writing {output}"):
        archs = {name: lamina.architecture(name) for name in wanted}
        facts = {name: catalog.source(name) for name in wanted}
        nbytes = write(output, archs, facts)
    print(f"{output / 'index.html'}: {len(archs)} architectures, {words.size(nbytes)}")


def _known(name: str) -> str:
    from lamina import catalog
    from lamina.errors import LaminaError, closest

    if (found := catalog.canonical(name)) is None:
        raise LaminaError(f"nothing in the catalog is called {name!r}; {closest(name, catalog.names())}")
    return found
