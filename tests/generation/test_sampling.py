"""Each filter against the class of transformers that does the same, and draws against the softmax."""

import math

import pytest
import torch
from transformers.generation import logits_process as reference

from lamina.errors import LaminaError
from lamina.generation import Sampling, filter_logits, generators, sample, seen_tokens

KINDS = ["random", "peaked", "flat", "ties", "masked", "huge"]


def logits_of(kind: str, vocab: int) -> torch.Tensor:
    x = torch.randn(3, vocab, generator=torch.Generator().manual_seed(vocab)) * 2
    if kind == "peaked":
        x[:, vocab // 2] += 30
    if kind == "flat":
        x = torch.full_like(x, 0.25)
    if kind == "ties":
        x = x.round()
    if kind == "masked":
        x[:, ::2] = -math.inf
    if kind == "huge":
        x *= 1e30
    return x


def chain(history: torch.Tensor, scores: torch.Tensor, *processors) -> torch.Tensor:
    for processor in processors:
        scores = processor(history, scores)
    return scores


def equal_but_for_ties(got: torch.Tensor, want: torch.Tensor) -> bool:
    """Equal everywhere, except which of several tokens with the smallest score kept are the ones kept.

    transformers leaves that choice to an unstable sort; how many are kept must agree.
    """
    smallest = want.masked_fill(want == -math.inf, math.inf).amin(-1, keepdim=True)
    tied = torch.maximum(got, want) == smallest
    same_count = torch.equal(got.isfinite().sum(-1), want.isfinite().sum(-1))
    return same_count and bool(((got == want) | tied).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vocab", [1, 7, 101, 1003])
class TestEqualsTransformers:
    def check(self, kind, vocab, sampling, *processors, same=torch.equal):
        logits = logits_of(kind, vocab)
        history = torch.randint(vocab, (3, 5), generator=torch.Generator().manual_seed(1))
        before = logits.clone()
        got = filter_logits(logits, sampling, seen_tokens(history.tolist(), vocab, logits.device))
        assert torch.equal(logits, before)
        assert same(got, chain(history, before, *processors))

    @pytest.mark.parametrize("top_k", [1, 2, 5, 100, 5000])
    def test_top_k(self, kind, vocab, top_k):
        self.check(kind, vocab, Sampling(1.0, top_k=top_k), reference.TopKLogitsWarper(top_k))

    @pytest.mark.parametrize("top_p", [1e-9, 0.1, 0.5, 0.9, 0.999])
    def test_top_p(self, kind, vocab, top_p):
        self.check(
            kind,
            vocab,
            Sampling(1.0, top_p=top_p),
            reference.TopPLogitsWarper(top_p),
            same=equal_but_for_ties,
        )

    @pytest.mark.parametrize("min_p", [1e-6, 0.05, 0.5, 1.0])
    def test_min_p(self, kind, vocab, min_p):
        self.check(kind, vocab, Sampling(1.0, min_p=min_p), reference.MinPLogitsWarper(min_p))

    @pytest.mark.parametrize("temperature", [0.01, 0.7, 3.0])
    def test_temperature(self, kind, vocab, temperature):
        self.check(kind, vocab, Sampling(temperature), reference.TemperatureLogitsWarper(temperature))

    @pytest.mark.parametrize("penalty", [0.5, 1.3, 10.0])
    @pytest.mark.parametrize("temperature", [0.0, 1.0])
    def test_repetition_penalty(self, kind, vocab, penalty, temperature):
        sampling = Sampling(temperature, repetition_penalty=penalty)
        self.check(kind, vocab, sampling, reference.RepetitionPenaltyLogitsProcessor(penalty))

    def test_all_in_the_order_of_transformers(self, kind, vocab):
        self.check(
            kind,
            vocab,
            Sampling(0.6, top_k=23, top_p=0.93, min_p=0.02, repetition_penalty=1.2),
            reference.RepetitionPenaltyLogitsProcessor(1.2),
            reference.TemperatureLogitsWarper(0.6),
            reference.TopKLogitsWarper(23),
            reference.TopPLogitsWarper(0.93),
            reference.MinPLogitsWarper(0.02),
            same=equal_but_for_ties,
        )


def test_order_is_that_of_transformers_own_generation():
    """The chain that the test above writes out is the one transformers builds from a generation config."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=7, hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1)
    model = LlamaForCausalLM(config)
    settings = {"temperature": 0.6, "top_k": 3, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.2}
    generation_config, _ = model._prepare_generation_config(None, do_sample=True, **settings)
    built = model._get_logits_processor(generation_config, input_ids_seq_length=1)
    assert [type(one).__name__.removesuffix("Warper").removesuffix("Processor") for one in built] == [
        "RepetitionPenaltyLogits", "TemperatureLogits", "TopKLogits", "TopPLogits", "MinPLogits",
    ]  # fmt: skip


def test_top_p_keeps_the_earlier_of_equal_tokens():
    got = filter_logits(torch.full((1, 1024), -2.0), Sampling(1.0, top_p=0.25))
    assert got[0].isfinite().tolist() == [True] * 256 + [False] * 768
    ends = torch.tensor([[-9.0, 3.0, 3.0, -9.0, 3.0, 3.0] + [-20.0] * 50])
    assert filter_logits(ends, Sampling(1.0, top_p=0.5))[0].isfinite().nonzero().flatten().tolist() == [
        1,
        2,
        4,
    ]
    assert filter_logits(ends, Sampling(1.0, top_p=1e-9)).argmax() == ends.argmax()


def test_top_p_on_a_real_sized_vocabulary_sorts_few_and_keeps_the_same():
    logits = torch.randn(2, 50_021, generator=torch.Generator().manual_seed(0)) * 4
    got = filter_logits(logits, Sampling(1.0, top_p=0.9))
    assert torch.equal(got, reference.TopPLogitsWarper(0.9)(None, logits))
    assert 100 < got.isfinite().sum(-1).max() < 5000


def test_bfloat16_logits_are_filtered_in_float32():
    logits = logits_of("random", 101).bfloat16()
    got = filter_logits(logits, Sampling(0.7, top_p=0.8))
    want = chain(None, logits.float(), reference.TemperatureLogitsWarper(0.7), reference.TopPLogitsWarper(0.8))
    assert got.dtype == torch.float32
    assert torch.equal(got, want)


def test_draws_follow_the_filtered_softmax():
    """Chi-square of 20,000 draws from five tokens; 18.5 is the 0.999 quantile at 4 degrees of freedom."""
    logits, rows = torch.tensor([0.3, -1.0, 1.2, -math.inf, 0.0, 2.0, -4.0]), 20_000
    sampling = Sampling(1.3, top_k=5)
    drawn = sample(logits.expand(rows, -1), sampling, [torch.Generator().manual_seed(i) for i in range(rows)])
    kept = torch.tensor([0, 1, 2, 4, 5])
    counts = drawn.bincount(minlength=7)
    expected = (logits[kept].double() / 1.3).softmax(0) * rows
    assert counts[kept].sum() == rows
    assert ((counts[kept] - expected) ** 2 / expected).sum() < 18.5


def test_one_generator_draws_independently_each_time():
    """Two draws in a row from one generator: the 9 pairs of 3 equal tokens are as frequent (26.1: 0.999)."""
    rows = 9_000
    made = [torch.Generator().manual_seed(i) for i in range(rows)]
    first, second = (sample(torch.zeros(rows, 3), Sampling(1.0), made) for _ in range(2))
    counts = (first * 3 + second).bincount(minlength=9)
    assert ((counts - 1000) ** 2 / 1000).sum() < 26.1


@pytest.mark.parametrize("temperature", [0.0, 1e-30, 1.0])
def test_one_possible_token_is_always_chosen(temperature):
    logits = torch.full((5, 11), -math.inf)
    logits[torch.arange(5), torch.tensor([0, 10, 3, 7, 10])] = -50.0
    sampling = Sampling(temperature, seed=4)
    assert sample(logits, sampling, generators(sampling, 5)).tolist() == [0, 10, 3, 7, 10]


@pytest.mark.parametrize(("uniform", "chosen"), [(0.0, 4), (1 - 2**-53, 1)])
def test_the_ends_of_the_uniform_never_choose_a_token_of_no_probability(monkeypatch, uniform, chosen):
    monkeypatch.setattr(torch, "rand", lambda *_, **options: torch.tensor([uniform], dtype=options["dtype"]))
    logits = torch.tensor([[-math.inf, 1.0, -math.inf, 3.0, 0.1, -math.inf]])
    assert sample(logits, Sampling(1.0), [torch.Generator()]).tolist() == [chosen]


def test_greedy_is_argmax_with_the_first_of_equals():
    logits = logits_of("ties", 101)
    assert torch.equal(sample(logits, Sampling()), logits.argmax(-1))


def test_a_row_draws_the_same_alone_and_in_a_batch():
    logits, sampling = logits_of("random", 1003), Sampling(1.5, top_p=0.95, seed=2**63 + 5)
    together = generators(sampling, 3)
    alone = [generators(sampling, 1) for _ in range(3)]
    for _ in range(5):
        got = sample(logits, sampling, together)
        assert got.tolist() == [int(sample(logits[i : i + 1], sampling, alone[i])) for i in range(3)]


def test_without_a_seed_rows_differ():
    states = {tuple(one.get_state().tolist()) for one in generators(Sampling(1.0), 4)}
    assert len(states) == 4


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_numbers_are_named(bad, temperature):
    logits = torch.zeros(3, 7)
    logits[1, 4] = bad
    sampling = Sampling(temperature, seed=0)
    with pytest.raises(LaminaError, match="logits are not finite"):
        sample(logits, sampling, generators(sampling, 3))


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("temperature", -0.1, "0 (greedy)"),
        ("temperature", math.nan, "0 (greedy)"),
        ("temperature", math.inf, "finite"),
        ("temperature", "hot", "0 (greedy)"),
        ("top_k", -1, "0 (keeps all)"),
        ("top_k", 2.5, "whole number"),
        ("top_k", True, "whole number"),
        ("top_p", 0.0, "above 0 and up to 1"),
        ("top_p", 1.01, "above 0 and up to 1"),
        ("top_p", math.nan, "above 0 and up to 1"),
        ("min_p", -0.01, "from 0"),
        ("min_p", 1.5, "from 0"),
        ("min_p", math.nan, "from 0"),
        ("repetition_penalty", 0.0, "above 0"),
        ("repetition_penalty", -1, "above 0"),
        ("repetition_penalty", math.nan, "above 0"),
        ("repetition_penalty", None, "above 0"),
        ("seed", -1, "2**64 - 1"),
        ("seed", 2**64, "2**64 - 1"),
        ("seed", 0.5, "2**64 - 1"),
    ],
)
def test_a_bad_setting_is_named_with_what_is_accepted(name, value, accepted):
    with pytest.raises(LaminaError) as error:
        Sampling(**{name: value})
    assert str(error.value).startswith(f"{name} is {value!r}")
    assert accepted in str(error.value)
