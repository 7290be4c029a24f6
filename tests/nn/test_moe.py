"""Mixtures of experts: against the reference's blocks, and against one dense feed-forward a choice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from transformers.activations import XIELUActivation
from transformers.models.inkling.modeling_inkling import InklingMoE
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock
from transformers.models.zaya.modeling_zaya import ZayaSparseMoeBlock

import lamina
from lamina.arch import GLU, MLP, Architecture, Block, Branch, Clamp, Embedding, MoE, RMSNorm, Router, RouterMLP, Squash
from lamina.nn.feedforward import GLU as DenseGLU
from lamina.nn.feedforward import MLP as DenseMLP
from lamina.nn.feedforward import XIELU
from lamina.nn.moe import MoE as Module
from lamina.nn.step import Step
from tests.reference import ids, randomise, relative

D, F_, E, K = 18, 7, 6, 3
RMS = RMSNorm(eps=1e-3)
ROUTER = Router(experts=E, active=K)
PLAIN = MoE(router=ROUTER, expert=GLU(inner=F_))


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made(value: MoE) -> Module:
    module = Module(value, D).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(1.0)  # what norms move away from
    randomise(module)
    return module


def by_hand(module: Module, x: torch.Tensor) -> torch.Tensor:
    """Every choice alone, by a dense feed-forward with that expert's weights."""
    value, out = module.value, []
    routed = module.router(x)
    read = x if module.latent_down is None else module.latent_down(x)
    read = read if module.expert_norm is None else module.expert_norm(read)
    for n in range(len(x)):
        total, idle = torch.zeros_like(read[n]), torch.zeros_like(x[n])
        for e, weight in zip(routed.chosen[n].tolist(), routed.weights[n].to(x.dtype), strict=True):
            if e >= value.computing:
                idle = idle + weight * x[n] * (value.identities_give == "input")
                continue
            dense = (DenseGLU if isinstance(value.expert, GLU) else DenseMLP)(value.expert, read.shape[1]).to(x.dtype)
            own = {name: p[e] for name, p in module.experts.named_parameters()}
            given = torch.func.functional_call(dense, own, read[n] * (weight if value.scaled == "input" else 1))
            given = given if module.given_norm is None else module.given_norm(given)
            total = total + given * (1 if value.scaled == "input" else weight)
        total = total if module.latent_norm is None else module.latent_norm(total)
        out.append((total if module.latent_up is None else module.latent_up(total)) + idle)
    found = torch.stack(out)
    if module.shared is not None:
        given = module.shared(x)
        found = found + (given if module.shared_gate is None else given * module.shared_gate(x).sigmoid())
    return found * value.scale


