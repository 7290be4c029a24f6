"""Costs worked out by hand from what papers and configs say, with the numbers written out.

K is the size of a key, V of a value, G the key heads, H the query heads; a multiply-accumulate is 2 FLOPs, a number of
a cache 2 bytes (bfloat16), of a recurrent state 4 (float32).
"""

from __future__ import annotations

import pytest

import lamina
from lamina.arch import Attention, CrossAttention, GatedDeltaNet, KimiDeltaAttention, LatentAttention, Mamba2, MoE

from .reference import text_of


def model(name: str):
    return text_of(lamina.architecture(name))


def op(name: str, kind: type, **fields):
    """The first part of a kind, or the first with some fields."""
    found = (op for op in model(name).ops() if isinstance(op, kind))
    return next(op for op in found if all(getattr(op, field) == value for field, value in fields.items()))


def triangle(n: int) -> int:
    """Pairs of n tokens that each see themselves and those before."""
    return n * (n + 1) // 2


# ------------------------------------------------------------------------------------------------ keys and values


def test_deepseek_v3():
    """arXiv 2412.19437, section 4.2: 61 layers of 7168; 128 heads of 128 + 64; latents of 512 and 1536; 256 experts
    of 2048, 8 chosen, one shared; the first 3 layers dense with 18432; 129,280 tokens."""
    arch = model("deepseek-v3")
    assert arch.state_bytes(1) == 61 * (512 + 64) * 2 == 70_272
    assert arch.state_bytes(131_072) == 131_072 * 70_272
    q = 7168 * 1536 + 1536 * 128 * (128 + 64)
    kv = 7168 * (512 + 64) + 512 * 128 * (128 + 128)
    attention = q + kv + 128 * 128 * 7168
    dense, sparse = 3 * 7168 * 18432, 256 * 7168 + 9 * 3 * 7168 * 2048
    token = 2 * (61 * attention + 3 * dense + 58 * sparse + 129_280 * 7168)
    # one more token attends to latents: R + 64 numbers scored and R summed of each key
    assert arch.flops(1, 4095) == token + 61 * 2 * 128 * (512 + 64 + 512) * 4096
    # a prompt attends to expanded keys of 192 and values of 128
    assert arch.flops(4096) == 4096 * token + 61 * 2 * 128 * (192 + 128) * triangle(4096)
    active = 61 * attention + 3 * dense + 58 * sparse + 2 * 129_280 * 7168
    small = 61 * (2 * 7168 + 1536 + 512) + 7168 + 58 * 256  # norms, and what corrects the routing
    assert arch.parameters().active == active + small


def test_sparse_attention_of_deepseek_v3_2():
    """arXiv 2512.02556: as V3, and 64 indexer heads of 128 that score all tokens, of which 2048 are attended to.

    A key is scored by each head, and the scores summed with a weight; not where all that is seen is attended to.
    """
    arch = model("deepseek-v3.2")
    assert arch.state_bytes(1) == 61 * (512 + 64 + 128) * 2
    here = arch.flops(1, 99_999) - arch.flops(1, 2047)
    assert here == 61 * 2 * 64 * (128 + 1) * 100_000  # attention itself costs the same
    absorbed, expanded = 2 * 128 * (512 + 512 + 64), 2 * 128 * (128 + 64 + 128)
    attended, full = arch.flops(5000) - arch.flops(2048), 61 * 2952 * 2048 * absorbed
    scored = 61 * 2 * 64 * (128 + 1) * (triangle(5000) - triangle(2048))
    short = arch.flops(2048) - 61 * expanded * triangle(2048)  # products with weights
    assert attended == full + scored + short * 2952 // 2048
    moved = arch.cost(context=100_000, batch=3).moved
    assert moved["state_read"] == 3 * 61 * 2 * (2048 * (512 + 64) + 100_000 * 128)
    assert moved["state_written"] == 3 * 61 * 2 * (512 + 64 + 128)


