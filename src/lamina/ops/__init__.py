"""The arithmetic: for each fast op its readable twin."""

from __future__ import annotations


def backend() -> dict[str, str]:
    """What computes each kind of op on this machine, and why: {"cpu": "native"} or {"cpu": "torch: the reason"}."""
    from lamina.ops.native import library

    found = library()
    return {"cpu": f"torch: {found}" if isinstance(found, str) else "native"}
