"""Nothing of an architecture is passed over in silence: every field changes the model that is built, or is refused.

The tables name every field of every class of arch/; a new one that is in neither fails here. Files used_*.py beside
this one hold the rows of mechanisms: USED, ELSEWHERE, and HOLDING, which says what a part is put in.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import lamina
from lamina import arch as values
from lamina.arch import (
    GLU,
    MLP,
    Architecture,
    Attention,
    Block,
    Branch,
    Causal,
    CrossAttention,
    DeepSupervision,
    DynamicScaling,
    Embedding,
    Head,
    LayerNorm,
    LearnedPositions,
    LengthTemperature,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    MaskedDiffusion,
    Node,
    Op,
    Parallel,
    QKNorm,
    Recursion,
    RMSNorm,
    Rotary,
    SequenceGLU,
    Span,
    TaskEmbedding,
    YarnScaling,
)
from lamina.errors import LaminaError
from lamina.nn.registry import discovered
from lamina.nn.understood import check, not_understood

from ..arch import samples

UNDERSTOOD = discovered()
RMS, LAYER = RMSNorm(eps=1e-3), LayerNorm(eps=1e-3)
SELF = Attention(heads=4, kv_heads=2, head_dim=6)
CROSS = CrossAttention(heads=4, kv_heads=2, head_dim=6, memory_width=10)
TURN = Rotary(base=100.0, dim=6)
SHORT, LONG = (1.0, 1.5, 2.0), (2.0, 3.0, 4.0)
LONGROPE = LongRopeScaling(short=SHORT, long=LONG, original_context=5, attention_factor=1.2)
YARN = YarnScaling(factor=4.0, original_context=40, beta_fast=3.0, beta_slow=0.5, attention_factor=1.1)
DECODER = Architecture(
    family="llama",
    embedding=Embedding(vocab=31, width=12),
    blocks=(Block(branches=(Branch(op=SELF, before=RMS), Branch(op=GLU(inner=7), before=RMS))),) * 2,
    norm=RMS,
    context=40,
)
TASK = TaskEmbedding(count=3, width=18, tokens=2)
STACK = Block(branches=(Branch(op=SELF, joined=RMS), Branch(op=GLU(inner=7), joined=RMS)))
RECURSIVE = Architecture(
    family="trm",
    embedding=Embedding(vocab=31, width=12, task=TASK),
    blocks=(STACK, STACK, STACK),
    objective=DeepSupervision(max_steps=3),
    recursion=Recursion(low=Span(start=0, stop=1), high=Span(start=1, stop=2), low_cycles=2, high_cycles=2),
    context=9,
)
SEQUENCE = SequenceGLU(length=9, glu=GLU(inner=7))


HOLDING: dict[type[Node], Callable[[Any], Node]] = {}
"""What is built around a part that is no field of the parts below, by its type."""


def holding(part: Node) -> Architecture:
    """A small architecture with one part in it."""
    if type(part) in HOLDING:
        return holding(HOLDING[type(part)](part))
    if isinstance(part, Architecture):
        return part
    if isinstance(part, Op):
        return DECODER.replace(blocks=(Block(branches=(Branch(op=part, before=RMS),)),))
    if isinstance(part, Block | Branch):
        return DECODER.replace(blocks=(part if isinstance(part, Block) else Block(branches=(part,)),))
    if isinstance(part, LengthTemperature):
        return holding(SELF.replace(temperature=part, softcap=0.5))
    if isinstance(part, QKNorm) and part.after_rotary:
        return holding(SELF.replace(qk_norm=part, rotary=TURN))
    if isinstance(part, QKNorm | Rotary):
        return holding(SELF.replace(**{"qk_norm" if isinstance(part, QKNorm) else "rotary": part}))
    if isinstance(part, YarnScaling):
        return holding(SELF.replace(head_dim=16, rotary=Rotary(base=10.0, dim=16, scaling=part)))
    if isinstance(part, LinearScaling | DynamicScaling | Llama3Scaling | LongRopeScaling):
        return holding(TURN.replace(scaling=part))
    if isinstance(part, TaskEmbedding):
        return RECURSIVE.replace(embedding=RECURSIVE.embedding.replace(task=part))
    if isinstance(part, LearnedPositions):
        return DECODER.replace(embedding=DECODER.embedding.replace(positions=part))
    if isinstance(part, Recursion | Span | DeepSupervision):
        place = "objective" if isinstance(part, DeepSupervision) else "recursion"
        return RECURSIVE.replace(**{place: RECURSIVE.recursion.replace(high=part) if isinstance(part, Span) else part})
    place = {Embedding: "embedding", Head: "head", RMSNorm: "norm", LayerNorm: "norm"}.get(type(part), "objective")
    return DECODER.replace(**{place: part})


def short(value: Any) -> str:
    return value if isinstance(value, str) else type(value).__name__


# -- what is declared as understood changes what is built

USED: list[tuple[Node, dict[str, Any]]] = [
    (SELF, {"heads": 2, "kv_heads": 1, "head_dim": 4, "rotary": TURN, "qk_norm": QKNorm(), "window": 3}),
    (SELF, {"softcap": 0.5, "scale": 0.9, "bias": True, "output_bias": True}),
    (SELF, {"chunk": 4, "value_dim": 5, "gate": "head", "sinks": True, "value_norm": RMS, "keys_as_values": True}),
    (SELF, {"temperature": LengthTemperature(floor=4, scale=0.1), "value_scale": 0.5, "output_norm": RMS}),
    (SELF.replace(gate="elementwise"), {"gate_activation": "softplus"}),
    (LengthTemperature(floor=4, scale=0.1), {"floor": 3, "scale": 0.2, "first": 0, "steps": False, "of": "scores"}),
    (QKNorm(norm=RMS), {"after_rotary": True, "own": True}),
    (CROSS, {"heads": 2, "kv_heads": 1, "head_dim": 4, "memory_width": 8, "qk_norm": QKNorm()}),
    (QKNorm(norm=RMS), {"norm": LAYER, "over": "width"}),
    (TURN, {"base": 50.0, "dim": 4, "layout": "interleaved", "scaling": LinearScaling(factor=2.0)}),
    (LinearScaling(factor=2.0), {"factor": 3.0}),
    (DynamicScaling(factor=2.0, original_context=5), {"factor": 3.0, "original_context": 4}),
    (
        Llama3Scaling(factor=8.0, low_frequency=1.0, high_frequency=4.0, original_context=20),
        {"factor": 4.0, "low_frequency": 0.5, "high_frequency": 3.0, "original_context": 30},
    ),
    (LONGROPE, {"long": SHORT, "original_context": 30, "attention_factor": 1.3}),
    (LONGROPE.replace(original_context=30), {"short": LONG}),
    (YARN, {"factor": 2.0, "original_context": 60, "beta_fast": 2.0, "beta_slow": 0.2, "attention_factor": 1.2}),
    (YARN, {"truncate": False}),
    (GLU(inner=7), {"inner": 5, "activation": "relu2", "bias": True}),
    (MLP(inner=7), {"inner": 5, "activation": "relu2", "bias": True}),
    (Parallel(ops=(SELF, MLP(inner=7))), {"ops": (SELF, MLP(inner=5)), "multipliers": (1.0, 0.5)}),
    (SEQUENCE, {"glu": GLU(inner=5)}),
    (SEQUENCE.replace(length=8), {"length": 9}),
    (STACK, {"branches": STACK.branches[:1], "scaled": True}),
    (Branch(op=SELF), {"op": GLU(inner=3), "before": RMS, "after": RMS, "joined": RMS, "gate": "tanh"}),
    (Branch(op=SELF), {"multiplier": 0.5}),
    (Branch(op=SELF, gate="tanh"), {"gate": "factor"}),
    (DECODER.embedding, {"vocab": 30, "width": 11, "placeholders": 2, "scale": 2.0}),
    (DECODER.embedding, {"positions": LearnedPositions(length=19)}),
    (RECURSIVE, {"embedding": RECURSIVE.embedding.replace(task=None)}),
    (LearnedPositions(length=19), {"length": 21}),
    (TASK, {"count": 4, "width": 17, "tokens": 3}),
    (Head(), {"tied": True, "scale": 2.0, "softcap": 3.0, "bias": True}),
    (RMS, {"eps": 1.0, "offset": 1.0, "weight": False, "weight_first": True}),
    (LAYER, {"eps": 1.0, "bias": False}),
    (
        DECODER,
        {
            "embedding": DECODER.embedding.replace(scale=2.0),
            "blocks": DECODER.blocks[:1],
            "norm": None,
            "head": Head(tied=True),
            "objective": MaskedDiffusion(mask_token=3),
            "loops": 2,
        },
    ),
    (RECURSIVE, {"recursion": RECURSIVE.recursion.replace(low_cycles=1)}),
    (RECURSIVE.recursion, {"low": Span(start=2, stop=3), "high": Span(start=2, stop=3)}),
    (RECURSIVE.recursion, {"low_cycles": 1, "high_cycles": 1}),
    (Span(start=1, stop=2), {"stop": 3}),
    (Span(start=1, stop=3), {"start": 2}),
]
ELSEWHERE: dict[tuple[type[Node], str], str] = {
    (Attention, "kv_from"): "reads an earlier block: below",
    (Architecture, "name"): "a label",
    (Parallel, "lands"): "needs a branch to land after: below",
    (Architecture, "family"): "says how a checkpoint is read and written",
    (Architecture, "context"): "how large a state is that is asked for without a capacity",
    (Branch, "attended_only"): "needs a memory mask: below",
    (DeepSupervision, "exploration"): "read in training",
    (DeepSupervision, "max_steps"): "when a carry begins anew: tests/families/test_recursive.py",
    (Embedding, "task"): "changed in the architecture above",
    (MaskedDiffusion, "mask_token"): "read by objectives/",
    (Recursion, "gradient"): "where gradients flow: below",
}
"""Fields that are read, and change nothing of a forward pass on its own."""

for file in sorted(Path(__file__).parent.glob("used_*.py")):
    rows = importlib.import_module(f"{__package__}.{file.stem}")
    USED += rows.USED
    ELSEWHERE |= getattr(rows, "ELSEWHERE", {})
    HOLDING |= getattr(rows, "HOLDING", {})


def logits(model: Any) -> torch.Tensor:
    ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5]])
    widths = [op.memory_width for op in model.arch.ops() if isinstance(op, CrossAttention)]
    given: dict[str, Any] = {}
    if widths:
        given["memory"] = torch.arange(7.0 * widths[0]).sin().view(1, 7, -1)
    if model.arch.embedding.task:
        given["puzzle"] = torch.tensor([2])
    with torch.no_grad():
        return model(ids, **given)


def filled(arch: Architecture) -> Any:
    """The model with weights that are neither small nor neutral."""
    model, random = lamina.build(arch), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random))
    return model


@pytest.mark.parametrize(("part", "field"), [(part, field) for part, fields in USED for field in fields], ids=short)
def test_a_field_that_is_understood_changes_the_model(part, field):
    other = next(fields[field] for p, fields in USED if p is part and field in fields)
    assert getattr(part, field) != other
    before, after = filled(holding(part)), filled(holding(part.replace(**{field: other})))
    shapes = [{name: p.shape for name, p in model.named_parameters()} for model in (before, after)]
    if shapes[0] == shapes[1]:
        left, right = logits(before), logits(after)
        assert left.shape != right.shape or not torch.allclose(left, right, rtol=1e-4, atol=1e-4)


def test_attended_only_and_gradients():
    arch = holding(Block(branches=(Branch(op=CROSS), Branch(op=GLU(inner=5), attended_only=True))))
    mask = torch.tensor([[[True] * 7] * 4 + [[False] * 7] * 5])
    ids, memory = torch.arange(9)[None], torch.randn(1, 7, 10)
    first = filled(arch)(ids, memory=memory, memory_mask=mask)
    second = filled(holding(Block(branches=(Branch(op=CROSS), Branch(op=GLU(inner=5))))))(
        ids, memory=memory, memory_mask=mask
    )
    assert torch.equal(first[:, :4], second[:, :4])
    assert not torch.allclose(first[:, 4:], second[:, 4:])
    gradients = []
    for kind in ("last_cycle", "last_step"):
        model = filled(holding(RECURSIVE.recursion.replace(gradient=kind)))
        model(torch.arange(9)[None], puzzle=torch.tensor([1])).square().sum().backward()
        gradients.append(model.blocks[0].mixer.op.q_proj.weight.grad)
    assert not torch.allclose(*gradients)


# -- what is not declared is refused

REFUSED: list[tuple[Node, dict[str, Any]]] = [
    (TURN, {"spread": "each"}),
    (DECODER.embedding, {"ngrams": values.NgramTables(longest=2, tables=1, rows=9)}),
    (Causal(), {"prefix": True}),
    (DECODER, {"exit_gate": True}),
    (DECODER, {"encoders": samples.SEEING.encoders[1:2]}),
    (RECURSIVE.recursion, {"enters": "start", "norm": RMS, "halting": False}),
]
IN_PART: list[tuple[Node, dict[str, Any]]] = [
    (RECURSIVE.recursion, {"gradient": (1, 2)}),
    (RECURSIVE, {"objective": Causal()}),
    (DECODER, {"objective": DeepSupervision(max_steps=3)}),
    (RECURSIVE.embedding.replace(task=None), {"task": TASK}),
    (RECURSIVE, {"embedding": RECURSIVE.embedding.replace(positions=LearnedPositions(length=20))}),
    (
        holding(SELF).replace(objective=MaskedDiffusion(mask_token=3)),
        {"blocks": holding(SELF.replace(window=3)).blocks},
    ),
    (CROSS, {"qk_norm": QKNorm(over="width")}),
    (RECURSIVE, {"blocks": (STACK, holding(CROSS).blocks[0])}),
]
"""Fields that are understood, with values that are not, or not beside the rest."""
LANDS = Block(branches=(Branch(op=Parallel(ops=(SELF, MLP(inner=7)), lands=(0, 1))), Branch(op=MLP(inner=3))))


@pytest.mark.parametrize(("part", "field"), [(p, f) for p, fields in REFUSED + IN_PART for f in fields], ids=short)
def test_a_field_that_is_not_understood_is_refused(part, field):
    other = next(fields[field] for p, fields in REFUSED + IN_PART if p is part and field in fields)
    check(holding(part))
    arch = holding(part.replace(**{field: other}))
    with pytest.raises(LaminaError, match="can be priced and drawn, but not run yet") as caught:
        lamina.build(arch, device="meta")
    assert field in str(caught.value).split(" ")[0] or isinstance(part, Architecture | CrossAttention)


def test_a_block_reads_what_an_earlier_one_left():
    first, reading = SELF.replace(window=3), SELF.replace(window=3, kv_from=0)
    arch = DECODER.replace(blocks=tuple(Block(branches=(Branch(op=op, before=RMS),)) for op in (first, SELF, reading)))
    model = filled(arch)
    assert [name for name, _ in model.blocks[2].named_parameters()] == [
        "mixer.op.q_proj.weight",
        "mixer.op.o_proj.weight",
        "mixer.before.weight",
    ]
    before = logits(model)
    with torch.no_grad():
        model.blocks[0].mixer.op.o_proj.weight.zero_()  # what it leaves now comes from its keys and values alone
        quiet = logits(model)
        model.blocks[0].mixer.op.v_proj.weight.mul_(2.0)
    assert not torch.allclose(quiet, before)
    assert not torch.allclose(logits(model), quiet)


def test_a_shortcut_is_added_where_it_lands():
    """What the first branch gives is added after the second, which does not read it."""
    first, second = LANDS.branches
    late, both = filled(holding(LANDS)), filled(holding(LANDS.replace(branches=(Branch(op=first.op.ops[0]), second))))
    both.load_state_dict({k.replace("parallel.op.mixer", "mixer.op"): v for k, v in late.state_dict().items()}, False)
    x, seen = torch.tensor([[3, 1, 4, 1, 5]]), {}
    for name, model in (("late", late), ("both", both)):
        model.blocks[0].register_forward_hook(lambda _, given, out, name=name: seen.update({name: (given[0], out)}))
        with torch.no_grad():
            model(x)
    given, out = seen["late"]
    with torch.no_grad():
        assert torch.allclose(out, seen["both"][1] + late.blocks[0].parallel.op.feed_forward(given), rtol=1e-4)
    with pytest.raises(LaminaError, match=r"parallel\.lands \(beside attention_residuals\)"):
        lamina.build(holding(LANDS).replace(stream=values.AttentionResiduals(blocks=1)), device="meta")


def concrete() -> set[type[Node]]:
    exported = {getattr(values, name) for name in values.__all__}
    return {kind for kind in exported if isinstance(kind, type) and issubclass(kind, Node)} - {Node, Op}


def test_every_field_of_every_part_is_used_or_refused():
    assert set(UNDERSTOOD) <= concrete()
    for kind, fields in UNDERSTOOD.items():
        used = {field for part, changed in USED if type(part) is kind for field in changed}
        refused = {field for part, changed in REFUSED if type(part) is kind for field in changed}
        elsewhere = {field for owner, field in ELSEWHERE if owner is kind}
        assert used | elsewhere == set(fields.split()), kind
        assert used | elsewhere | refused == set(kind.model_fields) - {"kind"}, kind
        assert not refused & (used | elsewhere)


def _each(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


@pytest.mark.parametrize("kind", sorted((k for k in concrete() - set(UNDERSTOOD)), key=lambda k: k.__name__), ids=str)
def test_every_other_part_is_refused(kind):
    """An op by its name; a part of something else because its place is refused, or what it is part of."""
    found = [node for value in samples.ALL for node in samples.parts(value) if isinstance(node, kind)]
    assert found
    if issubclass(kind, Op):
        with pytest.raises(LaminaError, match=rf"blocks\[0\]\.\w+ \({kind.__name__}\) can be priced"):
            lamina.build(holding(found[0]), device="meta")
        return
    owners = [
        (type(node), name)
        for value in samples.ALL
        for node in samples.parts(value)
        for name in type(node).model_fields
        if any(isinstance(part, kind) for part in _each(getattr(node, name)))
    ]
    assert owners
    for owner, field in owners:
        assert owner not in UNDERSTOOD or field not in UNDERSTOOD[owner].split(), (owner, field)


def test_what_runs_is_refused_nowhere():
    for value in samples.RUNS:
        if value is not samples.RECURSIVE:
            check(value)
    for value in (value for value in samples.ALL if list(not_understood(value))):
        with pytest.raises(LaminaError, match="can be priced and drawn, but not run yet"):
            check(value)
    last = SELF.replace(rotary=TURN.replace(spread="each"))
    arch = DECODER.replace(blocks=(*DECODER.blocks, Block(branches=(Branch(op=last),))))
    with pytest.raises(LaminaError, match=r"^blocks\[2\]\.mixer\.rotary\.spread \(each\) can be priced and drawn"):
        lamina.build(arch)
