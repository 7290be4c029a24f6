"""`lamina run`: one prompt, one completion."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lamina.cli.console import say
from lamina.cli.loading import Device, Dtype, Source, load_causal
from lamina.cli.options import SamplingOptions, takes
from lamina.cli.usage import Usage
from lamina.errors import LaminaError

if TYPE_CHECKING:
    from collections.abc import Iterable

Prompt = Annotated[
    str, typer.Argument(metavar="PROMPT", show_default=False, help="What to answer or continue; - reads stdin.")
]
Chat = Annotated[
    bool | None,
    typer.Option(
        "--chat/--no-chat",
        show_default=False,
        help="Put the prompt in the model's chat template, or not (default: if it has one).",
    ),
]
Speculate = Annotated[
    int, typer.Option(min=0, metavar="K", help="Draft K tokens a step with the model's own heads, or with --draft.")
]
DraftModel = Annotated[
    str | None,
    typer.Option("--draft", metavar="SOURCE", show_default=False, help="A smaller model that drafts (--speculate)."),
]
System = Annotated[str | None, typer.Option(metavar="TEXT", help="The system message of the chat.")]


@takes(SamplingOptions)
def run(
    source: Source,
    prompt: Prompt,
    options: SamplingOptions,
    chat: Chat = None,
    system: System = None,
    dtype: Dtype = None,
    device: Device = "cpu",
    speculate: Speculate = 0,
    draft: DraftModel = None,
    stats: Annotated[bool, typer.Option("--stats", help="Afterwards, say speed and bytes on stderr.")] = False,
) -> None:
    """Answer or continue a prompt. The text goes to stdout, everything else to stderr."""
    text = _stdin() if prompt == "-" else prompt
    if not text:
        raise LaminaError("the prompt is empty; give at least one character")
    from lamina.generation import Sampling
    from lamina.generation.stops import read_stops

    Sampling(**options.sampling)  # said before minutes of loading
    read_stops(options.stop or ())
    model = load_causal(source, dtype, device)
    ids = prompt_ids(model, text, chat, system)
    room = model.arch.context - len(ids) if model.arch.context else options.max_new_tokens
    if room < 1:
        raise LaminaError(
            f"the prompt is {len(ids):,} tokens, and the model's context {model.arch.context:,}; shorten it"
        )
    drafting = load_causal(draft, dtype, device) if draft else None
    usage = complete(model, ids, options, min(room, options.max_new_tokens), speculate=speculate, draft=drafting)
    if stats:
        for line in usage.lines(model):
            say(line)


def prompt_ids(model: Any, text: str, chat: bool | None, system: str | None) -> list[int]:
    """The ids of a prompt, in the chat template or plain.

    Raises: LaminaError if a chat is asked of a model that has no template
    """
    templated = model.tokenizer.chat_template is not None if chat is None else chat
    if not templated:
        if system is not None:
            raise LaminaError("a system message needs a chat template; leave out --system")
        return model.tokenizer.encode(text)
    if model.tokenizer.chat_template is None:
        raise LaminaError("this model has no chat template; leave out --chat to have the prompt continued")
    messages = [{"role": "system", "content": system}] if system is not None else []
    messages.append({"role": "user", "content": text})
    return model.tokenizer.encode(model.tokenizer.render(messages), special=False)


def complete(model: Any, ids: list[int], options: SamplingOptions, most: int, **speculation: Any) -> Usage:
    """Streams the completion to stdout; what it has cost."""
    import lamina

    generation = lamina.generate(
        model,
        ids,
        max_new_tokens=most,
        stop=options.stop or (),
        **options.sampling,
        **speculation,
    )
    ended = ""
    try:
        ended = write(token.text for token in generation)
    finally:
        if not ended.endswith("\n"):
            print()
    return Usage.of(generation.stats, len(ids) + most + speculation.get("speculate", 0))


def write(pieces: Iterable[str]) -> str:
    """Text to stdout as it comes; the last piece."""
    last = ""
    for piece in pieces:
        if piece:
            last = piece
            sys.stdout.write(piece)
            sys.stdout.flush()
    return last


def _stdin() -> str:
    try:
        return sys.stdin.read().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise LaminaError(f"stdin is no UTF-8 text ({error.reason} at byte {error.start})") from None
