"""Generation: prompts in, tokens out.

`lamina.generate(model, prompt)` is a function of the public surface; `lamina.generate` is this package too.
Python binds a package to its name in the parent when it is imported, so the package itself is callable: the
two cannot shadow each other, whichever was imported first.
"""

import sys
from types import ModuleType

from lamina.generate.loop import Generation, Stats, Token, complete, complete_ids, generate
from lamina.generate.sampling import Sampling, filter_logits, generators, sample, seen_tokens

__all__ = [
    "Generation",
    "Sampling",
    "Stats",
    "Token",
    "complete",
    "complete_ids",
    "filter_logits",
    "generate",
    "generators",
    "sample",
    "seen_tokens",
]


class _Callable(ModuleType):
    __call__ = staticmethod(generate)


sys.modules[__name__].__class__ = _Callable
