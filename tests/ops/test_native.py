"""The C functions against their twins, and what happens where they cannot be compiled.

The project's tests need a C compiler: without one the tests of the functions fail, they are not skipped.
"""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import lamina
from lamina import ops
from lamina.ops import attention, linear, native, norm
from lamina.ops.attention import Reach, attend, attend_reference

B, H, G, K = 3, 6, 2, 7
"""Batch, query heads, key heads, key dim; values are as wide as keys where the native function is used."""


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def relative(got: torch.Tensor, exact: torch.Tensor) -> float:
    assert got.shape == exact.shape
    return float((got.double() - exact).abs().max() / exact.abs().max())


def test_this_machine_has_them(calls):
    assert ops.backend()["cpu"] == "native"
    with torch.no_grad():
        x = torch.empty_like(torch.zeros(3))
        assert bool(x.isnan().all())
        assert bool(x.new_empty(3).isnan().all())


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("inputs", [1, 5, 11, 577])
@pytest.mark.parametrize("outputs", [1, 2, 3, 7, 35])
@pytest.mark.parametrize("tokens", range(1, 9))
def test_linear(calls, threads, tokens, outputs, inputs, bias):
    x, weight = normal(tokens, inputs), normal(outputs, inputs, seed=1)
    added = normal(outputs, seed=2) if bias else None
    with torch.no_grad():
        got = linear.linear(x, weight, added)
    assert calls == ["few_tokens"]
    exact = F.linear(x.double(), weight.double(), None if added is None else added.double())
    assert relative(got, exact) <= 1e-6


@pytest.mark.parametrize("shape", [(7,), (2, 3, 7), (1, 8, 1, 7), (2, 1, 2, 2, 7)], ids=str)
def test_linear_keeps_leading_dimensions(calls, shape):
    x, weight = normal(*shape), normal(5, 7, seed=1)
    with torch.no_grad():
        got = linear.linear(x, weight)
    assert calls == ["few_tokens"]
    assert relative(got, F.linear(x.double(), weight.double())) <= 1e-6


def test_linear_reads_rows_of_a_larger_matrix(calls):
    fused = normal(90, 11)
    with torch.no_grad():
        got = linear.linear(normal(3, 11, seed=1), fused[30:65])
    assert calls == ["few_tokens"]
    assert relative(got, F.linear(normal(3, 11, seed=1).double(), fused[30:65].double())) <= 1e-6


def not_for_native() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    x, weight = normal(3, 7), normal(35, 7, seed=1)
    return {
        "x-transposed": (normal(7, 3).T, weight),
        "x-every-other": (normal(6, 7)[::2], weight),
        "x-expanded": (normal(1, 7).expand(3, 7), weight),
        "weight-transposed": (x, normal(7, 35, seed=1).T),
        "weight-columns": (x, normal(35, 9, seed=1)[:, 1:8]),
        "weight-every-other": (x, normal(70, 7, seed=1)[::2]),
        "nine-tokens": (normal(9, 7), weight),
        "float64": (x.double(), weight.double()),
        "bfloat16": (x.bfloat16(), weight.bfloat16()),
    }


@pytest.mark.parametrize("case", not_for_native())
def test_linear_leaves_the_rest_to_torch(calls, case):
    x, weight = not_for_native()[case]
    with torch.no_grad():
        got = linear.linear(x, weight)
    assert calls == []
    assert got.dtype == x.dtype
    exact = F.linear(x.double(), weight.double())
    assert relative(got, exact) <= (1e-2 if x.dtype == torch.bfloat16 else 1e-6)


def test_shapes_that_disagree_raise_and_read_nothing(calls):
    """Two rows of 7 are as many numbers as one of 14, and a norm's weight may be longer or shorter."""
    with torch.no_grad():
        for x, weight in ((normal(2, 7), normal(3, 14)), (normal(1, 14), normal(3, 7)), (normal(1, 7), normal(3, 9))):
            with pytest.raises(RuntimeError, match="shapes"):
                linear.linear(x, weight)
        for width in (6, 8):
            with pytest.raises(RuntimeError):
                norm.rms_norm(normal(2, 7), normal(width), 1e-6)
    assert calls == []


