"""Machines: the table of devices, this machine, bounds worked out by hand, and whether what is said to fit fits."""

from __future__ import annotations

import math
import os
import stat

import pytest

import lamina
from lamina.arch import GLU, Architecture, Attention, Block, Branch, Embedding
from lamina.errors import LaminaError
from lamina.machine import Device, device, devices, fitting, here
from lamina.machine.roofline import (
    LONGEST,
    bounds,
    devices_needed,
    largest,
    largest_batch,
    largest_context,
    needed_bytes,
    working_bytes,
)

# -------------------------------------------------------------------------------------------------------- the table


@pytest.mark.parametrize("row", devices().values(), ids=lambda d: d.name)
def test_the_table(row):
    """Every row has a source, sizes that are possible, and rates that grow as numbers get narrower."""
    assert row.source
    assert row.url.startswith("https://") or row.name.startswith("cpu")
    assert 1e9 < row.memory < 1e12
    assert 1e10 < row.bandwidth < 1e13
    assert set(row.peak) <= {"float64", "float32", "bfloat16", "fp8", "int8", "fp4"}
    rates = [row.peak[kind] for kind in ("float32", "bfloat16", "fp8", "fp4") if kind in row.peak]
    assert rates == sorted(rates)
    assert device(row.name) is device(row.title.upper()) is row


def test_the_rates_are_without_sparsity():
    """NVIDIA prints rates with sparsity too, which are double: H100 SXM does 989.4 TFLOP/s in bfloat16."""
    assert device("h100").peak["bfloat16"] == pytest.approx(989.4e12)
    assert (device("H200").memory, device("h200").bandwidth) == (141 * 10**9, 4.8e12)
    assert device("RTX 4090").peak["bfloat16"] == pytest.approx(165.2e12)


def test_an_unknown_device_lists_the_known():
    with pytest.raises(LaminaError, match=r"device 'h101' is not known; did you mean 'h100'.*known: .*auto.*rtx-4090"):
        device("h101")


def test_what_is_not_multiplied_is_done_wider():
    a100, m4 = device("a100"), device("m4-max")
    assert a100.rate("fp8") == a100.rate("fp4") == a100.rate("bfloat16") == 312e12
    assert a100.rate("int8") == 624e12
    assert m4.rate("fp8") == m4.rate("float32") == m4.rate("bfloat16") == 16.2e12
    assert device("b200").rate("fp4") == 9000e12
    with pytest.raises(LaminaError, match="no rate is known for float64"):
        a100.rate("float64")


# --------------------------------------------------------------------------------------------------------- bounds

SMALL = Architecture(
    name="small",
    family="llama",
    embedding=Embedding(vocab=100, width=16),
    blocks=(Block(branches=(Branch(op=Attention(heads=2, kv_heads=1, head_dim=8)), Branch(op=GLU(inner=32)))),) * 3,
)
MATRICES = 3 * (16 * (16 + 8 + 8) + 16 * 16 + 3 * 16 * 32)
TOY = Device(name="toy", title="Toy", memory=100_000, bandwidth=1000.0, peak={"bfloat16": 5000.0}, source="a test")


def test_bounds_by_hand():
    """A step of 2 sequences after 9 tokens each: FLOPs over the rate, bytes over the bandwidth, and the larger wins."""
    found = bounds(SMALL.cost(context=9, batch=2), TOY)
    pairs = 9 * 10 // 2
    prefill = 2 * (9 * 2 * MATRICES + 3 * 4 * 16 * pairs + 2 * 16 * 100)
    state = 2 * 3 * 9 * 2 * 8 * 2
    weights = 2 * (MATRICES + 16 * 100)  # bytes of what is multiplied
    assert found.first == pytest.approx(max(prefill / 5000, (weights + 2 * 18 * 16 + state) / 1000))
    decode = 2 * (2 * MATRICES + 3 * 4 * 16 * 10 + 2 * 16 * 100)
    moved = weights + 2 * 2 * 16 + state + 2 * 3 * 2 * 8 * 2
    assert found.next == pytest.approx(max(decode / 5000, moved / 1000))
    assert (found.first_limit, found.next_limit) == ("compute", "bandwidth")
    four = bounds(SMALL.cost(context=9, batch=2), TOY, 4)
    assert (four.first, four.next) == (found.first / 4, found.next / 4)


def test_bounds_of_a_known_model():
    """Llama 3 8B on an H100: 15 GB over 3.35 TB/s are 4.5 ms a token, whatever else."""
    cost = lamina.architecture("llama-3-8b").cost(context=1024)
    weights = 2 * (8030261248 - 128256 * 4096 + 4096)
    state = 1024 * 131072
    assert bounds(cost, device("h100")).next == (weights + state + 131072) / 3.35e12


