"""A tiny chat model with its tokenizer, and the command in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, trainers

import lamina

CONFIG = {
    "model_type": "llama",
    "vocab_size": 300,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 40,
    "max_position_embeddings": 30_000,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "eos_token_id": 2,
}
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def tiny_tokenizer(template: str | None = None) -> Any:
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


def tiny_model(template: str | None = None, config: dict[str, Any] = CONFIG) -> Any:
    """Random weights, so large that what it says depends on what it read. It says digits only, without end:
    no merge joins digits, so its text always encodes to the ids that it chose."""
    model = lamina.build(lamina.architecture(config), seed=3)
    model.tokenizer = tiny_tokenizer(template)
    model.token_ids = model.token_ids.joined(model.tokenizer)
    random = torch.Generator().manual_seed(4)
    digits = [model.tokenizer.encode(digit)[-1] for digit in "0123456789"]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.copy_(torch.randn(parameter.shape, generator=random) / parameter.shape[-1] ** 0.5 * 2)
        said = model.head.weight[digits].clone()
        model.head.weight.zero_()
        model.head.weight[digits] = 5 * said
    return model


def process(*arguments: object, **extra: Any) -> subprocess.CompletedProcess[str]:
    """The command, run to its end."""
    command = [sys.executable, "-m", "lamina", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=ENVIRONMENT, **extra)
