"""LongCat-Flash and LongCat-Flash-Lite, read: as the reference builds them, without weights for what has none."""

from __future__ import annotations

import math

import pytest
from shapes import built, numbers, of_ours, of_reference

from lamina import architecture
from lamina.arch import GLU, Architecture, Block, Branch, LatentAttention, MoE, NgramTables, Parallel
from lamina.catalog import config, source
from lamina.errors import LaminaError
from lamina.families import read_config

TINY = {  # no two sizes alike
    "model_type": "longcat_flash",
    "vocab_size": 97,
    "hidden_size": 48,
    "ffn_hidden_size": 56,
    "expert_ffn_hidden_size": 20,
    "num_layers": 3,
    "num_attention_heads": 4,
    "kv_lora_rank": 18,
    "q_lora_rank": 22,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 6,
    "v_head_dim": 14,
    "n_routed_experts": 9,
    "zero_expert_num": 5,
    "moe_topk": 3,
    "attention_bias": True,
    "head_dim": 6,
}
NGRAMS = {"ngram_vocab_size_ratio": 2.5, "emb_neighbor_num": 3, "emb_split_num": 4}


def entry(name: str) -> Architecture:
    return read_config(config(name), name)


@pytest.mark.parametrize("data", [TINY, config("longcat-flash")], ids=["small", "longcat-flash"])
def test_every_weight_is_the_references_but_for_identities(data: dict) -> None:
    """The reference allocates gate and up for experts that return what they read; they are left out."""
    model, arch = built("LongcatFlashForCausalLM", data), read_config(data)
    state = of_reference(model, identities=data["zero_expert_num"])
    assert of_ours(arch) == state
    assert arch.parameters().total == numbers(state)
    assert read_config(model.config.to_dict()) == arch, "what the reference saves says the same"


@pytest.mark.parametrize(("name", "corrections"), [("longcat-flash", 28 * 768), ("longcat-flash-lite", 14 * 384)])
def test_the_catalogs_count_is_without_routing_corrections(name: str, corrections: int) -> None:
    assert entry(name).parameters().total - corrections == source(name)["counted_parameters"]


def test_a_token_uses_as_many_experts_as_are_no_identities() -> None:
    """12 of 768 choices, 256 of which cost nothing: 8 experts; published: 18.6B to 31.3B, 27B on average."""
    arch = entry("longcat-flash")
    moe = next(op for op in arch.ops() if isinstance(op, MoE))
    assert (moe.computing, moe.identities, moe.used) == (512, 256, 8.0)
    router = moe.router
    assert (router.score, router.normalise, router.scale, router.correction) == ("softmax", False, 6.0, True)
    active = arch.parameters().total - 28 * (512 - 8) * 3 * 6144 * 2048
    assert arch.parameters().active == active
    assert math.isclose(active - 131072 * 6144, 27e9, rel_tol=0.01)


def test_where_a_blocks_branches_read_and_land() -> None:
    block = entry("longcat-flash").blocks[0]
    assert [type(branch.op) for branch in block.branches] == [LatentAttention, Parallel, LatentAttention, GLU]
    both = block.branches[1].op
    assert [type(op) for op in both.ops] == [GLU, MoE]
    assert both.lands == (0, 2)
    assert list(block.named_branches()) == ["mixer", "parallel", "mixer_2", "feed_forward"]
    latent = block.branches[0].op
    assert (latent.query_scale, latent.latent_scale) == (math.sqrt(6144 / 1536), math.sqrt(6144 / 512))
    assert latent.rotary.layout == "interleaved"
    assert latent.norm.eps == 1e-6


def test_lite_by_hand() -> None:
    """14 blocks, and 12 tables of 256 numbers with a projection each; published: 68.5B, 31.4B of them in tables."""
    d = 3072
    latent = d * 1536 + 1536 + 1536 * 32 * 192 + d * 576 + 512 + 512 * 32 * 256 + 32 * 128 * d
    experts = 256 * 3 * d * 1024 + 384 * d + 384
    tables = sum(78 * 131072 + 2 * i + 1 for i in range(12)) * 256 + 12 * 256 * d
    total = 14 * (2 * latent + 2 * 3 * d * 6144 + experts + 4 * d) + 2 * 131072 * d + d + tables
    arch = entry("longcat-flash-lite")
    assert arch.parameters().total == total
    assert math.isclose(total, 68.5e9, rel_tol=2e-3)
    assert math.isclose(tables, 31.4e9, rel_tol=1e-3)
    unused = 14 * (256 - 8) * 3 * d * 1024 + tables - 12 * 256 * d - 12 * 256
    assert arch.parameters().active == total - unused
    assert arch.parameters().embedding == tables + 131072 * d
    assert arch.state_bytes(1001) - arch.state_bytes(1000) == 28 * 576 * 2  # the published 63 KiB counts 56 attentions


def test_ngram_tables_cost_their_projections() -> None:
    plain, ngrams = read_config(TINY), read_config(TINY | NGRAMS)
    tables = ngrams.embedding.ngrams
    assert tables == NgramTables(longest=3, tables=4, rows=242)  # 2.5 times 97, rounded down
    assert tables.weights(48)["tables.7"] == (242 + 15, 6)
    assert ngrams.flops(5) - plain.flops(5) == 5 * 2 * 8 * 6 * 48
    more = sum((242 + 2 * i + 1) * 6 + 6 * 48 for i in range(8))
    assert ngrams.parameters().total - plain.parameters().total == more
    assert ngrams.parameters().active - plain.parameters().active == 8 * (6 + 6 * 48)
    assert Architecture.from_json(ngrams.to_json()) == ngrams


WRONG = {
    "'zero_expert_type' is 'drop'": TINY | {"zero_expert_type": "drop"},
    "'num_hidden_layers' is 3": TINY | {"num_hidden_layers": 3},
    "'ffn_hidden_size' is 56; they mean the same": TINY | {"intermediate_size": 57},
    "the key 'ngram_fused_mode' ('average') is not understood": TINY | NGRAMS | {"ngram_fused_mode": "average"},
}


@pytest.mark.parametrize("message", WRONG)
def test_configs_that_contradict_themselves(message: str) -> None:
    with pytest.raises(LaminaError) as error:
        read_config(WRONG[message])
    assert message in str(error.value)


def test_outputs_land_within_their_block() -> None:
    late = Parallel(ops=(GLU(inner=4), GLU(inner=6)), lands=(0, 1))
    with pytest.raises(LaminaError, match=r"branches\[0\].op.lands goes beyond the 1 branches"):
        architecture("qwen3-0.6b").replace("blocks[3]", Block(branches=(Branch(op=late),)))
    with pytest.raises(LaminaError, match="lands has 1 entries for 2 ops"):
        Parallel(ops=(GLU(inner=4), GLU(inner=6)), lands=(1,))
    with pytest.raises(LaminaError, match=r"longest \(1\) must be 2 at least"):
        NgramTables(longest=1, tables=2, rows=7)
