"""The colours: a role has one on light and one on dark; a family's `deep` can be read on its `soft` and on paper."""

from __future__ import annotations

from typing import Literal

Theme = Literal["auto", "light", "dark"]
Mode = Literal["light", "dark"]

PLAIN = {
    "paper": ("#fbfaf7", "#14161a"),
    "panel": ("#ffffff", "#1b1e24"),
    "ink": ("#1b1f24", "#eceef0"),
    "muted": ("#59616b", "#a5adb7"),
    "line": ("#dcd8cf", "#363c46"),
    "rail": ("#434a53", "#b4bbc4"),
    "on": ("#ffffff", "#14161a"),
}

FAMILIES = {  # soft, edge, deep: on light, then on dark
    "full": (("#dce8f7", "#2d6fb7", "#1c4f8c"), ("#1b2f48", "#417fe5", "#9cc5f2")),
    "window": (("#e4f2f8", "#7bb8dc", "#1d5f83"), ("#17323f", "#3e7592", "#9ccfe8")),
    "latent": (("#e8e2f7", "#684ec1", "#5039a0"), ("#2b2547", "#a794e8", "#bfb0f5")),
    "delta": (("#fbe7d4", "#d8741c", "#8f4508"), ("#422a12", "#da7833", "#f2b681")),
    "scan": (("#dcf0e5", "#2c8f67", "#12623f"), ("#163528", "#48a77c", "#86d8b2")),
    "convolution": (("#f4efcd", "#d2b711", "#655400"), ("#38330f", "#d0bb41", "#e2cf70")),
    "cross": (("#f9e0eb", "#c7729c", "#942457"), ("#441f31", "#e480b3", "#f1a8c8")),
    "dense": (("#eceef0", "#9aa2ab", "#444c56"), ("#2a2e35", "#78818c", "#bcc3cb")),
    "experts": (("#f8e0dc", "#b5463c", "#8d281f"), ("#421f1c", "#dc776c", "#f2aaa1")),
    "norm": (("#f4f2ed", "#bdb7aa", "#57524a"), ("#24272c", "#5d636c", "#b9bdc3")),
    "ends": (("#efece4", "#6e695f", "#3f3b35"), ("#2a2925", "#9b968a", "#d3cec3")),
    "other": (("#ececf2", "#77779a", "#4a4a68"), ("#292936", "#8c8cb0", "#c0c0dc")),
    "accent": (("#fdf0bf", "#d39a06", "#6f4f00"), ("#3f3410", "#dfb03a", "#f0cd76")),
}
TONES = ("soft", "edge", "deep")

PALE = {"experts-pale": ("#dfa29b", "#8a4a43")}

COLOURS: dict[str, tuple[str, str]] = (
    PLAIN
    | PALE
    | {
        f"{family}-{tone}": (light[i], dark[i])
        for family, (light, dark) in FAMILIES.items()
        for i, tone in enumerate(TONES)
    }
)


def colour(role: str, mode: Mode) -> str:
    """The colour of a role."""
    return COLOURS[role][mode == "dark"]


def variables(theme: Theme, used: set[str]) -> str:
    """What gives the roles their colours in a style sheet; nothing where a theme is chosen, and colours are written."""
    if theme != "auto":
        return ""
    light, dark = (";".join(f"--{r}:{COLOURS[r][i]}" for r in sorted(used)) for i in (0, 1))
    return f".lamina{{{light}}}@media(prefers-color-scheme:dark){{.lamina{{{dark}}}}}"


def value(role: str, theme: Theme) -> str:
    """How a role's colour is written in a style sheet."""
    return f"var(--{role})" if theme == "auto" else COLOURS[role][theme == "dark"]


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, from 1 to 21. Source: WCAG 2.2, contrast ratio."""
    bright, dim = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def _luminance(hexadecimal: str) -> float:
    parts = (int(hexadecimal[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