def test_windows_of_gemma_3():
    """arXiv 2503.19786: five layers with a window of 1024 to one without; 62 layers, 16 key heads of 128, 32 heads."""
    arch = model("gemma-3-27b")
    full, windowed = 10, 52
    assert arch.state_bytes(1) == 62 * 2 * 16 * 128 * 2 == 507_904
    assert arch.state_bytes(32_768) == (full * 32_768 + windowed * 1024) * 2 * 16 * 128 * 2
    matrices = 62 * (5376 * (4096 + 2 * 2048) + 4096 * 5376 + 3 * 5376 * 21_504) + 262_144 * 5376
    for context in (500, 1023, 5000):
        seen = full * (context + 1) + windowed * min(context + 1, 1024)
        assert arch.flops(1, context) == 2 * matrices + 4 * 32 * 128 * seen
    prompt = full * triangle(3000) + windowed * (triangle(1024) + (3000 - 1024) * 1024)
    assert arch.flops(3000) == 3000 * 2 * matrices + 4 * 32 * 128 * prompt


def test_windows_of_gpt_oss():
    """arXiv 2508.10925: every other of 24 layers sees 128 tokens; 8 key heads of 64."""
    arch = model("gpt-oss-20b")
    assert arch.state_bytes(10_000) == 12 * (10_000 + 128) * 2 * 8 * 64 * 2


def test_chunks_of_llama_4():
    """Three of four layers see their own 8192 tokens only; 48 layers, 40 heads of 128, 8 key heads."""
    arch = model("llama-4-scout")
    assert arch.state_bytes(20_000) == (12 * 20_000 + 36 * 8192) * 2 * 8 * 128 * 2
    local = 2 * triangle(8192) + triangle(20_000 - 2 * 8192)
    matrices = arch.flops(1) - 48 * 4 * 40 * 128  # all but pairs, of which a lone token has one a layer
    assert arch.flops(20_000) == 20_000 * matrices + 4 * 40 * 128 * (12 * triangle(20_000) + 36 * local)
    assert arch.flops(1, 20_000) == matrices + 4 * 40 * 128 * (12 * 20_001 + 36 * (20_000 - 2 * 8192 + 1))
    experts = 48 * (5120 * 16 + 2 * 3 * 5120 * 8192)  # one routed and one shared, and the router
    attention = 48 * (2 * 5120 * 5120 + 2 * 5120 * 1024)
    assert matrices == 2 * (experts + attention + 202_048 * 5120)


def test_shared_keys_of_gemma_3n_and_4():
    """The last 15 of 35 layers (18 of 42) read keys of earlier ones. Gemma 4's that see all have keys of 512."""
    three = model("gemma-3n-e4b-text")
    assert three.state_bytes(1) == 20 * 2 * 2 * 256 * 2 == 40_960
    assert three.state_bytes(32_768) == (4 * 32_768 + 16 * 512) * 2 * 2 * 256 * 2
    four = model("gemma-4-e4b")
    assert four.state_bytes(1) == 20 * 2 * 2 * 256 * 2 + 4 * 2 * 2 * 512 * 2 == 57_344
    assert four.state_bytes(9_000) == 20 * 512 * 2 * 2 * 256 * 2 + 4 * 9_000 * 2 * 2 * 512 * 2
    alone, shared = (
        op("gemma-4-e4b", Attention, kv_from=place, window=512) for place in (None, _shares("gemma-4-e4b"))
    )
    assert alone.parameters(2560) - shared.parameters(2560) == 2 * 2560 * 512 + 256  # k, v, and the norm of keys


def _shares(name: str) -> int:
    return next(o.kv_from for o in model(name).ops() if isinstance(o, Attention) and o.kv_from is not None and o.window)


def test_wide_keys_of_mimo():
    """Keys of 192 and values of 128; 9 layers with 4 key heads see all, 39 with 8 a token and the 128 before it."""
    arch = model("mimo-v2-flash")
    assert arch.state_bytes(1) == (9 * 4 + 39 * 8) * (192 + 128) * 2
    assert arch.state_bytes(50_000) == (9 * 4 * 50_000 + 39 * 8 * 129) * (192 + 128) * 2


# ------------------------------------------------------------------------------------------------------- hybrids


