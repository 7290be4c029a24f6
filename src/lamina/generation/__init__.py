"""Generation: prompts in, tokens out. (The package is not called `generate`: that is the public function.)"""

from lamina.generation.loop import Generation, Stats, Token, complete, complete_ids, generate
from lamina.generation.sampling import Sampling, filter_logits, generators, sample, seen_tokens

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
