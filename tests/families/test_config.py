"""Reading a config.json: what is wrong is said in one sentence, what is old means what is new, nothing is lost."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lamina
from lamina.arch import Architecture
from lamina.errors import LaminaError
from lamina.families import families, family_named, read, read_config
from lamina.published.config import Config
from tests.families.table import BASE, LLAMA3, LONGROPE, ROWS, YARN

GOLDEN = Path(__file__).parents[1] / "golden"
LLADA: dict[str, Any] = {
    "model_type": "llada",
    "d_model": 48,
    "n_heads": 6,
    "n_kv_heads": 2,
    "n_layers": 3,
    "mlp_hidden_size": 56,
    "vocab_size": 97,
    "embedding_size": 101,
    "max_sequence_length": 64,
    "rope_theta": 700.0,
    "mask_token_id": 96,
}
MLLAMA = BASE | {"model_type": "mllama_text_model", "num_hidden_layers": 5, "cross_attention_layers": [1, 3]}


def _configs() -> dict[str, dict[str, Any]]:
    """A valid config of every row and family, as our writers write it."""
    found = {}
    for row in ROWS:
        theirs = getattr(transformers, row.config_class)(**row.config)
        arch = read_config(json.loads(theirs.to_json_string()))
        found[row.name] = family_named(arch.family).write(arch)
    found |= {"llada": LLADA, "mllama": MLLAMA}
    found |= {name: json.loads((GOLDEN / name / "config.json").read_text()) for name in ("trm-attention", "hrm")}
    found["mistral3"] = {
        "model_type": "mistral3",
        "vision_config": {"hidden_size": 64},
        "text_config": found["mistral"],
    }
    found["gemma3-image"] = {"model_type": "gemma3", "text_config": found["gemma3"], "mm_tokens_per_image": 4}
    for name in ("grok-2.5", "nanbeige-4.2-3b"):  # the reference has neither
        arch = lamina.architecture(name)
        found[arch.family] = family_named(arch.family).write(arch.replace(blocks=arch.blocks[:3]))
    found["lamina"] = family_named("lamina").write(read_config(found["gemma2"]))
    return found


CONFIGS = _configs()


def fails(data: Any, *words: str) -> str:
    """What is said of a config that cannot be read: one line that begins with the file and holds the words."""
    with pytest.raises(LaminaError) as caught:
        read_config(data, "place/config.json")
    message = str(caught.value)
    assert message.startswith("place/config.json")
    assert "\n" not in message
    assert len(message) < 700
    for word in words:
        assert word in message, (word, message)
    return message


BY_HAND = {"gla", "linear_attn", "retnet", "delta_net", "gated_deltanet", "rwkv7", "bailing_linear"}
"""Families without a class in the reference: their own tests compare them with forwards written there."""


def test_every_family_is_here():
    """Of those that run; the others are read alone yet (tests/families/test_read_*)."""
    running = {family.name for family in families().values() if family.layout}
    assert {read_config(config).family for config in CONFIGS.values()} == running - {"lamina"} - BY_HAND


@pytest.mark.parametrize("name", CONFIGS)
def test_valid_configs_are_read_and_left_alone(name):
    before = copy.deepcopy(CONFIGS[name])
    arch = read_config(CONFIGS[name], "config.json", "a name")
    assert CONFIGS[name] == before
    assert arch.name == "a name"
    assert arch == read_config(json.loads(json.dumps(before)))


# ------------------------------------------------------------------------------------------------- what is wrong


def test_an_unknown_model_type_names_the_closest():
    message = fails(
        {"model_type": "qwen4"}, "model_type 'qwen4' is not known", "did you mean 'qwen", "are known, such as"
    )
    near = ("qwen2", "qwen3", "qwen3_5", "qwen3_next")
    assert sum(kind in message for kind in near) >= 2
    assert f"{len(families())} are known" in message
    assert "did you mean" not in fails({"model_type": "zzz"}, "'zzz'")
    fails({}, "'model_type' is missing")
    fails({"model_type": None}, "'model_type' is missing")
    fails({"model_type": 3}, "'model_type' is 3; a string is expected")
    fails({"model_type": ["llama"]}, "'model_type'", "a string is expected")


@pytest.mark.parametrize("data", [[], "llama", 3, None, True, [{"model_type": "llama"}]], ids=repr)
def test_a_config_that_is_no_object(data):
    fails(data, "an object with a model_type is expected", type(data).__name__)


SIZES = {"hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"}
NEEDED = {
    "gpt2": set(),
    "gemma2": SIZES,
    "gemma3": SIZES,
    "llada": {"d_model", "n_heads", "n_layers", "vocab_size", "mask_token_id"},
    "trm-attention": {
        *("hidden_size", "num_heads", "seq_len", "expansion", "L_layers", "H_cycles", "L_cycles", "halt_max_steps"),
        *("num_puzzle_identifiers", "vocab_size"),
    },
    "lamina": {"architecture"},
    "llama": SIZES | {"vocab_size"},
    "phi3": SIZES | {"vocab_size"},
    "mllama": SIZES | {"vocab_size"},
    "cohere2": SIZES | {"vocab_size"},
}
DEFAULTS_DISAGREE = {"num_key_value_heads", "mlp_t", "H_layers", "cross_attention_layers"}
"""Keys with a default that contradicts the other values of these tiny configs."""


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_key_is_named(name):
    config, needed = CONFIGS[name], set()
    for key in config:
        if key == "model_type":
            continue
        less = {k: v for k, v in config.items() if k != key}
        try:
            read_config(less)
        except LaminaError:
            if key not in DEFAULTS_DISAGREE:
                fails(less, f"the key {key!r} is missing")
                needed.add(key)
    assert needed == NEEDED[name]


WRONG = ["7", "", True, False, 2.5, [3], [], {}, {"a": 1}]


@pytest.mark.parametrize(
    "key", ["hidden_size", "num_attention_heads", "num_key_value_heads", "max_position_embeddings"]
)
@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_a_whole_number_of_another_type(key, value):
    fails(CONFIGS["llama"] | {key: value}, repr(key), repr(value), "a whole number is expected")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("rms_norm_eps", True, "a number is expected"),
        ("rms_norm_eps", "1e-5", "a number is expected"),
        ("tie_word_embeddings", 1, "true or false is expected"),
        ("attention_bias", "false", "true or false is expected"),
        ("hidden_act", ["silu"], "a string is expected"),
        ("hidden_act", "swiglu", "'hidden_act' is 'swiglu'; known: 'silu'"),
        ("rope_parameters", [1], "an object is expected"),
        ("rope_scaling", "linear", "an object is expected"),
        ("vocab_size", None, "'vocab_size' is missing"),
        ("num_hidden_layers", 0, "a whole number from 1 to 4096"),
        ("num_hidden_layers", -3, "a whole number from 1 to 4096"),
        ("num_hidden_layers", 10**9, "a whole number from 1 to 4096"),
        ("vocab_size", 2**31 + 1, "a whole number from 1 to 2147483648"),
        ("hidden_size", 10**30, "out of range"),
        ("rms_norm_eps", math.nan, "out of range"),
        ("rms_norm_eps", math.inf, "out of range"),
        ("rms_norm_eps", -math.inf, "out of range"),
        ("rms_norm_eps", 10**400, "'rms_norm_eps'"),
        ("rms_norm_eps", -1e-5, "eps"),
        ("head_dim", 2**16 + 1, "65536"),
        ("head_dim", 11, "must be even"),
        ("num_key_value_heads", 4, "heads (6) must be a multiple of kv_heads (4)"),
    ],
    ids=lambda v: str(v)[:20],
)
def test_a_wrong_value_is_named(key, value, said):
    fails(CONFIGS["llama"] | {key: value}, said)


@pytest.mark.parametrize("name", CONFIGS)
def test_an_unknown_key_is_an_error(name):
    """An absent value is as if the key were absent; any other may matter."""
    config = copy.deepcopy(CONFIGS[name])
    inner = config.get("text_config", config)
    inner["attention_sinks"] = None
    assert read_config(config) == read_config(CONFIGS[name])
    inner["attention_sinks"] = 4
    fails(config, "'attention_sinks'", "(4)", "not understood")


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("gpt2", "scale_attn_by_inverse_layer_idx", True),
        ("phi3", "attention_bias", True),
        ("cohere2", "use_qk_norm", True),
        ("cohere2", "position_embedding_type", "alibi"),
        ("gemma3", "use_bidirectional_attention", True),
        ("llada", "alibi", True),
        ("llada", "block_type", "sequential"),
        ("llama", "is_encoder_decoder", True),
        ("llama", "add_cross_attention", True),
    ],
)
def test_a_known_key_with_a_value_that_is_not(name, key, value):
    fails(CONFIGS[name] | {key: value}, repr(key), repr(value))
    assert read_config(CONFIGS[name] | {key: not value} if value is True else CONFIGS[name]) == read_config(
        CONFIGS[name]
    )


@pytest.mark.parametrize(
    "name", ["cwm", "olmo3", "qwen3-tied-windows", "gemma2", "gemma3", "smollm3-windows", "cohere2"]
)
def test_layer_types(name):
    config = CONFIGS[name]
    kinds = config["layer_types"]
    fails(config | {"layer_types": kinds[:-1]}, f"layer_types has {len(kinds) - 1} entries for {len(kinds)} layers")
    fails(config | {"layer_types": [*kinds[:-1], "chunked_attention"]}, f"layer_types[{len(kinds) - 1}]", "chunked")
    fails(config | {"layer_types": [*kinds[:-1], 3]}, f"layer_types[{len(kinds) - 1}] is 3", "full_attention")
    fails(config | {"layer_types": [["full_attention"]] * len(kinds)}, "layer_types[0]")
    fails(config | {"layer_types": "full_attention"}, "'layer_types'", "a list is expected")
    swapped = [{"full_attention": "sliding_attention"}.get(kind, "full_attention") for kind in kinds]
    arch, other = read_config(config), read_config(config | {"layer_types": swapped})
    windows = [[op.window for op in a.ops() if hasattr(op, "window")] for a in (arch, other)]
    assert [w is None for w in windows[0]] == [w is not None for w in windows[1]]


def test_other_lists():
    fails(CONFIGS["smollm3"] | {"no_rope_layers": [1, 0]}, "no_rope_layers needs 3 entries")
    fails(CONFIGS["smollm3"] | {"no_rope_layers": [1, 0, 2]}, "no_rope_layers needs 3 entries of 0 or 1")
    fails(MLLAMA | {"cross_attention_layers": [5]}, "cross_attention_layers holds 5; layers are 0 to 4")
    fails(MLLAMA | {"cross_attention_layers": ["1"]}, "cross_attention_layers holds '1'")


# --------------------------------------------------------------------------------------------- rotary parameters

SCALINGS: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 3.0},
    "dynamic": {"rope_type": "dynamic", "factor": 3.0},
    "llama3": LLAMA3,
    "yarn": YARN,
    "yarn-all": YARN | {"beta_fast": 8.0, "beta_slow": 2.0, "mscale": 0.7, "mscale_all_dim": 1.2, "truncate": False},
    "longrope": {
        "rope_type": "longrope",
        "short_factor": [1.0, 1.1, 1.3, 1.4],
        "long_factor": [1.5, 2.5, 4.0, 5.0],
        "original_max_position_embeddings": 64,
    },
}
ROTATED = {
    "llama": "LlamaConfig",
    "mistral": "MistralConfig",
    "qwen2": "Qwen2Config",
    "qwen3": "Qwen3Config",
    "olmo2": "Olmo2Config",
    "olmo3": "Olmo3Config",
    "gemma2": "Gemma2Config",
    "gemma3": "Gemma3TextConfig",
    "smollm3": "SmolLM3Config",
    "granite": "GraniteConfig",
    "cohere2": "Cohere2Config",
    "cwm": "CwmConfig",
    "mllama": "MllamaTextConfig",
    "phi3": "Phi3Config",
}
NESTED = {"gemma3", "olmo3"}
"""Families whose layer types have rotary parameters of their own; the old keys scale the full layers only."""


def test_dialects_are_compared_where_each_is_read():
    """Later families read the same keys by the same function, and their rows have scalings of their own."""
    assert set(ROTATED) <= {f.name for f in families().values() if f.layout}


def three_ways(family: str, scaling: dict[str, Any]) -> list[Architecture]:
    """Old keys with `type`, old keys with `rope_type`, and new keys."""
    theta = 500_000.0  # the reference's OLMo 3 reads an old rope_theta for its full layers only; this is its default
    scaling = {key: value for key, value in scaling.items() if key != "rope_theta"}
    rest = {k: v for k, v in scaling.items() if k != "rope_type"}
    base = {k: v for k, v in CONFIGS[family].items() if k not in ("rope_parameters", "head_dim")}
    base |= {"original_max_position_embeddings": 64} if family == "phi3" else {"head_dim": 8}
    local = {"rope_theta": theta, "rope_type": "default"}
    old = base | {"rope_theta": theta} | ({"rope_local_base_freq": theta} if family == "gemma3" else {})
    new = {"rope_theta": theta} | scaling
    if family in NESTED:
        new = {"full_attention": new, "sliding_attention": local}
    plain = scaling["rope_type"] == "default"
    configs = [
        old | ({} if plain else {"rope_scaling": {"type": scaling["rope_type"], **rest}}),
        old | {"rope_scaling": scaling},
        base | {"rope_parameters": new},
    ]
    theirs = getattr(transformers, ROTATED[family])(**copy.deepcopy(configs[1]))
    return [*(read_config(config) for config in configs), read_config(json.loads(theirs.to_json_string()))]


def combinations() -> list[tuple[str, str]]:
    """Phi-3 knows no scaling but longrope, and CWM without rotary keys is scaled (test_cwm_scales_by_default)."""
    left_out = {("phi3", name) for name in SCALINGS if name not in ("default", "longrope")} | {("cwm", "default")}
    return [pair for pair in ((f, name) for f in ROTATED for name in SCALINGS) if pair not in left_out]


@pytest.mark.parametrize(("family", "name"), combinations())
def test_old_and_new_rotary_keys_say_the_same(family, name):
    """And what the reference makes of the old keys, written by the reference, says it too."""
    with_type, with_rope_type, new, theirs = three_ways(family, SCALINGS[name])
    assert with_type == with_rope_type == new == theirs
    kinds = {
        None if op.rotary is None or op.rotary.scaling is None else op.rotary.scaling.kind
        for op in new.ops()
        if hasattr(op, "rotary") and (op.rotary or family not in ("cohere2", "smollm3"))
    }
    assert name.split("-")[0].replace("default", "None") in map(str, kinds)


def test_cwm_scales_by_default():
    base = {k: v for k, v in CONFIGS["cwm"].items() if k != "rope_parameters"}
    theirs = json.loads(transformers.CwmConfig(**base).to_json_string())
    assert theirs["rope_parameters"]["rope_type"] == "llama3"
    assert read_config(base) == read_config(theirs)


def test_early_names_of_longrope():
    """Phi-3's first configs say "su", and some say "yarn" and mean the same."""
    factors = {key: LONGROPE[key] for key in ("short_factor", "long_factor")}
    factors["original_max_position_embeddings"] = 64
    base = {k: v for k, v in CONFIGS["phi3"].items() if k != "rope_parameters"}
    base |= {"original_max_position_embeddings": 64, "rope_theta": 900.0, "partial_rotary_factor": 0.75}
    read_as = [read_config(base | {"rope_scaling": {"type": kind, **factors}}) for kind in ("su", "yarn", "longrope")]
    assert read_as[0] == read_as[1] == read_as[2]
    theirs = transformers.Phi3Config(**base, rope_scaling={"type": "su", **factors})
    assert read_config(json.loads(theirs.to_json_string())) == read_as[0]


