"""Tensor names of a published layout and ours, as reversible rules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, NamedTuple

from lamina.published.config import LATER

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = r"(?P<suffix>\.weight|\.bias|)"


class Entry(NamedTuple):
    """What a checkpoint holds of some parameters: one tensor, or one for each expert (`each_expert`).

    Several `ours` lie in the rows of a tensor, one after the other, or row by row in turn if `interleaved`. `stacked`
    says that ours have a first dimension of experts; a tensor has it too, unless it is of one. `ones` are the places
    of dimensions of one that a published tensor has and ours have not. With `turns` the parts come in so many turns, an
    equal share of each in every one; `folded` is how many equal shares of our rows are a dimension of their own, or of
    our columns where it is negative. `without` is the place of a dimension of one that ours have and a published tensor
    has not. With `rows`, it holds those of one of ours alone, from the first number to before the second. Where a
    checkpoint may cut the rows into several tensors, `shards` is their name, {shard} standing for the number of each.
    One that is `padded` may have zeros behind our rows.
    """

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    transpose: bool
    stacked: bool
    interleaved: bool
    each_expert: bool
    ones: tuple[int, ...] = ()
    turns: int = 0
    folded: int = 0
    without: int | None = None
    rows: tuple[int, int] | None = None
    shards: str = ""
    padded: bool = False

    def fits(self, found: Sequence[int], needed: Sequence[int]) -> bool:
        """Whether a published tensor of one shape holds what needs another."""
        longer = self.padded and len(found) == len(needed) and found[0] > needed[0] and found[1:] == needed[1:]
        return longer or found == needed

    def shape(self, ours: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
        """The shape of each published tensor, from those of the parameters."""
        parts = [tuple(ours[name]) for name in self.ours]
        parts = [(self.rows[1] - self.rows[0], *parts[0][1:])] if self.rows else parts
        rows = int(self.stacked)
        whole = (*parts[0][:rows], sum(part[rows] for part in parts), *parts[0][rows + 1 :])
        whole = whole[1:] if self.each_expert else whole
        whole = whole if self.without is None else (*whole[: self.without], *whole[self.without + 1 :])
        whole = (*whole[:-2], whole[-1], whole[-2]) if self.transpose else whole
        if self.folded > 0:
            whole = (self.folded, whole[0] // self.folded, *whole[1:])
        elif self.folded < 0:
            whole = (-self.folded, *whole[:-1], whole[-1] // -self.folded)
        for place in self.ones:
            whole = (*whole[:place], 1, *whole[place:])
        return whole

    @property
    def in_order(self) -> bool:
        """Whether several parts lie one after the other."""
        return not (self.stacked or self.interleaved or self.turns)

    def held(self, ours: Tensor) -> Tensor:
        """The rows of a parameter that it holds: a view."""
        return ours[slice(*self.rows)] if self.rows else ours

    def published(self, ours: Tensor) -> Tensor:
        """What is ours, laid out as it is published: a view."""
        ours = ours if self.without is None else ours.squeeze(self.without)
        ours = ours.mT if self.transpose else ours
        if self.folded > 0:
            ours = ours.unflatten(0, (self.folded, -1))
        elif self.folded < 0:
            ours = ours.unflatten(-1, (-self.folded, -1)).movedim(-2, 0)
        for place in self.ones:
            ours = ours.unsqueeze(place)
        return ours

    def split(self, whole: Tensor, sizes: Sequence[int]) -> Sequence[Tensor]:
        """The parts of ours in a published tensor (or in one expert's), of so many rows each."""
        for place in reversed(self.ones):
            whole = whole.squeeze(place)
        if self.folded:
            whole = whole.flatten(0, 1) if self.folded > 0 else whole.movedim(0, -2).flatten(-2)
        whole = whole.mT if self.transpose else whole
        whole = whole if self.without is None else whole.unsqueeze(self.without)
        rows = int(self.stacked and not self.each_expert)
        if len(sizes) == 1:
            return (whole,)
        if self.turns:
            shares = whole.unflatten(rows, (self.turns, -1)).split([size // self.turns for size in sizes], rows + 1)
            return [share.flatten(rows, rows + 1) for share in shares]
        if self.interleaved:
            return [whole.unflatten(rows, (-1, len(sizes))).select(rows + 1, i) for i in range(len(sizes))]
        return whole.split(list(sizes), rows)

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """The inverse of `split`."""
        import torch

        rows = int(self.stacked and not self.each_expert)
        if len(parts) == 1:
            whole = parts[0]
        elif self.turns:
            shares = [part.unflatten(rows, (self.turns, -1)) for part in parts]
            whole = torch.cat(shares, rows + 1).flatten(rows, rows + 1)
        elif self.interleaved:
            whole = torch.stack(list(parts), rows + 1).flatten(rows, rows + 1)
        else:
            whole = torch.cat(list(parts), rows)
        return self.published(whole).contiguous()


@dataclass(frozen=True)
class Rule:
    """One published tensor (or module) and the parameter or parameters of ours that it holds.

    `{i}` stands for the number of a block, `{any}` for a whole name, `{e}` for the number of an expert: ours then
    have a first dimension of experts. A name may stop before `.weight` and `.bias`, and then covers both. Several of
    ours lie one after the other in the rows of the published tensor (a fused projection), or in turn if
    `interleaved`; in a tensor that is `stacked`, within each expert. `transpose` says that the published matrix is
    stored [in, out], `ones` that it has dimensions of one at these places. Several of ours may also come in `turns`,
    such as heads, each with its share of every one; with `folded`, our rows (our columns, if it is negative) are
    published as so many of as many; `without` is the place of a dimension of one that is ours alone. One of ours is
    published as several tensors, one after the other in its rows, where `theirs` has a `{part}`: `parts` holds what
    stands for it in each, and the name of a parameter of ours that has as many rows. A `{shard}` says that a
    checkpoint may cut the rows into as many tensors as it likes, counted from zero; one is written.
    `blocks` limits the rule to those blocks of ours; those of a range the layout counts from zero.
    """

    theirs: str
    ours: tuple[str, ...]
    transpose: bool
    blocks: range | frozenset[int] | None
    stacked: bool
    interleaved: bool
    ones: tuple[int, ...]
    turns: int
    folded: int
    without: int | None
    parts: Mapping[str, str] | None
    zeros: bool

    def __init__(
        self,
        theirs: str,
        *ours: str,
        transpose: bool = False,
        blocks: range | frozenset[int] | None = None,
        stacked: bool = False,
        interleaved: bool = False,
        ones: tuple[int, ...] = (),
        turns: int = 0,
        folded: int = 0,
        without: int | None = None,
        parts: Mapping[str, str] | None = None,
    ) -> None:
        fields = {"theirs": theirs, "ours": ours, "transpose": transpose, "blocks": blocks, "ones": ones}
        fields |= {"turns": turns, "folded": folded, "without": without, "parts": parts, "zeros": False}
        for name, value in (fields | {"stacked": stacked or "{e}" in theirs, "interleaved": interleaved}).items():
            object.__setattr__(self, name, value)

    def within(self, theirs: str, ours: str) -> Rule:
        """The same rule with these names before its own."""
        made = copy(self)
        object.__setattr__(made, "theirs", theirs + self.theirs)
        object.__setattr__(made, "ours", tuple(ours + name for name in self.ours))
        if self.parts:
            object.__setattr__(made, "parts", {part: ours + name for part, name in self.parts.items()})
        return made

    def padded(self) -> Rule:
        """The same rule of a tensor that may hold more rows than ours, of zeros; they are not written."""
        made = copy(self)
        object.__setattr__(made, "zeros", True)
        return made

    def limited(self, blocks: Iterable[int]) -> Rule:
        """The same rule for these blocks of ours alone."""
        made = copy(self)
        object.__setattr__(made, "blocks", frozenset(blocks))
        return made

    def entries(self, match: re.Match[str], parameters: Mapping[str, Sequence[int]]) -> list[Entry]:
        """The tensors that hold a parameter of ours whose name matched; none if it is of another block.

        Raises: KeyError if several of them have other rows together than the parameter has.
        """
        shape = parameters[match.string]
        entry = self._entry(match, shape[0] if shape else 0)
        if entry is None or not self.parts:
            return [entry] if entry else []
        index = match.groupdict().get("i") or ""
        sizes = [parameters[f"{name.replace('{i}', index)}.weight"][0] for name in self.parts.values()]
        ends = [0, *accumulate(sizes)]
        if ends[-1] != shape[0]:
            raise KeyError(f"the rule of {self.theirs} covers {ends[-1]} of the {shape[0]} rows of {match.string}")
        return [
            entry._replace(theirs=(entry.theirs[0].replace("{part}", part),), rows=rows)
            for part, rows in zip(self.parts, pairwise(ends), strict=True)
        ]

    def _entry(self, match: re.Match[str], experts: int) -> Entry | None:
        index, suffix = match.groupdict().get("i"), match["suffix"]
        if self.blocks is not None and int(index or 0) not in self.blocks:
            return None
        whole = match.groupdict().get("any") or ""
        counted = str(int(index or 0) - (self.blocks.start if isinstance(self.blocks, range) else 0))
        theirs = self.theirs.replace("{i}", counted).replace("{any}", whole) + suffix
        each = tuple(theirs.replace("{e}", str(e)) for e in range(experts)) if "{e}" in theirs else (theirs,)
        ours = tuple(name.replace("{i}", index or "").replace("{any}", whole) + suffix for name in self.ours)
        turned = self.transpose and suffix != ".bias"
        shape = self.ones, self.turns, self.folded, self.without
        shards = theirs if "{shard}" in theirs else ""
        each = tuple(name.replace("{shard}", "0") for name in each)
        entry = Entry(each, ours, turned, self.stacked, self.interleaved, "{e}" in theirs, *shape, shards=shards)
        return entry._replace(padded=self.zeros)


@dataclass(frozen=True)
class Layout:
    """How a family names its tensors.

    `spellings` are other ways in which checkpoints begin the same names, as (usual beginning, other beginning):
    ("", "language_model.") for the text part of a multimodal one. `skip` lists patterns of tensors that are
    not part of the architecture, each with the reason. `constants` are numbers that every checkpoint holds, in each
    block if a name has {i}; they are the same everywhere, which loading checks. Several are whole ones. `blanks` are
    shapes of tensors that the reference has and nothing reads: they are skipped, and written as zeros. `others` are
    rules of checkpoints that hold the same in other tensors; they are read, and not written.
    """

    rules: tuple[Rule, ...]
    spellings: tuple[tuple[str, str], ...] = (("model.", ""),)
    skip: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, float | tuple[int, ...]] = field(default_factory=dict)
    blanks: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    others: tuple[tuple[Rule, ...], ...] = ()

    def constant(self, name: str) -> float | tuple[int, ...] | None:
        """What a tensor of this name holds in every checkpoint, if it is such a one."""
        patterns = [(re.escape(key).replace(r"\{i\}", r"\d+"), number) for key, number in self.constants.items()]
        names = [name, *(old + name[len(new) :] for old, new in self.spellings if name.startswith(new))]
        return next((number for pattern, number in patterns for n in names if re.fullmatch(pattern, n)), None)

    def reason_to_skip(self, name: str) -> str | None:
        return next((reason for pattern, reason in self.skip.items() if re.fullmatch(pattern, name)), None)


def _pattern(ours: str) -> re.Pattern[str]:
    pattern = re.escape(ours).replace(r"\{i\}", r"(?P<i>\d+)").replace(r"\{any\}", r"(?P<any>.+?)")
    return re.compile(pattern + SUFFIX)


def entries(rules: Iterable[Rule], parameters: Mapping[str, Sequence[int]]) -> list[Entry]:
    """Which published tensor holds which of our `parameters` (shapes by name), in their order.

    Raises: KeyError if the rules do not cover a parameter, which is a fault of the family and not of a file.
    """
    compiled = [(rule, _pattern(rule.ours[0])) for rule in rules]
    found: list[Entry] = []
    covered: set[str] = set()
    for name in parameters:
        for rule, pattern in compiled:
            if (match := pattern.fullmatch(name)) and (those := rule.entries(match, parameters)):
                found += those
                covered.update(those[0].ours)
                break
    if missing := [name for name in parameters if name not in covered]:
        raise KeyError(f"no rule covers the parameter {missing[0]}")
    return found


def decoder_rules(
    block: Iterable[Rule], root: str = "model.", stem: str = "layers.{i}.", norm: str = "norm"
) -> tuple[Rule, ...]:
    """The rules of a decoder in the common Llama dialect, around those of one block; `norm` is the last one's name."""
    inside = (rule.within(root + stem, "blocks.{i}.") for rule in block)
    return (
        Rule(root + "embed_tokens.weight", "embedding.table"),
        *inside,
        Rule(root + norm, "norm"),
        Rule("lm_head", "head"),
    )


def named(theirs: str, ours: str, names: str) -> tuple[Rule, ...]:
    """Rules of tensors at one place: what follows the beginning, `theirs:ours` where the two differ."""
    pairs = (name.split(":") for name in names.split())
    return tuple(Rule(theirs + pair[0], ours + pair[-1]) for pair in pairs)


ATTENTION = tuple(Rule(f"self_attn.{p}_proj", f"mixer.op.{p}_proj") for p in "qkvo")
QK_NORMS = (Rule("self_attn.q_norm", "mixer.op.q_norm"), Rule("self_attn.k_norm", "mixer.op.k_norm"))
GLU = tuple(Rule(f"mlp.{p}_proj", f"feed_forward.op.{p}_proj") for p in ("gate", "up", "down"))
EXPERTS = tuple(
    Rule(f"mlp.experts.{{e}}.{p}_proj", f"feed_forward.op.experts.{p}_proj") for p in ("gate", "up", "down")
)
ROUTER = (Rule("mlp.gate", "feed_forward.op.router.gate"),)
BLOCK_SPARSE = (
    Rule("block_sparse_moe.gate", "feed_forward.op.router.gate"),
    Rule("block_sparse_moe.e_score_correction_bias", "feed_forward.op.router.correction"),
    *(
        Rule(f"block_sparse_moe.experts.{{e}}.{w}", f"feed_forward.op.experts.{p}_proj")
        for w, p in (("w1", "gate"), ("w3", "up"), ("w2", "down"))
    ),
)
"""Router and experts as Mixtral names them."""
CORRECTION = (Rule("mlp.gate.e_score_correction_bias", "feed_forward.op.router.correction"),)


def shared_rules(theirs: str) -> tuple[Rule, ...]:
    """The tensors of what all tokens use beside experts, by where they stand."""
    return tuple(Rule(f"{theirs}.{p}_proj", f"feed_forward.op.shared.{p}_proj") for p in ("gate", "up", "down"))


SHARED = shared_rules("mlp.shared_experts")
PRE_NORMS = (Rule("input_layernorm", "mixer.before"), Rule("post_attention_layernorm", "feed_forward.before"))
AFTER_NORMS = (
    Rule("post_attention_layernorm", "mixer.after"),
    Rule("post_feedforward_layernorm", "feed_forward.after"),
)
SANDWICH_NORMS = (
    Rule("input_layernorm", "mixer.before"),
    Rule("post_attention_layernorm", "mixer.after"),
    Rule("pre_feedforward_layernorm", "feed_forward.before"),
    Rule("post_feedforward_layernorm", "feed_forward.after"),
)

MULTIMODAL = (("", "language_model."), ("model.", "model.language_model."), ("model.", ""))
"""How multimodal checkpoints, old and new, begin the names of their text decoder; and a decoder saved without head."""

VISION = {
    r"(model\.)?(vision_tower|multi_modal_projector|vision_model)\..*": "the image encoder is not part of this model"
}
"""The tensors of a multimodal checkpoint that its text decoder does not have."""


def later_layers(blocks: int) -> dict[str, str]:
    """The tensors of layers right behind the last block, which predict later tokens."""
    later = "|".join(str(blocks + i) for i in range(8))
    return {rf"(.*\.)?layers\.({later})\..*": LATER}


COMPUTED = {r".*rotary_emb\.inv_freq": "follows from the config"}
"""Tensors that old checkpoints hold and no one needs."""
