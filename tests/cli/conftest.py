"""A tiny chat model with its tokenizer, and the command run in this process or in its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers
from typer.testing import CliRunner, Result

import lamina
from lamina.cli.app import app

CONFIG = {
    "model_type": "llama",
    "vocab_size": 300,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 40,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "eos_token_id": 2,
}
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def tiny_tokenizer(template: str | None = None) -> lamina.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=CONFIG["vocab_size"],
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(["the user and the assistant talk of the weather"] * 9, trainer)
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    return lamina.Tokenizer(backend, names, chat_templates={"default": template} if template else None)


def tiny_model(template: str | None = None, **changes: object) -> lamina.Model:
    """Random weights large enough that what it says depends on what it read."""
    import torch

    model = lamina.build(lamina.architecture(CONFIG | changes), seed=3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.mul_(4.0 if "table" in name else 12.0)
    model.tokenizer = tiny_tokenizer(template)
    model.token_ids = model.token_ids.joined(model.tokenizer)
    return model


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lamina.save(tiny_model(TEMPLATE), tmp_path_factory.mktemp("tiny") / "chatty")


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lamina.save(tiny_model(), tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture
def run() -> Callable[..., Result]:
    """The command in this process: `run("list", "--json")`; stdin as `input=`."""

    def invoke(*arguments: object, **extra: object) -> Result:
        return CliRunner().invoke(app, [str(a) for a in arguments], **extra)  # type: ignore[arg-type]

    return invoke


ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def process(*arguments: object, **extra: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "lamina", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=ENVIRONMENT, **extra
    )  # type: ignore[call-overload]
