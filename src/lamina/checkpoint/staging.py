"""Writing a directory so that it is there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from lamina.errors import LaminaError


@contextlib.contextmanager
def staged_directory(target: Path) -> Iterator[Path]:
    """A directory beside `target` to write into, renamed to `target` when all went well, removed otherwise.

    Raises: LaminaError if `target` holds something already, or for any failure of the disk.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise LaminaError(f"{target}: exists and is not an empty directory; name a new one")
    stage = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    made = [parent for parent in target.parents if not parent.exists()]
    try:
        stage.mkdir(parents=True)
        yield stage
        os.replace(stage, target)
    except OSError as error:
        raise LaminaError(f"{target}: cannot be written ({error.strerror or error})") from None
    except LaminaError as error:
        raise LaminaError(str(error).replace(str(stage), str(target))) from None
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        for parent in made if not target.exists() else ():
            with contextlib.suppress(OSError):
                parent.rmdir()
