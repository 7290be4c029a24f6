"""compare, diff, fit and show --parts, as a user runs them."""

from __future__ import annotations

import json

import pytest

import lamina
from lamina.machine import device, devices
from lamina.machine.roofline import bounds


def parsed(result):
    assert result.exit_code in (0, 1), result.output
    return json.loads(result.stdout)


def test_compare_at_several_contexts(run):
    rows = parsed(run("compare", "qwen3-0.6b", "deepseek-v3", "--context", "4k,128K", "--device", "h200", "--json"))
    for row in rows:
        arch = lamina.architecture(row["name"])
        assert [cost["context"] for cost in row["costs"]] == [4096, 131072]
        for cost in row["costs"]:
            priced = arch.cost(context=cost["context"])
            assert cost["state_bytes"] == priced.state_bytes == arch.state_bytes(cost["context"])
            assert cost["weight_bytes"] == 2 * arch.parameters().total
            limit = bounds(priced, device("h200"))
            assert (cost["bounds"]["first_token_seconds"], cost["bounds"]["token_seconds"]) == (limit.first, limit.next)
        assert row["state_bytes"] == row["costs"][0]["state_bytes"]  # the first, as scripts know it
    text = run("compare", "qwen3-0.6b", "deepseek-v3", "--context", "4k,128k", "--device", "h200").stdout
    assert text.splitlines()[0].split()[:2] == ["name", "parameters"]
    for heading in ("state at 4k", "state at 128k", "FLOPs/token at 4k", "first token >=", "token >="):
        assert heading in text
    assert "lower bounds on NVIDIA H200 SXM" in text
    assert "15 GB*" in text  # qwen3-0.6b is published with 40k tokens
    assert "* longer than the published context" in text


def test_compare_in_other_precisions(run):
    rows = parsed(
        run("compare", "gpt-oss-20b", "--weights", "bf16,experts=mxfp4", "--cache", "fp8", "--batch", "3", "--json")
    )
    cost = rows[0]["costs"][0]
    assert cost["weights"] == "bfloat16,experts=mxfp4"
    assert 13.7e9 < cost["weight_bytes"] < 13.9e9  # published: 12.8 GiB
    assert cost["state_bytes"] == lamina.architecture("gpt-oss-20b").state_bytes(32768, 3, "fp8")


def test_edited_values_are_compared_and_differ(run):
    edited = "qwen3-0.6b:blocks[*].mixer=gated_deltanet@3:1"
    rows = parsed(run("compare", "qwen3-0.6b", edited, "--json"))
    assert rows[1]["name"] == edited
    assert rows[1]["costs"][0]["state_bytes"] < rows[0]["costs"][0]["state_bytes"] / 3
    result = run("diff", "qwen3-0.6b", edited)
    assert result.exit_code == 1
    assert "3 x Gated DeltaNet, 16 heads" in result.stdout


def test_diff(run, tmp_path):
    result = run("diff", "llama-3-8b", "olmo-2-7b")
    assert result.exit_code == 1
    assert "norm:           before each sublayer -> after each sublayer" in result.stdout
    same = run("diff", "llama-3-8b", "Llama-3-8B")
    assert same.exit_code == 0
    assert same.stdout == "llama-3-8b and llama-3-8b are the same architecture\n"
    said = parsed(run("diff", "llama-3-8b", "llama-3.1-8b", "--json"))
    assert said["same"] is False
    assert {d["aspect"] for d in said["differences"]} == {"context", "positions scaling"}
    assert [d["path"] for d in said["paths"]] == ["blocks[0-31].mixer.rotary.scaling", "context"]
    paths = run("diff", "llama-3-8b", "llama-3.1-8b", "--paths").stdout
    assert "blocks[0-31].mixer.rotary.scaling: none -> " in paths
    assert parsed(run("diff", "phi-4", "phi-4", "--json"))["same"] is True
    (tmp_path / "config.json").write_text(json.dumps(lamina.catalog.config("phi-4") | {"rope_theta": 3.0}))
    local = run("diff", "phi-4", tmp_path / "config.json")
    assert (local.exit_code, "positions base: 250,000 -> 3" in local.stdout) == (1, True)