def test_experts_that_a_batch_reaches():
    """Qwen3 30B: 8 of 128 experts for one token; for 16 tokens 128 (1 - (120 / 128)^16) of them."""
    arch = lamina.architecture("qwen3-30b-a3b")
    one, many = (arch.cost(batch=batch).moved["weights"] for batch in (1, 16))
    expert = 2 * 48 * 3 * 2048 * 768
    more = expert * 128 * (1 - (120 / 128) ** 16) - expert * 8 + 2 * 15 * 2048
    assert many - one == pytest.approx(more, abs=2)


# ------------------------------------------------------------------------------------------------------- what fits


@pytest.mark.parametrize("most", [1, 2, 3, 7, 8, 9, 100])
def test_the_largest_that_fits(most):
    for limit in range(most + 3):
        asked = []

        def fits(n, limit=limit, asked=asked):
            asked.append(n)
            return n <= limit

        assert largest(fits, most) == min(limit, most)
        assert max(asked) <= max(most, 1)


@pytest.mark.parametrize("memory", [0, 20_000, 30_000, 42_424, 90_000])
def test_largest_context_and_batch_one_by_one(memory):
    def price(**setting):
        return SMALL.cost(**{"context": 50, "batch": 1} | setting)

    contexts = [n for n in range(1, 3000) if needed_bytes(price(context=n)) <= memory]
    assert largest_context(price, memory) == max(contexts, default=0)
    batches = [n for n in range(1, 200) if needed_bytes(price(batch=n)) <= memory]
    assert largest_batch(price, memory) == max(batches, default=0)


def test_devices_needed():
    cost = SMALL.cost(context=1000)
    for memory in (1, 1000, 33_333, needed_bytes(cost), 10**9):
        small = TOY.replace(memory=memory)
        needed = devices_needed(cost, small)
        assert needed * memory >= needed_bytes(cost)
        assert needed == 1 or (needed - 1) * memory < needed_bytes(cost)
    assert devices_needed(cost, TOY.replace(memory=0)) > 1
    assert working_bytes(SMALL.cost(context=0)) > 0