VALUES = {
    "glu": PLAIN,
    "glu-biases": PLAIN.replace(expert=GLU(inner=F_, bias=True)),
    "glu-clamped": PLAIN.replace(expert=GLU(inner=F_, bias=True, clamp=Clamp(limit=0.7, shift=1.0, slope=1.702))),
    "glu-clamped-after": PLAIN.replace(expert=GLU(inner=F_, clamp=Clamp(limit=0.3, after=True))),
    "glu-squashed": PLAIN.replace(expert=GLU(inner=F_, squash=Squash(gate=0.8, up=0.9))),
    "glu-sparse": PLAIN.replace(expert=GLU(inner=F_, sparsity=0.6, activation="gelu_tanh", gate_multiplier=0.7)),
    "glu-xielu": PLAIN.replace(expert=GLU(inner=F_, activation="xielu")),
    "mlp": PLAIN.replace(expert=MLP(inner=F_, activation="relu2", bias=True)),
    "mlp-xielu": PLAIN.replace(expert=MLP(inner=F_, activation="xielu")),
    "shared": PLAIN.replace(shared=GLU(inner=5), shared_gate=True, scale=0.6),
    "latent": PLAIN.replace(latent=5, latent_norm=RMS, expert_norm=RMS, given_norm=RMS),
    "weighed-first": PLAIN.replace(router=ROUTER.replace(score="sigmoid", normalise=False), scaled="input"),
    "identities": PLAIN.replace(identities=2),
    "nothing": PLAIN.replace(identities=2, identities_give="nothing", expert_norm=RMS),
    "idle-weighed-first": PLAIN.replace(identities=2, scaled="input", given_norm=RMS),
    "scaled-experts": PLAIN.replace(router=ROUTER.replace(expert_scale=True, norm=RMS, softcap=0.6, logit_scale=0.3)),
    "sparse-mixer": PLAIN.replace(router=ROUTER.replace(sparse_mixer=0.2, normalise=False)),
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("tokens", [1, 11])
def test_a_mixture_is_its_experts_one_by_one(name, tokens):
    """With and without gradients, which take other paths."""
    module, x = made(VALUES[name]), normal(tokens, D)
    exact = made(VALUES[name]).double()
    with torch.no_grad():
        assert relative(module(x[None])[0], by_hand(exact, x.double())) <= 5e-6
    ours, slow = x.clone().requires_grad_(), x.double().requires_grad_()
    target = normal(tokens, D, seed=1)
    (module(ours[None])[0] * target).sum().backward()
    (by_hand(exact, slow) * target).sum().backward()
    assert relative(ours.grad, slow.grad) <= 1e-5
    for (path, a), b in zip(module.named_parameters(), exact.parameters(), strict=True):
        if b.grad is not None and float(b.grad.abs().max()):
            assert relative(a.grad, b.grad) <= 2e-5, path


def test_gradients_are_those_of_the_reference():
    """Router and experts, through the weights as well."""
    config = transformers.Qwen3MoeConfig(
        hidden_size=D, moe_intermediate_size=F_, num_experts=E, num_experts_per_tok=K, norm_topk_prob=True
    )
    config._experts_implementation = "eager"
    theirs, ours = Qwen3MoeSparseMoeBlock(config), made(PLAIN)
    experts = theirs.experts
    with torch.no_grad():
        theirs.gate.weight.copy_(ours.router.gate.weight)
        experts.gate_up_proj.copy_(torch.cat([ours.experts.gate_proj.weight, ours.experts.up_proj.weight], 1))
        experts.down_proj.copy_(ours.experts.down_proj.weight)
    x, target = normal(2, 13, D), normal(2, 13, D, seed=1)
    (ours(x) * target).sum().backward()
    (theirs(x) * target).sum().backward()
    assert relative(ours.router.gate.weight.grad, theirs.gate.weight.grad) <= 1e-5
    both = torch.cat([ours.experts.gate_proj.weight.grad, ours.experts.up_proj.weight.grad], 1)
    assert relative(both, experts.gate_up_proj.grad) <= 1e-5
    assert relative(ours.experts.down_proj.weight.grad, experts.down_proj.grad) <= 1e-5


def step(x: torch.Tensor) -> Step:
    return Step(torch.zeros(x.shape[:2], dtype=torch.int64), x.dtype, {}.__getitem__, [0] * len(x), None)


@torch.inference_mode()
def test_a_deep_router_hands_on_what_it_reads():
    """Three layers of ZAYA1: the second and third router take up the r of the one before."""
    config = transformers.ZayaConfig(
        hidden_size=D, num_experts=E - 1, num_experts_per_tok=1, moe_intermediate_size=F_, router_hidden_size=5
    )
    x = normal(2, 9, D)
    before, now = None, step(x)
    for i in range(3):
        theirs = ZayaSparseMoeBlock(config, i).eval()
        randomise(theirs, seed=i)
        deep = RouterMLP(width=5, carried=i > 0, norm=RMSNorm(eps=config.rms_norm_eps))
        router = Router(experts=E, active=1, normalise=False, correction=True, mlp=deep)
        ours = Module(MoE(router=router, expert=GLU(inner=F_), identities=1, identities_give="nothing"), D)
        gate, mlp = theirs.gate, theirs.gate.router_mlp
        named: dict[str, torch.Tensor] = {"router.correction": gate.balancing_biases}
        parts = {"down_proj": gate.down_proj, "layers.0": mlp.fc1, "layers.1": mlp.fc2, "gate": mlp.out_proj}
        for path, part in (parts | {"norm": mlp.norm}).items():
            named |= {f"router.mlp.{path}.{leaf}": p for leaf, p in part.named_parameters()}
        named |= {"router.mlp.carry": gate.router_states_scale} if i else {}
        both = theirs.experts.gate_up_proj.chunk(2, 1)
        stacks = zip(("gate", "up", "down"), (*both, theirs.experts.down_proj), strict=True)
        ours.load_state_dict(named | {f"experts.{p}_proj.weight": w for p, w in stacks})
        expected, before = theirs(x, before)
        assert relative(ours(x, now), expected) <= 1e-5
        x = x + expected
    assert before is not None


@torch.inference_mode()
def test_shared_experts_that_compete():
    config = transformers.InklingTextConfig(
        hidden_size=D, n_routed_experts=E, n_shared_experts=2, num_experts_per_tok=K, moe_intermediate_size=F_
    )
    theirs = InklingMoE(config).eval()
    randomise(theirs)
    theirs.gate.global_scale.fill_(1.0)
    router = Router(experts=E, active=K, score="sigmoid", correction=True, shared=2, scale=config.route_scale)
    ours = Module(MoE(router=router, expert=GLU(inner=F_), shared=GLU(inner=2 * F_)), D)
    shared, both = theirs.shared_experts, theirs.experts.gate_up_proj.chunk(2, 1)
    named = {"router.gate.weight": theirs.gate.weight, "router.correction": theirs.gate.e_score_correction_bias}
    stacks = zip(("gate", "up", "down"), (*both, theirs.experts.down_proj), strict=True)
    named |= {f"experts.{p}_proj.weight": w for p, w in stacks}
    named |= {f"shared.{p}_proj.weight": getattr(shared, f"{p}_proj").flatten(0, 1) for p in ("gate", "up")}
    named["shared.down_proj.weight"] = shared.down_proj.transpose(0, 1).flatten(1)
    ours.load_state_dict(named)
    x = normal(2, 9, D, seed=5)
    assert relative(ours(x), theirs(x)) <= 1e-5


def test_the_activation_that_learns():
    theirs, ours = XIELUActivation(dtype=torch.float32), XIELU()
    x, grads = 3 * normal(5, 7), []
    for module, names in ((theirs, ("alpha_p", "alpha_n")), (ours, ("positive", "negative"))):
        held = [getattr(module, name) for name in names]
        with torch.no_grad():
            for p, at in zip(held, (0.7, -0.3), strict=True):
                p.fill_(at)
        given = x.clone().requires_grad_()
        y = module(given)
        grads.append((y, *torch.autograd.grad((y * normal(5, 7, seed=1)).sum(), [given, *held])))
    for a, b in zip(*grads, strict=True):
        assert relative(b.detach(), a.detach()) <= 1e-6


def model(expert: MoE) -> Any:
    branch = Branch(op=expert, before=RMS)
    return lamina.build(
        Architecture(
            family="lamina", embedding=Embedding(vocab=97, width=D), blocks=(Block(branches=(branch,)),) * 2, context=40
        )
    )


def test_token_ids_choose(tmp_path):
    """By a table, which is saved and loaded with the weights."""
    ours = model(PLAIN.replace(router=ROUTER.replace(hashed=True)))
    randomise(ours)
    table = torch.rand(97, E, generator=torch.Generator().manual_seed(3)).argsort(-1)[:, :K].contiguous()
    for block in ours.blocks:
        block.feed_forward.op.router.by_token.copy_(table)
    seen = []
    ours.blocks[1].feed_forward.op.router.register_forward_hook(lambda m, i, out: seen.append(out.chosen))
    x = ids(2, 9)
    logits = ours(x)
    assert torch.equal(seen[0], table[x.flatten()])
    lamina.save(ours, tmp_path / "saved")
    again = lamina.load(tmp_path / "saved")
    assert torch.equal(again(x), logits)
    assert sum(p.numel() for p in again.parameters()) == ours.arch.parameters().total
    with pytest.raises(ValueError, match="chooses by token id"):
        ours.blocks[0].feed_forward.op(normal(1, 3, D))


def test_nothing_is_computed_for_an_expert_that_no_one_chose():
    """FLOPs as torch counts them are those of the choices, whatever the number of experts."""
    from torch.utils.flop_counter import FlopCounterMode

    for experts in (E, 60):
        value = PLAIN.replace(router=Router(experts=experts, active=K))
        module = made(value)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module(normal(1, 5, D))
        assert counter.get_total_flops() == value.flops(D, 5, 0)


def test_activations_by_expert_are_its_own():
    act = XIELU(3)
    with torch.no_grad():
        act.positive.copy_(torch.tensor([[0.1], [0.9], [2.0]]))
        act.negative.copy_(torch.tensor([[0.2], [-0.4], [1.0]]))
    x, of = normal(4, 5), torch.tensor([2, 0, 0, 1])
    for row, e in enumerate(of.tolist()):
        alone = XIELU()
        alone.load_state_dict({"positive": act.positive[e], "negative": act.negative[e]})
        torch.testing.assert_close(act(x, of)[row], alone(x[row]))
    assert F.softplus(XIELU.starts["positive"] + torch.zeros(())).item() == pytest.approx(0.8)
