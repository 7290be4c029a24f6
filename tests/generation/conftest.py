"""Models that follow the interface of `lamina.generate`: one of transformers, and one that says a script."""

from types import SimpleNamespace

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

VOCAB = 97


class RowStates:
    """A state made of one value a row; it refuses more tokens than were asked for."""

    def __init__(self, rows, capacity):
        self.rows, self.capacity, self.lengths = rows, capacity, [0] * len(rows)
        self.selected = []

    @property
    def nbytes(self):
        return 1000 * len(self.rows)

    def select(self, rows):
        self.rows = [self.rows[i] for i in rows]
        self.lengths = [self.lengths[i] for i in rows]
        self.selected.append(list(rows))

    def advance(self, row, count):
        self.lengths[row] += count
        assert self.lengths[row] <= self.capacity


class Reference:
    """A tiny Llama of transformers; each row has a DynamicCache of its own, so padding is never computed."""

    def __init__(self, eos_ids=()):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=3,
            num_key_value_heads=1,
            initializer_range=0.6,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=list(eos_ids) or None,
        )
        self.network = LlamaForCausalLM(config).eval()
        self.arch = SimpleNamespace(vocab=VOCAB, context=None, bidirectional=False)
        self.tokenizer, self.eos_ids, self.device = None, tuple(eos_ids), torch.device("cpu")
        self.calls = []

    def init_state(self, batch, capacity):
        self.state = RowStates([DynamicCache() for _ in range(batch)], capacity)
        return self.state

    def __call__(self, ids, state=None, *, lengths=None, last=False):
        assert ids.dtype == torch.int64
        assert last or ids.shape[1] == 1, "only the last position is wanted"
        lengths = [ids.shape[1]] * len(ids) if lengths is None else lengths.tolist()
        self.calls.append((tuple(ids.shape), lengths))
        out = torch.full((len(ids), 1, VOCAB), torch.nan)
        for row, length in enumerate(lengths):
            state.advance(row, length)
            if length:
                cache = state.rows[row]
                out[row] = self.network(ids[row : row + 1, :length], past_key_values=cache).logits[0, -1:]
        return out

    def continuation(self, prompt, **options):
        """New ids by transformers' own generation."""
        options = {"max_new_tokens": 20, "do_sample": False, **options}
        return self.network.generate(torch.tensor([prompt]), **options)[0, len(prompt) :].tolist()


class Script:
    """Says a fixed continuation, chosen by the first id of the prompt, and checks that it hears itself."""

    def __init__(self, scripts, vocab, tokenizer=None, eos_ids=()):
        self.scripts, self.tokenizer, self.eos_ids = scripts, tokenizer, tuple(eos_ids)
        self.arch = SimpleNamespace(vocab=vocab, context=None, bidirectional=False)
        self.device = torch.device("cpu")

    def init_state(self, batch, capacity):
        return RowStates([None] * batch, capacity)

    def __call__(self, ids, state=None, *, lengths=None, last=False):
        lengths = [ids.shape[1]] * len(ids) if lengths is None else lengths.tolist()
        logits = torch.zeros(len(ids), 1, self.arch.vocab)
        for row, length in enumerate(lengths):
            if state.rows[row] is None:
                state.rows[row] = (self.scripts[int(ids[row, 0])], 0)
            else:
                script, said = state.rows[row]
                assert ids[row].tolist() == [script[said]]
                state.rows[row] = (script, said + 1)
            script, said = state.rows[row]
            state.advance(row, length)
            logits[row, 0, script[said]] = 1.0
        return logits


class Text:
    """A byte-level tokenizer of the tokenizers library, with the smallest stream that is right."""

    def __init__(self, inner):
        self.inner = inner

    def encode(self, text, special=True):
        return self.inner.encode(text).ids

    def decode(self, ids):
        return self.inner.decode(ids)

    def stream(self):
        return Stream(self.inner)


class Stream:
    def __init__(self, inner):
        self.inner, self.ids, self.given = inner, [], 0

    def push(self, one):
        self.ids.append(one)
        text = self.inner.decode(self.ids)
        return "" if text.endswith("\ufffd") else self.finish()

    def finish(self):
        text = self.inner.decode(self.ids)
        new, self.given = text[self.given :], len(text)
        return new


@pytest.fixture(autouse=True)
def one_thread():
    """Threads only get in each other's way on models this small, most of all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def text():
    inner = ByteLevelBPETokenizer()
    inner.train_from_iterator(["the cat sat on the mat; the dog sat on the cat"] * 3, vocab_size=280)
    return Text(inner)


@pytest.fixture
def reference():
    return Reference


@pytest.fixture
def speaker(text):
    """A model that answers each prompt (a text with a first token of its own) with the given text or ids."""

    def make(answers, **options):
        scripts = {}
        for prompt, answer in answers.items():
            ids = text.encode(answer) if isinstance(answer, str) else list(answer)
            scripts[text.encode(prompt)[0]] = [*ids, *[0] * 100]
        return Script(scripts, vocab=280, tokenizer=text, **options)

    return make