@pytest.mark.parametrize("key", ["rope_parameters", "rope_scaling"])
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rope_type": "ntk-by-parts", "factor": 2.0}, "rope_type is 'ntk-by-parts'; known: default, linear"),
        ({"rope_type": "linear", "factor": 2.0, "wavelength": 3}, "'wavelength'"),
        ({"rope_type": "linear", "factor": 2.0, "beta_fast": 32}, "'beta_fast'"),
        ({"rope_type": "linear"}, "'factor' is missing"),
        ({"rope_type": "linear", "factor": 0.0}, "factor: Input should be greater than 0"),
        ({"rope_type": "linear", "factor": -2}, "factor: Input should be greater than 0"),
        ({"rope_type": "linear", "factor": math.nan}, "out of range"),
        ({"rope_type": "linear", "factor": "2"}, "a number is expected"),
        ({"rope_type": 3, "factor": 2.0}, "'rope_type' is 3; a string is expected"),
        ({"rope_type": "default", "rope_theta": 0}, "base: Input should be greater than 0"),
        ({"rope_type": "default", "rope_theta": "1e4"}, "a number is expected"),
        ({"rope_type": "default", "partial_rotary_factor": 1.5}, "must not exceed head_dim"),
        ({"rope_type": "default", "partial_rotary_factor": 0.0}, "dim: Input should be greater than 0"),
        ({"rope_type": "default", "partial_rotary_factor": 0.3}, "must be even"),
        ({"rope_type": "llama3", "factor": 4.0}, "'low_freq_factor' is missing"),
        (LLAMA3 | {"high_freq_factor": 0.5}, "high_frequency 0.5 is below low_frequency 1.0"),
        (YARN | {"truncate": "no"}, "true or false is expected"),
        (YARN | {"original_max_position_embeddings": 0}, "a whole number from 1"),
        (SCALINGS["longrope"], "scaling.short has 4 factors; 6 are needed"),
        (SCALINGS["longrope"] | {"short_factor": "1"}, "a list is expected"),
        (SCALINGS["longrope"] | {"short_factor": ["a"] * 6}, "short"),
        (SCALINGS["longrope"] | {"short_factor": [math.nan] * 6}, "short"),
    ],
    ids=lambda v: str(v)[:40],
)
def test_wrong_rotary_parameters(key, values, said):
    base = {k: v for k, v in CONFIGS["llama"].items() if k != "rope_parameters"}
    fails(base | {key: values}, said)


