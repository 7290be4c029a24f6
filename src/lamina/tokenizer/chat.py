"""Chat templates, rendered in a process of their own with hard limits.

A template comes with a checkpoint and is a program: it must neither reach Python nor run away. jinja2's
sandbox keeps it from Python's attributes, but not from work: `'a' * 10**10`, `'x'.ljust(10**10)`, a format
width or a power takes memory or minutes inside one C call, where no check of ours would run, and a list of
operators and filters to intercept is never complete. So the limits are the operating system's: a worker
process with an address-space limit and a processor timer whose signal ends it wherever it is. The worker
stays for the next request (a start takes about 0.1 s; a request costs well under a millisecond more than its
rendering) and ends with this process, or after a template failed.

Source: the variables, filters and tags that published templates use are those of
    `transformers.utils.chat_template_utils` (5.23.0)
Differs: a forbidden attribute is an error, where the reference renders nothing; `lipsum` does not exist
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from lamina.errors import LaminaError

CPU_SECONDS = 2.0  # of processor time for one request; real templates take a thousandth of it
WALL_SECONDS = 10.0  # for machines that have no such timer, or where it does not run
_WORKER = Path(__file__).with_name("chat_worker.py")
_REASONING = ("reasoning_content", "thinking", "reasoning")


def render_chat(template: str, messages: list[dict], add_generation_prompt: bool = True, **variables: Any) -> str:
    """The text a chat template makes of `messages`.

    `variables` reach the template as they are (`tools`, `documents`, `bos_token`, `enable_thinking`, ...);
    all values must be what JSON can say.

    Raises: LaminaError with the template's own message if it fails or takes too much time or memory
    """
    if not isinstance(messages, list | tuple) or not all(isinstance(m, dict) for m in messages):
        raise LaminaError("chat messages must be a list of dicts such as {'role': 'user', 'content': 'Hello'}")
    given = {"tools": None, "documents": None, **variables}
    given |= {
        "messages": [_name_reasoning(m) for m in messages],
        "add_generation_prompt": add_generation_prompt,
    }
    request = {"template": template, "variables": given, "seconds": CPU_SECONDS}
    try:
        line = json.dumps(request).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise LaminaError(f"chat messages and template variables must be plain JSON values: {error}") from None
    answer = _worker.ask(line)
    if "error" in answer:
        raise LaminaError(f"the chat template failed: {answer['error']}")
    return answer["text"]


def _name_reasoning(message: dict) -> dict:
    """The message with its reasoning under both names that templates read (as in the reference)."""
    reasoning = next((message[key] for key in _REASONING if message.get(key) is not None), None)
    if reasoning is None:
        return message
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}


class _Worker:
    """The rendering process: started at the first request, and again after it ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None

    def ask(self, line: bytes) -> dict:
        """The worker's answer to one line; `{"error": ...}` if it died over it."""
        with self._lock:
            process = self._process = self._running() or self._start()
            clock = threading.Timer(WALL_SECONDS, process.kill)
            clock.start()
            reply = b""
            try:
                process.stdin.write(line)  # type: ignore[union-attr]
                process.stdin.flush()  # type: ignore[union-attr]
                reply = process.stdout.readline()  # type: ignore[union-attr]
            except OSError:
                pass  # it died before it read everything: said below
            except BaseException:  # interrupted: an answer that comes later must not be taken for the next one
                self._stop()
                raise
            finally:
                clock.cancel()
            answer = json.loads(reply) if reply.endswith(b"\n") else None
            if answer is None or "error" in answer:
                self._stop()
        return answer or {"error": f"it took more than {CPU_SECONDS:g} s of processor time, or crashed"}

    def _running(self) -> subprocess.Popen | None:
        return self._process if self._process is not None and self._process.poll() is None else None

    def _start(self) -> subprocess.Popen:
        command = [sys.executable, "-P", str(_WORKER)]
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        try:
            return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=null)
        except OSError as error:
            raise LaminaError(f"cannot start the process that renders chat templates: {error}") from None

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def close(self) -> None:
        """Ends the process if there is one."""
        with self._lock:
            self._stop()

    def forget(self) -> None:
        """For a forked child: the process belongs to the parent."""
        self._lock, self._process = threading.Lock(), None


_worker = _Worker()
atexit.register(_worker.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_worker.forget)
