"""Chat templates: the same text as transformers renders, and no way to hurt the process."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from lamina.errors import LaminaError
from lamina.tokenizer import chat
from lamina.tokenizer.chat import render_chat

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nBe kind.<|im_end|>\\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
BLOCKS = """{{- bos_token }}
{%- set ns = namespace(system='', count=0) %}
    {% for m in messages if m.role != 'tool' %}
        {% if m.role == 'skip' %}{% continue %}{% endif %}
        {% if m.role == 'stop' %}{% break %}{% endif %}
{% set ns.count = ns.count + 1 %}
[{{ ns.count }}] {{ m.role | title }}: {{ (m.content or '') | trim }}
        {% generation %}{{ m.thinking }}|{{ m.reasoning_content }}{% endgeneration %}
    {% endfor %}
{% macro show(t, n=2) -%} {{ t | tojson }}/{{ t | tojson(indent=n) }} {%- endmacro %}
{% for tool in tools or [] %}{{ show(tool) }}{% endfor %}
{{ documents is none }} {{ undefined_name }} {{ dict(a=1) }} {{ 'é<b>&' | tojson }}
{{ enable_thinking is defined }}
"""
CHAT = [
    {"role": "user", "content": " héllo <b>&\u2028 "},
    {"role": "skip", "content": "no"},
    {"role": "assistant", "content": "fine", "reasoning": "because"},
    {"role": "tool", "content": "no"},
    {"role": "user", "content": "你好 🙂"},
    {"role": "stop", "content": "no"},
]
TOOLS = [
    {
        "type": "function",
        "function": {"name": "f", "description": "says <é>", "parameters": {"z": 1, "a": [2.5, None]}},
    }
]

BOMBS = [
    "{% for i in range(10**9) %}x{% endfor %}",
    "{% for i in range(9999) %}{% for j in range(9999) %}{% for k in range(9999) %}{% endfor %}{% endfor %}"
    "{% endfor %}",
    "{{ 'a' * 10**10 }}",
    "{{ [1] * 10**10 }}",
    "{{ 'x'.ljust(10**10) }}",
    "{{ 'x'.zfill(10**10) }}",
    "{{ 'x'|center(10**10) }}",
    "{{ 'a\nb'|indent(10**10) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '{:1000000000d}'.format(1) }}",
    "{{ '%1000000000d'|format(1) }}",
    "{{ 10**(10**10) }}",
    "{{ 7**(10**8) % 5 }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% for i in range(99999) recursive %}{{ loop(range(99999)) }}{% endfor %}",
    "{{ range(99999)|batch(10**9, 'x')|list }}",
    "{{ range(10**9)|list }}",
    "{{ [1]|tojson(indent=10**10) }}",
    "{{ ('a' * 100000)|replace('a', 'b' * 100000) }}",
    "{{ ['a' * 1000] * 1000000 | join('b' * 1000000) }}",
    "{% set ns = namespace(a='a') %}{% for i in range(99) %}{% set ns.a = ns.a + ns.a %}{% endfor %}",
    "{% for i in range(99999) %}{{ 'aaaaaaaaaaaaaaaa' * 1000 }}{% endfor %}",
]
ESCAPES = [
    "{{ ''.__class__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__'] }}",
    "{{ ''|attr('__class__') }}",
    "{{ '{0.__class__}'.format('') }}",
    "{{ '{0.__class__}'.format_map({'0': ''}) }}",
    "{{ ['']|map(attribute='__class__')|list }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ raise_exception.__globals__ }}",
    "{{ namespace(__class__=1) }}",
    "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "{{ messages.append(1) }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
]


@pytest.mark.parametrize("template", [CHATML, BLOCKS])
@pytest.mark.parametrize("prompt", [True, False])
def test_rendering_is_that_of_transformers(template: str, prompt: bool) -> None:
    extra: dict[str, Any] = {"bos_token": "<s>", "enable_thinking": False}
    theirs, _ = render_jinja_template(
        [CHAT], tools=TOOLS, chat_template=template, add_generation_prompt=prompt, **extra
    )
    assert render_chat(template, CHAT, prompt, tools=TOOLS, **extra) == theirs[0]
    assert len(theirs[0]) > 50


def test_the_date_is_today() -> None:
    form = "%d %b %Y"
    before = time.strftime(form)
    got = render_chat(f"{{{{ strftime_now('{form}') }}}}", [])
    assert got in (before, time.strftime(form))


@pytest.mark.parametrize("template", BOMBS)
def test_a_bomb_is_an_error(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And soon: most of them would run for ever."""
    monkeypatch.setattr(chat, "CPU_SECONDS", 0.5)
    with pytest.raises(LaminaError, match="the chat template failed"):
        render_chat(template, [])
    assert render_chat("{{ 1 + 1 }}", []) == "2"


@pytest.mark.parametrize("template", ESCAPES)
def test_an_escape_is_an_error(template: str) -> None:
    with pytest.raises(LaminaError, match="the chat template failed"):
        render_chat(template, [{"role": "user", "content": "x"}])


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("a\n{% if %}", "syntax error in line 2"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ nothing.here }}", "'nothing' is undefined"),
        ("{{ messages[0]['content'] + 1 }}", "str"),
    ],
)
def test_an_error_of_the_template_is_passed_on(template: str, said: str) -> None:
    with pytest.raises(LaminaError, match=said):
        render_chat(template, [{"role": "user", "content": "x"}])


def test_the_worker_is_limited_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A string of 200 MB fits, one of 800 MB does not, whatever the machine has."""
    monkeypatch.setattr(chat, "CPU_SECONDS", 5.0)
    assert render_chat("{{ ('a' * (2 * 10**8))|length }}", []) == "200000000"
    with pytest.raises(LaminaError, match="MiB of memory"):
        render_chat("{{ ('a' * (8 * 10**8))|length }}", [])


def test_messages_must_be_plain() -> None:
    for messages in ("hi", [1], [{"content": object()}]):
        with pytest.raises(LaminaError):
            render_chat(CHATML, messages)  # type: ignore[arg-type]


def test_threads_get_their_own_answers() -> None:
    def ask(i: int) -> str:
        return render_chat("{{ messages[0].content }}", [{"role": "user", "content": str(i)}])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(64))) == [str(i) for i in range(64)]


def test_a_worker_that_was_killed_is_replaced() -> None:
    assert render_chat("a", []) == "a"
    process = chat._worker._process
    assert process is not None
    process.kill()
    process.wait()
    assert render_chat("b", []) == "b"
