"""Files behind an HTTP server, read by range requests: the bytes that are asked for and no others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from lamina.checkpoint.headers.files import FIRST_READ
from lamina.errors import LaminaError

LIMIT = 32 << 20  # bytes; headers with the largest vocabularies take 8 million
_TIMEOUT = 30  # seconds without a sign of life
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


@dataclass(frozen=True)
class RemoteFile:
    """A file at an address; the first request asks for `FIRST_READ` bytes, which are kept.

    Raises: LaminaError, beginning with its name, if it cannot be had in parts
    """

    url: str
    label: str = ""  # what sentences call it, if not its address
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    limit: int = LIMIT

    @property
    def name(self) -> str:
        return self.label or self.url

    @property
    def stem(self) -> str:
        return PurePosixPath(unquote(urlsplit(self.url).path)).stem

    @property
    def size(self) -> int:
        return self._start[0]

    def whole(self, limit: int) -> bytes:
        """All of it, which may be at most `limit` bytes; this needs no ranges."""
        with _answer(self.name, self.url, self.headers) as answer:
            return _body(self.name, answer.iter_bytes(), limit)

    def read(self, start: int, stop: int) -> bytes:
        size, first = self._start
        if stop <= len(first):
            return first[start:stop]
        data, now = self._part(start, stop)
        if now != size:
            raise LaminaError(f"{self.name}: changed while it was read")
        return data

    @cached_property
    def _start(self) -> tuple[int, bytes]:
        """Bytes of the whole, and the first of them."""
        data, size = self._part(0, FIRST_READ)
        return size, data

    def _part(self, start: int, stop: int) -> tuple[bytes, int]:
        """Bytes [start, stop) or what there is of them, and how many the whole has."""
        wanted = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        with _answer(self.name, self.url, self.headers | wanted) as answer:
            if answer.status_code == 416:
                raise LaminaError(f"{self.name}: has no bytes {start} to {stop}")
            said = _RANGE.fullmatch(answer.headers.get("content-range", ""))
            if answer.status_code != 206 or not said:
                raise LaminaError(
                    f"{self.name}: its server sends whole files only, and this one is wanted in parts;"
                    " download it and give its path"
                )
            first, last, size = map(int, said.groups())
            if (first, last) != (start, min(stop, size) - 1):
                raise LaminaError(f"{self.name}: its server sends bytes {first} to {last} for {start} to {stop - 1}")
            data = _body(self.name, answer.iter_raw(), last + 1 - first)
            if len(data) < last + 1 - first:
                raise LaminaError(f"{self.name}: its server broke off after {len(data)} of {last + 1 - first} bytes")
            return data, size


def _body(name: str, chunks: Iterable[bytes], limit: int) -> bytes:
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) > limit:
            raise LaminaError(f"{name}: its server sends more than {limit} bytes")
    return bytes(data)


@contextmanager
def _answer(name: str, url: str, headers: dict[str, str]) -> Iterator[Any]:
    """The answer to a GET, its body unread; the connection is huggingface_hub's, with its proxies and its offline mode.

    Raises: LaminaError if there is none, or it refuses
    """
    from huggingface_hub.utils import get_session

    try:
        with get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT) as answer:
            code = answer.status_code
            if code >= 400 and code != 416:
                advice = "; set HF_TOKEN or run `hf auth login`" if code in (401, 403) else ""
                raise LaminaError(f"{name}: its server answered {code}{advice}")
            yield answer
    except LaminaError:
        raise
    except Exception as error:  # of httpx or of what huggingface_hub uses in its place, which have no common base
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise LaminaError(f"{name}: cannot be fetched: {reason}") from error
