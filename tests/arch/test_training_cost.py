"""What a training step costs, against what PyTorch counts, saves for the backward pass, and keeps to optimize."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

import lamina
from lamina import arch as values
from lamina.arch import (
    GLU,
    MLP,
    Architecture,
    Attention,
    Block,
    Branch,
    Embedding,
    Head,
    LayerNorm,
    MaskedDiffusion,
    Op,
    Parallel,
    QKNorm,
    RMSNorm,
    Rotary,
)
from lamina.arch.edit import rewritten
from lamina.arch.moe import MoE
from lamina.arch.norm import Norm
from lamina.errors import LaminaError
from lamina.nn.state import Fresh
from lamina.nn.step import Step
from lamina.ops import chunks, linear_attention
from tests.families.table import ROWS

from .samples import parts
from .test_cost import NEAR, Counted, certain, solved, value_of

GOLDEN = Path(__file__).parents[1] / "golden"
VOCAB, WIDTH, HEADS, DIM = 101, 24, 6, 10
ATTENTION = Attention(heads=HEADS, kv_heads=2, head_dim=DIM, rotary=Rotary(dim=DIM))


def decoder(*ops: Op, norm: Norm = RMSNorm(), **fields) -> Architecture:  # noqa: B008
    """Three blocks of these ops, each behind a norm."""
    block = Block(branches=tuple(Branch(op=op, before=norm) for op in ops))
    return Architecture(
        family="llama",
        embedding=Embedding(vocab=VOCAB, width=WIDTH),
        blocks=(block,) * 3,
        norm=norm,
        context=64,
        **fields,
    )


DECODERS = {
    "GQA, GLU": decoder(ATTENTION, GLU(inner=37)),
    "GELU": decoder(ATTENTION, GLU(inner=37, activation="gelu_tanh")),
    "MLP, LayerNorm": decoder(ATTENTION.replace(rotary=None, bias=True), MLP(inner=37, bias=True), norm=LayerNorm()),
    "QK-norm": decoder(ATTENTION.replace(qk_norm=QKNorm()), GLU(inner=37)),
    "QK-norm over the width": decoder(ATTENTION.replace(qk_norm=QKNorm(over="width")), GLU(inner=37)),
    "parallel": decoder(Parallel(ops=(ATTENTION, GLU(inner=37)))),
    "window": decoder(ATTENTION.replace(window=7), GLU(inner=37)),
    "both ways": decoder(ATTENTION, GLU(inner=37), objective=MaskedDiffusion(mask_token=3)),
    "tied": decoder(ATTENTION, GLU(inner=37), head=Head(tied=True)),
}

# ----------------------------------------------------------------------------------------------------------- FLOPs


@pytest.fixture
def counted(monkeypatch) -> Counted:
    return Counted(monkeypatch)


def of_gradients(grad, x, weight, *rest, out_shape, **_) -> int:
    """FLOPs of a convolution's gradients; PyTorch counts that of the weights as if it had one group."""
    return sum(rest[-1][:2]) * conv_flop_count(x, weight, grad)


def trained(model, ids: torch.Tensor, counted: Counted, **given) -> int:
    """FLOPs of forward and backward as PyTorch counts them, without hidden pairs (each counted three times)."""
    counted.hidden = 0
    counting = {torch.ops.aten.convolution_backward: of_gradients, torch.ops.aten.linalg_solve_triangular: solved}
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=counting) as counter:
        model(ids, **given).float().square().sum().backward()
    return counter.get_total_flops() - 3 * counted.hidden


@pytest.fixture
def again(monkeypatch) -> list[int]:
    """FLOPs of what the backward pass of a recurrence computes again, which is no part of a step.

    The gradient of a triangular system is one product of all pairs, of which half are beyond the diagonal: as many
    FLOPs too many as the solution has. Those of linear attention are three of its kind, scores and all.
    """
    found: list[int] = []
    gradients, attended = chunks._gradients, linear_attention._WithGradient

    def watched(rule, states, read, *rest):
        solve = torch.ops.aten.linalg_solve_triangular
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping={solve: solved}) as counter:
            rule(read[:states], *read[states:])
        solutions = counter.get_flop_counts().get("Global", {}).get(solve, 0)  # none where a rule has no products
        found.append(2 * counter.get_total_flops() + solutions)  # counted here, too
        return gradients(rule, states, read, *rest)

    class Watched(attended):
        @staticmethod
        def forward(ctx, *given):
            with FlopCounterMode(display=False) as counter:
                made = attended.forward(ctx, *given)
            found.append(counter.get_total_flops())
            return made

    monkeypatch.setattr(linear_attention, "_WithGradient", Watched)
    monkeypatch.setattr(chunks, "_gradients", watched)
    return found