@pytest.mark.parametrize("magnitude", [1e-15, 1e-3, 1.0, 1e4, 1e15], ids=str)
@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("shape", [(1,), (1, 3), (2, 3, 7), (8, 11), (3, 13, 11), (1, 1, 577)], ids=str)
def test_rms_norm(calls, shape, offset, magnitude):
    """`eps` is chosen so that it matters: it is as large as the mean square."""
    x, weight, eps = normal(*shape) * magnitude, normal(shape[-1], seed=1), magnitude * magnitude
    with torch.no_grad():
        got = norm.rms_norm(x, weight, eps, offset)
    assert calls == ["rms_norm"]
    exact = x.double() / (x.double().square().mean(-1, keepdim=True) + eps).sqrt() * (offset + weight.double())
    assert relative(got, exact) <= 1e-6
    twin = F.rms_norm(x, shape[-1:], weight + offset, eps)
    assert relative(got, twin.double()) <= 1e-6


def test_rms_norm_of_zeros_is_zero(calls):
    with torch.no_grad():
        assert torch.equal(norm.rms_norm(torch.zeros(2, 5), normal(5), 1e-6), torch.zeros(2, 5))
    assert calls == ["rms_norm"]


@pytest.mark.parametrize(
    "x",
    [normal(2, 5).bfloat16(), normal(2, 5).double(), normal(5, 2).T, normal(4, 5)[::2]],
    ids=["bfloat16", "float64", "transposed", "every-other"],
)
def test_rms_norm_leaves_the_rest_to_torch(calls, x):
    weight = normal(5, seed=1)
    with torch.no_grad():
        got = norm.rms_norm(x, weight.to(x.dtype), 1e-5, 1.0)
    assert calls == []
    assert got.dtype == x.dtype
    exact = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-5).sqrt()
    tolerance = 1e-2 if x.dtype == torch.bfloat16 else 1e-6
    assert relative(got, exact * (1 + weight.to(x.dtype).double())) <= tolerance


def everything(held: int) -> Reach:
    return Reach(torch.tensor([[held]]), torch.arange(held)[None], everything=True)


def one_query(held: int, heads: int = H, groups: int = G, dim: int = K, batch: int = B) -> list[torch.Tensor]:
    """q, and k and v as parts of caches that are larger and hold NaN beyond what is held.

    All are multiples of 1/4 and small, so that float32 holds their scores exactly, also when they are large.
    """
    q, *caches = (
        (4 * normal(batch, *n, dim, seed=i)).round() / 4 for i, n in enumerate([(heads, 1)] + 2 * [(groups, held + 5)])
    )
    for cache in caches:
        cache[:, :, held:] = float("nan")
    return [q, *(cache.narrow(2, 0, held) for cache in caches)]


@pytest.mark.parametrize("scale", [0.6, 1e4, -1e4], ids=str)
@pytest.mark.parametrize("held", [1, 2, 13, 301])
@pytest.mark.parametrize("dim", [1, 7, 64])
@pytest.mark.parametrize("heads", [(6, 2), (6, 1), (6, 6), (1, 1), (15, 5)], ids=str)
def test_attention_of_one_query(calls, threads, heads, dim, held, scale):
    """Scores of ±1e4 and more: the largest is subtracted before exp."""
    q, k, v = one_query(held, *heads, dim)
    with torch.no_grad():
        got = attend(q, k, v, everything(held), scale)
    assert calls == ["attend_all"]
    exact = attend_reference(q.double(), k.double(), v.double(), everything(held), scale)
    assert relative(got, exact) <= 2e-6


