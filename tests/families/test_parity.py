"""Every row of the table against the reference: logits, greedy tokens, states, batches, round trip, counts."""

from __future__ import annotations

import json

import pytest
import torch
from table import ROWS

import lamina
from lamina.families import family_named, read_config
from tests.reference import ids, kept_buffers, reference, relative

TOLERANCE = 1e-5


@pytest.fixture(params=ROWS, ids=str)
def row(request):
    return request.param


@pytest.fixture
def pair(row):
    """The reference model, ours loaded from its checkpoint."""
    model, directory = reference(row)
    return model, lamina.load(directory)


@torch.inference_mode()
def test_logits_equal_the_reference(pair):
    theirs, ours = pair
    for batch, tokens in ((2, 19), (1, 1), (1, 37)):
        x = ids(batch, tokens)
        assert relative(ours(x), theirs(x, use_cache=False).logits) <= TOLERANCE


@torch.inference_mode()
def test_greedy_continuation_equals_the_uncached_reference(pair):
    theirs, ours = pair
    x = ids(1, 13)
    state = ours.init_state(1, 13 + 32)
    logits, expected, got = ours(x, state), x, []
    for _ in range(32):
        expected = torch.cat([expected, theirs(expected, use_cache=False).logits[:, -1:].argmax(-1)], 1)
        got.append(int(logits[0, -1].argmax()))
        logits = ours(torch.tensor([got[-1:]]), state)
    assert got == expected[0, 13:].tolist()


@torch.inference_mode()
def test_state_changes_nothing(pair):
    """Cached = uncached, chunked = whole, one by one = whole."""
    _, ours = pair
    x = ids(2, 29)
    whole = ours(x)
    for pieces in ([29], [1] * 29, [5, 1, 7, 9, 7], [3, 20, 1, 1, 4]):
        state = ours.init_state(2, 31)
        out = torch.cat([ours(piece, state) for piece in x.split(pieces, 1)], 1)
        assert relative(out, whole) <= TOLERANCE
        assert state.lengths == [29, 29]


@torch.inference_mode()
def test_a_row_in_a_padded_batch_is_as_if_alone(pair):
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
        assert relative(first[i, :n], ours(x[i : i + 1, :n])[0]) <= TOLERANCE
        assert relative(padded[i, :n], ours(x[i : i + 1, :n])[0]) <= TOLERANCE
        assert relative(last[i, 0], ours(x[i : i + 1, :n])[0, -1]) <= TOLERANCE
        assert relative(second[i, :m], alone[0, n : n + m]) <= TOLERANCE
        assert relative(step[i, 0], alone[0, -1]) <= TOLERANCE


@torch.inference_mode()
def test_snapshot_and_select(pair):
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
    assert relative(ours(y[[2, 0, 2]], state), expected[[2, 0, 2]]) <= TOLERANCE


@torch.inference_mode()
def test_saved_is_what_the_reference_loads(row, pair, tmp_path):
    import transformers

    theirs, ours = pair
    lamina.save(ours, tmp_path / "saved")
    back = getattr(transformers, row.model_class).from_pretrained(tmp_path / "saved", attn_implementation="eager")
    x = ids(2, 19)
    assert relative(back(x, use_cache=False).logits, theirs(x, use_cache=False).logits) <= TOLERANCE
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
    held = [*theirs.parameters(), *kept_buffers(theirs).values()]
    assert ours.arch.parameters().total == sum(p.numel() for p in held)
    for batch, capacity in ((1, 3), (3, 50)):
        state = ours.init_state(batch, capacity)
        assert state.nbytes == ours.arch.state_bytes(capacity, batch, "float32")
