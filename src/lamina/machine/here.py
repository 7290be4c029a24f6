"""The machine we are on: its GPUs, or its CPU with the memory and bandwidth that it has. Asks no torch."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import threading
import time
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
    return [_gpu(line) for line in found.stdout.splitlines() if line.count(",") >= 2]


def _gpu(line: str) -> Device:
    name, total, free = (cell.strip() for cell in line.rsplit(",", 2))
    known = _like(name)
    size = int(free or total) << 20
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
        if telling and telling[0] in words:
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


def free_memory() -> int:
    """Bytes that a new process may use: of the system, and of the control group it runs in."""
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        if limit != "max":
            available = min(available, int(limit) - used)
    except (OSError, ValueError, IndexError):
        pass  # no control group, or not Linux: the system's figure stands
    return max(available, 0)


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
