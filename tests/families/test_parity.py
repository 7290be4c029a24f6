"""Every row of the table against the reference: logits, greedy tokens, states, batches, round trip, counts.

What is measured is recorded as a property of the test, from which `make parity` writes docs/parity.md.
"""

from __future__ import annotations

import json

import pytest
import torch
from table import ROWS

import lamina
from lamina.families import family_named, read_config
from tests.reference import held, ids, loaded, reference, relative

TOLERANCE = 1e-5


@pytest.fixture
def close(record_property):
    """Asserts that two tensors agree, and keeps the largest difference for the table in the docs."""
    worst = [0.0]

    def check(a, b):
        worst[0] = max(worst[0], relative(a, b))
        assert worst[0] <= TOLERANCE

    yield check
    record_property("difference", worst[0])


@pytest.fixture(params=ROWS, ids=str)
def row(request):
    return request.param


@pytest.fixture
def pair(row):
    """The reference model, ours loaded from its checkpoint."""
    model, directory = reference(row)
    return model, lamina.load(directory)


@torch.inference_mode()
def test_logits_equal_the_reference(pair, close):
    theirs, ours = pair
    for batch, tokens in ((2, 19), (1, 1), (1, 37)):
        x = ids(batch, tokens)
        close(ours(x), theirs(x, use_cache=False).logits)


@torch.inference_mode()
def test_greedy_continuation_equals_the_uncached_reference(pair):
    """What we continue with, the reference would say too: each token, after all that is before it."""
    theirs, ours = pair
    x = ids(1, 13)
    state = ours.init_state(1, 13 + 32)
    logits, got = ours(x, state), []
    for _ in range(32):
        got.append(int(logits[0, -1].argmax()))
        logits = ours(torch.tensor([got[-1:]]), state)
    said = theirs(torch.cat([x, torch.tensor([got])], 1), use_cache=False).logits.argmax(-1)
    assert got == said[0, 12:-1].tolist()


@torch.inference_mode()
def test_state_changes_nothing(pair, close):
    """Cached = uncached, chunked = whole, one by one = whole."""
    _, ours = pair
    x = ids(2, 29)
    whole = ours(x)
    for pieces in ([29], [1] * 29, [5, 1, 7, 9, 7], [3, 20, 1, 1, 4]):
        state = ours.init_state(2, 31)
        out = torch.cat([ours(piece, state) for piece in x.split(pieces, 1)], 1)
        close(out, whole)
        assert state.lengths == [29, 29]


@torch.inference_mode()
def test_a_row_in_a_padded_batch_is_as_if_alone(pair, close):
    _, ours = pair
    lengths, more, x = [17, 5, 11], [3, 9, 6], ids(3, 17)
    rest = ids(3, 9, seed=5)
    state = ours.init_state(3, 27)
    first = ours(x, state, lengths=torch.tensor(lengths))
    second = ours(rest, state, lengths=torch.tensor(more))
    step = ours(rest[:, :1], state)
    padded = ours(x, lengths=torch.tensor(lengths))
    last = ours(x, lengths=torch.tensor(lengths), last=True)
    assert state.lengths == [21, 15, 18]
    for i, (n, m) in enumerate(zip(lengths, more, strict=True)):
        alone = ours(torch.cat([x[i : i + 1, :n], rest[i : i + 1, :m], rest[i : i + 1, :1]], 1))
        close(first[i, :n], ours(x[i : i + 1, :n])[0])
        close(padded[i, :n], ours(x[i : i + 1, :n])[0])
        close(last[i, 0], ours(x[i : i + 1, :n])[0, -1])
        close(second[i, :m], alone[0, n : n + m])
        close(step[i, 0], alone[0, -1])


@torch.inference_mode()
def test_rows_without_tokens_change_nothing(pair, close):
    _, ours = pair
    x, state = ids(2, 9), ours.init_state(2, 9)
    ours(x[:, :3], state, lengths=torch.tensor([0, 0]))
    close(ours(x, state), ours(x))


@torch.inference_mode()
def test_snapshot_and_select(pair, close):
    _, ours = pair
    x, y, z = ids(3, 12), ids(3, 6, seed=2), ids(3, 6, seed=3)
    state = ours.init_state(3, 20)
    ours(x, state)
    saved = state.snapshot()
    expected = ours(y, state)
    state.restore(saved)
    ours(z, state)
    state.restore(saved)
    assert torch.equal(ours(y, state), expected)
    state.restore(saved)
    state.select([2, 0, 2])
    close(ours(y[[2, 0, 2]], state), expected[[2, 0, 2]])


@torch.inference_mode()
def test_saved_is_what_the_reference_loads(row, pair, close, tmp_path):
    theirs, ours = pair
    lamina.save(ours, tmp_path / "saved")
    back = loaded(row, tmp_path / "saved")
    x = ids(2, 19)
    close(back(x, use_cache=False).logits, theirs(x, use_cache=False).logits)
    again = lamina.load(tmp_path / "saved")
    assert again.arch == ours.arch
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), ours.parameters(), strict=True))


def test_value_round_trips(row, pair):
    _, ours = pair
    arch = ours.arch
    assert lamina.Architecture.from_json(arch.to_json()) == arch
    assert read_config(family_named(arch.family).write(arch)) == arch
    assert read_config(json.loads(json.dumps(family_named("lamina").write(arch)))) == arch


def test_formulas_equal_what_is_allocated(row, pair):
    theirs, ours = pair
    assert ours.arch.parameters().total == sum(p.numel() for p in ours.parameters())
    assert ours.arch.parameters().total == sum(p.numel() for p in held(row, theirs)) - row.unread
    for batch, capacity in ((1, 3), (3, 50)):
        state = ours.init_state(batch, capacity)
        assert state.nbytes == ours.arch.state_bytes(capacity, batch, "float32")
