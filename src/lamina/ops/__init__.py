"""The arithmetic: for each fast op its readable twin."""

from __future__ import annotations


def backend() -> dict[str, str]:
    """What computes on each kind of device here, and why: {"cpu": "native", "cuda": "torch: no CUDA device"}.

    On CUDA it is recurrences that have kernels of their own; attention and products are torch's.
    """
    from lamina.ops import fla, native

    found, missing = native.library(), fla.library()
    cpu = f"torch: {found}" if isinstance(found, str) else "native"
    return {"cpu": cpu, "cuda": fla.version() if missing is None else f"torch: {missing}"}
