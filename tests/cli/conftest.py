"""Tiny models on disk, and the command run in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import lamina
from lamina.cli.app import app
from tests.cli.tiny import TEMPLATE, tiny_model


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lamina.save(tiny_model(TEMPLATE), tmp_path_factory.mktemp("tiny") / "chatty")


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lamina.save(tiny_model(), tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture
def run() -> Callable[..., Result]:
    """The command in this process: `run("list", "--json")`; stdin as `input=`."""

    def invoke(*arguments: object, **extra: object) -> Result:
        return CliRunner().invoke(app, [str(a) for a in arguments], **extra)  # type: ignore[arg-type]

    return invoke
