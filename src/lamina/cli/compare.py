"""`lamina compare`: several architectures side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from lamina.cli.console import print_json, print_table
from lamina.cli.loading import Json
from lamina.cli.show import architecture_of


def compare(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            show_default=False,
            help="Catalog names, config.json files, model directories, .gguf files, Hugging Face ids.",
        ),
    ],
    context: Annotated[
        int, typer.Option(min=0, metavar="N", help="Tokens of context that cache and FLOPs are counted at.")
    ] = 32768,
    json: Json = False,
) -> None:
    """What architectures cost, side by side: parameters, cache, FLOPs for a token."""
    from lamina.report.tables import COMPARE, Entry, records

    rows = records(COMPARE, [Entry(architecture_of(source), {}, context) for source in sources])
    if json:
        print_json(rows)
    else:
        print_table(COMPARE, rows)
