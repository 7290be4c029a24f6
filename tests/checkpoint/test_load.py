"""Loading and saving whole models: every way a checkpoint can be wrong, what cannot be expressed, what it takes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import lamina
from lamina.arch import Attention, Branch, LayerNorm, MaskedDiffusion, Rotary
from lamina.arch.edit import rewritten
from lamina.checkpoint.safetensors import save_sharded
from lamina.errors import LaminaError
from lamina.families import family_named
from tests.families.table import ROWS
from tests.reference import ids, reference, relative

BY_NAME = {row.name: row for row in ROWS}
Q = "model.layers.1.self_attn.q_proj.weight"


def copied(name: str, directory: Path) -> Path:
    """The reference's checkpoint of a row, to be spoilt."""
    return Path(shutil.copytree(reference(BY_NAME[name])[1], directory / "checkpoint"))


@pytest.fixture
def llama(tmp_path):
    return copied("llama", tmp_path)


def tensors_of(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


def rewrite(directory: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def reconfigure(directory: Path, **keys) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def fails(source: Path, *words: str) -> str:
    with pytest.raises(LaminaError) as caught:
        lamina.load(source)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, (word, message)
    return message


# ------------------------------------------------------------------------------------------------- what is wrong


def test_a_missing_tensor_is_named(llama):
    tensors = tensors_of(llama)
    del tensors[Q]
    rewrite(llama, tensors)
    message = fails(llama, str(llama), f"the tensor {Q!r} is missing")
    assert "more" not in message
    del tensors["model.norm.weight"], tensors["lm_head.weight"]
    rewrite(llama, tensors)
    fails(llama, "is missing (and 2 more)")


def test_a_tensor_left_over_is_named(llama):
    tensors = tensors_of(llama) | {"model.layers.1.self_attn.sinks": torch.zeros(6)}
    rewrite(llama, tensors)
    fails(llama, "the tensor 'model.layers.1.self_attn.sinks' [6] is left over")


def test_more_layers_than_the_config_says(llama):
    reconfigure(llama, num_hidden_layers=2)
    fails(llama, "model.layers.2.", "is left over")
    reconfigure(llama, num_hidden_layers=4)
    fails(llama, "model.layers.3.", "is missing")


@pytest.mark.parametrize(
    ("keys", "name", "found", "needed"),
    [
        ({"num_key_value_heads": 3}, "model.layers.0.self_attn.k_proj.weight", [24, 48], [36, 48]),
        ({"vocab_size": 98}, "model.embed_tokens.weight", [97, 48], [98, 48]),
        ({"intermediate_size": 55}, "model.layers.0.mlp.gate_proj.weight", [56, 48], [55, 48]),
    ],
)
def test_a_shape_that_disagrees(llama, keys, name, found, needed):
    reconfigure(llama, **keys)
    fails(llama, str(llama), repr(name), str(found), str(needed))


def test_a_shape_that_disagrees_in_a_fused_or_transposed_tensor(tmp_path):
    directory = copied("phi3", tmp_path)
    tensors = tensors_of(directory)
    name = "model.layers.2.self_attn.qkv_proj.weight"
    rewrite(directory, tensors | {name: tensors[name][:-1].clone()})
    fails(directory, repr(name), "[79, 48]", "[80, 48]")
    other = copied("gpt2", tmp_path / "other")
    tensors = tensors_of(other)
    name = next(n for n in tensors if n.endswith("h.1.attn.c_attn.weight"))
    rewrite(other, tensors | {name: tensors[name].T.contiguous()})
    fails(other, "h.1.attn.c_attn.weight", "[126, 42]", "[42, 126]")


def test_a_wrong_shape_takes_no_memory(llama):
    """A config that claims much more than the file holds is refused before anything is allocated."""
    reconfigure(llama, vocab_size=2**31, intermediate_size=2**31)
    fails(llama, "[97, 48]", "[2147483648, 48]")


@torch.inference_mode()
def test_a_tied_head_that_is_stored_anyway(tmp_path):
    directory = copied("llama-3.2", tmp_path)
    tensors = tensors_of(directory)
    assert "lm_head.weight" not in tensors
    rewrite(directory, tensors | {"lm_head.weight": torch.full((97, 48), 9.0)})
    model = lamina.load(directory)
    assert model.ignored["lm_head.weight"] == "the head is tied to the embedding"
    theirs, x = reference(BY_NAME["llama-3.2"])[0], ids(2, 9)
    assert relative(model(x), theirs(x, use_cache=False).logits) <= 1e-5


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.attn_output.weight", "my_lm_head.weight", "output.weight"])
def test_what_only_sounds_like_a_head_is_left_over(tmp_path, name):
    directory = copied("llama-3.2", tmp_path)
    rewrite(directory, tensors_of(directory) | {name: torch.zeros(97, 48)})
    fails(directory, repr(name), "is left over")


def test_a_head_that_is_not_tied_must_be_there(llama):
    tensors = tensors_of(llama)
    del tensors["lm_head.weight"]
    rewrite(llama, tensors)
    fails(llama, "the tensor 'lm_head.weight' is missing")


def sharded(source: Path, target: Path) -> Path:
    target.mkdir()
    shutil.copy(source / "config.json", target)
    written = save_sharded(tensors_of(source), target, max_shard_bytes=30_000)
    assert len(written) > 4
    return target


@torch.inference_mode()
def test_shards_load_as_one_file(llama, tmp_path):
    whole, parts = lamina.load(llama), lamina.load(sharded(llama, tmp_path / "shards"))
    assert parts.arch == whole.arch
    for (name, a), (other, b) in zip(whole.named_parameters(), parts.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(a, b)
    x = ids(2, 9)
    assert torch.equal(parts(x), whole(x))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "shards")
    assert relative(whole(x), theirs(x, use_cache=False).logits) <= 1e-5


def test_a_missing_shard_is_named(llama, tmp_path):
    directory = sharded(llama, tmp_path / "shards")
    gone = sorted(directory.glob("model-*.safetensors"))[2]
    gone.unlink()
    fails(directory, gone.name, "is missing")


def test_a_directory_without_config_or_weights(llama, tmp_path):
    (llama / "config.json").rename(tmp_path / "config.json")
    fails(llama, str(llama / "config.json"), "cannot be read (No such file")
    fails(llama / "model.safetensors", "config.json", "cannot be read (No such file")
    (tmp_path / "config.json").rename(llama / "config.json")
    (llama / "model.safetensors").rename(llama / "pytorch_model.bin")
    fails(llama, "pytorch_model.bin", "never")
    (llama / "pytorch_model.bin").unlink()
    fails(llama, str(llama), "holds no weights")
    fails(llama / "config.json")
    fails(tmp_path / "nowhere" / "model", "nowhere")


@pytest.mark.parametrize("kept", [0, 4, 100, 2000, -1])
def test_a_truncated_file(llama, kept):
    path = llama / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:kept])
    fails(llama, str(path))