def test_fit(run):
    result = run("fit", "llama-3.1-405b", "--device", "h200")
    assert result.exit_code == 1
    assert "llama-3.1-405b does not fit on NVIDIA H200 SXM" in result.stdout
    said = parsed(run("fit", "llama-3.1-405b", "--device", "h200", "--devices", "8", "--json"))
    assert said["fits"] is True
    assert said["bytes"]["weights"] == 2 * lamina.architecture("llama-3.1-405b").parameters().total
    assert said["bytes"]["memory"] == 8 * 141 * 10**9
    assert said["bytes"]["needed"] == sum(said["bytes"][name] for name in ("weights", "state", "working"))
    assert said["devices_needed"] == 6
    assert "longest context" in run("fit", "qwen3-0.6b", "--device", "rtx-4090").stdout


def test_what_would_make_it_fit_does(run):
    said = parsed(run("fit", "qwen3-32b", "--device", "rtx-4090", "--context", "32k", "--json"))
    assert said["fits"] is False
    assert said["would_fit"]
    for change in said["would_fit"]:
        options = [str(word) for name, value in change.items() for word in (f"--{name}", value)]
        merged = ["fit", "qwen3-32b", "--device", "rtx-4090", "--json"]
        merged += [] if "context" in change else ["--context", "32k"]
        assert parsed(run(*merged, *options))["fits"] is True, change


def test_fit_here(run):
    said = parsed(run("fit", "gpt-2-124m", "--json"))
    assert said["device"]["memory"] > 1e9
    assert said["fits"] is True
    assert said["device"]["bandwidth"] > 1e8


def test_a_context_beyond_the_limit_is_a_warning(run):
    result = run("fit", "qwen3-0.6b", "--device", "h100", "--context", "1M")
    assert "warning: 1M tokens are more than the 40k stated for qwen3-0.6b" in result.stderr
    assert result.exit_code == 1
    assert "state" in result.stdout


def test_parts_add_up(run):
    said = parsed(
        run("show", "deepseek-v3", "--parts", "--context", "8k", "--batch", "2", "--weights", "fp8", "--json")
    )
    for part, whole in (("parameters", said["parameters"]["total"]), ("weight_bytes", said["weight_bytes"])):
        assert sum(line[part] for line in said["parts"]) == whole
    assert sum(line["state_bytes"] for line in said["parts"]) == said["state"]["allocated"]
    assert sum(line["decode_flops"] for line in said["parts"]) == said["flops"]["decode"]
    text = run("show", "deepseek-v3", "--parts", "--device", "b200").stdout
    assert "blocks[3-60].feed_forward" in text
    assert text.count("lower bounds") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["compare", "qwen3-0.6", "phi-4"], "did you mean 'qwen3-0.6b'"),
        (["compare", "phi-4", "--device", "h999"], "device 'h999' is not known; known: a100, auto, b200"),
        (["fit", "phi-4", "--device", "rtx-409"], "did you mean 'rtx-4090'"),
        (["compare", "phi-4", "--weights", "q9"], "precision 'q9' is not known"),
        (["compare", "phi-4", "--cache", "int3"], "precision 'int3' is not known"),
        (["compare", "phi-4", "--context", "many"], "context 'many' is no number of tokens; accepted: 4096, 4k"),
        (["compare", "phi-4", "--context", ""], "context '' is no number of tokens"),
        (["compare", "phi-4", "--batch", "0"], "--batch"),
        (["compare", "phi-4:blocks[*].mixr=mamba"], "'mixr' matches nothing; did you mean 'mixer'"),
        (["compare", "phi-4:blocks[*].mixer.heads=7"], "heads (7) must be a multiple of kv_heads (10)"),
        (["diff", "phi-4", "phi-5"], "did you mean 'phi-4'"),
        (["fit", "phi-4", "--device", ""], "device '' is not known"),
        (["fit", "phi-4", "--weights", "q4_k,q8_0"], "must name one general precision"),
        (["show", "phi-4", "--parts", "--cache", "x"], "precision 'x' is not known"),
    ],
)
def test_bad_input_is_one_sentence(run, arguments, says):
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert says in result.stderr


def test_a_list_of_devices_and_precisions_is_said(run):
    said = run("compare", "phi-4", "--device", "h999").stderr
    assert all(name in said for name in devices())
    said = run("compare", "phi-4", "--weights", "q9").stderr
    assert all(name in said for name in ("bfloat16", "fp8", "int8", "mxfp4", "q4_k"))
