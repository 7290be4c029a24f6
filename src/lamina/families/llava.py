"""LLaVA (and Pixtral): the decoder of another family, with image patches among its tokens.

Source: arXiv 2304.08485, 2410.07073.
"""

from __future__ import annotations

from lamina import families
from lamina.arch import Architecture
from lamina.published.common import Family, text_part
from lamina.published.config import Config


def read(c: Config) -> Architecture:
    c.dict("text_config")
    text = text_part(c)
    text.data.setdefault("model_type", "llama")
    return families.family_of(text).read(text).replace(family="llava")


FAMILIES = (Family("llava", ("llava",), read),)
