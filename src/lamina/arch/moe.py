"""Mixture of experts: a router chooses, for every token, a few of many feed-forwards."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from lamina.arch.base import Node
from lamina.arch.feedforward import GLU, MLP, FeedForward
from lamina.arch.measure import Shape, Work, linear, matrices, numbers, within


class Router(Node):
    """Scores of E experts for a token, of which the best `active` are chosen.

    Fields: `score` maps logits to scores; `normalise` says whether the chosen scores are made to sum to one
    (softmax scores taken "before" the choice, or over the chosen alone: "after"); `scale` multiplies them;
    `correction` is a learned bias that the choice alone sees (balancing without a loss, arXiv 2408.15664);
    `groups` of experts, of which `active_groups` may be chosen from (arXiv 2405.04434); `bias` of the logits;
    `hashed` chooses by token id, and the scores only weigh.
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
    bias: bool = False
    softcap: PositiveFloat | None = None
    hashed: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Router:
        if self.active > self.experts:
            raise ValueError(f"active ({self.active}) must not exceed experts ({self.experts})")
        if self.experts % self.groups or self.active_groups > self.groups:
            raise ValueError(
                f"experts ({self.experts}) must fall into groups ({self.groups}) of one size, "
                f"of which active_groups ({self.active_groups}) are used"
            )
        return self

    def weights(self, width: int) -> dict[str, Shape]:
        correction = {"correction": (self.experts,)} if self.correction else {}
        return linear("gate", self.experts, width, self.bias) | correction


class MoE(FeedForward):
    """A sum over the experts that the router chose, and over those that every token shares.

    Fields: `expert` is one of the routed experts; `shared` sees every token, behind a learned sigmoid if
    `shared_gate`; `latent` is the width that the routed experts work at, between two projections;
    `identities` are further choices of the router that cost nothing and return x (LongCat-Flash);
    `scaled` says where the router's weight goes: on what an expert gives, or on what it reads (Llama 4).
    Source: arXiv 2401.06066 (shared experts), 2509.01322 (identities), 2512.20856 (latent).
    """

    kind: Literal["moe"] = "moe"
    router: Router
    expert: GLU | MLP
    shared: GLU | MLP | None = None
    shared_gate: bool = False
    latent: PositiveInt | None = None
    identities: NonNegativeInt = 0
    scaled: Literal["output", "input"] = "output"

    @model_validator(mode="after")
    def _consistent(self) -> MoE:
        if self.shared_gate and self.shared is None:
            raise ValueError("shared_gate needs a shared expert")
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