# ------------------------------------------------------------------------------------------------------ in which type


@pytest.mark.parametrize("dtype", ["bfloat16", torch.float16, "float64", "torch.bfloat16"])
@pytest.mark.parametrize("name", ["llama", "phi3", "gpt2"])
def test_weights_in_another_type(name, dtype, tmp_path):
    """Each weight is what torch makes of the stored one."""
    directory = reference(BY_NAME[name])[1]
    wanted = dtype if isinstance(dtype, torch.dtype) else getattr(torch, dtype.removeprefix("torch."))
    model, exact = lamina.load(directory, dtype=dtype), lamina.load(directory)
    for a, b in zip(model.parameters(), exact.parameters(), strict=True):
        assert a.dtype == wanted
        assert torch.equal(a, b.to(wanted))
    with torch.inference_mode():
        x = ids(1, 9)
        assert model(x).dtype == torch.float32
        if wanted != torch.float64:  # close, and not the same
            assert 1e-5 < relative(model(x), exact(x)) < 0.1
    lamina.save(model, tmp_path / "saved")
    assert {t.dtype for t in tensors_of(tmp_path / "saved").values()} == {wanted}
    again = lamina.load(tmp_path / "saved", dtype=dtype)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_weights_stored_in_another_type(llama, stored):
    tensors = {name: tensor.to(stored) for name, tensor in tensors_of(llama).items()}
    rewrite(llama, tensors)
    model = lamina.load(llama)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert torch.equal(model.blocks[1].mixer.op.q_proj.weight, tensors[Q].float())