@pytest.mark.parametrize("family", sorted(NESTED))
def test_rotary_parameters_by_layer_type(family):
    base = CONFIGS[family]
    nested = base["rope_parameters"]
    fails(base | {"rope_parameters": nested | {"full_attention": {"rope_type": "?"}}}, "rope_type is '?'")
    fails(base | {"rope_parameters": nested | {"full_attention": [1]}}, "place/config.json")
    fails(base | {"rope_parameters": nested | {"full_attention": {"x": 1, "rope_theta": 5}}}, "'x'")


# ------------------------------------------------------------------------------------------- what is passed over


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_ignored_is_listed_with_its_reason(name):
    data, plain = copy.deepcopy(CONFIGS[name]), copy.deepcopy(CONFIGS[name])
    inner = data.get("text_config", data)
    inner |= {"torch_dtype": "bfloat16", "initializer_range": 0.02, "is_encoder_decoder": False, "eos_token_id": [1, 2]}
    if name.startswith("qwen4-exp"):  # where n-grams end at that token
        plain["eos_token_id"] = [1, 2]
    config = Config(data)
    arch = read(config)
    assert arch == read_config(plain)
    assert config.ignored["torch_dtype"] == "storage"
    assert config.ignored["initializer_range"] == "training"
    assert config.ignored["eos_token_id"] == "generation"
    assert config.ignored["is_encoder_decoder"] == "the usual value"
    if "vision_config" in data:
        assert [encoder.width for encoder in arch.encoders] == [64]
    elif "text_config" in data:
        assert "no encoder" in config.ignored["mm_tokens_per_image"]
    assert "hidden_size" not in config.ignored


