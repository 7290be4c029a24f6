"""Routers and experts as a config.json writes them: one meaning under several keys."""

from __future__ import annotations

from typing import Any, Literal

from lamina.arch import GLU, Architecture, Clamp, MoE, Router
from lamina.errors import LaminaError
from lamina.published.common import Sizes
from lamina.published.config import Config, shown
from lamina.published.rules import Rule

EXPERTS = ("n_routed_experts", "num_experts", "num_local_experts")
ACTIVE = ("num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_topk", "top_k_experts")
SHARED = ("n_shared_experts", "num_shared_experts")
NORMALISE = ("norm_topk_prob", "moe_renormalize", "route_norm")
SCORE = ("scoring_func", "score_func", "moe_router_activation_func")
SCALE = ("routed_scaling_factor", "moe_routed_scaling_factor", "router_scaling_factor", "route_scale")
GROUPS = ("n_group", "num_expert_group")
TRAINING = (
    *("aux_loss_alpha", "seq_aux", "router_aux_loss_coef", "router_z_loss_coef", "router_jitter_noise"),
    *("output_router_logits", "ep_size", "moe_router_dtype", "load_balance_coeff"),
)
"""Keys about the router that change no output of the model."""

Score = Literal["softmax", "sigmoid", "sqrt_softplus"]
PUBLISHED_SCORES: dict[str, Score] = {
    "softmax": "softmax",
    "sigmoid": "sigmoid",
    "sqrtsoftplus": "sqrt_softplus",
}


def key_of(c: Config, *keys: str) -> str:
    """Which of several spellings of a key the config uses; the first if none.

    Raises: LaminaError if two of them say different things.
    """
    held = [key for key in keys if key in c]
    for key in held[1:]:
        if c.data[key] != c.data[held[0]]:
            raise LaminaError(
                f"{c.where}: {held[0]!r} is {shown(c.data[held[0]])} and {key!r} is {shown(c.data[key])}; "
                "they mean the same"
            )
    c.ignore("says the same as another key", *held[1:])
    return held[0] if held else keys[0]


def respelt(c: Config, usual: str, *others: str) -> None:
    """Puts what a config says under other spellings of a key under the usual one."""
    if (held := key_of(c, usual, *others)) != usual:
        c.data = {key: value for key, value in c.data.items() if key not in others} | {usual: c.data[held]}


def one_name(c: Config, aliases: dict[str, tuple[str, ...]]) -> None:
    """Writes what goes by several names under one.

    Raises: LaminaError if two of them say different things.
    """
    for name, others in aliases.items():
        if (key := key_of(c, name, *others)) != name:
            c.data = {name if k == key else k: value for k, value in c.data.items() if k != name}


def router(
    c: Config,
    experts: int | None = None,
    active: int | None = None,
    score: Score = "softmax",
    normalise: bool = True,
    scale: float = 1.0,
    groups: int = 1,
    active_groups: int = 1,
    other_scores: tuple[Score, ...] = (),
    **fields: Any,
) -> Router:
    """The router; the arguments are the family's values for keys that are absent (None: the key is needed).

    `other_scores` are those that a config of the family may ask for besides `score`; `fields` are facts of the
    family that no key says (correction, bias, group_best). A config that says otherwise raises.
    """
    c.ignore("training, or how the router is computed", *TRAINING)
    if fields.get("correction"):
        c.only("topk_method", "noaux_tc")
    known = {theirs: ours for theirs, ours in PUBLISHED_SCORES.items() if ours in (score, *other_scores)}
    said = c.choice(key_of(c, *SCORE), known, None)
    count = {"default": experts} if experts else {}
    chosen = {"default": active} if active else {}
    return Router(
        experts=c.count(key_of(c, *EXPERTS), most=1 << 16, **count),
        active=c.count(key_of(c, *ACTIVE), most=1 << 16, **chosen),
        score=known[said] if said else score,
        normalise=c.bool(key_of(c, *NORMALISE), normalise),
        scale=c.float(key_of(c, *SCALE), scale),
        groups=c.count(key_of(c, *GROUPS), groups, most=1 << 16),
        active_groups=c.count("topk_group", active_groups, most=1 << 16),
        **fields,
    )


def mixture(c: Config, s: Sizes, router: Router, inner: int | None = None, shared: int = 0, **fields: Any) -> MoE:
    """Routed GLUs of `moe_intermediate_size`, and shared ones drawn together into one of their widths' sum.

    `inner` and `shared` (how many) are the family's values for absent keys; `fields` are those of MoE, or `expert`,
    a GLU whose activation, bias or clamp are not the dense layers'.
    """
    each = c.count("moe_intermediate_size", **({"default": inner} if inner else {}))
    number = c.count(key_of(c, *SHARED), shared, least=0, most=1 << 10)
    expert: GLU = fields.pop("expert", s.glu()).replace(inner=each)
    return MoE(router=router, expert=expert, shared=expert.replace(inner=number * each) if number else None, **fields)


def layer_numbers(c: Config, key: str, default: list[int], layers: int) -> list[int]:
    """A list of layers by number.

    Raises: LaminaError for one that there is not
    """
    said = c.list(key, default)
    if any(type(i) is not int or not 0 <= i < layers for i in said):
        raise LaminaError(f"{c.where}: {key} is {shown(said)}; expected are numbers of layers, 0 to {layers - 1}")
    return said


