"""Edits by path: what is changed, what stays, and what is said of paths that lead nowhere."""

from __future__ import annotations

import pytest

import lamina
from lamina.arch import (
    GLU,
    Attention,
    GatedDeltaNet,
    KimiDeltaAttention,
    LatentAttention,
    LayerNorm,
    Mamba2,
    MoE,
    Parallel,
    RMSNorm,
)
from lamina.arch.diff import differences
from lamina.arch.edit import edited, replaced
from lamina.arch.paths import chosen, runs, steps
from lamina.arch.swap import KINDS
from lamina.errors import LaminaError

QWEN = lamina.architecture("qwen3-0.6b")
PARALLEL = lamina.architecture("tiny-aya-3.35b")


def mixers(arch):
    return [
        next(branch.op for name, branch in block.named_branches().items() if name == "mixer") for block in arch.blocks
    ]


def test_a_part_in_the_place_of_others():
    new = GatedDeltaNet(key_heads=3, value_heads=6, key_dim=5, value_dim=7)
    arch = QWEN.replace("blocks[*].mixer", new)
    assert all(mixer == new for mixer in mixers(arch))
    assert [b.named_branches()["mixer"].before for b in arch.blocks] == [
        b.named_branches()["mixer"].before for b in QWEN.blocks
    ]
    assert [b.branches[1] for b in arch.blocks] == [b.branches[1] for b in QWEN.blocks]
    assert len({id(block) for block in arch.blocks}) == 1  # equal blocks stay one object


def test_a_function_of_the_old_part():
    arch = QWEN.replace("blocks[0-3,27].mixer.window", lambda old: 128 if old is None else old)
    windows = [mixer.window for mixer in mixers(arch)]
    assert [i for i, window in enumerate(windows) if window] == [0, 1, 2, 3, 27]
    assert {path for path, _, _ in differences(QWEN, arch)} == {f"blocks[{i}].mixer.window" for i in (0, 1, 2, 3, 27)}


def test_fields_of_branch_and_op_stand_at_one_level():
    arch = QWEN.replace("blocks[1].mixer.before", LayerNorm())
    assert arch.blocks[1].branches[0].before == LayerNorm()
    arch = arch.replace("blocks[1].feed_forward.inner", 77).replace("blocks[1].mixer.multiplier", 0.5)
    assert arch.blocks[1].branches[1].op == GLU(inner=77)
    assert arch.blocks[1].branches[0].multiplier == 0.5
    assert arch.blocks[0] == QWEN.blocks[0]


def test_parts_of_a_parallel_op():
    arch = PARALLEL.replace("blocks[0].parallel.mixer.softcap", 30.0)
    op = arch.blocks[0].branches[0].op
    assert isinstance(op, Parallel)
    assert op.named_ops()["mixer"].softcap == 30.0
    alone = PARALLEL.replace("blocks[*].parallel.feed_forward", None)
    assert all(isinstance(block.branches[0].op, Attention) for block in alone.blocks)


def test_what_is_of_no_block():
    arch = QWEN.replace("head.tied", False).replace("embedding.scale", 2.0).replace("norm", None)
    assert (arch.head.tied, arch.embedding.scale, arch.norm) == (False, 2.0, None)
    assert arch.parameters().total == QWEN.parameters().total + QWEN.vocab * QWEN.width - QWEN.width
    assert QWEN.replace(context=99).context == 99  # fields, as before


def test_removing():
    arch = QWEN.replace("blocks[5].feed_forward", None)
    assert [len(block.branches) for block in arch.blocks].count(1) == 1
    assert len(QWEN.replace("blocks[20-27]", None).blocks) == 20
    with pytest.raises(LaminaError, match=r"blocks\[5\].mixer: Block: branches: .* at least 1 item"):
        arch.replace("blocks[5].mixer", None)


@pytest.mark.parametrize(
    ("index", "expected"),
    [("*", range(9)), ("3", [3]), ("-1", [8]), ("0-2,5", [0, 1, 2, 5]), ("1:8:3", [1, 4, 7]), ("::4", [0, 4, 8])],
)
def test_indices(index, expected):
    assert chosen(index, 9, "blocks") == list(expected)


