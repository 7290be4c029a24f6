"""Choices and weights of routers, against the reference's own routers and a choice made by hand."""

from __future__ import annotations

import pytest
import torch
import transformers
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE
from transformers.models.inkling.modeling_inkling import InklingTopkRouter
from transformers.models.phimoe.modeling_phimoe import sparsemixer

import lamina
from lamina.arch import Router
from lamina.errors import LaminaError
from lamina.ops.routing import route, sparse_mixer
from tests.reference import relative

N, E = 23, 10


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def spread(chosen: torch.Tensor, weights: torch.Tensor, experts: int = E) -> torch.Tensor:
    """Weights by expert, whatever the order of the choices. Shapes: [N k] -> [N E]"""
    return torch.zeros(len(chosen), experts).scatter_add(-1, chosen, weights)


@pytest.mark.parametrize("jitter", [0.01, 0.1, 0.4])
def test_sparse_mixer_is_that_of_the_reference(jitter):
    ours, theirs = (2 * normal(N, E)).requires_grad_(), (2 * normal(N, E)).requires_grad_()
    chosen, weights = sparse_mixer(ours, Router(experts=E, active=2, sparse_mixer=jitter))
    expected, places = sparsemixer(theirs, jitter, training=False)
    assert torch.equal(chosen, places)
    assert relative(weights.detach(), expected.detach()) <= 1e-6
    target = normal(N, 2, seed=1)
    (weights * target).sum().backward()
    (expected * target).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert jitter == 0.01 or bool((weights < 0.999).any())


def test_groups_are_those_of_the_reference():
    config = transformers.DeepseekV3Config(
        hidden_size=8, n_routed_experts=12, num_experts_per_tok=4, n_group=4, topk_group=2, moe_intermediate_size=4
    )
    block = DeepseekV3MoE(config).eval()
    with torch.no_grad():
        block.gate.weight.copy_(normal(12, 8))
        block.gate.e_score_correction_bias.copy_(0.3 * normal(12, seed=1))
    x, fields = normal(N, 8, seed=2), {"score": "sigmoid", "correction": True, "scale": config.routed_scaling_factor}
    router = Router(experts=12, active=4, groups=4, active_groups=2, **fields)
    logits = x @ block.gate.weight.T
    found = route(logits.detach(), router, block.gate.e_score_correction_bias)
    places, weights = _of_reference(block, x)
    assert torch.equal(found.chosen.sort().values, places.sort().values)
    assert relative(spread(found.chosen, found.weights, 12), spread(places, weights, 12)) <= 1e-6
    alone = route(logits.detach(), router.replace(groups=1, active_groups=1), block.gate.e_score_correction_bias)
    assert not torch.equal(alone.chosen.sort().values, places.sort().values)


def _of_reference(block: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The choices and weights that the block's experts are given."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    block.experts.register_forward_pre_hook(lambda _, inputs: seen.append((inputs[1], inputs[2])))
    with torch.no_grad():
        block(x[None])
    return seen[0]


def test_shared_experts_compete_as_in_the_reference():
    config = transformers.InklingTextConfig(
        hidden_size=8, n_routed_experts=E, n_shared_experts=3, num_experts_per_tok=4, route_scale=1.7
    )
    gate = InklingTopkRouter(config)
    with torch.no_grad():
        gate.weight.copy_(normal(E + 3, 8))
        gate.e_score_correction_bias.copy_(normal(E, seed=1))
        gate.global_scale.fill_(1.0)
        x = normal(N, 8, seed=2)
        _, weights, places, shared = gate(x)
        router = Router(experts=E, active=4, score="sigmoid", correction=True, shared=3, scale=1.7)
        found = route(x @ gate.weight.T, router, gate.e_score_correction_bias)
    assert relative(spread(found.chosen, found.weights), spread(places, weights)) <= 1e-6
    assert found.shared is not None
    assert relative(found.shared, shared) <= 1e-6
    torch.testing.assert_close(found.weights.sum(-1) + found.shared.sum(-1), torch.full((N,), 1.7))


@pytest.mark.parametrize("score", ["softmax", "sigmoid", "sqrt_softplus"])
@pytest.mark.parametrize("normalise", [False, True])
def test_one_token_by_hand(score, normalise):
    """Capped and scaled logits; the choice sees a correction, the weights do not."""
    logits, moved = torch.tensor([[2.0, -1.0, 0.5, 1.0]]), torch.tensor([-9.0, 0.0, 9.0, 0.0])
    capped = 3.0 * torch.tanh(logits.double() * 0.7 / 3.0)[0]
    scores = {
        "softmax": capped.softmax(0),
        "sigmoid": 1 / (1 + (-capped).exp()),
        "sqrt_softplus": (1 + capped.exp()).log().sqrt(),
    }[score]
    expected = scores[[2, 3]] / (scores[2] + scores[3] if normalise else 1.0) * 1.5
    fields = {"softcap": 3.0, "logit_scale": 0.7, "correction": True, "normalise": normalise}
    found = route(logits, Router(experts=4, active=2, score=score, scale=1.5, **fields), moved)
    assert sorted(found.chosen[0].tolist()) == [2, 3]
    torch.testing.assert_close(spread(found.chosen, found.weights, 4)[0, [2, 3]].double(), expected)


def test_what_is_chosen_elsewhere_is_weighed_here():
    chosen = torch.tensor([[3, 1], [0, 2]])
    logits = normal(2, E)
    found = route(logits, Router(experts=E, active=2, score="sqrt_softplus", hashed=True), None, chosen)
    assert torch.equal(found.chosen, chosen)
    scores = torch.nn.functional.softplus(logits).sqrt().gather(-1, chosen)
    torch.testing.assert_close(found.weights, scores / scores.sum(-1, keepdim=True))


BAD = [
    ({"experts": 4, "active": 5}, "active (5) must not exceed experts (4)"),
    ({"experts": 9, "active": 2, "groups": 2}, "experts (9) must fall into groups (2) of one size"),
    ({"experts": 8, "active": 5, "groups": 2}, "active (5) must not exceed the experts of 1 groups"),
    ({"experts": 8, "active": 1, "groups": 8}, "group_best (2) must not exceed the experts of a group"),
    ({"experts": 8, "active": 1, "sparse_mixer": 0.1, "correction": True}, "sparse_mixer goes without correction"),
    ({"experts": 8, "active": 1, "hashed": True, "correction": True}, "hashed goes without correction and groups"),
]


@pytest.mark.parametrize(("fields", "said"), BAD, ids=[said[:20] for _, said in BAD])
def test_routers_that_make_no_sense(fields, said):
    with pytest.raises(LaminaError) as caught:
        Router(**fields)
    assert said in str(caught.value)


def test_a_config_that_takes_more_than_there_are():
    config = transformers.Qwen3MoeConfig(num_experts=4, num_experts_per_tok=6).to_dict()
    with pytest.raises(LaminaError, match=r"active \(6\) must not exceed experts \(4\)"):
        lamina.architecture(config | {"model_type": "qwen3_moe"})
