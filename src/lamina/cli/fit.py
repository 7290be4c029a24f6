"""`lamina fit`: does it run here, and what would make it."""

from __future__ import annotations

from typing import Any

import typer

from lamina.cli.console import print_json, print_lines, terminal_width
from lamina.cli.loading import Json
from lamina.cli.options import takes
from lamina.cli.setting import CostOptions
from lamina.cli.show import Described


@takes(CostOptions, context="4k", device="auto")
def fit(
    source: Described,
    options: CostOptions,
    json: Json = False,
) -> None:
    """Whether a model fits a machine: weights, state and working memory against what it has.

    The exit code is 0 if it fits, 1 if it does not.
    """
    import lamina
    from lamina.machine import fitting
    from lamina.report.text import listed

    arch, device = lamina.architecture(source), options.found()
    assert device is not None
    options.warn(arch)
    said: dict[str, Any] = fitting.fit(
        arch, device, options.devices, options.contexts[-1], options.batch, **options.precisions
    )
    if json:
        print_json(said)
    else:
        title, *rest = fitting.rendered(said)
        print_lines([title, *listed(rest, terminal_width())])
    raise typer.Exit(0 if said["fits"] else 1)