def sparse_layers(c: Config, layers: int, dense: int = 0) -> list[bool]:
    """Which layers have experts: all but the first `dense` ones, where no key says otherwise.

    Raises: LaminaError if two keys say different things.
    """
    first_key = key_of(c, "first_k_dense_replace", "num_dense_layers")
    first = c.count(first_key, dense, least=0)
    step, only = c.count("decoder_sparse_step", 1), layer_numbers(c, "mlp_only_layers", [], layers)
    sparse = [i >= first and (i + 1) % step == 0 and i not in only for i in range(layers)]
    if isinstance(c.data.get("moe_layer_freq"), list):
        return _agreed(c, "moe_layer_freq", {0: False, 1: True}, sparse, first_key in c)
    c.only("moe_layer_freq", 1)
    if (listed := _listed(c)) is not None:
        sparse = [i in listed for i in range(layers)]
    if "mlp_layer_types" in c:
        return _agreed(c, "mlp_layer_types", {"dense": False, "sparse": True}, sparse, first_key in c)
    return sparse


def _listed(c: Config) -> set[int] | None:
    """The layers that `moe_layers_enum` counts up, in a list or a string of them between commas."""
    said = c.data.get("moe_layers_enum")
    numbers = c.str("moe_layers_enum").split(",") if isinstance(said, str) else c.list("moe_layers_enum", None)
    if any(not str(number).strip().isdecimal() for number in numbers or ()):
        raise LaminaError(f"{c.where}: moe_layers_enum is {shown(said)}; the numbers of layers are expected")
    return None if numbers is None else {int(number) for number in numbers}


def _agreed(c: Config, key: str, known: dict[Any, bool], other: list[bool], stated: bool) -> list[bool]:
    """What a list says of each layer; `other` is what other keys say, if they are `stated`."""
    listed = c.list(key)
    if len(listed) != len(other) or any(kind not in known for kind in listed):
        allowed = " or ".join(map(repr, known))
        raise LaminaError(f"{c.where}: {key} needs {len(other)} entries, each {allowed}")
    sparse = [known[kind] for kind in listed]
    if stated and sparse != other:
        raise LaminaError(f"{c.where}: {key} and first_k_dense_replace disagree on which layers are dense")
    return sparse


def limits(c: Config, key: str, layers: int, **fields: Any) -> list[Clamp | None]:
    """What a gate and its partner may not exceed, in each layer; 0 is no limit. `fields` are those of Clamp."""
    said = c.list(key, [None] * layers)
    if len(said) < layers or any(v is not None and not isinstance(v, int | float) for v in said):
        raise LaminaError(f"{c.where}: {key} needs {layers} numbers")
    return [Clamp(limit=v, **fields) if v else None for v in said[:layers]]


def limits_of(arch: Architecture) -> tuple[list[float], list[float]]:
    """The limits of each layer's routed experts, and of its shared or dense feed-forward; 0 is none."""
    fed = [next(op for op in block.ops() if isinstance(op, MoE | GLU)) for block in arch.blocks]
    routed = [op.expert if isinstance(op, MoE) else None for op in fed]
    other = [op.shared if isinstance(op, MoE) else op for op in fed]

    def limit(op: Any) -> float:
        return op.clamp.limit if isinstance(op, GLU) and op.clamp else 0.0

    return [limit(op) for op in routed], [limit(op) for op in other]


def router_keys(router: Router, experts: str, active: str = "num_experts_per_tok") -> dict[str, Any]:
    """What most families say of a router; `experts` and `active` are their spellings of the two counts."""
    return {
        experts: router.experts,
        active: router.active,
        "norm_topk_prob": router.normalise,
        "routed_scaling_factor": router.scale,
        "n_group": router.groups,
        "topk_group": router.active_groups,
    }


def moe_of(arch: Architecture) -> MoE:
    """The first mixture of experts."""
    return next(op for op in arch.ops() if isinstance(op, MoE))


def sparse_blocks(arch: Architecture) -> list[bool]:
    """Which blocks have experts."""
    return [any(isinstance(op, MoE) for op in block.ops()) for block in arch.blocks]


def layer_kinds(arch: Architecture) -> dict[str, Any]:
    """`mlp_layer_types`: which layers have experts."""
    return {"mlp_layer_types": ["sparse" if has else "dense" for has in sparse_blocks(arch)]}


def dense_of(arch: Architecture) -> GLU:
    """The feed-forward of the layers without experts; one expert where every layer has some."""
    expert = moe_of(arch).expert
    assert isinstance(expert, GLU)
    return next((op for op in arch.ops() if isinstance(op, GLU)), expert)


def shared_experts(moe: MoE) -> int:
    """How many experts of the routed ones' width the shared feed-forward is."""
    return moe.shared.inner // moe.expert.inner if moe.shared else 0


def joined_rules(theirs: str, ours: str, stacked: bool = False) -> tuple[Rule, ...]:
    """A feed-forward whose gate and up are one matrix."""
    both = (f"{ours}.{p}_proj.weight" for p in ("gate", "up"))
    down = Rule(f"{theirs}.output_linear.weight", f"{ours}.down_proj.weight", stacked=stacked)
    return Rule(f"{theirs}.input_linear.weight", *both, stacked=stacked), down
