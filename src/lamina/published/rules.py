"""Tensor names of a published layout and ours, as reversible rules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

SUFFIX = r"(?P<suffix>\.weight|\.bias|)"


class Entry(NamedTuple):
    """One tensor of a checkpoint and the parameters it fills."""

    theirs: str
    ours: tuple[str, ...]
    transpose: bool


@dataclass(frozen=True)
class Rule:
    """One published tensor (or module) and the parameter or parameters of ours that it holds.

    `{i}` stands for the number of a block, `{any}` for a whole name. A name may stop before `.weight` and
    `.bias`, and then covers both. Several of ours lie one after the other in the rows of the published tensor
    (a fused projection); `transpose` says that the published matrix is stored [in, out]. `blocks` limits the rule
    to those blocks of ours, which the layout counts from zero.
    """

    theirs: str
    ours: tuple[str, ...]
    transpose: bool
    blocks: range | None

    def __init__(self, theirs: str, *ours: str, transpose: bool = False, blocks: range | None = None) -> None:
        for name, value in (("theirs", theirs), ("ours", ours), ("transpose", transpose), ("blocks", blocks)):
            object.__setattr__(self, name, value)

    def entry(self, match: re.Match[str]) -> Entry | None:
        """The tensor that holds a parameter of ours whose name matched, unless it is of another block."""
        index, suffix = match.groupdict().get("i"), match["suffix"]
        if self.blocks is not None and int(index or 0) not in self.blocks:
            return None
        whole = match.groupdict().get("any") or ""
        counted = str(int(index or 0) - (self.blocks.start if self.blocks else 0))
        theirs = self.theirs.replace("{i}", counted).replace("{any}", whole) + suffix
        ours = tuple(name.replace("{i}", index or "").replace("{any}", whole) + suffix for name in self.ours)
        return Entry(theirs, ours, self.transpose and suffix == ".weight")


@dataclass(frozen=True)
class Layout:
    """How a family names its tensors.

    `spellings` are other ways in which checkpoints begin the same names, as (usual beginning, other beginning):
    ("", "language_model.") for the text part of a multimodal one. `skip` lists patterns of tensors that are
    not part of the architecture, each with the reason.
    """

    rules: tuple[Rule, ...]
    spellings: tuple[tuple[str, str], ...] = (("model.", ""),)
    skip: Mapping[str, str] = field(default_factory=dict)

    def reason_to_skip(self, name: str) -> str | None:
        return next((reason for pattern, reason in self.skip.items() if re.fullmatch(pattern, name)), None)


def _pattern(ours: str) -> re.Pattern[str]:
    pattern = re.escape(ours).replace(r"\{i\}", r"(?P<i>\d+)").replace(r"\{any\}", r"(?P<any>.+?)")
    return re.compile(pattern + SUFFIX)


def entries(rules: Iterable[Rule], parameters: Iterable[str]) -> list[Entry]:
    """Which published tensor holds which of our `parameters`, in the order of the parameters.

    Raises: KeyError if the rules do not cover a parameter, which is a fault of the family and not of a file.
    """
    compiled = [(rule, _pattern(rule.ours[0])) for rule in rules]
    parameters = list(parameters)
    found: list[Entry] = []
    covered: set[str] = set()
    for name in parameters:
        for rule, pattern in compiled:
            if (match := pattern.fullmatch(name)) and (entry := rule.entry(match)):
                found.append(entry)
                covered.update(entry.ours)
                break
    if missing := [name for name in parameters if name not in covered]:
        raise KeyError(f"no rule covers the parameter {missing[0]}")
    return found


def decoder_rules(block: Iterable[Rule], root: str = "model.", stem: str = "layers.{i}.") -> tuple[Rule, ...]:
    """The rules of a decoder in the common Llama dialect, around those of one block."""
    inside = (
        Rule(root + stem + rule.theirs, *("blocks.{i}." + o for o in rule.ours), transpose=rule.transpose)
        for rule in block
    )
    return (
        Rule(root + "embed_tokens.weight", "embedding.table"),
        *inside,
        Rule(root + "norm", "norm"),
        Rule("lm_head", "head"),
    )


ATTENTION = tuple(Rule(f"self_attn.{p}_proj", f"mixer.op.{p}_proj") for p in "qkvo")
QK_NORMS = (Rule("self_attn.q_norm", "mixer.op.q_norm"), Rule("self_attn.k_norm", "mixer.op.k_norm"))
GLU = tuple(Rule(f"mlp.{p}_proj", f"feed_forward.op.{p}_proj") for p in ("gate", "up", "down"))
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

COMPUTED = {r".*rotary_emb\.inv_freq": "follows from the config"}
"""Tensors that old checkpoints hold and no one needs."""