@pytest.mark.parametrize("size", [1e4, -1e4, 1e30], ids=str)
def test_attention_survives_large_scores(calls, size):
    """Scores that are exact in float32: one key wins, or all are alike."""
    q, k, v = torch.ones(1, 3, 1, 5), torch.zeros(1, 1, 7, 5), normal(1, 1, 7, 5)
    k[0, 0, 4] = abs(size)
    with torch.no_grad():
        assert torch.equal(attend(q, k, v, everything(7), 1.0), v[:, :, 4:5].expand(1, 3, 1, 5))
        alike = attend(q, torch.full_like(k, size), v, everything(7), 1.0)
    assert relative(alike, v.double().mean(2, keepdim=True).expand(1, 3, 1, 5)) <= 1e-6
    assert calls == ["attend_all"] * 2


def test_attention_reads_whatever_the_strides_say(calls):
    """Rows of a larger batch, groups of more groups, every other row, one row for all."""
    big_k, big_v = normal(B + 2, G + 1, 20, K, seed=1), normal(B + 2, G + 1, 20, K, seed=2)
    q = normal(B, H, 1, K)
    views = {
        "inner": (big_k[1:-1, 1:, 3:16], big_v[1:-1, 1:, 3:16]),
        "shared": (big_k[:1, :G, :13].expand(B, -1, -1, -1), big_v[:1, :G, :13].expand(B, -1, -1, -1)),
        "every-other-row": (big_k[::2, :G, :13], big_v[::2, :G, :13]),
    }
    with torch.no_grad():
        for k, v in views.values():
            exact = attend_reference(q.double(), k.double(), v.double(), everything(13), 0.6)
            assert relative(attend(q, k, v, everything(13), 0.6), exact) <= 2e-6
        assert calls == ["attend_all"] * 3


def test_attention_leaves_the_rest_to_torch(calls):
    q, k, v = one_query(13)
    dense = k.contiguous(), v.contiguous()
    cases = {
        "values-of-another-width": (q, k, normal(B, G, 13, 11)),
        "other-strides": (q, dense[0], v),
        "groups-side-by-side": (q, *(x.transpose(1, 2).contiguous().transpose(1, 2) for x in dense)),
        "dims-apart": (q, *(x.mT.contiguous().mT for x in dense)),
        "float64": (q.double(), k.double(), v.double()),
    }
    with torch.no_grad():
        for name, (q_, k_, v_) in cases.items():
            exact = attend_reference(q_.double(), k_.double(), v_.double(), everything(13), 0.6)
            assert relative(attend(q_, k_, v_, everything(13), 0.6), exact) <= 2e-6, name
        low = [x.bfloat16() for x in (q, *dense)]
        exact = attend_reference(*(x.double() for x in low), everything(13), 0.6)
        assert relative(attend(*low, everything(13), 0.6), exact) <= 2e-2
    assert calls == []


