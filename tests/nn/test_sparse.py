"""Sparse attention in a model: what is refused, what is shared, and that all is read where there is little."""

from __future__ import annotations

import pytest
import torch

import lamina
from lamina.arch import Architecture, Block, Branch, Embedding, MaskedDiffusion, RMSNorm, Rotary
from lamina.errors import LaminaError
from tests.reference import relative

from .used_sparse import BLOCKS, INDEXER, LATENT, POOL, POOLS, SELF, TURN

LONGER = INDEXER.replace(top_k=4, pool=POOL.replace(size=4), rotary=TURN)
SPARSE = {
    "tokens": LATENT.replace(indexer=INDEXER.replace(rotary=TURN, rotated="last")),
    "pools in latents": LATENT.replace(indexer=LONGER, rotary=Rotary(base=90.0, dim=6)),
    "blocks": SELF.replace(blocks=BLOCKS.replace(block=3), sinks=True, softcap=2.0),
    "pools": SELF.replace(blocks=POOLS.replace(pool=4, rotary=TURN)),
    "pools of one": SELF.replace(blocks=POOLS.replace(pool=1, top_k=5)),
}


def small(*ops, **fields) -> Architecture:
    blocks = tuple(Block(branches=(Branch(op=op, before=RMSNorm()),)) for op in ops)
    embedding = Embedding(vocab=31, width=12)
    return Architecture(family="llama", embedding=embedding, blocks=blocks, context=40, **fields)


def built(arch: Architecture):
    model, random = lamina.build(arch), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.7)
    return model


def ids(rows: int, tokens: int) -> torch.Tensor:
    return torch.randint(0, 31, (rows, tokens), generator=torch.Generator().manual_seed(1))


def test_a_choice_is_taken_over():
    own, taken = LATENT.replace(indexer=INDEXER), LATENT.replace(indexer=INDEXER.replace(shared=True, top_k=7))
    first, second = built(small(own, own)), built(small(own, taken))
    assert [name for name, _ in second.blocks[1].named_parameters() if "indexer" in name] == []
    second.load_state_dict(first.state_dict(), strict=False)
    with torch.no_grad():  # the second block chooses as the first does, and then takes its choice
        for name, weight in first.blocks[1].mixer.op.named_parameters():
            if name.startswith("indexer"):
                weight.copy_(first.blocks[0].mixer.op.get_parameter(name))
        chosen = []
        for model in (first, second):
            for block in model.blocks:
                block.mixer.op.indexer.register_forward_hook(lambda module, given, choice: chosen.append(choice))
        first(ids(1, 9))
        second(ids(1, 9))
    assert not torch.equal(chosen[0].runs, chosen[1].runs)  # of other inputs
    assert torch.equal(chosen[0].runs, chosen[2].runs)
    assert chosen[3] is chosen[2]


REFUSED = {
    "shared": (small(LATENT.replace(indexer=INDEXER.replace(shared=True))), r"blocks\[0\]\.mixer\.indexer\.shared"),
    "tail": (
        small(LATENT.replace(indexer=LONGER.replace(pool=POOL.replace(tail=False)))),
        r"blocks\[0\]\.mixer\.indexer\.pool\.tail \(False\)",
    ),
    "both ways": (
        small(SELF, SPARSE["blocks"], objective=MaskedDiffusion(mask_token=3)),
        r"blocks\[1\]\.mixer\.blocks \(BlockIndexer where attention looks both ways\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(case):
    arch, message = REFUSED[case]
    with pytest.raises(LaminaError, match=rf"^{message}"):
        lamina.build(arch, device="meta")


@pytest.mark.parametrize("kind", SPARSE)
def test_all_is_read_where_there_is_no_more_than_may_be(kind):
    """Up to its reach an indexer changes nothing, and beyond it does."""
    op = SPARSE[kind]
    field = "indexer" if kind in ("tokens", "pools in latents") else "blocks"
    chooses = getattr(op, field)
    reach = chooses.chosen if field == "indexer" else chooses.reach
    sparse, full = built(small(op)), built(small(op.replace(**{field: None})))
    full.load_state_dict(sparse.state_dict(), strict=False)
    x = ids(2, 25)
    with torch.no_grad():
        left, right = sparse(x), full(x)
    assert 2 <= reach < 20
    assert relative(left[:, :reach], right[:, :reach]) <= 1e-5
    assert not torch.isclose(left[:, reach:], right[:, reach:], rtol=1e-3).all()


@pytest.mark.parametrize("kind", SPARSE)
@torch.no_grad()
def test_a_state_changes_nothing(kind):
    """In pieces, in rows of other lengths, after a restored snapshot, and in rows selected."""
    arch = small(SPARSE[kind], SPARSE[kind])
    model, x, y = built(arch), ids(3, 26), ids(3, 11)
    whole = model(x)
    for pieces in ([26], [1] * 26, [5, 1, 9, 7, 4], [3, 22, 1]):
        state = model.init_state(3, 40)
        assert state.nbytes == arch.state_bytes(40, 3, "float32")
        assert relative(torch.cat([model(piece, state) for piece in x.split(pieces, 1)], 1), whole) <= 1e-5
    lengths, more = [26, 3, 14], [2, 11, 5]
    state = model.init_state(3, 40)
    model(x, state, lengths=torch.tensor(lengths))
    saved = state.snapshot()
    second = model(y, state, lengths=torch.tensor(more))
    step = model(y[:, :1], state)
    for i, (n, m) in enumerate(zip(lengths, more, strict=True)):
        alone = model(torch.cat([x[i : i + 1, :n], y[i : i + 1, :m], y[i : i + 1, :1]], 1))
        assert relative(second[i, :m], alone[0, n : n + m]) <= 1e-5
        assert relative(step[i, 0], alone[0, -1]) <= 1e-5
    state.restore(saved)
    state.select([2, 0])
    assert relative(model(y[[2, 0], :5], state)[0], second[2, :5]) <= 1e-5


def test_an_indexer_has_no_gradient_and_the_rest_has():
    model = built(small(SPARSE["tokens"], SPARSE["blocks"]))
    model(ids(2, 12)).square().sum().backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without == {name for name, _ in model.named_parameters() if ".indexer." in name}
