"""The command line: `lamina`, one module a command. Importing this imports nothing else."""

from __future__ import annotations


def main() -> None:
    """Runs the command of sys.argv, and exits: 0 done, 1 a verdict that failed, 2 bad input, 130 interrupted."""
    from lamina.cli.app import app

    app()
