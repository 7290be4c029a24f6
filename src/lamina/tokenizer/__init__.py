"""Text to token ids and back, and chats to text: from a `tokenizer.json` directory or from GGUF metadata."""

from __future__ import annotations

from lamina.tokenizer.directory import find_tokenizer
from lamina.tokenizer.stream import StreamDecoder
from lamina.tokenizer.tokenizer import Tokenizer

__all__ = ["StreamDecoder", "Tokenizer", "find_tokenizer"]
