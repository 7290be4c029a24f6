"""Encoders of the catalog's multimodal entries, against the reference at full size on the meta device."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
import transformers

import lamina
from lamina import catalog
from lamina.arch import Architecture, Attention, Encoder, Linear, Merge, Patches
from lamina.errors import LaminaError
from lamina.families import read_config
from lamina.published.config import Config
from tests.arch.reference import HELD, _known

transformers.logging.set_verbosity_error()
STORED = ("std_bias", "std_scale")
"""Buffers of the reference that a checkpoint holds: the statistics that vectors are standardised with (Gemma 4)."""
WITHOUT = ("_min", "_max")
"""Buffers that are not counted: the bounds that Gemma 4 clips the inputs and outputs of matrices to."""
NAMES = [name for name in lamina.names() if lamina.architecture(name).encoders]
APART = {"glm-5.3-flash": 1536, "molmo2-8b": 3584, "qwen2-vl-72b": 3584}
"""Entries made of class defaults in which what the connector gives is not the decoder's width, but this."""


def reference(name: str) -> torch.nn.Module:
    config = transformers.AutoConfig.for_model(**_known(catalog.config(name)))
    with torch.device("meta"):
        return getattr(transformers, catalog.source(name)["counted_with"])(config)


def is_text(name: str) -> bool:
    return name.startswith("lm_head") or ("language_model" in name and "vision" not in name)


