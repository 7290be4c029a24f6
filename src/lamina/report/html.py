"""The report: some architectures compared, in one HTML file that fetches nothing.

It has what the site's comparison and diff have, with the same controls, and the drawings.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lamina.arch import Architecture
from lamina.arch.precision import plan, precision
from lamina.machine import Device, device
from lamina.report.sheet import sheet
from lamina.report.site import pages
from lamina.report.site.profile import Choices, profile
from lamina.report.site.strip import strip

SCRIPTS = ("words", "cost", "charts", "figures", "settings", "compare", "difference", "diff")


def write(
    archs: Sequence[Architecture],
    path: Path,
    setting: Mapping[str, Any] | None = None,
    facts: Mapping[str, dict[str, Any]] | None = None,
) -> int:
    """Writes the report, whole or not at all; its size in bytes.

    `setting` is what the controls show first: context, batch, plan and cache (as `lamina.arch.precision` takes
    them), device (a name, or a Device of no table) and count of devices. `facts` is what publishers say, by name
    (catalog.source).
    Raises: LaminaError for a precision or a device that does not exist.
    """
    data = report(archs, setting, facts).encode("utf-8")
    handle, made = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(made).chmod(0o644)
        os.replace(made, path)
    finally:
        Path(made).unlink(missing_ok=True)
    return len(data)


def report(
    archs: Sequence[Architecture],
    setting: Mapping[str, Any] | None = None,
    facts: Mapping[str, dict[str, Any]] | None = None,
) -> str:
    """The report as text."""
    named = _named(archs)
    start, offered = _started(setting or {})
    known = {name: (facts or {}).get(arch.name, {}) for name, arch in named.items()}
    said = {
        name: profile(arch, sheet(arch), known[name], offered.plans) | {"name": name, "strip": strip(arch)}
        for name, arch in named.items()
    }
    drawings = pages.Drawings()
    drawn = [(name, drawings.draw(arch, known[name])) for name, arch in named.items()]
    parts = [("part-costs", "Costs"), ("part-differences", "What differs"), ("part-drawings", "Drawings")]
    return pages.page(
        "report.html",
        title=_title(list(named)),
        names=list(named),
        starts=[],
        pairs=[],
        parts=[part for part in parts if len(named) > 1 or part[0] != "part-differences"],
        drawings=drawn,
        style=Markup("\n".join([*pages.styles().values(), drawings.style]).replace("</", "<\\/")),
        first=_first(said, {"set": ",".join(named)} | start, offered),
        library=_inline(f"/*!\n{pages.vendored('chart.js-LICENSE.txt')}*/\n{pages.vendored('chart.umd.min.js')}"),
        scripts=_inline("\n".join(pages.asset(f"{name}.js") for name in SCRIPTS)),
    )


def _named(archs: Sequence[Architecture]) -> dict[str, Architecture]:
    """The architectures by names that tell them apart, and that an address can list."""
    named: dict[str, Architecture] = {}
    for arch in archs:
        name = plain = (arch.name or arch.family).replace(",", ";")
        count = 1
        while name in named:
            count += 1
            name = f"{plain} ({count})"
        named[name] = arch
    return named


def _title(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _started(setting: Mapping[str, Any]) -> tuple[dict[str, Any], Choices]:
    """The setting as an address says it, and the choices, among which it is."""
    start = {key: value for key, value in setting.items() if value is not None}
    offered = Choices()
    if "plan" in start:
        start["plan"] = name = plan(start["plan"]).name
        offered = offered._replace(plans=tuple(dict.fromkeys((*offered.plans, name))))
    if "cache" in start:
        start["cache"] = name = precision(start["cache"]).name
        offered = offered._replace(caches=tuple(dict.fromkeys((*offered.caches, name))))
    if isinstance(start.get("device"), Device):
        offered = offered._replace(devices=(start["device"],))
        start["device"] = start["device"].name
    elif "device" in start:
        start["device"] = device(start["device"]).name
    return start, offered


def _first(said: Mapping[str, Any], start: dict[str, Any], offered: Choices) -> Markup:
    """What the page begins with: data, and the state module."""
    lines = [
        f"Lamina.names = {pages.script(list(said))};",
        f"Lamina.choices = {pages.script(offered.record())};",
        f"Lamina.start = {pages.script({key: str(value) for key, value in start.items()})};",
        _inline(pages.asset("state.js")),
        *(f"Lamina.add({pages.script(one)});" for one in said.values()),
    ]
    return Markup("\n".join(lines))


def _inline(code: str) -> Markup:
    """Code of ours or of the library, so that nothing in it ends the script element."""
    return Markup(code.replace("</script", "<\\/script").replace("<!--", "<\\!--"))