NAMES = [
    *("qwen3-0.6b", "llama-3-8b", "gemma-3-27b", "mistral-7b", "deepseek-v3", "deepseek-v4-flash", "gpt-oss-20b"),
    *("qwen3-next-80b-a3b", "nemotron-3-nano-30b-a3b", "xlstm-7b", "llada-8b", "trm", "hrm", "ouro-2.6b"),
    *("minimax-m1", "zaya1-8b", "llama-3.2-11b-vision", "qwen3.8-flash-next"),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("where", ["rtx-4090", "h100", "cpu-ddr5"])
def test_remedies_really_fit(name, where):
    """Whatever is suggested fits when it is asked for; what is said to be the most is the most."""
    arch, place = lamina.architecture(name), device(where)
    asked = {"context": 70_000, "batch": 5, "weights": "bfloat16", "cache": "bfloat16"}
    said = fitting.fit(arch, place, **asked)
    assert said["fits"] == (said["bytes"]["needed"] <= place.memory) == (said["devices_needed"] == 1)
    assert bool(said["would_fit"]) != said["fits"]
    for change in said["would_fit"]:
        count = change.get("devices", 1)
        assert fitting.fit(arch, place, count, **asked | {k: v for k, v in change.items() if k != "devices"})["fits"]
    for key, most in (("largest_context", "context"), ("largest_batch", "batch")):
        if said[key]:
            assert fitting.fit(arch, place, **asked | {most: said[key]})["fits"]
            assert not fitting.fit(arch, place, **asked | {most: said[key] + 1})["fits"]
    if said["largest_context"] is None:
        assert fitting.fit(arch, place, **asked | {"context": LONGEST})["fits"]
    title, *rest = fitting.rendered(said)
    assert title.startswith(f"{name} {'fits' if said['fits'] else 'does not fit'} on {place.title}: bfloat16 weights")
    shown = "\n".join(f"{key}: {value}" for key, value in rest)
    assert "nan" not in shown
    assert str(LONGEST)[:6] not in shown.replace(",", "")


def test_what_does_not_grow_fits_at_any_length():
    """Recurrences and windows alone; but nothing fits where the weights do not."""
    for name in ("xlstm-7b", "mistral-7b", "llada-8b"):
        arch = lamina.architecture(name)
        said = fitting.fit(arch, device("h100"))
        assert ("longest context", "any: the state does not grow") in fitting.rendered(said)
        small = fitting.fit(arch, TOY)
        assert small["largest_context"] == 0
        assert ("longest context", "none") in fitting.rendered(small)
    hybrid = fitting.fit(lamina.architecture("qwen3-next-80b-a3b"), device("b200"))
    assert 800_000 < hybrid["largest_context"] < LONGEST


# ---------------------------------------------------------------------------------------------------- this machine


def smi(folder, monkeypatch, said: str, code: int = 0) -> None:
    """An nvidia-smi that says so."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '%b' '{said}'\nexit {code}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_gpus_as_nvidia_smi_reports_them(tmp_path, monkeypatch):
    smi(tmp_path, monkeypatch, "NVIDIA GeForce RTX 4090, 24564, 23000\\nNVIDIA H100 80GB HBM3, 81559, 81000\\n")
    first, second = here.gpus()
    assert (first.name, first.title, first.memory) == ("auto", "NVIDIA GeForce RTX 4090 (24 GiB)", 23000 << 20)
    assert (first.bandwidth, second.peak) == (device("rtx-4090").bandwidth, device("h100").peak)
    assert second.memory == 81000 << 20
    assert first.source.startswith("memory from nvidia-smi; rates: NVIDIA Ada")
    assert here.machine() == [first, second]


def test_a_gpu_that_is_not_in_the_table(tmp_path, monkeypatch):
    smi(tmp_path, monkeypatch, "Tesla T4, 15360, 15000\\nNVIDIA GeForce RTX 4090 Laptop GPU, 16376, [N/A]\\n")
    tesla, laptop = here.gpus()
    assert "rates are not known" in tesla.source
    assert tesla.bandwidth == device("l40s").bandwidth  # the slowest that is known
    assert "rates are not known" in laptop.source
    assert laptop.memory == 16376 << 20  # all, where it does not say what is free


@pytest.mark.parametrize(("said", "code"), [("", 0), ("Failed to initialize NVML\\n", 0), ("no devices", 9)])
def test_no_gpu(tmp_path, monkeypatch, said, code):
    smi(tmp_path, monkeypatch, said, code)
    assert here.gpus() == []


def test_a_gpu_that_does_not_say_its_memory(tmp_path, monkeypatch):
    smi(tmp_path, monkeypatch, "NVIDIA GB10, [N/A], [N/A]\\n")
    assert here.gpus() == []
    monkeypatch.setattr(here, "measured", lambda cores: (2e10, 3e11))
    (found,) = here.machine()
    assert found.title.startswith("CPU with")
    assert (found.bandwidth, found.peak) == (2e10, {"float32": 3e11})


def system(root, files: dict[str, str]):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable: 5000 kB\n"}
GROUP = "sys/fs/cgroup/box"
LIMITED = {
    "proc/self/cgroup": "0::/box/inner\n",
    f"{GROUP}/memory.max": "3000000\n",
    f"{GROUP}/memory.current": "1200000\n",
    f"{GROUP}/memory.stat": "anon 700000\ninactive_file 400000\nactive_file 100000\n",
    f"{GROUP}/inner/memory.max": "max\n",
    f"{GROUP}/inner/memory.current": "900000\n",
}
OLD = "sys/fs/cgroup/memory/box"
LIMITED_OLD = {
    "proc/self/cgroup": "9:cpu:/\n4:memory:/box\n0::/\n",
    f"{OLD}/memory.limit_in_bytes": "2000000\n",
    f"{OLD}/memory.usage_in_bytes": "1200000\n",
    f"{OLD}/memory.stat": "total_inactive_file 100000\n",
}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        (MEMINFO, 5000 * 1024),
        (MEMINFO | LIMITED, 3_000_000 - 1_200_000 + 400_000),
        (MEMINFO | LIMITED | {f"{GROUP}/inner/memory.max": "1000000\n"}, 100_000),
        (MEMINFO | LIMITED | {f"{GROUP}/memory.current": "9000000\n"}, 0),
        (MEMINFO | LIMITED_OLD, 2_000_000 - 1_200_000 + 100_000),
    ],
    ids=["no group", "limited", "limited within", "over the limit", "version 1"],
)
def test_free_memory(tmp_path, files, free):
    assert here.free_memory(system(tmp_path, files)) == free


def test_free_memory_of_this_machine():
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < here.free_memory() <= whole
    bandwidth, rate = here.measured(1, 1 << 22)
    assert 1e8 < bandwidth < 1e13
    assert 1e8 < rate < 1e14
    assert math.isfinite(bandwidth + rate)
