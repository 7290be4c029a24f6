"""The one tokenizer class: ids, text, chats and streams, whatever the vocabulary came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import processors

from lamina.errors import LaminaError
from lamina.tokenizer.chat import render_chat
from lamina.tokenizer.stream import StreamDecoder


class Tokenizer:
    """Text to ids and back over a `tokenizers` backend, with the names of its special tokens and its chat.

    `names` are special tokens by the names chat templates know (`bos_token`, `eos_token`, `pad_token`, ...);
    `eos_ids` are all ids that end a turn or a text; `chat_templates` are templates by name (`default`,
    `tool_use`, ...).

    Raises: LaminaError if a named token is not in the vocabulary
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        names: Mapping[str, str] | None = None,
        eos_ids: Iterable[int] = (),
        chat_templates: Mapping[str, str] | None = None,
    ):
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.names = dict(names or {})
        self.chat_templates = dict(chat_templates or {})
        self.bos_id = self._id_of("bos_token")
        self.pad_id = self._id_of("pad_token")
        self.unk_id = self._id_of("unk_token")
        own_eos = self._id_of("eos_token")
        ends = [*eos_ids, *([] if own_eos is None else [own_eos])]
        self.eos_ids: tuple[int, ...] = tuple(dict.fromkeys(ends))

    @classmethod
    def from_directory(cls, path: str | Path) -> Tokenizer:
        """The tokenizer of a model directory: tokenizer.json and the files that describe it."""
        from lamina.tokenizer.directory import read_directory

        return read_directory(Path(path))

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> Tokenizer:
        """The tokenizer that a GGUF file's metadata describes."""
        from lamina.tokenizer.from_gguf import read_gguf

        return read_gguf(metadata)

    def save(self, directory: str | Path) -> None:
        """Writes the tokenizer so that `from_directory` and transformers' AutoTokenizer read the same."""
        from lamina.tokenizer.directory import write_directory

        write_directory(self, Path(directory))

    @property
    def vocab_size(self) -> int:
        """The number of tokens, added ones counted."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    @property
    def chat_template(self) -> str | None:
        """The template `render` uses where nothing else is asked for."""
        if len(self.chat_templates) == 1:
            return next(iter(self.chat_templates.values()))
        return self.chat_templates.get("default")

    def encode(self, text: str, special: bool = True) -> list[int]:
        """The ids of `text`; with `special`, also the first and last tokens that this tokenizer adds.

        Special tokens written in the text become their ids either way, as in the reference.

        Raises: LaminaError if the text is not a string that UTF-8 can hold
        """
        try:
            return self.backend.encode(text, add_special_tokens=special).ids
        except (TypeError, ValueError) as error:
            raise LaminaError(f"cannot encode {text!r:.80}: expected a str that UTF-8 can hold ({error})") from None

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of `ids`, nothing cleaned up; unknown ids are left out, as in the reference.

        Raises: LaminaError if an id is negative
        """
        known = [int(i) for i in ids]
        if any(i < 0 for i in known):
            raise LaminaError(f"token ids must be 0 or more, not {min(known)}")
        return self.backend.decode(known, skip_special_tokens=skip_special)

    def stream(self, skip_special: bool = True) -> StreamDecoder:
        """A decoder that takes ids one at a time and returns the text that is final."""
        return StreamDecoder(self.backend, skip_special)

    def token(self, token_id: int) -> str:
        """The token as the vocabulary spells it.

        Raises: LaminaError if there is no such id
        """
        found = self.backend.id_to_token(token_id) if token_id >= 0 else None
        if found is None:
            raise LaminaError(f"no token has id {token_id}: this vocabulary has {self.vocab_size} tokens")
        return found

    def render(self, messages: list[dict], add_generation_prompt: bool = True, **extra: Any) -> str:
        """The chat as text, by the checkpoint's template; encode it with `special=False`.

        `extra` reaches the template (`tools`, `enable_thinking`, ...); `chat_template` in it is a template's
        text or name to use instead. With `tools`, the template named `tool_use` is taken if there is one.

        Raises: LaminaError if there is no template, or it fails
        """
        wanted = extra.pop("chat_template", None)
        if wanted is None and extra.get("tools"):
            wanted = self.chat_templates.get("tool_use")
        template = self.chat_templates.get(wanted, wanted) if wanted is not None else self.chat_template
        if template is None:
            named = ", ".join(sorted(self.chat_templates))
            hint = f"none is the default; pass chat_template= one of: {named}" if named else "pass chat_template="
            raise LaminaError(f"this tokenizer has no chat template: {hint}")
        return render_chat(template, messages, add_generation_prompt, **{**self.names, **extra})

    def __repr__(self) -> str:
        kind = type(self.backend.model).__name__
        return f"Tokenizer({kind}, vocab_size={self.vocab_size}, bos_id={self.bos_id}, eos_ids={self.eos_ids})"

    def _id_of(self, name: str) -> int | None:
        token = self.names.get(name)
        if token is None:
            return None
        token_id = self.backend.token_to_id(token)
        if token_id is None:
            raise LaminaError(f"{name} is {token!r}, which is not in the vocabulary")
        return token_id


def add_at_ends(backend: tokenizers.Tokenizer, bos: str | None, eos: str | None) -> None:
    """Makes the backend add `bos` before and `eos` after every text (None: nothing there)."""
    template = [*([bos] if bos else []), "$A", *([eos] if eos else [])]
    pairs = [(token, backend.token_to_id(token)) for token in dict.fromkeys((bos, eos)) if token]
    second = [part if part == "$A" else f"{part}:0" for part in template]
    pair = [*second, *(part.replace("$A", "$B") + ":1" for part in template)]
    backend.post_processor = processors.TemplateProcessing(single=template, pair=pair, special_tokens=pairs)
