"""A hub that runs here, and huggingface_hub turned to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.checkpoint.hub import Hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    before = "http://127.0.0.1:1"  # what HF_ENDPOINT said when huggingface_hub was imported: nobody is there
    monkeypatch.setattr(constants, "ENDPOINT", before)
    url = constants.HUGGINGFACE_CO_URL_TEMPLATE.split("/{repo_id}")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "/{repo_id}".join([before, url[1]]))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running
