"""The catalog: every entry is a value, and is found however its name is spelt."""

from __future__ import annotations

import pytest

import lamina
from lamina import catalog


@pytest.mark.parametrize("name", lamina.names())
def test_every_entry_is_read_and_has_its_source(name):
    arch = lamina.architecture(name)
    assert arch.name == name
    assert arch.parameters().total > 1e6
    assert catalog.source(name)["config"]["source"]


@pytest.mark.parametrize(("spelt", "name"), [("Qwen3-0-6B", "qwen3-0.6b"), ("llama-3-2-1b", "llama-3.2-1b")])
def test_a_dash_for_a_dot_and_case_do_not_matter(spelt, name):
    assert catalog.canonical(spelt) == name
    assert lamina.architecture(spelt) == lamina.architecture(name)


def test_no_two_names_are_alike():
    assert len({catalog.canonical(name) for name in lamina.names()}) == len(lamina.names())


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(lamina.LaminaError, match=r"did you mean 'qwen3-0\.6b'"):
        lamina.architecture("qwen3-0.6bb")
