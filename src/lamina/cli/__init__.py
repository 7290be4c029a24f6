"""The command line: `lamina`, one module a command. Importing this imports nothing else."""

from __future__ import annotations


def main() -> None:
    """Runs the command of sys.argv, and exits: 0 done, 1 a verdict that failed, 2 bad input, 130 interrupted."""
    import gc
    import os

    gc.disable()  # reading and pricing values leaves nothing to collect; `loading.load` turns it on again
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # looking for some takes 30 ms
    from lamina.cli.app import app

    app()