def test_runs_and_steps():
    assert runs([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"
    assert [tuple(step) for step in steps("blocks[0-2].mixer.rotary")] == [
        ("blocks", "0-2"),
        ("mixer", None),
        ("rotary", None),
    ]


@pytest.mark.parametrize(
    ("path", "part", "said"),
    [
        ("blocks[*].mixr", None, r"blocks\[\*\].mixr: 'mixr' matches nothing; did you mean 'mixer'"),
        ("blocks[28].mixer", None, r"\[28\] matches nothing; there are 28, from 0 to 27"),
        ("blocks[2:2].mixer", None, r"\[2:2\] matches nothing"),
        ("blocks[a].mixer", None, r"\[a\] is no index; accepted: \*, 3, -1"),
        ("blocks.mixer", None, "say which blocks"),
        ("blocks[0].mixer.heads.x", 1, "16 has no parts"),
        ("blocks[0].mixer.heads", 15, r"blocks\[0\].mixer.heads: Attention: heads \(15\) must be a multiple"),
        ("blocks[0].mixer.heads", "many", r"blocks\[0\].mixer.heads: Attention: heads: .*integer"),
        ("head[0].tied", True, "head is not indexed"),
        ("..", None, "is no path"),
        ("", None, "is no path"),
        ("blocks[0].mixer", RMSNorm(), r"blocks\[0\].mixer: "),
    ],
)
def test_a_path_that_leads_nowhere_is_one_sentence(path, part, said):
    with pytest.raises(LaminaError, match=said) as caught:
        QWEN.replace(path, part)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------ as text


def test_three_of_four():
    arch = edited(QWEN, "blocks[*].mixer=gated_deltanet@3:1")
    kinds = [type(mixer) for mixer in mixers(arch)]
    assert kinds == [GatedDeltaNet, GatedDeltaNet, GatedDeltaNet, Attention] * 7
    new = mixers(arch)[0]
    assert (new.value_heads * new.value_dim, new.key_heads * 2) == (16 * 128, new.value_heads)


def test_sizes_follow_from_what_stood_there():
    latent = mixers(edited(QWEN, "blocks[*].mixer=latent_attention"))[0]
    assert isinstance(latent, LatentAttention)
    assert latent.heads * latent.value_dim == 2048
    assert latent.rotary.base == 1e6  # as it was
    moe = edited(QWEN, "blocks[*].feed_forward=moe(experts=16,active=4)").blocks[0].branches[1].op
    assert isinstance(moe, MoE)
    assert (moe.router.experts, moe.router.active, moe.expert.inner) == (16, 4, 3072 // 4)
    back = edited(QWEN.replace("blocks[*].feed_forward", moe), "blocks[*].feed_forward=glu")
    assert back == QWEN
    attention = mixers(edited(edited(QWEN, "blocks[*].mixer=mamba2"), "blocks[*].mixer=attention"))[0]
    assert attention.heads * attention.head_dim == 2048


def test_differential_attention_is_as_large_as_what_it_takes_the_place_of():
    arch = edited(QWEN, "blocks[*].mixer=differential_attention")
    new, old = mixers(arch)[0], mixers(QWEN)[0]
    assert (new.heads, new.kv_heads, new.head_dim, new.rotary) == (8, 4, 128, old.rotary)
    assert arch.state_bytes(1000) == QWEN.state_bytes(1000)
    assert new.parameters(1024) - old.parameters(1024) == 4 * 128 - 2 * 128  # four vectors, and no norm of q and k
    assert mixers(edited(QWEN, "blocks[*].mixer=differential_attention(heads=4,kv_heads=1)"))[0].heads == 4


NEEDS_SIZES = {
    *("compressed_attention", "cross_attention", "distance_attention", "gated_convolution", "relative_attention"),
    "sequence_glu",
}
"""Mechanisms with a size that nothing in a plain attention says."""


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_mechanism_stands_in_or_says_what_it_needs(kind):
    """Where a size does not follow, the sentence names it."""
    role = "feed_forward" if kind in ("channel_mix", "glu", "mlp", "moe", "per_layer_input") else "mixer"
    edit = f"blocks[*].{role}={kind}"
    if kind in NEEDS_SIZES:
        with pytest.raises(LaminaError, match=rf"blocks\[\*\].{role}: .*Field required"):
            edited(QWEN, edit)
        return
    arch = edited(QWEN, edit)
    new = next(op for op in arch.blocks[0].ops() if op.kind == kind)
    assert arch.parameters().total > new.parameters(arch.width) * 28


def test_several_edits_and_values():
    arch = edited(
        QWEN, "blocks[::2].mixer.window=64, head.tied=false,blocks[1,3].mixer.rotary=none,norm=layer_norm(eps=0.1)"
    )
    assert [m.window for m in mixers(arch)] == [64, None] * 14
    assert [i for i, m in enumerate(mixers(arch)) if m.rotary is None] == [1, 3]
    assert arch.norm == LayerNorm(eps=0.1)
    assert not arch.head.tied


def test_the_same_on_a_name():
    text = "qwen3-0.6b:blocks[*].mixer=kimi_delta_attention@1:1,context=4096"
    arch = lamina.architecture(text)
    assert arch.name == text
    assert [isinstance(m, KimiDeltaAttention) for m in mixers(arch)] == [True, False] * 14
    assert lamina.architecture("qwen3-0.6b:blocks[*].mixer=mamba2").blocks[0].branches[0].op == Mamba2(
        heads=32, head_dim=64, state=128
    )
    assert lamina.Architecture.from_json(arch.to_json()) == arch


def test_scaled_as_text():
    arch = lamina.architecture("qwen3-4b:scaled=1B,blocks[*].mixer=gated_deltanet@3:1")
    assert arch.width == lamina.architecture("qwen3-4b").scaled(10**9).width
    assert isinstance(mixers(arch)[0], GatedDeltaNet)
    kept = edited(QWEN, "scaled=0.4B(keep=depth)")
    assert len(kept.blocks) == 28
    assert kept.vocab < QWEN.vocab


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("scaled=small", "scaled: 'small' is no size; accepted: 100M"),
        ("scaled=1M", "scaled: no sibling of qwen3-0.6b has about 1,000,000"),
        ("scaled=1B(keep=colour)", "scaled: keep names 'colour'"),
        ("blocks[*].mixer=mambo", "'mambo' is no mechanism; known: attention, "),
        ("blocks[*].mixer=moe", "moe cannot stand in the place of attention"),
        ("blocks[*].feed_forward=mamba", "mamba cannot stand in the place of glu"),
        ("blocks[*].mixer=foo(3)", "'foo' is no mechanism"),
        ("blocks[*].mixer=mamba2(state)", "'state' is no field; accepted: NAME=VALUE"),
        ("blocks[*].mixer=mamba2(stat=3)", "Mamba2: stat: Extra inputs"),
        ("blocks[*].mixer=mamba2@3", "@3 is no ratio; accepted: @3:1"),
        ("blocks[*].mixer=mamba2@0:1", "must change at least one"),
        ("head.tied=true@3:1", "the path must begin with blocks"),
        ("context", "'context' is no edit; accepted: PATH=VALUE"),
        ("context=-3", "context: Architecture: context: "),
        ("blocks[*].mixer=gated_deltanet(value_heads=8,key_heads=3)", r"value_heads \(8\) must be a multiple"),
    ],
)
def test_an_edit_that_is_none_is_one_sentence(text, said):
    with pytest.raises(LaminaError, match=said) as caught:
        edited(QWEN, text)
    assert "\n" not in str(caught.value)


def test_a_ratio_needs_blocks():
    with pytest.raises(LaminaError, match="a ratio chooses among blocks"):
        replaced(QWEN, "norm", None, (1, 1))