@pytest.mark.parametrize("dtype", ["int8", "float8", "fp8", 3])
def test_a_type_that_nothing_is_computed_in(llama, dtype):
    with pytest.raises(LaminaError, match="known: bfloat16, float16, float32, float64"):
        lamina.load(llama, dtype=dtype)


def test_progress_adds_up(llama):
    seen = []
    lamina.load(llama, progress=lambda done, total: seen.append((done, total)))
    size = sum(tensor.nbytes for tensor in tensors_of(llama).values())
    assert seen[-1] == (size, size)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


# --------------------------------------------------------------------------------------- what a layout cannot express


def edited(name: str, kind: type, change) -> tuple[lamina.Architecture, torch.nn.Module]:
    """The model of a row with a part of its architecture replaced and its weights kept."""
    model = lamina.load(reference(BY_NAME[name])[1])
    arch = rewritten(model.arch, kind, change)
    assert arch != model.arch
    new = lamina.build(arch)
    new.load_state_dict(model.state_dict(), strict=False)
    return arch, new


def sandwiched(branch: Branch) -> Branch:
    return branch.replace(after=branch.before.replace(offset=0.25, eps=3e-3))


def second_only(arch: lamina.Architecture) -> lamina.Architecture:
    """The window on the second block only."""
    attention = arch.blocks[1].branches[0]
    block = arch.blocks[1].replace(
        branches=(attention.replace(op=attention.op.replace(window=5)), *arch.blocks[1].branches[1:])
    )
    return arch.replace(blocks=(arch.blocks[0], block, *arch.blocks[2:]))


EDITS = {
    "gpt2": (Attention, lambda op: op.replace(window=5), "blocks[0].mixer.window is 5"),
    "llama": (Branch, sandwiched, "blocks[0].mixer.after is RMSNorm"),
    "mistral": (lamina.Architecture, second_only, "blocks[1].mixer.window is 5, and would become 7"),
    "olmo2": (lamina.Architecture, lambda arch: arch.replace(norm=LayerNorm()), "norm"),
    "qwen3": (Attention, lambda op: op.replace(softcap=3.0), "blocks[0].mixer.softcap is 3.0"),
    "qwen2": (lamina.Architecture, lambda arch: arch.replace(objective=MaskedDiffusion(mask_token=5)), "objective"),
    "phi3": (Rotary, lambda rotary: rotary.replace(base=300.0), None),
}


@torch.inference_mode()
@pytest.mark.parametrize("name", EDITS)
def test_an_edited_architecture(name, tmp_path):
    """What its family cannot say is refused with its path, and kept whole by our own layout."""
    kind, change, said = EDITS[name]
    arch, model = edited(name, kind, change)
    x, target = ids(2, 19), tmp_path / "saved"
    if said is None:  # an edit that the family can express
        lamina.save(model, target)
        theirs = getattr(transformers, BY_NAME[name].model_class).from_pretrained(target)
        assert relative(model(x), theirs(x, use_cache=False).logits) <= 1e-5
        return
    with pytest.raises(LaminaError) as caught:
        lamina.save(model, target)
    message = str(caught.value)
    assert f"the {arch.family} layout cannot express this architecture" in message
    assert said in message
    assert "layout='lamina' holds any" in message
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []
    lamina.save(model, target, layout="lamina")
    assert json.loads((target / "config.json").read_text())["model_type"] == "lamina"
    again = lamina.load(target)
    assert again.arch == arch == lamina.architecture(target)
    assert torch.equal(again(x), model(x))
    stored = tensors_of(target)
    assert stored.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(stored[key], value) for key, value in model.named_parameters())
    original = lamina.load(reference(BY_NAME[name])[1])
    assert relative(again(x), original(x)) > 1e-4  # the edit does something


