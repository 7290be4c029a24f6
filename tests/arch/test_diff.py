"""Differences: none between equals, one for one change, at the path of what changed."""

from __future__ import annotations

from typing import Any

import pytest

import lamina
from lamina.arch import GLU, MLP, Architecture, Block, Branch, LayerNorm, LinearScaling, Node, Parallel, RMSNorm
from lamina.arch.diff import differences

from .samples import ALL, DECODER, DIFFUSION, RECURSIVE, RMS, RUNS

OTHER = {
    str: lambda v: {"half": "interleaved", "interleaved": "half", "head": "width", "width": "head"}.get(v, "gpt2"),
    bool: lambda v: not v,
    int: lambda v: v * 2,
    float: lambda v: v * 2 + 1,
    tuple: lambda v: (*v[:-1], v[-1] + 1) if v else v,
}
"""Another value of the same type, which contradicts nothing in the samples."""
SPECIAL = {
    "activation": "silu",
    "gradient": "last_cycle",
    "heads": 12,
    "kv_heads": 3,
    "dim": 4,
    "stop": 2,
    "mask_token": 5,
    "original_context": 5,
    "low_frequency": 0.5,
    "high_frequency": 5.0,
}


def changes(value: Any, path: str = "") -> list[tuple[str, Any, Any, Any]]:
    """Every change of one plain field: its path as diffs, edits and errors write it, old, new, the changed value."""
    found = []
    if isinstance(value, Block):
        for name, branch in value.named_branches().items():
            place = value.branches.index(branch)
            for where, old, new, other in changes(branch, f"{path}.{name}"):
                branches = (*value.branches[:place], other, *value.branches[place + 1 :])
                found.append((where, old, new, value.replace(branches=branches)))
        return found
    if isinstance(value, Branch):
        for where, old, new, other in changes(value.op, path):
            found.append((where, old, new, value.replace(op=other)))
    if isinstance(value, Parallel):
        for place, (name, op) in enumerate(value.named_ops().items()):
            for where, old, new, other in changes(op, f"{path}.{name}"):
                found.append((where, old, new, value.replace(ops=(*value.ops[:place], other, *value.ops[place + 1 :]))))
        return found
    for field in type(value).model_fields:
        old, where = getattr(value, field), f"{path}.{field}".lstrip(".")
        if field in ("name", "kind", "op") or (field == "gate" and old is None):
            continue
        if isinstance(old, Node):
            found += [(w, o, n, value.replace(**{field: other})) for w, o, n, other in changes(old, where)]
        elif isinstance(old, tuple) and old and isinstance(old[0], Node):
            for i, item in enumerate(old):
                for w, o, n, other in changes(item, f"{where}[{i}]"):
                    found.append((w, o, n, value.replace(**{field: (*old[:i], other, *old[i + 1 :])})))
        elif old is not None:
            new = None if field == "gate" else SPECIAL.get(field, OTHER[type(old)](old))
            try:
                other = value.replace(**{field: new})
            except lamina.LaminaError:
                continue  # a change that cannot stand alone: half the width of a rotary with factors
            if other != value:
                found.append((where, old, new, other))
    return found


@pytest.mark.parametrize("value", ALL, ids=lambda a: a.family)
def test_equals_have_no_difference(value):
    assert list(differences(value, value)) == []
    assert list(differences(value, Architecture.from_json(value.to_json()).replace(name="x"))) == []


@pytest.mark.parametrize("value", RUNS, ids=lambda a: a.family)
def test_each_change_is_one_difference(value):
    made = changes(value)
    paths = [path for path, *_ in made]
    assert len(paths) == len(set(paths)) > 20
    for path, old, new, other in made:
        assert list(differences(value, other)) == [(path, old, new)]
        assert list(differences(other, value)) == [(path, new, old)]


def test_the_paths_are_those_of_the_design():
    paths = {path for value in RUNS for path, *_ in changes(value)}
    assert {
        "family",
        "context",
        "embedding.vocab",
        "embedding.positions.length",
        "embedding.task.tokens",
        "head.softcap",
        "norm.eps",
        "recursion.low_cycles",
        "objective.max_steps",
        "blocks[0].mixer.head_dim",
        "blocks[1].mixer.window",
        "blocks[1].mixer.before.eps",
        "blocks[1].mixer.multiplier",
        "blocks[1].mixer.qk_norm.over",
        "blocks[1].mixer.rotary.base",
        "blocks[3].mixer.rotary.scaling.factor",
        "blocks[5].mixer.rotary.scaling.short",
        "blocks[1].feed_forward.inner",
        "blocks[6].parallel.mixer.head_dim",
        "blocks[6].parallel.feed_forward.inner",
        "blocks[6].parallel.mixer_2.head_dim",
        "blocks[7].cross_attention.memory_width",
        "blocks[7].cross_attention.gate",
        "blocks[7].feed_forward.attended_only",
        "blocks[0].mixer.glu.inner",
    } <= paths


def only(left: Architecture, right: Architecture) -> tuple:
    found = list(differences(left, right))
    assert len(found) == 1
    return tuple(found[0])


def test_what_one_side_does_not_have():
    block = DECODER.blocks[-1]
    assert only(DECODER, DECODER.replace(blocks=(*DECODER.blocks, block))) == ("blocks[8]", None, block)
    assert only(DECODER.replace(norm=None), DECODER) == ("norm", None, RMS)
    bare = DIFFUSION.blocks[0].replace(branches=DIFFUSION.blocks[0].branches[:1])
    path, left, right = only(DIFFUSION, DIFFUSION.replace(blocks=(DIFFUSION.blocks[0], bare)))
    assert (path, right) == ("blocks[1].feed_forward", None)
    assert left == DIFFUSION.blocks[0].branches[1]
    assert only(RECURSIVE, RECURSIVE.replace(recursion=None)) == ("recursion", RECURSIVE.recursion, None)


def test_another_kind_of_part_is_one_difference():
    layer = LayerNorm()
    assert only(DECODER, DECODER.replace(norm=layer)) == ("norm", RMS, layer)
    attention = DECODER.blocks[2].branches[0].op
    linear = LinearScaling(factor=2.0)
    new = attention.replace(rotary=attention.rotary.replace(scaling=linear))
    block = DECODER.blocks[2]
    block = block.replace(branches=(block.branches[0].replace(op=new), block.branches[1]))
    other = DECODER.replace(blocks=(*DECODER.blocks[:2], block, *DECODER.blocks[3:]))
    assert only(DECODER, other) == ("blocks[2].mixer.rotary.scaling", attention.rotary.scaling, linear)


def test_another_kind_of_feed_forward():
    def one(op) -> Architecture:
        return DIFFUSION.replace(blocks=(Block(branches=(Branch(op=op, before=RMSNorm()),)),))

    found = list(differences(one(GLU(inner=9)), one(MLP(inner=9, activation="silu"))))
    assert found == [("blocks[0].feed_forward.kind", "glu", "mlp")]


def test_two_of_the_catalog():
    """Llama 3 and 3.1, 8B: what changed is known, the context and the scaling of the angles."""
    found = list(differences(lamina.architecture("llama-3-8b"), lamina.architecture("llama-3.1-8b")))
    assert {path.split("]")[-1] for path, *_ in found} == {".mixer.rotary.scaling", "context"}
    assert len(found) == 33
