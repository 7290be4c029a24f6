"""`lamina convert`: a checkpoint into the Hugging Face layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lamina.cli.console import working
from lamina.cli.loading import Dtype, Source, load
from lamina.errors import LaminaError
from lamina.report import words


def convert(
    source: Source,
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", show_default=False, help="A directory that is new, or empty.")
    ],
    dtype: Dtype = None,
    layout: Annotated[
        str | None,
        typer.Option(
            metavar="FAMILY", help="The published layout to write, if another than its own; lamina holds any."
        ),
    ] = None,
) -> None:
    """Write a checkpoint as config.json, safetensors and tokenizer, as transformers loads them."""
    import lamina
    from lamina.families import family_named

    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise LaminaError(f"{directory}: exists and is not an empty directory; name a new one")
    if layout is not None:
        family_named(layout)
    model = load(source, dtype)
    with working(f"writing {directory}"):
        written = lamina.save(model, directory, layout=layout)
    for file in sorted(written.iterdir()):
        print(f"{file}  {words.size(file.stat().st_size)}")
