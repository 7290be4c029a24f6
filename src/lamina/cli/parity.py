"""A loaded model against `transformers` with the same file: hidden states, logits, token ids, continuation."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lamina.errors import LaminaError
from lamina.nn.decoder import Model
from lamina.report.text import aligned, listed

TEXT = "The café's 3 robots said: «naïve 你好 🙂»\n\tfor i in range(10):\n\t\tprint(i ** 2)  # then it was done"
RANDOM_TOKENS, CONTINUED = 48, 8
BOUND, GGUF_BOUND = 1e-5, 1e-4  # of the largest logit


def version() -> str:
    from importlib.metadata import version

    return version("transformers")


def compare(model: Model, path: Path, tokens: int | None, prompt: str | None) -> dict[str, Any]:
    """What `lamina check` prints, as JSON holds it; differences are relative to the largest value there.

    Raises: LaminaError if transformers cannot load the checkpoint, or the two cannot be compared
    """
    gguf = path.suffix == ".gguf"
    with _quiet():
        theirs = _load(path)
        ids, same_ids = _ids(model, path, tokens, prompt)
        layers = _layers(model, theirs, torch.tensor([ids]))
        ours_next, theirs_next = _continue(model, theirs, ids)
    bound = GGUF_BOUND if gguf else BOUND
    passed = layers[-1]["difference"] <= bound and ours_next == theirs_next and same_ids is not False
    return {
        "source": str(path),
        "transformers": version(),
        "tokens": len(ids),
        "token_ids_equal": same_ids,
        "layers": layers,
        "greedy": {"lamina": ours_next, "transformers": theirs_next, "equal": ours_next == theirs_next},
        "ignored": dict(model.ignored),
        "difference": layers[-1]["difference"],
        "bound": bound,
        "verdict": "PASS" if passed else "FAIL",
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """transformers without its own bars and advice, and without asking a network."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _where(path: Path) -> tuple[str, dict[str, Any]]:
    """What transformers calls the same checkpoint."""
    if path.suffix == ".gguf":
        return str(path.parent), {"gguf_file": path.name}
    return str(path if path.is_dir() else path.parent), {}


def _load(path: Path) -> Any:
    from transformers import AutoModelForCausalLM

    where, extra = _where(path)
    try:
        return AutoModelForCausalLM.from_pretrained(
            where, dtype=torch.float32, attn_implementation="eager", trust_remote_code=False, **extra
        ).eval()
    except Exception as error:  # whatever a foreign library raises is one answer: it cannot
        raise LaminaError(f"{path}: transformers {version()} cannot load it: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]


def _ids(model: Model, path: Path, tokens: int | None, prompt: str | None) -> tuple[list[int], bool | None]:
    """What both read, and whether both tokenizers agree on it (None where there is no text)."""
    if tokens is not None or (model.tokenizer is None and prompt is None):
        random = torch.Generator().manual_seed(0)
        return torch.randint(model.arch.vocab, (tokens or RANDOM_TOKENS,), generator=random).tolist(), None
    if model.tokenizer is None:
        raise LaminaError(f"{path}: there is no tokenizer to read --prompt with; use --tokens")
    text = TEXT if prompt is None else prompt
    ids = model.tokenizer.encode(text)
    if not ids:
        raise LaminaError("the prompt is empty; give at least one character")
    from transformers import AutoTokenizer

    where, extra = _where(path)
    try:
        reference = AutoTokenizer.from_pretrained(where, trust_remote_code=False, **extra)
    except Exception as error:
        raise LaminaError(f"{path}: transformers cannot load its tokenizer: {_first_line(error)}") from None
    return ids, list(reference(text)["input_ids"]) == ids


@torch.inference_mode()
def _layers(model: Model, theirs: Any, ids: Tensor) -> list[dict[str, Any]]:
    """The largest difference after the embedding, each block and the final norm, and of the logits.

    Of the last block the reference shows only what the final norm makes of it.
    """
    seen: list[Any] = []
    blocks = list(model.blocks)
    places: list[torch.nn.Module] = [model.embedding, *blocks[:-1], blocks[-1] if model.norm is None else model.norm]
    hooks = [place.register_forward_hook(lambda module, given, out: seen.append(out)) for place in places]
    try:
        logits = model(ids)
    finally:
        for hook in hooks:
            hook.remove()
    reference = theirs(ids, output_hidden_states=True, use_cache=False)
    names = ["embedding", *(f"blocks[{i}]" for i in range(len(places) - 2)), f"blocks[{len(places) - 2}] + norm"]
    states = reference.hidden_states or ()
    rows = []
    if len(states) == len(seen):  # a model that records otherwise is compared by its logits
        pairs = zip(names, seen, states, strict=True)
        rows = [_row(*three) for three in pairs if three[1].shape == three[2].shape]  # streams may lie otherwise
    if logits.shape != reference.logits.shape:
        raise LaminaError(
            f"the logits are {list(logits.shape)} here and {list(reference.logits.shape)} in transformers"
        )
    return [*rows, _row("logits", logits, reference.logits)]


def _row(name: str, ours: Tensor, theirs: Tensor) -> dict[str, Any]:
    largest = float(theirs.abs().max())
    difference = float((ours.float() - theirs.float()).abs().max())
    return {"name": name, "largest": largest, "difference": difference / largest if largest else difference}


@torch.inference_mode()
def _continue(model: Any, theirs: Any, ids: list[int]) -> tuple[list[int], list[int]]:
    """Greedy tokens: ours token by token from a state, theirs by reading everything again each time."""
    state = model.init_state(batch=1, capacity=len(ids) + CONTINUED)
    ours, reference = [], list(ids)
    logits = model(torch.tensor([ids]), state)
    for _ in range(CONTINUED):
        ours.append(int(logits[0, -1].argmax()))
        logits = model(torch.tensor([ours[-1:]]), state)
        reference.append(int(theirs(torch.tensor([reference]), use_cache=False).logits[0, -1].argmax()))
    return ours, reference[len(ids) :]


# -- for people


def rendered(report: dict[str, Any]) -> list[str]:
    """A report as lines, a heading first and the verdict last."""
    rows = [("after", "largest value", "relative difference")]
    rows += [(row["name"], f"{row['largest']:.4g}", f"{row['difference']:.1e}") for row in report["layers"]]
    same = {True: "equal", False: "DIFFERENT", None: "not compared: random ids were read"}
    greedy = report["greedy"]
    pairs = [
        ("token ids", f"{same[report['token_ids_equal']]} ({report['tokens']} tokens)"),
        ("continuation", f"{same[greedy['equal']]} ({CONTINUED} tokens)"),
    ]
    if not greedy["equal"]:
        pairs += [("  lamina", str(greedy["lamina"])), ("  transformers", str(greedy["transformers"]))]
    for reason in dict.fromkeys(report["ignored"].values()):
        keys = [key for key, why in report["ignored"].items() if why == reason]
        more = f" and {len(keys) - 4} more" if len(keys) > 4 else ""
        pairs.append(("ignored", f"{', '.join(keys[:4])}{more} ({reason})"))
    sign = "<=" if report["difference"] <= report["bound"] else ">"
    verdict = f"largest difference of the logits {report['difference']:.1e} {sign} {report['bound']:.0e} of the largest"
    pairs.append((report["verdict"], verdict))
    return [*aligned(rows, (False, True, True)), "", *listed(pairs)]
