"""LLaVA (and Pixtral): the decoder of another family, with image patches among its tokens.

Source: arXiv 2304.08485, 2410.07073.
"""

from __future__ import annotations

from lamina import families
from lamina.arch import Architecture
from lamina.published import vision
from lamina.published.common import Family
from lamina.published.config import Config
from lamina.published.encoders import split


def read(c: Config) -> Architecture:
    c.dict("text_config")
    text, encoders = split(c, vision.clip)
    text.data.setdefault("model_type", "llama")
    return families.family_of(text).read(text).replace(family="llava", encoders=encoders)


FAMILIES = (Family("llava", ("llava",), read),)
