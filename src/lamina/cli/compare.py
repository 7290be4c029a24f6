"""`lamina compare`: several architectures side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lamina.cli.console import print_json, print_lines, print_table, say, working
from lamina.cli.loading import Json
from lamina.cli.options import takes
from lamina.cli.setting import CostOptions, bounded
from lamina.report import words

if TYPE_CHECKING:
    from lamina.arch import Architecture
    from lamina.machine import Device


@takes(CostOptions)
def compare(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            show_default=False,
            help="Catalog names, config.json files, model directories, .gguf files, Hugging Face ids, edited or not.",
        ),
    ],
    options: CostOptions,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a report with drawings, differences and charts.")
    ] = None,
    json: Json = False,
) -> None:
    """What architectures cost, side by side: parameters, weights, state, FLOPs, and bounds on time."""
    import lamina
    from lamina.report.tables import Entry, compare_columns, records

    contexts, device = options.contexts, options.found()
    archs = [lamina.architecture(source) for source in sources]
    entries = [
        Entry(arch, {}, contexts[0], [priced(arch, context, options, device) for context in contexts]) for arch in archs
    ]
    columns = compare_columns(contexts, device is not None)
    rows = records(columns, entries)
    if html:
        _report(archs, html, options, device)
    if json:
        print_json(rows)
        return
    print_table(columns, rows)
    if device:
        count = f"{options.devices} x " if options.devices > 1 else ""
        print_lines(["", f">= are lower bounds on {count}{device.title}: no machine of its kind is faster"])


def _report(archs: list[Architecture], path: Path, options: CostOptions, device: Device | None) -> None:
    """The HTML; its controls begin where the table is taken."""
    from lamina import catalog
    from lamina.report.html import write

    known = {arch.name: catalog.canonical(arch.name) for arch in archs}
    facts = {name: catalog.source(entry) for name, entry in known.items() if entry}
    setting: dict[str, Any] = {
        "context": options.contexts[0],
        "batch": options.batch,
        "plan": options.weights,
        "cache": options.cache,
    }
    if device:
        setting |= {"device": device, "count": options.devices}
    with working(f"writing {path}"):
        nbytes = write(archs, path, setting, facts)
    say(f"wrote {path} ({words.size(nbytes)})")


def priced(arch: Architecture, context: int, options: CostOptions, device: Device | None) -> dict[str, Any]:
    """What one architecture costs at one context, as JSON holds it."""
    cost = arch.cost(context=context, batch=options.batch, **options.precisions)
    said = {
        "context": context,
        "batch": options.batch,
        "weights": cost.setting.weights.name,
        "cache": cost.setting.cache.name,
        "weight_bytes": cost.weight_bytes,
        "state_bytes": cost.state_bytes,
        "prefill_flops": cost.prefill_flops,
        "decode_flops": cost.decode_flops,
        "moved_bytes": cost.moved_bytes,
        "intensity": cost.intensity,
    }
    return said | ({"bounds": bounded(cost, device, options.devices)} if device else {})