def test_gradients_are_those_of_torch(calls):
    """With gradients enabled nothing is native, and every input gets its gradient."""
    x, weight, bias, scale = normal(2, 7), normal(5, 7, seed=1), normal(5, seed=2), normal(5, seed=3)
    ours, exact = ([v.clone().to(d).requires_grad_() for v in (x, weight, bias, scale)] for d in (None, torch.float64))
    y = norm.rms_norm(linear.linear(*ours[:3]), ours[3], 1e-5, 1.0)
    z = F.linear(*exact[:3])
    z = z / (z.square().mean(-1, keepdim=True) + 1e-5).sqrt() * (1 + exact[3])
    (y * normal(2, 5, seed=4)).sum().backward()
    (z * normal(2, 5, seed=4)).sum().backward()
    fast, slow = ([t.clone().to(d).requires_grad_() for t in one_query(13)] for d in (None, torch.float64))
    (attend(*fast, everything(13), 0.6) * normal(B, H, 1, K, seed=5)).sum().backward()
    (attend_reference(*slow, everything(13), 0.6) * normal(B, H, 1, K, seed=5)).sum().backward()
    for a, b in zip([*ours, *fast], [*exact, *slow], strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert relative(a.grad, b.grad) <= 1e-5
    assert calls == []


def test_what_watches_operations_sees_them(calls):
    """A counter of FLOPs, tensors without memory, a compiler: none of them can look into C."""
    x, weight = normal(2, 7), normal(5, 7, seed=1)
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            linear.linear(x, weight)
        assert counter.get_total_flops() == 2 * 2 * 7 * 5
        with FakeTensorMode() as mode:
            assert linear.linear(mode.from_tensor(x), mode.from_tensor(weight)).shape == (2, 5)
        fake = mode.from_tensor(x), mode.from_tensor(weight)
        assert native.usable(*fake) is None  # outside of the mode too
        compiled = torch.compile(linear.linear, backend="eager", fullgraph=True)
        assert relative(compiled(x, weight), F.linear(x.double(), weight.double())) <= 1e-6
    assert calls == []


CONFIG = {
    "model_type": "llama",
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "max_position_embeddings": 64,
}


def run(file: Path | None = None) -> tuple[str, torch.Tensor]:
    """The backend, and a tiny model's logits: a prompt, then one and a few tokens at a time."""
    model = lamina.build(lamina.architecture(CONFIG), seed=3)
    ids = torch.arange(7, 26).view(1, 19)
    with torch.inference_mode():
        state = model.init_state(1, 32)
        logits = torch.cat([model(part, state) for part in ids.split([11, 1, 1, 2, 4], 1)], 1)
    found = ops.backend()["cpu"], logits
    if file:
        torch.save(found, file)
    return found


def start(file: Path, cache: Path, **environment: str) -> subprocess.Popen[bytes]:
    """`run` in a process of its own."""
    code = f"from pathlib import Path; from tests.ops.test_native import run; run(Path({str(file)!r}))"
    setting = os.environ | {"LAMINA_CACHE": str(cache), "OMP_NUM_THREADS": "1"} | environment
    return subprocess.Popen([sys.executable, "-c", code], env=setting, cwd=Path(__file__).parents[2])


def result(file: Path, process: subprocess.Popen[bytes]) -> tuple[str, torch.Tensor]:
    assert process.wait(120) == 0
    return torch.load(file)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and nothing found yet."""
    monkeypatch.setenv("LAMINA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LAMINA_NATIVE", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    native.library.cache_clear()
    yield tmp_path / "cache"
    native.library.cache_clear()
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def expected():
    """What torch alone computes."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (attention, linear, norm):
            patch.setattr(module, "usable", lambda *tensors: None)
        return run()[1].double()


def script(path: Path, text: str) -> str:
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def kept(cache: Path) -> Path:
    """The one file in the cache: no scratch directory is left beside it."""
    (found,) = (cache / "native").iterdir()
    assert found.suffix == ".so"
    return found


def test_a_process_that_turns_it_off(expected, tmp_path):
    process = start(tmp_path / "out", tmp_path / "cache", LAMINA_NATIVE="0")
    backend, logits = result(tmp_path / "out", process)
    assert backend == "torch: turned off by LAMINA_NATIVE=0"
    assert not (tmp_path / "cache").exists()
    assert relative(logits, expected) <= 1e-6


def test_a_process_without_a_compiler(expected, tmp_path):
    process = start(tmp_path / "out", tmp_path / "cache", CC="/nonexistent")
    backend, logits = result(tmp_path / "out", process)
    assert backend == "torch: not compiled ([Errno 2] No such file or directory: '/nonexistent')"
    assert relative(logits, expected) <= 1e-6


def test_a_second_process_starts_no_compiler(expected, cache, tmp_path):
    backend, logits = run()
    assert backend == "native"
    assert relative(logits, expected) <= 1e-6
    before = kept(cache).stat()
    compiler = script(tmp_path / "cc", f"touch {tmp_path}/started; exit 1")
    backend, again = result(tmp_path / "out", start(tmp_path / "out", cache, CC=compiler))
    assert (backend, kept(cache).stat().st_mtime_ns) == ("native", before.st_mtime_ns)
    assert not (tmp_path / "started").exists()
    assert torch.equal(again, logits)


def test_several_processes_compile_at_once(expected, cache, tmp_path):
    """Each waits in its compiler until all are there, so that all of them compile; one file is left."""
    together = f"while [ $(ls {tmp_path} | grep -c started) -lt 2 ]; do sleep 0.05; done"
    compiler = script(tmp_path / "cc", f'touch {tmp_path}/started.$$; {together}; exec {COMPILER} "$@"')
    running = {tmp_path / name: start(tmp_path / name, cache, CC=compiler) for name in ("a", "b")}
    for file, process in running.items():
        backend, logits = result(file, process)
        assert backend == "native"
        assert relative(logits, expected) <= 1e-6
    assert len(list(tmp_path.glob("started.*"))) == 2
    kept(cache)


COMPILER = shlex.join(native._compiler())
OTHER = f"echo 'int other;' | {COMPILER} -x c -shared -fPIC - -o"
BROKEN = {
    "unbalanced": ("cc '", "No closing quotation"),
    "failing": (
        "echo 'in x.c' >&2; echo 'x.c:1: error: on fire' >&2; echo 'sorry' >&2; exit 1",
        "x.c:1: error: on fire",
    ),
    "silent": ("exit 3", "exit status 3"),
    "makes-nothing": ("exit 0", "cannot open shared object file"),
    "makes-rubbish": ('for a; do [ "$last" = -o ] && echo rubbish > "$a"; last=$a; done', ".so: "),
    "makes-another": (f'for a; do [ "$last" = -o ] && {OTHER} "$a"; last=$a; done', "undefined symbol: few_tokens"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_compiler_means_torch_and_says_why(expected, cache, monkeypatch, case):
    compiler, said = BROKEN[case]
    monkeypatch.setenv("CC", compiler if case == "unbalanced" else script(cache.parent / "cc", compiler))
    backend, logits = run()
    assert backend.startswith("torch: not compiled (")
    assert said in backend
    assert relative(logits, expected) <= 1e-6
    assert list((cache / "native").iterdir()) == []  # nothing is kept that does not load


def test_a_cache_that_cannot_be_written_means_torch(expected, cache):
    """A file stands where the directory should be, which stops even root."""
    cache.write_text("")
    backend, logits = run()
    assert backend.startswith("torch: not compiled (")
    assert str(cache) in backend
    assert relative(logits, expected) <= 1e-6


def test_a_user_without_a_home_means_torch(expected, cache, monkeypatch):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")  # what Path.expanduser says

    monkeypatch.setattr("lamina.checkpoint.registry.cache_directory", nowhere)
    backend, logits = run()
    assert backend == "torch: not compiled (Could not determine home directory.)"
    assert relative(logits, expected) <= 1e-6


@pytest.mark.parametrize("damage", ["", "rubbish", "another library"])
def test_a_damaged_file_is_made_anew(expected, cache, damage):
    target = cache / "native" / f"{native._machine()}.so"
    target.parent.mkdir(parents=True)
    if damage == "another library":
        subprocess.run(f"{OTHER} {target}", shell=True, check=True)
    else:
        target.write_text(damage)
    backend, logits = run()
    assert backend == "native"
    assert relative(logits, expected) <= 1e-6
    assert kept(cache) == target
    assert b"few_tokens" in target.read_bytes()


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (1, 3, 5, 1), (2, 3, 37, 1), (3, 5, 7, 3)])
def test_rotate_equals_its_twin(layout, sizes):
    """Heads that stand at strides, tables shared by all rows or one for each."""
    from lamina.arch import Rotary
    from lamina.ops.rotary import rotate, rotate_reference, tables

    batch, heads, tokens, rows = sizes
    rotary = Rotary(base=100.0, dim=6, layout=layout)
    wide = torch.randn(batch, tokens, heads * 6 + 11, generator=torch.Generator().manual_seed(0))
    x = wide[..., 4 : 4 + heads * 6].view(batch, tokens, heads, 6).transpose(1, 2)
    positions = torch.arange(tokens) + 13 * torch.arange(rows)[:, None]
    with torch.no_grad():
        cos, sin = (table[:, None] for table in tables(rotary, positions, tokens, torch.float32))
        got = rotate(x, rotary, cos, sin)
    for row in range(batch):
        expected = rotate_reference(x[row : row + 1], rotary, positions[row if rows > 1 else 0])
        assert float((got[row] - expected[0]).abs().max()) <= 1e-6
