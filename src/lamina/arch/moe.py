"""Mixture of experts: a router chooses, for every token, a few of many feed-forwards."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from lamina.arch.base import Node
from lamina.arch.feedforward import GLU, MLP, FeedForward
from lamina.arch.measure import Shape, Work, linear, matrices, numbers, within
from lamina.arch.norm import Norm
from lamina.arch.router_mlp import RouterMLP


class Router(Node):
    """Scores of E experts for a token, of which the best `active` are chosen.

    Fields: `score` maps logits to scores; with `normalise` the chosen scores are made to sum to one (of softmax
    scores, that is a softmax over the chosen alone); then `scale` multiplies them; `correction` is a learned bias
    that the choice alone sees (balancing without a loss, arXiv 2408.15664); of the `groups` of experts, the
    `active_groups` whose `group_best` highest scores sum to most may be chosen from (arXiv 2405.04434, section
    2.2.2, with 1; arXiv 2412.19437 with 2); `bias` of the logits; `hashed` chooses by token id, and the scores
    only weigh; `sparse_mixer` (j) weighs the experts one by one, from the best, each by a softmax over those that
    are left and whose logit l is near the best left, b: (b - l) / max(b, |l|) <= 2 j (arXiv 2409.12136).
    `shared` further logits are of the shared experts, which all tokens use: their scores are normalised with the
    chosen ones', and weigh as many equal parts of the shared feed-forward (Inkling).
    `norm` is one of what the router alone reads, and `logit_scale` multiplies the logits; `mlp` takes the place of
    the matrix; `expert_scale` multiplies each expert's weight by a learned number, at last.
    Source: arXiv 1701.06538, 2101.03961.
    """

    experts: PositiveInt
    active: PositiveInt
    score: Literal["softmax", "sigmoid", "sqrt_softplus"] = "softmax"
    normalise: bool = True
    scale: PositiveFloat = 1.0
    correction: bool = False
    groups: PositiveInt = 1
    active_groups: PositiveInt = 1
    group_best: PositiveInt = 2
    bias: bool = False
    softcap: PositiveFloat | None = None
    hashed: bool = False
    norm: Norm | None = None
    logit_scale: PositiveFloat = 1.0
    mlp: RouterMLP | None = None
    expert_scale: bool = False
    sparse_mixer: PositiveFloat | None = None
    shared: NonNegativeInt = 0

    @model_validator(mode="after")
    def _consistent(self) -> Router:
        if self.active > self.experts:
            raise ValueError(f"active ({self.active}) must not exceed experts ({self.experts})")
        if self.experts % self.groups or self.active_groups > self.groups:
            raise ValueError(
                f"experts ({self.experts}) must fall into groups ({self.groups}) of one size, "
                f"of which active_groups ({self.active_groups}) are used"
            )
        if self.active > self.experts // self.groups * self.active_groups:
            raise ValueError(f"active ({self.active}) must not exceed the experts of {self.active_groups} groups")
        if self.groups > 1 and self.group_best > self.experts // self.groups:
            raise ValueError(f"group_best ({self.group_best}) must not exceed the experts of a group")
        if self.mlp and (self.bias or self.shared):
            raise ValueError("a router with an mlp has no bias, and no logits of shared experts")
        if self.sparse_mixer and (self.correction or self.hashed or self.shared or self.groups > 1):
            raise ValueError("sparse_mixer goes without correction, hashed, shared and groups")
        if self.hashed and (self.correction or self.groups > 1):
            raise ValueError("hashed goes without correction and groups: nothing is chosen by its score")
        return self

    def weights(self, width: int) -> dict[str, Shape]:
        e = self.experts
        named = linear("gate", e + self.shared, width, self.bias)
        named = within("mlp", self.mlp.weights(width, e)) if self.mlp else named
        named |= {"correction": (e,)} if self.correction else {}
        named |= {"expert_scale": (e,)} if self.expert_scale else {}
        return named | (within("norm", self.norm.weights(width)) if self.norm else {})


class MoE(FeedForward):
    """A sum over the experts that the router chose, and over those that every token shares.

    Fields: `expert` is one of the routed experts; `shared` sees every token, behind a learned sigmoid if
    `shared_gate`; `latent` is the width that the routed experts work at, between two projections,
    and `latent_norm` a norm of their sum before the second;
    `expert_norm` is a norm of what the routed experts read and the router does not (Gemma 4), `given_norm` one of
    what each of them gives; `scale` multiplies the sum of routed and shared ones;
    `identities` are further choices of the router that cost nothing and return x (LongCat-Flash), or give nothing
    (ZAYA1), which `identities_give` says;
    `scaled` says where the router's weight goes: on what an expert gives, or on what it reads (Llama 4).
    Source: arXiv 2401.06066 (shared experts), 2509.01322 (identities), 2512.20856 (latent).
    """

    kind: Literal["moe"] = "moe"
    router: Router
    expert: GLU | MLP
    shared: GLU | MLP | None = None
    shared_gate: bool = False
    latent: PositiveInt | None = None
    latent_norm: Norm | None = None
    expert_norm: Norm | None = None
    identities: NonNegativeInt = 0
    identities_give: Literal["input", "nothing"] = "input"
    scaled: Literal["output", "input"] = "output"
    given_norm: Norm | None = None
    scale: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _consistent(self) -> MoE:
        if self.shared_gate and self.shared is None:
            raise ValueError("shared_gate needs a shared expert")
        if self.router.shared and (self.shared is None or self.shared.inner % self.router.shared):
            raise ValueError(f"router.shared ({self.router.shared}) must divide the inner width of shared")
        if self.latent_norm and self.latent is None:
            raise ValueError("latent_norm needs a latent width")
        if self.identities >= self.router.experts:
            raise ValueError(f"identities ({self.identities}) are among the {self.router.experts} that are routed to")
        return self

    @property
    def computing(self) -> int:
        """How many routed experts have weights."""
        return self.router.experts - self.identities

    def weights(self, width: int) -> dict[str, Shape]:
        return self._every_token(width) | {
            f"experts.{name}": (self.computing, *shape)
            for name, shape in self.expert.weights(self.latent or width).items()
        }

    def _every_token(self, width: int) -> dict[str, Shape]:
        """The weights that all tokens use."""
        used = within("router", self.router.weights(width))
        if self.shared:
            used |= within("shared", self.shared.weights(width))
        if self.shared_gate:
            used |= linear("shared_gate", 1, width)
        if self.latent:
            used |= linear("latent_down", self.latent, width) | linear("latent_up", width, self.latent)
        if self.latent and self.latent_norm:
            used |= within("latent_norm", self.latent_norm.weights(self.latent))
        if self.expert_norm:
            used |= within("expert_norm", self.expert_norm.weights(self.latent or width))
        if self.given_norm:
            used |= within("given_norm", self.given_norm.weights(self.latent or width))
        return used

    def one_expert(self, width: int) -> int:
        """Parameters of one routed expert."""
        return numbers(self.expert.weights(self.latent or width).values())

    @property
    def used(self) -> float:
        """Routed experts with weights that a token uses; choices fall on identities as often as on others."""
        return self.router.active * self.computing / self.router.experts

    def unused(self, width: int) -> int:
        return round((self.computing - self.used) * self.one_expert(width))

    def work(self, width: int, memory: int = 0, decoding: bool = False) -> Work:
        routed = 2 * matrices(self.expert.weights(self.latent or width))
        return Work(2 * matrices(self._every_token(width)) + round(self.used * routed))

    def saved(self, width: int) -> int:
        shared = self.shared.saved(width) if self.shared else width
        latent = 2 * self.latent if self.latent else 0
        routed = self.expert.saved(self.latent or width) + (self.latent or width)  # and what it gives, to be weighed
        return shared + latent + self.router.experts + round(self.used * routed)
