"""An architecture is a value: frozen, compared by content, lossless in JSON, and never self-contradicting."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from pydantic import ValidationError

import lamina
from lamina import arch as values
from lamina.arch import (
    GLU,
    Architecture,
    Attention,
    Block,
    Branch,
    Embedding,
    LongRopeScaling,
    Node,
    Parallel,
    Rotary,
    Span,
)
from lamina.arch.edit import rewritten
from lamina.errors import LaminaError

from .samples import ALL, DECODER, DIFFUSION, PLAIN, RECURSIVE, RMS, SEEING, parts


def test_the_samples_hold_every_class():
    exported = {getattr(values, name) for name in values.__all__}
    concrete = {kind for kind in exported if isinstance(kind, type) and issubclass(kind, Node)} - {Node, values.Op}
    assert {type(node) for value in ALL for node in parts(value)} == concrete


@pytest.mark.parametrize("value", ALL, ids=lambda a: a.family)
def test_json_is_lossless(value):
    text = value.to_json()
    again = Architecture.from_json(text)
    assert again == value
    assert again.name == value.name
    assert again.to_json() == text
    assert Architecture.from_json(value.to_json(indent=2)) == value
    for node, back in zip(parts(value), parts(again), strict=True):
        assert type(node) is type(back)
        for name in type(node).model_fields:
            assert getattr(node, name) == getattr(back, name)
            assert type(getattr(node, name)) is type(getattr(back, name))
    assert json.loads(text)["family"] == value.family


@pytest.mark.parametrize("name", lamina.names())
def test_json_of_the_catalog_is_lossless(name):
    value = lamina.architecture(name)
    again = Architecture.from_json(value.to_json())
    assert (again, again.name) == (value, name)
    assert hash(again) == hash(value)


def test_nothing_can_be_changed():
    checked = 0
    for value in ALL:
        for node in parts(value):
            for field in type(node).model_fields:
                with pytest.raises(ValidationError, match="frozen"):
                    setattr(node, field, getattr(node, field))
                checked += 1
            with pytest.raises(ValidationError):
                node.another = 1
    assert checked > 400


def test_equality_ignores_the_name_and_nothing_else():
    changed = set()
    for value in ALL:
        same = Architecture.from_json(value.to_json()).replace(name="another")
        assert same == value
        assert hash(same) == hash(value)
        assert len({same, value}) == 1
        for field, other in {
            "family": "gpt2",
            "embedding": value.embedding.replace(vocab=98),
            "blocks": (*value.blocks[:-1], Block(branches=(Branch(op=GLU(inner=1)),))),
            "norm": RMS.replace(eps=0.5),
            "head": value.head.replace(scale=0.9),
            "objective": values.MaskedDiffusion(mask_token=3),
            "recursion": RECURSIVE.recursion if value is not RECURSIVE else None,
            "loops": 3,
            "exit_gate": not value.exit_gate,
            "stream": values.HyperConnections(count=5, iterations=1),
            "encoders": () if value.encoders else SEEING.encoders[:1],
            "prediction": values.Prediction(blocks=value.blocks[:1]) if value.prediction is None else None,
            "context": 12,
        }.items():
            changed.add(field)
            assert value.replace(**{field: other}) != value, field
        assert set(Architecture.model_fields) == {"name", *changed}
    assert (DECODER == 3) is False


def test_equal_parts_have_equal_hashes():
    for value in ALL:
        for node, back in zip(parts(value), parts(Architecture.from_json(value.to_json())), strict=True):
            assert hash(node) == hash(back)
    assert len({node for value in ALL for node in parts(value) if isinstance(node, Attention)}) == 12


CONTRADICTIONS = {
    "heads (6) must be a multiple of kv_heads (4)": lambda: Attention(heads=6, kv_heads=4, head_dim=5),
    "rotary dimensions turn in pairs, so dim must be even, not 5": lambda: Rotary(dim=5),
    "rotary.dim (8) must not exceed head_dim (7)": lambda: Attention(
        heads=6, kv_heads=2, head_dim=7, rotary=Rotary(dim=8)
    ),
    "base must exceed 1 beside yarn, and is 1": lambda: Rotary(
        base=1.0, dim=6, scaling=values.YarnScaling(factor=4.0, original_context=9, attention_factor=1.0)
    ),
    "scaling.short has 2 factors; 3 are needed (dim / 2)": lambda: Rotary(
        dim=6,
        scaling=LongRopeScaling(short=(1, 2), long=(1, 2, 3), original_context=9, attention_factor=1),
    ),
    "scaling.long has 4 factors; 3 are needed (dim / 2)": lambda: Rotary(
        dim=6,
        scaling=LongRopeScaling(short=(1, 2, 3), long=(1, 2, 3, 4), original_context=9, attention_factor=1),
    ),
    "a span of blocks needs stop (3) above start (3)": lambda: Span(start=3, stop=3),
    "high_frequency 0.5 is below low_frequency 1.0": lambda: values.Llama3Scaling(
        factor=2, low_frequency=1, high_frequency=0.5, original_context=9
    ),
    "recursion names blocks beyond the 1 there are": lambda: RECURSIVE.replace(blocks=RECURSIVE.blocks[:1]),
    "mask_token (97) must be one of the 97 tokens": lambda: DIFFUSION.replace(
        objective=values.MaskedDiffusion(mask_token=97)
    ),
    "heads: Input should be greater than 0": lambda: PLAIN.replace(heads=0),
    "window: Input should be greater than 0": lambda: PLAIN.replace(window=0),
    "head_dim: Input should be a valid integer": lambda: PLAIN.replace(head_dim=2.5),
    "heds: Extra inputs are not permitted": lambda: PLAIN.replace(heds=3),
    "kv_heads: Field required": lambda: Attention(heads=3, head_dim=5),
    "Input should be 'silu', 'gelu'": lambda: GLU(inner=3, activation="swish"),
    "blocks: Tuple should have at least 1 item": lambda: DECODER.replace(blocks=()),
    "branches: Tuple should have at least 1 item": lambda: Block(branches=()),
    "ops: Tuple should have at least 2 items": lambda: Parallel(ops=(PLAIN,)),
    "vocab: Input should be greater than 0": lambda: Embedding(vocab=0, width=3),
    "eps: Input should be a finite number": lambda: RMS.replace(eps=float("nan")),
    "multiplier: Input should be a finite number": lambda: Branch(op=PLAIN, multiplier=float("nan")),
    "base: Input should be a finite number": lambda: Rotary(dim=6, base=float("inf")),
    "(and 2 more)": lambda: Attention(heads=0, kv_heads=0, head_dim=0),
}


@pytest.mark.parametrize("said", CONTRADICTIONS)
def test_a_contradiction_is_one_sentence(said):
    with pytest.raises(LaminaError) as caught:
        CONTRADICTIONS[said]()
    message = str(caught.value)
    assert said in message
    assert "\n" not in message
    assert message.split(":")[0] in values.__all__  # the class comes first


BROKEN = {
    "": "Invalid JSON",
    '{"family": "llama"': "Invalid JSON",
    "[]": "should be an object",
    "null": "should be an object",
    "{}": "family: Field required",
    '{"family": 3}': "family: Input should be a valid string",
    "[" * 100_000: "Invalid JSON: recursion limit",
}


@pytest.mark.parametrize("text", BROKEN, ids=lambda t: t[:20] or "empty")
def test_broken_json(text):
    with pytest.raises(LaminaError, match=BROKEN[text]) as caught:
        Architecture.from_json(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def changed(**edits):
    data = json.loads(DECODER.to_json())
    for path, value in edits.items():
        *steps, last = (int(s) if s.isdigit() else s for s in path.split("__"))
        target = data
        for step in steps:
            target = target[step]
        target[last] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("edit", "path"),
    [
        ({"blocks__3__branches__0__op__heads": 0}, r"blocks\[3\]\.branches\[0\]\.op\.heads"),
        ({"blocks__3__branches__0__op__kind": "atention"}, r"blocks\[3\]\.branches\[0\]\.op"),
        ({"blocks__2__branches__0__op__rotary__dim": 5}, r"blocks\[2\]\.branches\[0\]\.op\.rotary: rotary"),
        ({"blocks__6__branches__0__op__ops__1__inner": -1}, r"blocks\[6\]\.branches\[0\]\.op\.ops\[1\]"),
        ({"head__softcap": "warm"}, r"head\.softcap"),
        ({"embedding__vocabulary": 3}, r"embedding\.vocabulary: Extra"),
        ({"blocks__0__branches__0__multiplier": float("nan")}, r"blocks\[0\]\.branches\[0\]\.multiplier"),
    ],
)
def test_wrong_json_names_the_path(edit, path):
    assert Architecture.from_json(changed()) == DECODER
    with pytest.raises(LaminaError, match=path) as caught:
        Architecture.from_json(changed(**edit))
    assert "\n" not in str(caught.value)


def test_rewriting_keeps_what_is_shared():
    """Parts that do not change stay the same objects; equal objects that were one stay one."""
    shared = Block(branches=(Branch(op=PLAIN, before=RMS), Branch(op=GLU(inner=9), before=RMS)))
    other = Block(branches=(Branch(op=GLU(inner=9), before=RMS),))
    value = DECODER.replace(blocks=(shared, other, shared, shared))
    seen = []

    def widened(op: Attention) -> Attention:
        seen.append(op)
        return op.replace(window=4)

    new = rewritten(value, Attention, widened)
    assert len(seen) == 1  # one object, changed once
    assert new.blocks[0] is new.blocks[2] is new.blocks[3] is not shared
    assert new.blocks[1] is other
    assert new.blocks[0].branches[1] is shared.branches[1]
    assert new.embedding is value.embedding
    assert new.blocks[0].branches[0].op == PLAIN.replace(window=4)
    assert rewritten(value, values.MLP, lambda op: op.replace(inner=1)) is value
    assert rewritten(value, Attention, lambda op: op) is value
    assert value.blocks[0].branches[0].op.window is None


def test_rewriting_reaches_every_depth():
    for kind in (values.RMSNorm, Rotary, values.GLU, values.QKNorm, Span):
        before = [node for value in ALL for node in parts(value) if isinstance(node, kind)]
        assert before
        visited: list[Node] = []

        def seen(node: Node, visited: list[Node] = visited) -> Node:
            visited.append(node)
            return node

        for value in ALL:
            rewritten(value, kind, seen)
        assert set(map(id, visited)) == set(map(id, before))
    inner = rewritten(DECODER, values.RMSNorm, lambda norm: norm.replace(offset=0.0))
    assert {node.offset for node in parts(inner) if isinstance(node, values.RMSNorm)} == {0.0}


def test_rewriting_checks_the_new_value():
    with pytest.raises(LaminaError, match="must not exceed head_dim"):
        rewritten(DECODER, Rotary, lambda rotary: rotary.replace(dim=8, scaling=None))


def test_values_need_no_torch():
    code = "import lamina, sys; a = lamina.architecture('gemma-3-27b'); a.flops(3, 5); a.state_bytes(9); a.to_json()"
    code += "; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")
