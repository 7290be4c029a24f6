"""The kernels of flash-linear-attention: a stand-in with their signature and layout, for there is no CUDA device here.

It shows that sequences, states and options arrive as the package documents them; the kernels themselves are compared
on a device by `bench/cuda.py`.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from lamina.ops import backend, fla
from lamina.ops import ssd as ssd_module
from lamina.ops.delta_rule import gated_delta_rule, gated_delta_rule_reference
from lamina.ops.linear_attention import linear_attention, linear_attention_reference
from lamina.ops.ssd import ssd, ssd_reference
from lamina.ops.vector_delta_rule import vector_delta_rule, vector_delta_rule_reference
from tests.ops import recurrence_delta_rule, recurrence_linear_attention, recurrence_ssd, recurrence_vector_delta_rule


def heads_first(*sequences):
    return [x.transpose(1, 2) for x in sequences]


@pytest.fixture
def asked(monkeypatch):
    """The kernels that were called; they compute in the layout [B T H ...], as the package does."""
    names: list[str] = []

    def delta(q, k, v, g, beta, scale, initial_state, output_final_state, use_qk_l2norm_in_kernel):
        assert output_final_state
        assert all(x.is_contiguous() for x in (q, k, v, g, beta))
        given = heads_first(q * scale * q.shape[-1] ** 0.5, k, v, g, beta)
        out, after = gated_delta_rule_reference(*given, state=initial_state, unit=use_qk_l2norm_in_kernel)
        return out.transpose(1, 2), after

    def linear(q, k, v, g, scale, initial_state, output_final_state):
        assert output_final_state
        assert q.shape[2] == v.shape[2]
        out, after = linear_attention_reference(*heads_first(q * scale, k, v, g), state=initial_state)
        return out.transpose(1, 2), after

    def vector(q, k, v, g, beta, scale, initial_state, output_final_state, use_qk_l2norm_in_kernel):
        assert output_final_state
        given = heads_first(q * scale * q.shape[-1] ** 0.5, k, v, g, beta)
        out, after = vector_delta_rule_reference(*given, state=initial_state, unit=use_qk_l2norm_in_kernel)
        return out.transpose(1, 2), after

    for name, kernel in (("gated_delta_rule", delta), ("simple_gla", linear), ("kda", vector)):

        def named(form, name=name, kernel=kernel):
            return lambda *a, **k: names.append(f"{form}_{name}") or kernel(*a, **k)

        module = {f"{form}_{name}": named(form) for form in ("chunk", "fused_recurrent")}
        monkeypatch.setitem(sys.modules, f"fla.ops.{name}", SimpleNamespace(**module))
    for module in (fla, ssd_module):
        monkeypatch.setattr(module, "usable", lambda x: True)
    return names


@pytest.mark.parametrize(
    ("op", "reference", "made", "name"),
    [
        (gated_delta_rule, gated_delta_rule_reference, recurrence_delta_rule, "gated_delta_rule"),
        (vector_delta_rule, vector_delta_rule_reference, recurrence_vector_delta_rule, "kda"),
        (linear_attention, linear_attention_reference, recurrence_linear_attention, "simple_gla"),
    ],
)
def test_what_a_kernel_is_given(op, reference, made, name, asked):
    random = torch.Generator().manual_seed(0)
    sequences, state = made.sequences(2, 9, random), made.state(2, random)
    out, after = op(*sequences, state=state, lengths=torch.tensor([9, 4]))
    whole, state_of_whole = reference(*sequences, state=state)
    _, shorter = reference(*[x[1:, :, :4] for x in sequences], state=state[1:])
    assert torch.allclose(out[0], whole[0].float(), rtol=1e-5, atol=1e-6)
    assert torch.allclose(after, torch.cat([state_of_whole[:1], shorter]))
    with torch.inference_mode():
        op(*[x[:, :, :1] for x in sequences], state=state)
    assert asked == [f"chunk_{name}", f"fused_recurrent_{name}"]


def test_what_a_kernel_is_given_of_a_state_space(asked):
    """The step is in the values, heads of a group are repeated, and the skip is added outside."""
    random = torch.Generator().manual_seed(0)
    sequences, state = recurrence_ssd.sequences(2, 9, random), recurrence_ssd.state(2, random)
    skip = recurrence_ssd.skip(random)["skip"]
    got, after = ssd(*sequences, skip, state)
    exact, state_after = ssd_reference(*sequences, skip, state)
    assert torch.allclose(got, exact, rtol=1e-5, atol=1e-6)
    assert torch.allclose(after, state_after)
    assert asked == ["chunk_simple_gla"]


def test_what_is_used_is_said(monkeypatch):
    fla.library.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert backend()["cuda"] == "torch: no CUDA device"
    fla.library.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "fla.ops", None)
    assert "pip install lamina[cuda]" in backend()["cuda"]
    fla.library.cache_clear()
    monkeypatch.setenv("LAMINA_FLA", "0")
    assert backend()["cuda"] == "torch: turned off by LAMINA_FLA=0"
    fla.library.cache_clear()


def test_torch_computes_where_the_kernels_cannot():
    random = torch.Generator().manual_seed(0)
    assert not fla.usable(torch.zeros(1, dtype=torch.bfloat16))
    sequences = recurrence_delta_rule.sequences(1, 3, random)
    assert torch.isfinite(gated_delta_rule(*sequences)[0]).all()