def test_gated_deltanet_of_qwen3_next():
    """12 of 48 layers attend (2 key heads of 256); 36 keep 32 matrices of 128 x 128, and 3 inputs of 8192 channels."""
    arch = model("qwen3-next-80b-a3b")
    attention = 12 * 32_768 * 2 * 2 * 256 * 2
    recurrent = 36 * (32 * 128 * 128 * 4 + 3 * 8192 * 2)
    assert arch.state_bytes(32_768) == attention + recurrent == 882_573_312
    assert arch.state_bytes(0) == recurrent
    part = op("qwen3-next-80b-a3b", GatedDeltaNet)
    matrices = 2048 * (2 * 2048 + 4096 + 4096 + 2 * 32) + 4096 * 2048  # q and k, v, gate, step and decay; output
    assert part.flops(2048, 1, 7) == 2 * matrices + 2 * 8192 * 4 + 32 * 6 * 128 * 128
    token = 2 * matrices + 2 * 8192 * 4 + 32 * 6 * 128 * 128
    pair = 16 * 4 * 128 + 32 * 3 * 128  # of two tokens of a chunk: scores by key head, solution and sum by value head
    assert part.flops(2048, 100, 0) == 100 * token + (64**2 + 36**2) * pair


def test_mamba_2_of_nemotron():
    """23 Mamba-2 layers of 64 heads of 64 with 128 states and 8 groups; 6 that attend, with 2 key heads of 128."""
    arch = model("nemotron-3-nano-30b-a3b")
    channels = 64 * 64 + 2 * 8 * 128
    recurrent = 23 * (64 * 64 * 128 * 4 + 3 * channels * 2)
    assert arch.state_bytes(10_000) == 6 * 10_000 * 2 * 2 * 128 * 2 + recurrent
    part = op("nemotron-3-nano-30b-a3b", Mamba2)
    matrices = 2688 * (4096 + channels + 64) + 4096 * 2688
    assert part.flops(2688, 1, 7) == 2 * matrices + 2 * channels * 4 + 4 * 4096 * 128


def test_kimi_linear():
    """arXiv 2510.26692: 20 layers of KDA (32 heads of 128 x 128), 7 of latent attention."""
    arch = model("kimi-linear-48b-a3b")
    recurrent = 20 * (32 * 128 * 128 * 4 + 3 * 3 * 4096 * 2)
    assert arch.state_bytes(1_000_000) == recurrent + 7 * 1_000_000 * (512 + 64) * 2
    part = op("kimi-linear-48b-a3b", KimiDeltaAttention)
    matrices = 2304 * (3 * 4096 + 32) + 2 * (2304 * 128 + 128 * 4096) + 4096 * 2304
    assert part.flops(2304, 1, 7) == 2 * matrices + 2 * 3 * 4096 * 4 + 32 * 6 * 128 * 128


def test_lightning_attention_of_minimax_m1():
    """arXiv 2506.13585: seven layers of lightning attention (64 heads of 128 x 128) to one that attends; 80 layers."""
    arch = model("minimax-m1")
    assert arch.state_bytes(5000) == 70 * 64 * 128 * 128 * 4 + 10 * 5000 * 2 * 8 * 128 * 2


def test_xlstm():
    """arXiv 2503.13427: 32 blocks of 8 heads, each a matrix of 256 x 512, a vector of 256 and a maximum."""
    arch = model("xlstm-7b")
    assert arch.state_bytes(1) == arch.state_bytes(10**9) == 32 * 8 * (256 * 512 + 256 + 1) * 4


def test_short_convolutions_of_lfm2():
    """18 of 24 layers keep two inputs of 2048 channels; 6 attend, with 8 key heads of 64."""
    arch = model("lfm2-8b-a1b")
    assert arch.state_bytes(7000) == 18 * 2 * 2048 * 2 + 6 * 7000 * 2 * 8 * 64 * 2


def test_compressed_attention_of_deepseek_v4():
    """43 layers keep 128 keys of 512; 21 an entry of 512 and an index of 128 every 4 tokens, 20 an entry every 128."""
    arch = model("deepseek-v4-flash")
    far, near = 1 << 20, 1 << 16
    entries = 21 * (512 + 128) * (far - near) // 4 + 20 * 512 * (far - near) // 128
    assert arch.state_bytes(far) - arch.state_bytes(near) == 2 * entries


# ------------------------------------------------------------------------------------------------------- experts