@torch.inference_mode()
def test_gpt2_with_a_window_is_the_reference_with_a_narrow_mask(tmp_path):
    _, model = edited("gpt2", Attention, lambda op: op.replace(window=5))
    lamina.save(model, tmp_path / "saved", layout="lamina")
    theirs, x = reference(BY_NAME["gpt2"])[0], ids(2, 19)
    distance = torch.arange(19)[:, None] - torch.arange(19)
    mask = torch.where((distance >= 0) & (distance < 5), 0.0, torch.finfo(torch.float32).min)
    expected = theirs(x, attention_mask=mask.expand(2, 1, 19, 19), use_cache=False).logits
    assert relative(lamina.load(tmp_path / "saved")(x), expected) <= 1e-5


def test_another_family_that_can_express_it(tmp_path):
    """A Llama is a Mistral without a window, and transformers loads it as one."""
    model = lamina.load(reference(BY_NAME["llama"])[1])
    lamina.save(model, tmp_path / "saved", layout="mistral")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert type(theirs).__name__ == "MistralForCausalLM"
    x = ids(2, 19)
    with torch.inference_mode():
        assert relative(theirs(x, use_cache=False).logits, model(x)) <= 1e-5
    with pytest.raises(LaminaError, match=r"the gpt2 layout cannot express .*layout='lamina'"):
        lamina.save(model, tmp_path / "other", layout="gpt2")
    with pytest.raises(LaminaError, match=r"family 'lama' is not known; did you mean 'llama'"):
        lamina.save(model, tmp_path / "other", layout="lama")
    assert not (tmp_path / "other").exists()


@torch.inference_mode()
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_the_native_layout_holds_every_family(row, tmp_path):
    model = lamina.load(reference(row)[1])
    lamina.save(model, tmp_path / "saved", layout="lamina")
    again, x = lamina.load(tmp_path / "saved"), ids(1, 9)
    assert again.arch == model.arch
    assert torch.equal(again(x), model(x))
    lamina.save(again, tmp_path / "back", layout=model.arch.family)
    lamina.save(model, tmp_path / "straight", layout=model.arch.family)
    straight, back = tensors_of(tmp_path / "straight"), tensors_of(tmp_path / "back")
    assert straight.keys() == back.keys()
    assert all(torch.equal(straight[key], back[key]) for key in straight)
    layout = family_named(model.arch.family).layout_of(model.arch)
    written = tensors_of(reference(row)[1]).items()
    theirs = {key: x for key, x in written if key in back or not layout.reason_to_skip(key)}
    otherwise = layout.others and len(theirs) == len(back)
    same = theirs.keys() == back.keys() or otherwise  # the reference may write another spelling than is published
    assert same or "text_config" in row.config  # which holds encoders too
    same = (torch.equal(theirs[key], back[key]) for key in theirs.keys() & back.keys())
    assert all(same) or row.unread


# ---------------------------------------------------------------------------------------- nothing half-written


def everything(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else b"" for path in directory.rglob("*")
    }