def test_defaults_are_those_of_the_reference():
    """A config that holds sizes only means what the reference makes of it."""
    sizes = {k: BASE[k] for k in (*SIZES, "vocab_size")} | {"num_attention_heads": 32, "hidden_size": 256}
    compared = 0
    for family, config_class in ROTATED.items():
        keys = dict(sizes) | ({"num_hidden_layers": 40} if family == "mllama" else {})
        theirs = getattr(transformers, config_class)(**keys)
        ours = read_config(keys | {"model_type": theirs.model_type})
        assert ours == read_config(json.loads(theirs.to_json_string())), family
        compared += 1
    assert compared == 14
    assert read_config({"model_type": "gpt2"}) == read_config(json.loads(transformers.GPT2Config().to_json_string()))


# -------------------------------------------------------------------------------------------------------- files


def of_file(path: Path) -> str:
    with pytest.raises(LaminaError) as caught:
        lamina.architecture(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"model_type": "llama"', "not JSON"),
        (b"[1, 2]", "an object with a model_type is expected, not list"),
        (b"null", "an object with a model_type is expected, not NoneType"),
        (b'{"model_type": "ll\xffama"}', "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 1_000_000, "not JSON"),
        (b'{"a":' * 1_000_000, "not JSON"),
        (b'{"model_type": "llama", "vocab_size": ' + b"9" * 10_000 + b"}", "not JSON"),
        (b'{"model_type": "llama", "hidden_size": NaN}', "'hidden_size' is nan; a whole number is expected"),
        (b'{"model_type": "llama", "vocab_size": 97, "hidden_size": Infinity}', "'hidden_size'"),
    ],
    ids=lambda v: str(v)[:24],
)
def test_files_that_are_no_config(tmp_path, content, said):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    message = of_file(path)
    assert said in message
    assert str(path) in message
    assert message == of_file(tmp_path)  # the directory that holds it


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a terabyte of nothing
    assert "more than 16 MB" in of_file(path)


