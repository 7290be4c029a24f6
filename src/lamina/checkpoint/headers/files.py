"""Files as something of which any span of bytes can be read, and their beginning, read as far as it is needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lamina.errors import LaminaError

HEADER_LIMIT = 100_000_000  # bytes; what describes the tensors may take no more, so that a lie cannot fill memory
FIRST_READ = 256 << 10  # bytes; the header of a small model, and the first quarter second of a slow line
_LARGEST_STEP = 1 << 20  # bytes that are read ahead at most


class File(Protocol):
    """A file, here or elsewhere; `name` is what sentences call it.

    Units: size is all of its bytes, limit the bytes that its header may take
    """

    @property
    def name(self) -> str: ...
    @property
    def stem(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def limit(self) -> int: ...
    def read(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop), which the caller knows to be in the file."""
        ...


@dataclass(frozen=True)
class LocalFile:
    """A file on this machine, opened anew for each span.

    Raises: LaminaError if there is no such file, it cannot be read, or it became shorter
    """

    path: Path
    limit: int = HEADER_LIMIT

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def stem(self) -> str:
        return self.path.stem

    @property
    def size(self) -> int:
        try:
            if not self.path.is_file():
                raise LaminaError(f"{self.path}: no such file")
            return self.path.stat().st_size
        except OSError as error:
            raise LaminaError(f"{self.path}: cannot be read: {error.strerror or error}") from error

    def read(self, start: int, stop: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                data = file.read(stop - start)
        except OSError as error:
            raise LaminaError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        if len(data) < stop - start:
            raise LaminaError(f"{self.path}: became shorter while it was read")
        return data


class Prefix:
    """The beginning of a file: `bytes` grows when `reach` asks for more, never past the file or its limit."""

    def __init__(self, file: File) -> None:
        self.file, self.size = file, file.size
        self.end = min(self.size, file.limit)  # how far it may grow
        self.bytes = bytearray()

    def reach(self, stop: int) -> bool:
        """Have the first `stop` bytes; False if they cannot be had."""
        have = len(self.bytes)
        if stop > self.end:
            return False
        if stop > have:
            ahead = have + min(max(have, FIRST_READ), _LARGEST_STEP)
            self.bytes += self.file.read(have, min(max(stop, ahead), self.end))
        return True