def test_experts_of_qwen3():
    """arXiv 2505.09388: 48 layers of 2048, 32 heads of 128 with 4 key heads, 128 experts of 768, 8 chosen."""
    arch = model("qwen3-30b-a3b")
    attention = 2048 * (4096 + 2 * 512) + 4096 * 2048
    expert, router = 3 * 2048 * 768, 128 * 2048
    small = 48 * (2 * 2048 + 2 * 128) + 2048
    outside = 2 * 151_936 * 2048
    assert arch.parameters().total == 48 * (attention + router + 128 * expert) + outside + small
    assert arch.parameters().active == 48 * (attention + router + 8 * expert) + outside + small
    token = 2 * (48 * (attention + router + 8 * expert) + 151_936 * 2048)
    assert arch.flops(1, 99) == token + 48 * 4 * 4096 * 100


@pytest.mark.parametrize("batch", [1, 2, 37, 1000])
def test_how_many_experts_a_batch_reaches(batch):
    """Each token chooses k of E: one is missed by all with chance (1 - k/E)^batch."""
    cost = model("qwen3-30b-a3b").cost(context=10, batch=batch)
    line = next(line for line in cost.bill if line.kind == "moe")
    expert, beside = 2 * 3 * 2048 * 768, 2 * 128 * 2048
    expected = 48 * (128 * (1 - (120 / 128) ** batch) * expert + beside)
    assert cost.read(line, batch) == pytest.approx(expected, rel=1e-12)
    assert cost.read(line, 1) == pytest.approx(48 * (8 * expert + beside), rel=1e-12)


def test_choices_that_cost_nothing():
    """LongCat-Flash: 12 of 768, 256 of which return their input: 8 of 12 compute on average. arXiv 2509.01322."""
    part = op("longcat-flash", MoE)
    assert part.work(6144).token == 2 * (768 * 6144 + 8 * 3 * 6144 * 2048)


# ------------------------------------------------------------------------------------- again and again, and beside


def test_recursions_keep_a_carry():
    """Two latents of 512 over 81 cells and what stands before them: one vector (HRM), 16 (TRM)."""
    assert model("hrm").state_bytes(81) == 2 * 512 * (81 + 1) * 2
    assert model("trm").state_bytes(81, batch=3, dtype="float32") == 3 * 2 * 512 * (81 + 16) * 4


def test_an_outer_step_of_trm():
    """arXiv 2510.04871: three times six updates of one latent and one of the other, through 2 layers of 512."""
    arch = model("trm")
    vectors, passes = 81 + 16, 3 * (6 + 1)
    layer = 2 * (4 * 512 * 512 + 3 * 512 * 1536) * vectors + 4 * 512 * vectors**2
    assert arch.flops(81) == passes * 2 * layer + 81 * 2 * 512 * 11 + 2 * 2 * 512


def test_loops_of_ouro():
    """arXiv 2510.25741: 48 layers of 2048 with 16 heads, passed 4 times, each with keys and values of its own."""
    arch = model("ouro-2.6b")
    assert arch.state_bytes(1) == 4 * 48 * 2 * 16 * 128 * 2 == 1_572_864
    layer = 4 * 2048 * 2048 + 3 * 2048 * 5632
    token = 4 * (48 * 2 * layer + 2 * 2048) + 2 * 49_152 * 2048  # and the exit gate after each pass
    assert arch.flops(1, 99) == token + 4 * 48 * 4 * 2048 * 100
    assert arch.parameters().total < 2.7e9


def test_cross_attention_of_llama_3_2():
    """8 of 40 layers read an image: keys and values of its tokens once, and pairs with each text token."""
    arch, image = model("llama-3.2-11b-vision"), 6404
    assert arch.state_bytes(100, memory=image) == (32 * 100 + 8 * image) * 2 * 8 * 128 * 2
    once = 8 * 2 * image * 2 * 4096 * 1024
    pairs = 8 * 4 * 32 * 128 * image
    assert arch.flops(10, memory=image) - arch.flops(10) == once + 10 * pairs
    assert arch.flops(1, 10, memory=image) - arch.flops(1, 10) == pairs
    assert sum(isinstance(part, CrossAttention) for part in arch.ops()) == 8


def test_hybrid_of_latent_and_recurrent_is_sum_of_parts():
    """Kimi Linear's total, from each part's own closed form."""
    arch = model("kimi-linear-48b-a3b")
    parts = sum(part.flops(2304, 1, 999) for part in arch.ops())
    assert arch.flops(1, 999) == parts + 2 * 2304 * 163_840
    assert sum(isinstance(part, LatentAttention) for part in arch.ops()) == 7