def test_a_file_of_the_largest_size_is_read(tmp_path):
    path = tmp_path / "config.json"
    text = json.dumps(CONFIGS["llama"])
    path.write_text(text + " " * ((16 << 20) - len(text)))
    assert lamina.architecture(path) == read_config(CONFIGS["llama"])
    path.write_text(text + " " * ((16 << 20) - len(text) + 1))
    assert "more than 16 MB" in of_file(path)


def test_what_is_not_there(tmp_path):
    assert "cannot be read (No such file" in of_file(tmp_path)
    assert "neither a file or directory nor a name in the catalog" in of_file(tmp_path / "none")
    with pytest.raises(LaminaError, match=r"did you mean 'qwen3-0\.6b'"):
        lamina.architecture("qwen3-0.6")


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize("levels", [100, 900, 100_000])
def test_deep_nesting(levels):
    llama = CONFIGS["llama"]
    fails(llama | {"unheard_of": deep(levels)}, "'unheard_of'")
    fails(llama | {"hidden_size": deep(levels)}, "'hidden_size'")
    fails(llama | {"rope_parameters": deep(levels)}, "'a'")
    fails(CONFIGS["mistral3"] | {"text_config": deep(levels)}, "text_config")
    fails(CONFIGS["lamina"] | {"architecture": deep(levels)})
    fails(CONFIGS["lamina"] | {"architecture": {"family": "llama", "blocks": [deep(levels)]}})


