"""Lamina's own layout: the architecture itself in config.json, and our parameter names. It holds any value."""

from __future__ import annotations

import json
from typing import Any

from lamina.arch import Architecture
from lamina.published.common import Family
from lamina.published.config import Config
from lamina.published.rules import Layout, Rule


def read(c: Config) -> Architecture:
    value = c.dict("architecture")
    c.finish()
    return Architecture.from_json(json.dumps(value))


def write(arch: Architecture) -> dict[str, Any]:
    return {"model_type": "lamina", "architecture": json.loads(arch.to_json())}


LAYOUT = Layout((Rule("{any}", "{any}"),), spellings=())
FAMILIES = (Family("lamina", ("lamina",), read, write, LAYOUT),)
