"""`lamina list`: the catalog."""

from __future__ import annotations

from typing import Annotated

import typer

from lamina.cli.console import print_json, print_table
from lamina.cli.loading import Json

CONTEXT = 32768


def list_architectures(
    pattern: Annotated[
        str | None,
        typer.Argument(show_default=False, help="Only names or families that hold this, or match it as *glob*."),
    ] = None,
    json: Json = False,
) -> None:
    """The architectures of the catalog, with what their published configs come to."""
    import lamina
    from lamina import catalog
    from lamina.errors import LaminaError, closest
    from lamina.report.tables import LIST, Entry, records

    entries = [Entry(lamina.architecture(name), catalog.source(name), CONTEXT) for name in catalog.names()]
    if pattern is not None:
        entries = [e for e in entries if _matches(pattern, e.arch.name) or _matches(pattern, e.arch.family)]
        if not entries:
            raise LaminaError(f"nothing in the catalog matches {pattern!r}; {closest(pattern, catalog.names())}")
    rows = records(LIST, entries)
    if json:
        print_json(rows)
    else:
        print_table(LIST, rows)


def _matches(pattern: str, name: str) -> bool:
    from fnmatch import fnmatchcase

    pattern = pattern.lower()
    return pattern in name.lower() or fnmatchcase(name.lower(), pattern)
