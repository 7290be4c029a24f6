"""What tests of native functions share: which of them ran, on how many threads, into memory that holds NaN before."""

from __future__ import annotations

import sys

import pytest
import torch

from lamina.ops import native


@pytest.fixture
def poisoned(monkeypatch):
    """New memory holds NaN, so that a number that is not written shows."""
    made = torch.Tensor.new_empty, torch.empty_like

    def new_empty(self, *shape, **more):
        out = made[0](self, *shape, **more)
        return out.fill_(float("nan")) if out.is_floating_point() else out.fill_(-1)

    def empty_like(x, **more):
        out = made[1](x, **more)
        return out.fill_(float("nan")) if out.is_floating_point() else out.fill_(-1)

    monkeypatch.setattr(torch.Tensor, "new_empty", new_empty)
    monkeypatch.setattr(torch, "empty_like", empty_like)


@pytest.fixture
def calls(monkeypatch, poisoned):
    """The names of the native functions that ran, in order."""
    found = native.library()
    assert not isinstance(found, str), f"the tests need the native functions: {found}"
    ran: list[str] = []

    class Spy:
        def __getattr__(self, name):
            ran.append(name)
            return getattr(found, name)

    reachable = native.reachable
    for module in [module for name, module in sys.modules.items() if name.startswith("lamina.ops.")]:
        if getattr(module, "reachable", None) is reachable:
            monkeypatch.setattr(module, "reachable", lambda *tensors: Spy() if reachable(*tensors) else None)
    return ran


@pytest.fixture(params=[1, 3])
def threads(request):
    """As many as there are cores would wait, busily, for the other worker's tests: none of these are."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)
