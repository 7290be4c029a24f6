"""A transformer that several places share: one set of weights, and of each place its own state and matrices."""

from __future__ import annotations

import pytest
import torch

import lamina
from lamina import arch as values
from lamina.arch import Architecture, Block
from lamina.errors import LaminaError

from ..arch.samples import SHARED

OWNER, PLAIN, AGAIN, _, BARE = SHARED.blocks


def apart(arch: Architecture) -> Architecture:
    """Every place with weights of its own."""
    return arch.replace(blocks=tuple(_with(block, None) for block in arch.blocks))


def _with(block: Block, source: int | None) -> Block:
    branch = block.branches[0]
    return block.replace(branches=(branch.replace(aside=branch.aside and branch.aside.replace(same_as=source)),))


@torch.inference_mode()
def test_shared_weights_are_copies_of_one():
    """As if each place had its own, all equal; what each has alone is its own."""
    shared, own = lamina.build(SHARED), lamina.build(apart(SHARED))
    for place in range(5):
        for name, p in shared.blocks[place].named_parameters():
            own.get_parameter(f"blocks.{place}.{name}").copy_(p)
    for name in ("embedding.table", "norm.weight"):
        own.get_parameter(name).copy_(shared.get_parameter(name))
    x = torch.arange(22).view(2, 11)
    assert torch.equal(shared(x), own(x))
    names = [name for name, _ in shared.named_parameters() if "aside.attention.q_proj" in name]
    assert names == ["blocks.0.mixer.aside.attention.q_proj.weight", "blocks.0.mixer.aside.attention.q_proj.bias"]
    assert SHARED.parameters().total == sum(p.numel() for p in shared.parameters())
    assert apart(SHARED).parameters().total == sum(p.numel() for p in own.parameters())
    before = shared(x)
    shared.blocks[2].mixer.aside.attention.adapters["k"].up.weight.normal_()
    shared.blocks[2].mixer.aside.attention.adapters["k"].down.weight.normal_()
    assert not torch.allclose(shared(x), before)


def test_a_place_keeps_its_own_keys_and_values():
    state = lamina.build(SHARED).init_state(2, 7)
    assert len(state.layers) == 5 + 4  # of the mixers, and of what stands aside of four
    assert state.nbytes == SHARED.state_bytes(7, 2, "float32") == 4 * 2 * 7 * (5 * 2 * 5 + 4 * 2 * 2 * 6)


def test_weights_are_counted_once_and_read_at_each_place():
    d, attention = 16, 32 * (24 + 12 + 12) + 24 + 12 + 12 + 16 * 24 + 16 + 2 * 6
    shared = attention + 3 * d * 9 + 2 * 9 + d + 2 * d + d
    adapters = 3 * 3 * 32 + 3 * (24 + 12 + 12), 2 * d + 2 * 18
    aside = SHARED.blocks[0].branches[0].aside
    assert aside.parameters(d) == shared + d * d + sum(adapters)
    assert aside.replace(same_as=0).parameters(d) == d * d + sum(adapters)
    cost = SHARED.cost(context=100)
    assert apart(SHARED).cost(context=100).moved == cost.moved
    assert apart(SHARED).cost(context=100).decode_flops == cost.decode_flops
    assert apart(SHARED).cost(context=100).weight_bytes == cost.weight_bytes + 2 * 3 * shared


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ((PLAIN, AGAIN), r"blocks\[1\] reads the weights of blocks\[0\]: expected is an earlier block"),
        ((OWNER, _with(OWNER, 1)), r"blocks\[1\] reads the weights of blocks\[1\]"),
        ((OWNER, AGAIN, _with(OWNER, 1)), r"blocks\[2\] reads the weights of blocks\[1\].*has its own"),
    ],
)
def test_weights_must_be_those_of_an_earlier_block(blocks, said):
    with pytest.raises(LaminaError, match=said):
        SHARED.replace(blocks=blocks)


def test_what_is_shared_must_be_the_same():
    with pytest.raises(LaminaError, match=r"blocks\[2\] reads the weights of blocks\[0\]"):
        SHARED.replace("blocks[2].mixer.aside.attention.scale", 0.9)
    assert SHARED.replace("blocks[*].mixer", values.GLU(inner=3)).blocks[2].branches[0].aside.same_as == 0


@pytest.mark.parametrize("field", [{"sinks": True}, {"keys_as_values": True}, {"kv_from": 1}])
def test_attention_that_does_not_run_there_is_refused(field):
    aside = OWNER.branches[0].aside
    arch = SHARED.replace(blocks=SHARED.blocks[:2]).replace(
        "blocks[0].mixer.aside.attention", aside.attention.replace(**field)
    )
    with pytest.raises(LaminaError, match=rf"^blocks\[0\]\.mixer\.aside\.attention\.{next(iter(field))} \(in a Shared"):
        lamina.build(arch, device="meta")


def test_names_of_weights_are_those_of_the_value():
    said: dict[str, tuple[int, ...]] = {}
    for i, block in enumerate(SHARED.blocks):
        branch = block.branches[0]
        parts = {"op": branch.op, "aside": branch.aside}
        for place, op in parts.items():
            for name, shape in (op.weights(16) if op else {}).items():
                said[f"blocks.{i}.mixer.{place}.{name}"] = shape
    built = {name: tuple(p.shape) for name, p in lamina.build(SHARED, device="meta").named_parameters()}
    assert said == {name: shape for name, shape in built.items() if "mixer.op" in name or "mixer.aside" in name}


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"stream": values.HyperConnections(count=2, iterations=1)}, r"blocks\[0\]\.mixer\.aside"),
        ({"prediction": values.Prediction(blocks=(OWNER,))}, r"prediction\.blocks\[0\]"),
    ],
)
def test_where_the_embedding_cannot_be_read_it_is_refused(fields, path):
    with pytest.raises(LaminaError, match=path):
        lamina.build(SHARED.replace(**fields), device="meta")


def test_a_sibling_shares_too():
    small = SHARED.scaled(SHARED.parameters().total // 2)
    assert [op.same_as for op in small.ops() if isinstance(op, values.SharedTransformer)].count(None) == 1
    lamina.build(small, device="meta")