def test_a_target_that_holds_something(tmp_path):
    model = lamina.load(reference(BY_NAME["llama"])[1])
    full, file = tmp_path / "full", tmp_path / "file"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    file.write_text("mine")
    before = everything(tmp_path)
    for target in (full, file):
        with pytest.raises(LaminaError, match="exists and is not an empty directory"):
            lamina.save(model, target)
    with pytest.raises(LaminaError, match="cannot be written"):
        lamina.save(model, file / "below")
    assert everything(tmp_path) == before
    empty = tmp_path / "empty"
    empty.mkdir()
    lamina.save(model, empty)
    assert lamina.load(empty).arch == model.arch
    lamina.save(model, tmp_path / "a" / "b" / "c")
    assert lamina.load(tmp_path / "a" / "b" / "c").arch == model.arch


FULL_DISK = """
import resource, sys
import lamina
model = lamina.load(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
try:
    lamina.save(model, sys.argv[2])
except lamina.LaminaError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [100, 150_000])
def test_a_full_disk_leaves_nothing(tmp_path, limit):
    """Files may not pass `limit` bytes: the config, the header or the data is what does not fit."""
    source = reference(BY_NAME["llama"])[1]
    assert (source / "model.safetensors").stat().st_size > 150_000
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(source), str(tmp_path / "saved"), str(limit)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert "cannot be written" in done.stdout
    assert "File too large" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("function", ["os.replace", "pathlib.Path.write_text", "os.mkdir"])
def test_a_disk_that_refuses(tmp_path, function, monkeypatch):
    model = lamina.load(reference(BY_NAME["llama"])[1])
    monkeypatch.chdir(tmp_path)

    def refuse(*args, **more):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(function, refuse)
        with pytest.raises(LaminaError, match=r"cannot be written.*No space left on device"):
            lamina.save(model, tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []
    lamina.save(model, tmp_path / "saved")
    assert lamina.load(tmp_path / "saved").arch == model.arch


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch):
    model = lamina.load(reference(BY_NAME["llama"])[1])
    written = []

    def interrupted(file, name, source):
        written.append(name)
        if len(written) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr("lamina.checkpoint.safetensors._write_tensor", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lamina.save(model, tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


# ----------------------------------------------------------------------------------------------------- memory

LOADER = """
import sys
import torch
import lamina
from lamina.checkpoint import load
torch.set_num_threads(1)
torch.zeros(10).sum()
print("ready", flush=True)
sys.stdin.readline()
model = lamina.load(sys.argv[1])
print(sum(p.nbytes for p in model.parameters()), max(p.nbytes for p in model.parameters()), flush=True)
sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def large():
    """About 210 MB in float32, the largest tensor of it 41 MB."""
    config = {"vocab_size": 20011, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 8}
    config |= {"num_attention_heads": 8, "num_key_value_heads": 4, "model_type": "llama"}
    return lamina.build(lamina.architecture(config))


def anonymous(pid: int) -> int:
    """Bytes of memory of a process that no file backs: mapped pages of the checkpoint are not in it."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel does not say RssAnon")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_loading_takes_one_tensor_more_than_the_model(large, stored, tmp_path):
    """Under one tensor and 5 %, by watching another process while it loads."""
    source = tmp_path / "large"
    lamina.save(large.to(getattr(torch, stored)), source)
    large.float()
    size = (source / "model.safetensors").stat().st_size
    assert size > (190e6 if stored == "float32" else 95e6)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", LOADER, str(source)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        before = anonymous(process.pid)
        process.stdin.write("\n")
        process.stdin.flush()
        os.set_blocking(process.stdout.fileno(), False)
        peak, samples, line = before, 0, ""
        while not line:
            peak, samples = max(peak, anonymous(process.pid)), samples + 1
            assert process.poll() is None
            line = process.stdout.readline()
        held, largest = map(int, line.split())
        assert samples > 50
        assert peak - before > 0.95 * held  # the watch saw the model
        extra = peak - before - held
        print(f"\nloading {size / 1e6:.0f} MB of {stored}: {extra / 1e6:.1f} MB beside the model's {held / 1e6:.0f} MB")
        assert extra < 1.05 * largest
    finally:
        process.kill()
        process.communicate()
