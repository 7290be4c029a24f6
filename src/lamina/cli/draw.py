"""`lamina draw`: an architecture as a picture; several side by side, as a lineage, or on a poster."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lamina.errors import LaminaError

if TYPE_CHECKING:
    from lamina.arch import Architecture

KINDS = (".svg", ".png")


def draw(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE...",
            show_default=False,
            help="Catalog names, config.json files, model directories, .gguf files, Hugging Face ids.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", show_default=False, help="An .svg or .png file (default: NAME.svg here)."
        ),
    ] = None,
    lineage: Annotated[bool, typer.Option("--lineage", help="In this order, with what changed at each step.")] = False,
    poster: Annotated[bool, typer.Option("--poster", help="A small card for each.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="All of the catalog, as a poster.")] = False,
    theme: Annotated[
        Literal["auto", "light", "dark"], typer.Option(help="The colours; auto follows the reader's (a PNG is light).")
    ] = "auto",
    scale: Annotated[float, typer.Option(metavar="X", help="Pixels of a PNG for one of the drawing.")] = 2.0,
) -> None:
    """Draw an architecture: its layers, its blocks, its mechanisms, what it costs. Two are drawn side by side."""
    names = list(sources or [])
    if everything:
        from lamina import catalog

        names, poster = catalog.names(), True
    mode = _mode(names, lineage, poster)
    target = output or Path(f"{_stem(names, mode)}.svg")
    if target.suffix.lower() not in KINDS:
        raise LaminaError(f"{target}: a drawing is written as {' or '.join(KINDS)}; name such a file")
    from lamina.report import drawing

    document = _drawn(names, mode, theme)
    png = target.suffix.lower() == ".png"
    _write(target, drawing.png(document, scale) if png else document.encode())
    print(target)


def _mode(names: list[str], lineage: bool, poster: bool) -> str:
    if not names:
        raise LaminaError("nothing to draw; name an architecture of `lamina list`, or give --all")
    if lineage and poster:
        raise LaminaError("--lineage and --poster exclude each other")
    if lineage and len(names) < 2:
        raise LaminaError("a lineage needs two architectures at least")
    if len(names) > 2 and not (lineage or poster):
        raise LaminaError(f"{len(names)} architectures do not stand side by side; add --lineage or --poster")
    return "lineage" if lineage else "poster" if poster else "sheet" if len(names) == 1 else "compare"


def _stem(names: list[str], mode: str) -> str:
    plain = [Path(name).name.removesuffix(".json").removesuffix(".gguf") for name in names]
    return plain[0] if mode == "sheet" else "-".join(plain) if mode == "compare" else mode


def _drawn(names: list[str], mode: str, theme: Literal["auto", "light", "dark"]) -> str:
    import lamina
    from lamina import catalog
    from lamina.report import drawing

    archs: list[Architecture] = [lamina.architecture(name) for name in names]
    if mode == "sheet":
        known = catalog.canonical(names[0])
        return drawing.draw(archs[0], theme, facts=catalog.source(known) if known else None)
    if mode == "compare":
        return drawing.compare(archs[0], archs[1], theme)
    return drawing.lineage(archs, theme) if mode == "lineage" else drawing.poster(archs, theme)


def _write(target: Path, data: bytes) -> None:
    """The file whole or not at all.

    Raises: LaminaError if it cannot be written
    """
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(data)
        os.replace(part, target)
    except OSError as error:
        raise LaminaError(f"{target}: cannot be written ({error.strerror or error})") from None
    finally:
        part.unlink(missing_ok=True)
