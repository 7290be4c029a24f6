"""Hyper-connections as a config.json and a checkpoint have them."""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, HyperConnections, RMSNorm
from lamina.published.config import Config
from lamina.published.rules import Rule

_ENDS = {"fn": "mix.weight", "base": "mix.bias", "scale": "scale"}


def hyper_connections(c: Config, eps: float, mixed: bool = True, **fields: Any) -> HyperConnections:
    """The streams; `eps` is that of the norm, and `mixed` says that streams are. `fields` are facts of the family."""
    return HyperConnections(
        count=c.count("hc_mult", 4, most=64),
        iterations=c.count("hc_sinkhorn_iters", 20, most=1000) if mixed else 0,
        eps=c.float("hc_eps", 1e-6),
        norm=RMSNorm(eps=eps, weight=False),
        **fields,
    )


def hyper_keys(arch: Architecture) -> dict[str, Any]:
    """The inverse of `hyper_connections`."""
    stream = arch.stream
    assert isinstance(stream, HyperConnections)
    times = {"hc_sinkhorn_iters": stream.iterations} if stream.iterations else {}
    return {"hc_mult": stream.count, "hc_eps": stream.eps} | times


def around_branches(mixer: str, feed_forward: str) -> tuple[Rule, ...]:
    """The tensors of connections around the two branches of a block, by how their names begin."""
    places = {mixer: "mixer.stream.", feed_forward: "feed_forward.stream."}
    return tuple(Rule(theirs + end, ours + name) for theirs, ours in places.items() for end, name in _ENDS.items())


def at_the_end(theirs: str) -> tuple[Rule, ...]:
    """The tensors of what joins the streams."""
    return tuple(Rule(theirs + end, f"joining.{name}") for end, name in _ENDS.items())