def test_what_is_very_long_is_cut():
    fails(CONFIGS["llama"] | {"model_type": "x" * 10_000}, "xxx...", "are known, such as")
    fails(CONFIGS["llama"] | {"x" * 10_000: 1}, "xxx...", "not understood")
    fails(CONFIGS["llama"] | {"hidden_act": "x" * 10_000}, "'hidden_act'", "known: 'silu'")
    fails(CONFIGS["llama"] | {"hidden_size": 10**6000}, "'hidden_size' is a very large int; that is out of range")
    fails(CONFIGS["llama"] | {"rms_norm_eps": 10**6000}, "'rms_norm_eps' is a very large int; that is out of range")
    fails(MLLAMA | {"cross_attention_layers": ["x" * 10_000]}, "cross_attention_layers holds")


def test_a_text_part_does_not_change_what_was_given():
    text = {k: v for k, v in CONFIGS["mistral"].items() if k != "tie_word_embeddings"}
    data = {"model_type": "mistral3", "text_config": text, "tie_word_embeddings": True}
    before = copy.deepcopy(data)
    assert read_config(data).head.tied
    assert data == before


# --------------------------------------------------------------------------------------------------------- fuzz

NUMBERS = [0, -1, 1, 2, 3, 5, 48, 4096, 4097, 2**31, 2**63, 10**18, -(10**30), 10**400]
NUMBERS += [0.0, -0.0, 0.5, 1e-300, 1e308, -1.5, math.nan, math.inf]
WORDS = ["", "linear", "yarn", "default", "full_attention", "sliding_attention", "silu", "none", "x" * 5000, "a\nb"]
SCALARS = st.one_of(
    st.sampled_from([None, True, False, *NUMBERS, *WORDS]),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
KEYS = sorted({key for config in CONFIGS.values() for key in config})
MUTATION = st.tuples(st.integers(0, 10**6), st.sampled_from(["delete", "replace", "replace", "add"]), JSON)


def holders(value: Any) -> list[Any]:
    """Every object and list within a config."""
    if not isinstance(value, dict | list):
        return []
    items = value.values() if isinstance(value, dict) else value
    return [value, *(holder for item in items for holder in holders(item))]


def mutated(config: dict[str, Any], mutations: list[tuple[int, str, Any]]) -> dict[str, Any]:
    config = copy.deepcopy(config)
    for number, what, value in mutations:
        found = holders(config)
        # the outermost object half of the time, else any within
        holder = config if number % 2 else found[number // 2 % len(found)]
        places = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if what == "add" and isinstance(holder, dict):
            holder[KEYS[number % len(KEYS)]] = value
        elif what == "add":
            holder.append(value)
        elif places:
            place = places[number % len(places)]
            if what == "delete":
                del holder[place]
            else:
                holder[place] = value
    return config


def holds(data: Any) -> bool:
    """A valid architecture comes out, or one line of LaminaError. Returns whether it was valid."""
    try:
        arch = read_config(data, "c")
    except LaminaError as error:
        message = str(error)
        assert message
        assert "\n" not in message
        assert len(message) < 1000
        valid = False
    else:
        assert isinstance(arch, Architecture)
        assert arch.parameters().total > 0
        assert arch.state_bytes(17, 2) >= 0
        assert arch.flops(3, 5) > 0
        if len(arch.blocks) < 100:
            assert Architecture.from_json(arch.to_json()) == arch
        valid = True
    return valid


FUZZ = settings(
    max_examples=40, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("name", CONFIGS)
def test_mutated_configs(name):
    outcomes = set()

    @FUZZ
    @given(st.lists(MUTATION, min_size=1, max_size=3))
    def run(mutations):
        outcomes.add(holds(mutated(CONFIGS[name], mutations)))

    run()
    assert outcomes == {True, False}  # both were seen


@settings(FUZZ, max_examples=150)
@given(JSON | st.dictionaries(st.sampled_from(KEYS), JSON, max_size=9))
def test_arbitrary_json(data):
    assert not holds(data)


@settings(FUZZ, max_examples=200)
@given(
    st.sampled_from(sorted(families())),
    st.dictionaries(st.sampled_from(KEYS), JSON, max_size=9),
)
def test_arbitrary_keys_of_a_family(kind, keys):
    holds(keys | {"model_type": kind})


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("number", NUMBERS, ids=lambda n: str(n)[:12])
def test_every_number_replaced(name, number):
    """Each number of each config in turn, by one that is small, huge or none."""
    replaced = 0
    for index in range(len(holders(CONFIGS[name]))):
        keys = holders(CONFIGS[name])[index]
        for place in list(keys) if isinstance(keys, dict) else range(len(keys)):
            if type(keys[place]) not in (int, float):
                continue
            config = copy.deepcopy(CONFIGS[name])
            holders(config)[index][place] = number
            holds(config)
            replaced += 1
    assert replaced > 5


def test_the_most_layers_that_are_accepted():
    arch = read_config(CONFIGS["llama"] | {"num_hidden_layers": 4096})
    assert len(arch.blocks) == 4096
    assert arch.parameters().total > 4000 * sum(op.parameters(48) for op in arch.blocks[0].ops())
    assert arch.state_bytes(100) > 0


def test_hrm_bounds_its_layers():
    fails(CONFIGS["hrm"] | {"H_layers": 4097}, "'H_layers'")
