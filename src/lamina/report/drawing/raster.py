"""A drawing as PNG."""

from __future__ import annotations

from lamina.errors import LaminaError


def png(svg: str, scale: float = 2.0) -> bytes:
    """The PNG of a drawing made with text="outlines"; one made for both themes is drawn on light.

    Raises: LaminaError for a scale that makes no picture
    """
    if not 0.1 <= scale <= 8:
        raise LaminaError(f"scale ({scale:g}) must be between 0.1 and 8")
    import resvg_py

    from lamina.report.drawing.svg import resolved

    return bytes(resvg_py.svg_to_bytes(svg_string=resolved(svg), zoom=scale, skip_system_fonts=True))
