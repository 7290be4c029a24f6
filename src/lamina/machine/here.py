"""The machine we are on: its GPUs, or its CPU with the memory and bandwidth that it has. Asks no torch."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from lamina.machine.devices import Device, device, devices

_QUERY = ("--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits")


def machine() -> list[Device]:
    """The devices of this machine: its GPUs if it has any, else its CPU. `memory` is what is free."""
    return gpus() or [cpu()]


def gpus() -> list[Device]:
    """NVIDIA GPUs as nvidia-smi reports them; rates of the table where the model is in it, else of the slowest."""
    if not shutil.which("nvidia-smi"):
        return []
    try:
        found = subprocess.run(("nvidia-smi", *_QUERY), capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [gpu for line in found.stdout.splitlines() if (gpu := _gpu(line))]


def _gpu(line: str) -> Device | None:
    """One line of what nvidia-smi prints; None where it does not say how much memory there is."""
    name, total, free = ([cell.strip() for cell in line.rsplit(",", 2)] + ["", ""])[:3]
    if not total.isdigit():
        return None
    known = _like(name)
    size = int(free if free.isdigit() else total) << 20
    title = f"{name} ({int(total) / 1024:.0f} GiB)"
    if known is None:
        slowest = min(devices().values(), key=lambda d: d.bandwidth if "bfloat16" in d.peak else float("inf"))
        source = f"memory from nvidia-smi; rates are not known, those of {slowest.title} stand in"
        return slowest.replace(name="auto", title=title, memory=size, source=source)
    return known.replace(name="auto", title=title, memory=size, source=f"memory from nvidia-smi; rates: {known.source}")


def _like(name: str) -> Device | None:
    """The row of the table for a GPU's product name."""
    words = name.upper().replace("-", " ").split()
    for known in devices().values():
        model = known.title.upper().split(" (")[0].split()
        telling = [word for word in model if any(c.isdigit() for c in word)]
        if telling and telling[0] in words and "LAPTOP" not in words:
            return known
    return None


def cpu() -> Device:
    """The CPU: memory that is free, bandwidth and rate as a quick trial measures them (lower than the true peaks)."""
    if platform.system() == "Darwin":
        return _apple()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    bandwidth, rate = measured(cores)
    return Device(
        name="auto",
        title=f"CPU with {cores} cores ({platform.machine()})",
        memory=free_memory(),
        bandwidth=bandwidth,
        peak={"float32": rate},
        source="free memory of the system; bandwidth and rate measured just now",
    )


def _apple() -> Device:
    """A Mac: the chip's row of the table if it is there; memory as the system says."""

    def ask(key: str) -> str:
        return subprocess.run(
            ("sysctl", "-n", key), capture_output=True, text=True, timeout=20, check=False
        ).stdout.strip()

    chip, memory = ask("machdep.cpu.brand_string"), ask("hw.memsize")
    known = device("m4-max")
    for row in devices().values():
        if chip and row.title.startswith(chip):
            known = row
    note = known.source if known.title.startswith(chip or "?") else f"rates of {known.title} stand in"
    return known.replace(name="auto", title=chip or known.title, memory=int(memory or known.memory), source=note)


def free_memory(root: Path = Path("/")) -> int:
    """Bytes that a new process may use: of the system, and of the control groups that it runs in."""
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    for group, (most, now, cached) in _groups(root):
        limit, used = ("".join(_lines(group / name)) for name in (most, now))
        if limit.isdigit() and used.isdigit():
            stat = [line.split() for line in _lines(group / "memory.stat")]
            dropped = sum(int(pair[1]) for pair in stat if pair[0] == cached)  # what files left behind
            available = min(available, int(limit) - int(used) + dropped)
    return max(available, 0)


GROUPS = {
    "0::": ("sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")),
    ":memory:": ("sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")),
}
"""Where control groups of versions 2 and 1 stand, by what /proc/self/cgroup says before a group's own path."""


def _groups(root: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """The folders of the control groups of this process, from the innermost out, with the names of their files."""
    for line in _lines(root / "proc/self/cgroup"):
        for mark, (place, names) in GROUPS.items():
            if mark in line:
                top = root / place
                inner = top / line.partition(mark)[2].strip("/")
                yield from ((group, names) for group in (inner, *inner.parents) if group.is_relative_to(top))


def _lines(path: Path) -> list[str]:
    """The lines of a file of the system; none where there is no such file."""
    try:
        return path.read_text().splitlines()
    except (OSError, ValueError):
        return []


def measured(cores: int, nbytes: int = 1 << 27) -> tuple[float, float]:
    """Bytes a second read by all cores at once, and float32 FLOP/s of matrix products; the best of a few trials."""
    import numpy as np

    parts = [np.ones(nbytes // 4 // cores, np.float32) for _ in range(cores)]

    def read_all() -> None:
        threads = [threading.Thread(target=np.add.reduce, args=(part,)) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    size = 1024
    a = np.ones((size, size), np.float32)
    return 4 * sum(part.size for part in parts) / _fastest(read_all), 2 * size**3 / _fastest(lambda: a @ a)


def _fastest(call, times: int = 4) -> float:
    """Seconds of the fastest of a few calls."""
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best
