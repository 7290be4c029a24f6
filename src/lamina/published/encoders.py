"""What configs say beside their text decoder's: encoders of images and sound. Readers are in vision.py and audio.py."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from lamina.arch import Attention, Encoder, LayerNorm, Linear, Merge, Patches, RMSNorm, Rotary
from lamina.errors import LaminaError
from lamina.published.common import ACTIVATIONS
from lamina.published.config import Config

Reader = Callable[[Config, int], Encoder | None]
"""From the whole config and the decoder's width to an encoder, or none."""
PLACES = re.compile(r".*(token_id|token_index|token|placeholder|image_patch_id|ignore_index)")
"""Keys that say which tokens stand for images and sound."""
PARTS = ("vision_config", "audio_config")


def split(config: Config, *readers: Reader, always: bool = False) -> tuple[Config, tuple[Encoder, ...]]:
    """The config of the text decoder, and the encoders that stand beside it in a multimodal one.

    A config without `text_config` is the decoder's, old flat ones with an encoder's config among its keys. A reader is
    asked where there is a config of an encoder, and otherwise if `always` is set.
    Raises: LaminaError, naming the file and the key, for what is missing, wrong or not understood.
    """
    nested = "text_config" in config
    asked = always or any(part in config for part in PARTS)
    if not nested and not asked:
        return config, ()
    text = config.text() if nested else config
    config.ignore("which tokens stand for what was encoded", *filter(PLACES.fullmatch, config.data))
    if not asked:
        config.ignore("there is no encoder that it could describe", *(set(config.data) - {"text_config", "model_type"}))
        return text, ()
    found = [reader(config, text.count("hidden_size")) for reader in readers]
    if nested:
        config.finish()
    return text, tuple(encoder for encoder in found if encoder)


def part(config: Config, key: str = "vision_config") -> Config | None:
    """The config of an encoder, if there is one."""
    return config.sub(key) if key in config else None


# -- what most image encoders say


def side(c: Config, key: str, usual: int) -> int:
    """The side of a square in pixels, which some configs write as a number for each of two sides.

    Raises: LaminaError for two sides that differ.
    """
    value = c.data.get(key)
    if isinstance(value, list):
        if not value or any(not isinstance(v, int) or v != value[0] for v in value):
            raise LaminaError(f"{c.where}: {key!r} is {value}; only squares are known")
        c.list(key)
        c = Config({key: value[0]}, c.where)
    return c.count(key, usual, most=1 << 16)


def patches(c: Config, size: int, channels: str = "num_channels", frames: int = 1, image: int | None = None) -> Patches:
    """Square patches; `size`, `frames` and `image` are the usual ones of the family."""
    sized = "image_size" in c or image is not None
    return Patches(
        size=side(c, "patch_size", size),
        channels=c.count(channels, 3, most=1 << 10),
        frames=side(c, "temporal_patch_size", frames) if frames > 1 or "temporal_patch_size" in c else 1,
        image=side(c, "image_size", image or 0) if sized else None,
    )


def grid(c: Config, patch: Patches) -> int:
    """How many patches stand along the side of an image."""
    assert patch.image
    if patch.image < patch.size:
        raise LaminaError(f"{c.where}: an image of {patch.image} pixels holds no patch of {patch.size}")
    return patch.image // patch.size


def activation(c: Config, usual: str, key: str = "hidden_act") -> Any:
    return ACTIVATIONS[c.choice(key, ACTIVATIONS, usual)]


def heads(c: Config, width: int, usual: int, *keys: str) -> int:
    """How many heads there are.

    Raises: LaminaError if they do not divide the width.
    """
    key = next((key for key in keys if key in c), keys[0] if keys else "num_attention_heads")
    found = c.count(key, usual, most=1 << 16)
    if width % found:
        raise LaminaError(f"{c.where}: {key} ({found}) must divide the width of the encoder ({width})")
    return found


def turned(
    c: Config, head_dim: int, base: float = 10000.0, axes: int = 2, spread: Any = "each", **fields: Any
) -> Rotary:
    """A rotary embedding by height and width, or by time, height and width: as many pairs for each as fit alike."""
    found = Config(dict(c.dict("rope_parameters", None) or {}), f"{c.where}: rope_parameters")
    found.only("rope_type", ("axial", "default"))
    base = found.float("rope_theta", c.float("rope_theta", base))
    found.finish()
    pairs = head_dim // (2 * axes)
    if not pairs or (axes == 2 and head_dim % 4):
        raise LaminaError(f"{c.where}: heads of {head_dim} numbers cannot turn by {axes} positions")
    return Rotary(base=base, dim=2 * axes * pairs, sections=(pairs,) * axes, spread=spread, **fields)


def attention(width: int, many: int, rotary: Rotary | None = None, bias: bool = True, **fields: Any) -> Attention:
    sizes: dict[str, Any] = {"heads": many, "kv_heads": many, "head_dim": width // many}
    return Attention(**sizes, rotary=rotary, bias=bias, output_bias=bias, **fields)


def norms(c: Config, usual: float, key: str = "layer_norm_eps") -> LayerNorm:
    return LayerNorm(eps=c.float(key, usual))


def rms(c: Config, usual: float, key: str = "rms_norm_eps") -> RMSNorm:
    return RMSNorm(eps=c.float(key, usual))


def merge(c: Config, key: str = "spatial_merge_size", usual: int = 2) -> Merge:
    """Squares of so many patches along a side become one vector."""
    return Merge(count=c.count(key, usual, most=64) ** 2)


def two_layers(inner: int, width: int, act: Any, bias: bool = True) -> tuple[Linear, Linear]:
    """The usual connector: two matrices, an activation between them."""
    return Linear(width=inner, bias=bias, activation=act), Linear(width=width, bias=bias)


def square(c: Config, key: str, usual: int) -> int:
    """The side of a square of so many places.

    Raises: LaminaError if they make none.
    """
    places = c.count(key, usual)
    if math.isqrt(places) ** 2 != places:
        raise LaminaError(f"{c.where}: {key} is {places}; the places of a square are expected")
    return math.isqrt(places)


def unread(c: Config, *keys: str) -> None:
    c.ignore("not read by the reference", *keys)