CHOOSING = (values.Indexer, values.BlockIndexer, values.PooledIndexer, values.EntryIndexer)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_step_is_three_forwards(row, counted, again):
    """Exactly, but for pairs that a mask hides and chunks computed again: the first gradient reaches the embedding.

    No gradient goes through a choice of keys, so there the formula is more than what is computed.
    """
    arch = rewritten(value_of(row), MoE, certain)
    got = trained(lamina.build(arch), torch.ones(2, 19, dtype=torch.long), counted) - sum(again)
    formula = arch.cost(context=19, batch=2).training_flops()
    assert formula == 3 * 2 * arch.flops(19)
    near = next((near for name, near in NEAR.items() if row.name.startswith(name)), 0.0)
    if any(isinstance(part, CHOOSING) for block in arch.blocks for part in parts(block)):
        assert 0.5 * formula < got <= formula * (1 + near)
    else:
        assert abs(got - formula) <= near * formula
    assert counted.hidden > 0 or again


@pytest.mark.parametrize("name", ["GQA, GLU", "MLP, LayerNorm", "parallel", "window"])
def test_a_step_with_recomputation_is_four_forwards_of_blocks(name, counted, monkeypatch):
    """Exactly, where PyTorch computes all of a block again; on its own it leaves out each block's last product."""
    arch = DECODERS[name]
    model = lamina.build(arch)
    for block in model.blocks:
        plain = block.forward
        monkeypatch.setattr(block, "forward", lambda x, step, f=plain: checkpoint(f, x, step, use_reentrant=False))
    ids = torch.ones(2, 19, dtype=torch.long)
    counted.hidden = 0
    whole = set_checkpoint_early_stop(False)
    with whole, sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(ids).square().sum().backward()
    got = counter.get_total_flops() - 2 * counted.hidden  # both forwards are watched, and backward is two more
    assert got == arch.cost(context=19, batch=2).training_flops(recompute=True)
    head = 3 * 2 * 19 * 2 * WIDTH * VOCAB
    assert got - head == 4 * (2 * arch.flops(19) - head // 3)


@pytest.mark.parametrize("name", ["trm-attention", "trm-mlp", "hrm"])
def test_a_step_of_a_recursion_goes_back_through_a_part(name, counted):
    """Gradients flow through the last cycle (TRM) or the last step of each level (HRM); the rest is forward alone."""
    arch = lamina.architecture(GOLDEN / name)
    model = lamina.build(arch)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        logits = model(torch.ones(1, arch.context, dtype=torch.long), puzzle=torch.tensor([0]))
        logits.float().square().sum().backward()
    halting = 4 * arch.width * 2  # its scores are not part of this loss
    got, said = counter.get_total_flops(), arch.cost(context=arch.context).training_flops()
    assert got == said - halting
    assert said < 3 * arch.flops(arch.context)


# --------------------------------------------------------------------------------------------------- what is saved


def kept(module: torch.nn.Module, run: Callable[[], torch.Tensor]) -> int:
    """Bytes of the tensors that autograd keeps between forward and backward, parameters aside, each once."""
    ours = {p.untyped_storage().data_ptr() for p in module.parameters()}
    found: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in ours:
            found[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        assert run().requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values())


def saved(arch: Architecture, batch: int, tokens: int, again: bool = False) -> int:
    model = lamina.build(arch)
    if again:
        for block in model.blocks:
            block.forward = lambda x, step, f=block.forward: checkpoint(f, x, step, use_reentrant=False)
    ids = torch.randint(0, VOCAB, (batch, tokens), generator=torch.Generator().manual_seed(0))
    return kept(model, lambda: F.cross_entropy(model(ids).flatten(0, 1), ids.flatten()))


def norms(arch: Architecture) -> Iterator[int]:
    """How many numbers of a token pass each RMSNorm."""
    for block in arch.blocks:
        for branch in block.branches:
            yield from (WIDTH for norm in branch.norms.values() if isinstance(norm, RMSNorm))
        yield from ((HEADS + 2) * DIM for op in block.ops() if isinstance(op, Attention) and op.qk_norm)
    yield from (WIDTH for norm in (arch.norm,) if isinstance(norm, RMSNorm))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("tokens", [13, 31])
@pytest.mark.parametrize("name", DECODERS)
def test_activations_are_what_autograd_saves(name, tokens, batch):
    """Exactly, in float32, but for what the definition leaves out and what PyTorch does on a CPU:

    the gradient of the logits, which backward adds; token ids (int64), the loss, and rotary angles; a copy of the
    normalised input in each RMSNorm, which on a CPU is made of smaller operations; masks of windows, as numbers.
    """
    arch = DECODERS[name]
    op = next(op for op in arch.ops() if isinstance(op, Attention))
    gradient = 4 * batch * tokens * VOCAB
    left_out = 8 * batch * tokens + 4 + (2 * 4 * tokens * DIM if op.rotary else 0)
    copies = 4 * batch * tokens * sum(norms(arch))
    masks = 3 * 4 * tokens * tokens if op.window else 0
    cost = arch.cost(context=tokens, batch=batch, weights="float32")
    assert saved(arch, batch, tokens) == cost.activation_bytes() - gradient + left_out + copies + masks


@pytest.mark.parametrize("tokens", [13, 31])
def test_activations_with_recomputation(tokens):
    """The inputs of blocks stay; then one block at a time has all of its own."""
    arch = DECODERS["GQA, GLU"]
    cost = arch.cost(context=tokens, batch=2, weights="float32")
    gradient, ids = 4 * 2 * tokens * VOCAB, 8 * 2 * tokens + 4
    block = 4 * 2 * tokens * sum(line.saved for line in cost.bill if line.path.startswith("blocks"))
    copy = 4 * 2 * tokens * WIDTH  # in the last norm
    assert saved(arch, 2, tokens, again=True) == cost.activation_bytes(recompute=True) - gradient - block + ids + copy


RECURRENT = "qwen3-next kimi-linear mamba mamba2 jamba minimax recurrent-gemma lfm2 xlstm zamba nemotron-h bamba"


@pytest.mark.parametrize("name", RECURRENT.split())
def test_recurrent_activations_are_near_what_autograd_saves(name):
    """Of the first block's mixer: no less than the formula, and little more than what it leaves out.

    Copies of norms, and parts of one projection that are kept whole where one part is needed.
    """
    arch = value_of(next(row for row in ROWS if row.name == name))
    model, tokens = lamina.build(arch), 128
    module, value = model.blocks[0].mixer.op, next(iter(arch.blocks[0].ops()))
    assert any(part.each == "sequence" for part in value.keeps(arch.width))
    x = torch.randn(1, tokens, arch.width, requires_grad=True)
    step = Step(torch.zeros(1, tokens, dtype=torch.long), x.dtype, lambda _: Fresh(), [0], None)
    formula = 4 * tokens * value.saved(arch.width)
    assert formula <= kept(module, lambda: module(x, step)) <= 1.5 * formula


def test_activations_by_hand():
    """Of a token and block: x (24), q (60), k and v (20 each), out (60), 6; x (24) and 4 x 37; two norms of 24 + 1."""
    block = 24 + 60 + 40 + 60 + 6 + 24 + 4 * 37 + 2 * 25
    cost = DECODERS["GQA, GLU"].cost(context=10, batch=3)
    assert cost.activation_bytes() == 30 * (2 * (3 * block + 25 + 24) + 8 * VOCAB)
    assert cost.activation_bytes(recompute=True) == 30 * (2 * (3 * 24 + block + 25 + 24) + 8 * VOCAB)


# ------------------------------------------------------------------------------------------------------ optimizers


def held(model: torch.nn.Module, optimizers: list[torch.optim.Optimizer]) -> int:
    """Bytes of weights, gradients and what optimizers keep, but for their counts of steps."""
    states = (value for o in optimizers for state in o.state.values() for key, value in state.items() if key != "step")
    return sum(p.nbytes + p.grad.nbytes for p in model.parameters()) + sum(value.nbytes for value in states)


@pytest.mark.parametrize("name", ["GQA, GLU", "MLP, LayerNorm", "tied"])
def test_what_optimizers_keep(name):
    arch = DECODERS[name]
    cost = arch.cost(weights="float32")
    for kind in ("adamw", "muon"):
        model = lamina.build(arch)
        matrices = [p for n, p in model.named_parameters() if n.startswith("blocks.") and p.ndim == 2]
        others = [p for p in model.parameters() if all(p is not m for m in matrices)]
        whole = [torch.optim.AdamW(model.parameters())]
        optimizers = whole if kind == "adamw" else [torch.optim.Muon(matrices), torch.optim.AdamW(others)]
        model(torch.ones(1, 5, dtype=torch.long)).square().sum().backward()
        for optimizer in optimizers:
            optimizer.step()
        assert held(model, optimizers) == cost.optimizer_bytes(kind)
    assert cost.optimizer_bytes("adamw") == 16 * arch.parameters().total


def test_what_optimizers_keep_of_experts_and_convolutions():
    """Muon keeps one number for each of an expert's matrices, as of any other; of vectors and convolutions two."""
    for name in ("gpt-oss-20b", "nemotron-3-nano-30b-a3b"):
        arch = lamina.architecture(name)
        cost = arch.cost()  # bfloat16: weights and gradients of 2 bytes, a float32 copy, and 8 or 4 of state
        assert cost.optimizer_bytes("adamw") == 16 * arch.parameters().total
        saved_numbers = (cost.optimizer_bytes("adamw") - cost.optimizer_bytes("muon")) // 4
        plain = sum(
            line.times * torch.Size(shape).numel()
            for line in cost.bill
            for weight, shape in line.weights.items()
            if not line.path.startswith("blocks")
            or weight.endswith("bias")
            or "convolution" in weight
            or len(shape) == 1
        )
        assert saved_numbers == arch.parameters().total - plain
    with pytest.raises(LaminaError, match="optimizer 'lion' is not known; known: adamw, muon"):
        cost.optimizer_bytes("lion")
