"""The process in which chat templates are rendered; `chat.py` starts it as a script and sends it lines.

It imports jinja2 and the standard library only, so it starts in about a tenth of a second, and before it
reads anything it gives up what a template has no use for: memory beyond a limit, writing files, starting
programs. A request is a line of JSON `{"template": str, "variables": {...}, "seconds": float}`; the answer is
a line `{"text": str}` or `{"error": str}`. After an error the process ends: what a failed template left in
memory must not count against the next one.
"""

from __future__ import annotations

import datetime
import json
import os
import signal
import sys
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.utils import Namespace

try:
    import resource
except ImportError:  # Windows has no limits of this kind; the caller's clock remains
    resource = None

MEMORY_BYTES = 1 << 29
TEXT_CHARACTERS = 1 << 24


class _Environment(ImmutableSandboxedEnvironment):
    """jinja2's sandbox, but a forbidden attribute is an error at once instead of rendering as nothing."""

    def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
        raise SecurityError(f"access to attribute {attribute!r} of a {type(obj).__name__} is not allowed")


class _Namespace(Namespace):
    """`namespace(...)` without names that begin with an underscore, which would shadow Python's own."""

    def __init__(*args: Any, **kwargs: Any):
        values = dict(*args[1:], **kwargs)
        for name in values:
            _refuse_private(name)
        Namespace.__init__(args[0], values)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


class _Generation(Extension):
    """`{% generation %}...{% endgeneration %}` marks the assistant's words for training; it renders as is."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 reads it so)

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def _refuse_private(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot hold {name!r}: names must not begin with an underscore")


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(str(message))


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _dict(*args: Any, **kwargs: Any) -> dict:
    return dict(*args, **kwargs)


def _environment() -> jinja2.Environment:
    env = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation])
    env.filters["tojson"] = _tojson
    del env.globals["lipsum"]
    env.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": lambda form: datetime.datetime.now().strftime(form),
        "dict": _dict,
        "namespace": _Namespace,
    }
    return env


def _give_up_rights() -> None:
    if resource is None:
        return
    for limit, value in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        try:
            resource.setrlimit(limit, (value, value))
        except (ValueError, OSError):  # a system that does not know the limit, or a lower one that stands
            continue


def _say(error: BaseException) -> str:
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"syntax error in line {error.lineno}: {error.message}"
    if isinstance(error, MemoryError):
        return f"needs more than {MEMORY_BYTES >> 20} MiB of memory"
    if isinstance(error, RecursionError):
        return "calls itself without end"
    return str(error) or type(error).__name__


def serve() -> None:
    """Answers requests until the input ends or one fails."""
    _give_up_rights()
    env, source, template = _environment(), None, None
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if hasattr(signal, "setitimer"):  # without a handler the signal ends the process, inside C code too
            signal.setitimer(signal.ITIMER_PROF, request["seconds"])
        try:
            if template is None or request["template"] != source:
                template = None  # so that the memory of the last one is free before this one is compiled
                source, template = request["template"], env.from_string(request["template"])
            text = template.render(request["variables"])
            if len(text) > TEXT_CHARACTERS:
                raise jinja2.TemplateError(f"rendered more than {TEXT_CHARACTERS} characters")
            answer = {"text": text}
        except Exception as error:
            answer = {"error": _say(error)[:2000]}
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()
        if "error" in answer:
            os._exit(0)
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_PROF, 0)


if __name__ == "__main__":
    serve()
