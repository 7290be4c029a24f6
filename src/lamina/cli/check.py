"""`lamina check`: a checkpoint here and in `transformers`, layer by layer."""

from __future__ import annotations

from typing import Annotated

import typer

from lamina.cli.console import print_json, print_lines, working
from lamina.cli.loading import Json, Source, load
from lamina.errors import LaminaError


def check(
    source: Source,
    tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            show_default=False,
            help="Read N random token ids instead of a text (default without a tokenizer: 48).",
        ),
    ] = None,
    prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="The text to read (default: one of ours).")] = None,
    json: Json = False,
) -> None:
    """Load a checkpoint here and in transformers, and say where they differ. Exit code 1 if they do.

    Passes if no logit differs by more than 1e-5 of the largest one (1e-4 for GGUF), both tokenizers give the
    same ids, and both continue greedily with the same tokens. All in float32, on the CPU.
    """
    from importlib.util import find_spec

    if find_spec("transformers") is None:
        raise LaminaError("check compares with transformers, which is not installed: pip install 'lamina[check]'")
    if tokens is not None and prompt is not None:
        raise LaminaError("--tokens reads random ids and --prompt a text; give one of them")
    from lamina.checkpoint.sources import resolve
    from lamina.cli import parity

    path = resolve(source)
    model = load(str(path), "float32")
    with working(f"loading it in transformers {parity.version()}, and comparing"):
        report = parity.compare(model, path, tokens, prompt)
    if json:
        print_json(report)
    else:
        print_lines(parity.rendered(report))
    if report["verdict"] != "PASS":
        raise typer.Exit(1)
