"""What differs, in the field's words: known pairs, and that nothing that differs is left out."""

from __future__ import annotations

import itertools
import json

import pytest

import lamina
from lamina.arch.edit import edited
from lamina.report.differences import Change, described, folded, record, rendered


def said(left: str, right: str) -> dict[str, tuple[str, str]]:
    changes = described(lamina.architecture(left), lamina.architecture(right))
    return {change.aspect: (change.left, change.right) for change in changes}


def test_llama_3_and_olmo_2():
    changes = said("llama-3-8b", "olmo-2-7b")
    assert changes["norm"] == ("before each sublayer", "after each sublayer")
    assert changes["attention"] == ("GQA 32/8", "MHA 32")
    assert changes["QK-norm"][0] == "none"
    assert "over width" in changes["QK-norm"][1]
    assert changes["feed-forward"] == ("SwiGLU 14,336", "SwiGLU 11,008")
    assert "width" not in changes  # both 4,096


def test_grouped_to_latent_attention_is_one_line():
    changes = said("llama-3-8b", "deepseek-v3")
    left, right = changes["attention"]
    assert left.startswith("GQA 32/8")
    assert right.startswith("MLA, 128 heads, latent of 512 + rotary key of 64")
    assert changes["feed-forward"][1].startswith("3 x SwiGLU 18,432, 58 x MoE, 8 of 256 experts")
    assert not any(aspect.startswith("indexer") for aspect in changes)


def test_windows_are_folded():
    changes = said("gemma-3-27b", "gemma-2-27b")
    assert changes["window"] == ("5 x 1,024 : 1 x none", "1 x 4,096 : 1 x none")
    assert changes["soft-cap"] == ("none", "50")
    assert changes["head soft-cap"] == ("none", "30")


def test_experts_field_by_field():
    changes = said("deepseek-v3", "kimi-k2")
    assert changes["attention"] == ("MLA, 128 heads", "MLA, 64 heads")
    assert changes["MoE router experts"] == ("256", "384")
    assert changes["MoE router groups"] == ("8", "1")
    assert not any("bias" in aspect for aspect in changes)


def test_a_hybrid():
    changes = said("qwen3-32b", "qwen3-next-80b-a3b")
    assert changes["mixer"][1].startswith("3 x Gated DeltaNet, 32 heads")
    assert " : 1 x GQA 16/2" in changes["mixer"][1]


def test_side_by_side():
    assert said("phi-4", "tiny-aya-3.35b")["residual"][1] == "mixer and feed-forward side by side"


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        ("blocks[*].mixer.window=512", Change("window", "none", "512")),
        ("blocks[*].mixer.window=512@3:1", Change("window", "none", "3 x 512 : 1 x none")),
        ("blocks[5].mixer.window=512", Change("window", "none", "5 x none, 1 x 512, 22 x none")),
        ("blocks[*].mixer.rotary.base=7", Change("positions base", "1,000,000", "7")),
        ("blocks[*].mixer.rotary=none", Change("positions", "rotary base 1,000,000", "none")),
        ("blocks[*].mixer.bias=true", Change("bias of q, k, v", "no", "yes")),
        ("head.tied=false", Change("head tied", "yes", "no")),
        ("embedding.scale=3", Change("embedding scale", "1", "3")),
        ("context=17", Change("context", "40,960", "17")),
        ("norm.eps=0.5", Change("final norm eps", "1e-06", "0.5")),
        ("blocks[*].mixer.before=layer_norm@1:1", None),
        (
            "blocks[*].feed_forward=none@1:1",
            Change("blocks with feed-forward", "feed-forward", "1 x none : 1 x feed-forward"),
        ),
    ],
)
def test_one_edit_is_one_line(edit, expected):
    left = lamina.architecture("qwen3-0.6b")
    changes = described(left, edited(left, edit))
    if expected:
        assert changes == [expected]
    else:
        assert {"norm kind", "norm eps"} <= {change.aspect for change in changes}


@pytest.mark.parametrize("name", lamina.names())
def test_nothing_that_differs_is_left_out(name):
    """Every field of every op and branch that differs is in some line: else two unlike values would read alike."""
    left, right = lamina.architecture(name), lamina.architecture("llama-3-8b")
    assert described(left, left) == []
    changes = described(left, right)
    assert changes or left == right.replace(name=left.name)
    assert all(change.left != change.right for change in changes)
    for change in changes:
        text = " ".join(change)
        assert "kind=" not in text  # a repr of a value is no words
        assert "Span" not in text or "recursion" in change.aspect
        assert "\n" not in text
    assert json.loads(json.dumps(record(left, right)))["same"] is (left == right)


def test_unequal_values_never_read_alike():
    archs = [
        lamina.architecture(name) for name in ("llama-3-8b", "llama-3.1-8b", "qwen3-0.6b", "qwen3-4b", "gemma-2-27b")
    ]
    for left, right in itertools.permutations(archs, 2):
        there, back = described(left, right), described(right, left)
        assert there
        assert {c._replace(left=c.right, right=c.left) for c in back} == set(there)


def test_folding():
    assert folded(["a"] * 3) == "a"
    assert folded(["a", "b"] * 3) == "1 x a : 1 x b"
    assert folded(["a", "a", "b"] * 3 + ["a"]) == "2 x a : 1 x b"
    assert folded(["a", "b", "b"]) == "1 x a, 2 x b"
    assert folded(["b"] + ["a", "a", "c"] * 4) == "1 x b, 4 x (2 x a, 1 x c)"


def test_lines_for_people():
    lines = rendered(lamina.architecture("llama-3-8b"), lamina.architecture("olmo-2-7b"))
    assert lines[0] == "llama-3-8b -> olmo-2-7b: 8.03 B -> 7.3 B parameters"
    assert "norm:           before each sublayer -> after each sublayer" in lines
    same = lamina.architecture("llama-3-8b")
    assert rendered(same, same) == ["llama-3-8b and llama-3-8b are the same architecture"]