def flat(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of a convolution or a table of places, a matrix."""
    if len(shape) == 3 and shape[0] == 2:
        return (2 * shape[1], shape[2])
    if len(shape) == 3 and shape[:2] == (64, 64):
        return (64 * 64, shape[2])
    return (shape[0], math.prod(shape[1:])) if len(shape) > 2 else shape


def of_reference(model: torch.nn.Module) -> Counter:
    """The shapes of the encoders' weights; fused queries, keys and values apart."""
    found: Counter = Counter()
    held = {name: b for name, b in model.named_buffers() if name.endswith(STORED)}
    for name, tensor in {**dict(model.named_parameters()), **held}.items():
        if is_text(name):
            continue
        shape = flat(tuple(tensor.shape))
        if name.endswith("mm_input_projection_weight"):
            shape = shape[::-1]
        if ".qkv." in name:
            found[(shape[0] // 3, *shape[1:])] += 3
        else:
            found[shape] += 1
    return found


def of_ours(arch: Architecture) -> Counter:
    found: Counter = Counter()
    for line in arch.bill():
        for shape in line.weights.values() if line.group == "encoder" else ():
            found[flat(shape)] += line.times
    return found


@pytest.mark.parametrize("name", NAMES)
def test_encoders_are_the_references(name: str) -> None:
    """The total, exactly, and every shape; and what the catalog says was counted."""
    arch, model = lamina.architecture(name), reference(name)
    assert catalog.source(name)["counted_parameters"] == sum(p.numel() for p in model.parameters())
    learned = sum(p.numel() for p in model.parameters())
    learned += sum(b.numel() for key, b in model.named_buffers() if key.endswith((*HELD, *STORED)))
    assert arch.parameters().total == learned
    assert of_ours(arch) == of_reference(model)
    assert not any(is_text(key) for key, _ in model.named_buffers() if key.endswith(WITHOUT))


def test_the_multimodal_entries() -> None:
    assert len(NAMES) == 26
    beside = {"emu3": "a tokenizer of their own", "kimi-k3": "not public"}
    for name, reason in beside.items():
        config = Config(catalog.config(name))
        assert lamina.families.read(config).encoders == ()
        assert reason in config.ignored["vq_config" if name == "emu3" else "vision_config"]
    for name in NAMES:
        arch = lamina.architecture(name)
        for encoder in arch.encoders:
            assert encoder.gives == APART.get(name, arch.width)
            assert encoder.fusion == ("cross_attention" if name == "llama-3.2-11b-vision" else "stream")
    assert [e.modality for e in lamina.architecture("gemma-4-e4b").encoders] == ["image", "audio"]
    assert [e.modality for e in lamina.architecture("muse-spark-open").encoders] == ["image", "audio"]


@pytest.mark.parametrize("name", NAMES)
def test_text_pays_nothing_for_them(name: str) -> None:
    """But for the bytes of their weights."""
    whole = lamina.architecture(name)
    text, encoders = whole.replace(encoders=()), sum(e.parameters() for e in whole.encoders)
    assert whole.parameters().total - text.parameters().total == encoders > 0
    assert whole.parameters().active == text.parameters().active
    assert whole.state_bytes(1000) == text.state_bytes(1000)
    assert whole.flops(7, 11) == text.flops(7, 11)
    assert Architecture.from_json(whole.to_json()) == whole
    costs = whole.cost(context=512), text.cost(context=512)
    assert costs[0].weight_bytes - costs[1].weight_bytes == pytest.approx(2 * encoders, rel=1e-6)
    for measure in ("state_bytes", "paged_bytes", "prefill_flops", "decode_flops", "moved"):
        assert getattr(costs[0], measure) == getattr(costs[1], measure), measure
    assert costs[0].activation_bytes() == costs[1].activation_bytes()
    assert costs[0].training_flops() == costs[1].training_flops()


def test_a_vit_by_hand() -> None:
    """SigLIP of Gemma 3: 896 pixels in patches of 14, 27 blocks of 1,152, sixteen vectors averaged to one."""
    encoder = lamina.architecture("gemma-3-27b").encoders[0]
    d, f, n = 1152, 4304, (896 // 14) ** 2
    block = 4 * (d * d + d) + d * f + f + f * d + d + 4 * d
    assert encoder.parameters() == (3 * 14 * 14 * d + d) + n * d + 27 * block + 2 * d + d + d * 5376
    matrices = 3 * 14 * 14 * d + 27 * (4 * d * d + 2 * d * f)
    flops = 2 * n * matrices + 27 * 4 * d * n * n + 2 * (n // 16) * d * 5376
    assert encoder.flops(n) == flops
    assert (encoder.input.usual, encoder.tokens(n), encoder.flops(0)) == (n, 256, 0)
    arch = lamina.architecture("gemma-3-27b")
    costs = arch.cost(context=512, batch=3), arch.cost(context=512, batch=3, images=2)
    assert costs[1].prefill_flops - costs[0].prefill_flops == 3 * 2 * flops
    assert costs[1].training_flops() - costs[0].training_flops() == 3 * 3 * 2 * flops
    assert costs[1].activation_bytes() - costs[0].activation_bytes() == 3 * 2 * 2 * encoder.saved(n)
    lines = [part for part in costs[1].breakdown() if part["path"].startswith("encoders[0]")]
    assert sum(part["prefill_flops"] for part in lines) == 3 * 2 * flops
    assert {part["path"] for part in lines} >= {"encoders[0].blocks[0-26].mixer", "encoders[0].connector[2]"}
    assert all(part["decode_flops"] == part["active_parameters"] == part["state_bytes"] == 0 for part in lines)


def test_what_is_not_read_is_not_computed() -> None:
    """LLaVA reads before the last block; squares of Muse's patches see themselves only."""
    llava = lamina.architecture("llava-1.5-7b").encoders[0]
    one = llava.replace(taps=(0,)).flops(576)
    assert llava.taps == (22,)
    assert llava.flops(576) - one == 22 * (llava.replace(taps=(1,)).flops(576) - one)
    d, n = 1024, 577  # with the class token
    assert llava.replace(taps=(1,)).flops(576) - one == 2 * n * 12 * d * d + 4 * d * n * n
    muse = lamina.architecture("muse-glimmer-30b").encoders[0]
    seen = [op.chunk for block in muse.blocks for op in block.ops() if isinstance(op, Attention)]
    assert Counter(seen) == {1024: 37, None: 13}
    full = muse.replace(blocks=tuple(b for b in muse.blocks for op in b.ops() if getattr(op, "chunk", 0) is None))
    assert (muse.flops(2048) - full.flops(2048)) % 37 == 0
    windowed = muse.replace(blocks=(muse.blocks[0],)).flops(2048) - muse.replace(blocks=()).flops(2048)
    assert windowed == 2 * 2048 * (4 * 1536**2 + 2 * 1536 * 8960) + 4 * 1536 * 2 * 1024**2


def test_sound_by_hand() -> None:
    """Gemma 4's Conformer; and Muse Spark's pyramid: 1,920 samples become one vector."""
    sound = lamina.architecture("gemma-4-e4b").encoders[1]
    assert (sound.width, sound.gives, sound.tokens(400)) == (1024, 2560, 100)
    muse = lamina.architecture("muse-spark-open").encoders[1]
    assert (muse.width, muse.gives, muse.tokens(1920), muse.tokens(1921)) == (2048, 8192, 1, 2)
    stages, total, before = ((120, 16, 256), (20, 6, 512), (4, 5, 1024), (1, 4, 2048)), 0, 1
    for vectors, joined, width in stages:
        total += vectors * (2 * joined * before * width + 2 * (2 * 7 * width + 2 * 2 * 4 * width * width))
        before = width
    assert muse.flops(1920) == total + 2 * 2048 * 8192


def test_building_says_that_they_do_not_run() -> None:
    arch = lamina.architecture("gemma-3-27b")
    with pytest.raises(LaminaError, match=r"not run yet; arch.replace\(encoders=\(\)\) is its text decoder"):
        lamina.build(arch, device="meta")
    assert lamina.build(arch.replace(encoders=()), device="meta").arch.encoders == ()


def test_edits_and_differences() -> None:
    arch = lamina.architecture("gemma-3-27b")
    changed = arch.replace("encoders[0].blocks[3-5].feed_forward.inner", 100)
    assert str(lamina.diff(arch, changed)) == "encoders[0].blocks[3-5].feed_forward.inner: 4304 -> 100"
    assert changed.blocks is arch.blocks or changed.blocks == arch.blocks
    assert arch.replace("encoders[0].connector[0].count", 4).encoders[0].tokens(4096) == 1024
    text = lamina.diff(arch, arch.replace(encoders=()))
    assert [d.path for d in text] == ["encoders[0]"]
    assert str(text) == "encoders[0]: image encoder of 423,060,336 parameters -> none"
    with pytest.raises(LaminaError, match=r"encoders\[1\].*there are 1"):
        arch.replace("encoders[1].norm", None)
    with pytest.raises(LaminaError, match="is not indexed"):
        arch.replace("head[0].tied", True)


VALUE = Encoder(modality="image", input=Patches(size=3), stem=(Linear(width=5),), connector=(Merge(count=4),))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"taps": (0,)}, "beyond the 0 there are"),
        ({"norm_after": 1}, "beyond the 0 blocks"),
        ({"modality": "audio"}, "an encoder of audio cannot read patches"),
    ],
)
def test_an_encoder_does_not_contradict_itself(fields: dict[str, Any], said: str) -> None:
    assert (VALUE.width, VALUE.gives, VALUE.tokens(9), VALUE.parameters()) == (5, 20, 3, 27 * 5)
    with pytest.raises(LaminaError, match=said):
        VALUE.replace(**fields)


def changed(name: str, part: str | None, **keys: Any) -> dict[str, Any]:
    data = catalog.config(name)
    (data[part] if part else data).update(keys)
    return data


@pytest.mark.parametrize(
    ("name", "part", "keys", "said"),
    [
        ("gemma-3-27b", "vision_config", {"depthh": 3}, "vision_config: the key 'depthh' .3. is not understood"),
        ("gemma-3-27b", None, {"depthh": 3}, "the key 'depthh'"),
        ("gemma-3-27b", "vision_config", {"num_attention_heads": 7}, "num_attention_heads .7. must divide"),
        ("gemma-3-27b", None, {"mm_tokens_per_image": 255}, "the places of a square"),
        ("gemma-3-27b", None, {"mm_tokens_per_image": 25}, "64 patches along a side do not make 5 tokens"),
        ("llava-1.5-7b", None, {"vision_feature_layer": -30}, "vision_feature_layer is -30"),
        ("llava-1.5-7b", "vision_config", {"patch_size": [14, 16]}, "only squares are known"),
        ("llava-1.5-7b", "vision_config", {"image_size": 7}, "holds no patch of 14"),
        ("pixtral-12b", "vision_config", {"head_dim": 63}, "'head_dim' is 63; only 64"),
        ("qwen3.8-27b", "vision_config", {"deepstack_visual_indexes": [1]}, "deepstack_visual_indexes"),
        ("qwen3.8-27b", "vision_config", {"num_position_embeddings": 2303}, "the places of a square"),
        ("llama-4-scout", "vision_config", {"hidden_size": 768, "num_attention_heads": 16}, "the connector reads 5632"),
        ("llama-3.2-11b-vision", "vision_config", {"vision_output_dim": 7}, "'vision_output_dim' is 7; only 7680"),
        ("molmo2-8b", "adapter_config", {"vision_feature_layer": [25]}, "numbers of the 25 layers"),
        ("kimi-k2.5", "vision_config", {"mm_projector_type": "mlp"}, "'mm_projector_type' is 'mlp'"),
        ("gemma-4-e4b", "audio_config", {"subsampling_conv_channels": [1]}, "two counts from 4 on"),
        ("muse-spark-open", "audio_config", {"depths": [2]}, "need 4 sizes each"),
        ("qwen2-vl-7b", "vision_config", {"rope_parameters": {"rope_type": "yarn"}}, "'rope_type' is 'yarn'"),
    ],
)
def test_what_is_wrong_is_said(name: str, part: str | None, keys: dict[str, Any], said: str) -> None:
    data = catalog.config(name)
    if part:
        data[part] = dict(data.get(part) or {})
    (data[part] if part else data).update(keys)
    with pytest.raises(LaminaError, match=said):
        read_config(data)


def test_llama_4_has_one_encoder() -> None:
    """A config that says nothing of it means that; one that says other widths than fit raises (see above)."""
    for name in ("llama-4-scout", "llama-4-maverick"):
        data = catalog.config(name)
        assert data.pop("vision_config")["hidden_size"] == 1408
        assert read_config(data) == lamina.architecture(name)


def test_text_configs_have_none() -> None:
    for name in ("gemma-3-27b", "qwen3.8-27b", "llama-4-scout", "muse-spark-open", "kimi-k2.5"):
        assert read_config(catalog.config(name)["text_config"]).encoders == ()
