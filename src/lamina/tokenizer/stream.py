"""Text as it becomes final, one token id at a time."""

from __future__ import annotations

import json
import re

import tokenizers

_KEPT = 8  # ids decoded again before each new one, so that spaces between tokens come out right
_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")


class StreamDecoder:
    """Decodes ids one by one; what it returned, joined, is what `decode` says of all the ids.

    Each `push` decodes a short window again, so the whole is linear in the number of ids. What is held back:
    the replacement character at the end of a byte-level text (a character that is not finished yet), and a
    run of byte tokens (`<0xE4>`), which the decoder reads as text or as replacement characters all together.

    Source: `tokenizers` decoders; a byte-level decoder replaces the longest broken part of a character by one
        U+FFFD, so only the last character of a text can still change
    """

    def __init__(self, backend: tokenizers.Tokenizer, skip_special: bool = True):
        self._backend = backend
        self._skip_special = skip_special
        self._added = backend.get_added_tokens_decoder()
        state = backend.decoder.__getstate__() if backend.decoder else b"null"
        kinds = re.findall(r'"type":\s*"(\w+)"', json.dumps(json.loads(state)))
        self._byte_level = "ByteLevel" in kinds
        self._byte_fallback = "ByteFallback" in kinds
        self._window: list[int] = []  # ids whose text is out, but for what `_held` counts
        self._waiting: list[int] = []  # a run of byte tokens not decoded yet
        self._shown = 0  # characters of the window's text that were returned

    def push(self, token_id: int) -> str:
        """The text that is final now that `token_id` came."""
        if self._skip_special and token_id in self._added and self._added[token_id].special:
            return ""
        token = self._backend.id_to_token(token_id)
        if token is None:  # outside the vocabulary: `decode` leaves it out as well
            return ""
        self._waiting.append(token_id)
        if self._byte_fallback and _BYTE_TOKEN.fullmatch(token):
            return ""
        return self._release(held="\ufffd" if self._byte_level else "")

    def finish(self) -> str:
        """What is left: an unfinished character comes out as the replacement character."""
        text = self._release(held="")
        self._window, self._shown = [], 0
        return text

    def _release(self, held: str) -> str:
        self._window += self._waiting
        self._waiting = []
        text = self._decode(self._window)
        end = len(text) - 1 if held and text.endswith(held) else len(text)
        out = text[self._shown : end]
        hidden = len(text) - max(end, self._shown)
        if len(self._window) > 2 * _KEPT:
            shorter = self._window[-_KEPT:]
            text_of_shorter = self._decode(shorter)
            if len(text_of_shorter) > hidden:  # an empty text would lose the space that a first token loses
                self._window, text = shorter, text_of_shorter
        self._shown = len(text) - hidden
        return out

    def _decode(self, ids: list[int]) -> str:
        return self._backend.decode(ids, skip_special_tokens=self._skip_special)
