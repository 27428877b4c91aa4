"""Local generation: batched = one by one = the library's own generate, shared = unshared, choices = brute force."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pellucid.core.errors import CapabilityError, InputError, ResourceError
from pellucid.generators import YES_NO, LocalGenerator, Request, ask_yes_no
from pellucid.generators.decoding import Decoder, common_prefix, draw
from pellucid.generators.local import hash_weights
from tests.generators.small_models import FAMILIES, StandIn, tiny, tiny_seq2seq

PROMPTS = [
    "Hello world, the answer is Paris, not London, and a much longer ending than all the others have",
    "Hello world, the answer is",
    "Hello world, the answer is Paris",
    "the user",
    "Hello world, the answer is London, not Paris, and",
    "x",
]


def reference(subject: StandIn, prompt: Any, length: int) -> list[int]:
    """The greedy tokens by recomputing the whole sequence for every token."""
    ids = list(subject.encode(prompt).ids)
    drawn: list[int] = []
    for _ in range(length):
        with torch.no_grad():
            logits = subject.model(input_ids=torch.tensor([ids + drawn])).logits[0, -1]
        drawn.append(int(logits.argmax()))
    return drawn


def text_of(subject: StandIn, prompt: Any, drawn: list[int]) -> str:
    head = subject.tokenizer.decode(list(subject.encode(prompt).ids)[-8:], skip_special_tokens=True)
    whole = subject.tokenizer.decode([*list(subject.encode(prompt).ids)[-8:], *drawn], skip_special_tokens=True)
    return whole[len(head) :] if whole.startswith(head) else subject.tokenizer.decode(drawn, skip_special_tokens=True)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("share", [True, False])
def test_a_batch_gives_what_recomputing_each_prompt_alone_gives(family: str, share: bool) -> None:
    subject = tiny(family)
    requests = [Request(prompt, max_tokens=6 + index) for index, prompt in enumerate(PROMPTS)]
    replies = LocalGenerator(subject, share_prefix=share).generate(requests)
    for request, reply in zip(requests, replies, strict=True):
        drawn = reference(subject, request.prompt, request.max_tokens)
        assert reply.text == text_of(subject, request.prompt, drawn)
        assert reply.finish_reasons == ("length",)
        assert (reply.prompt_tokens, reply.completion_tokens) == (len(subject.encode(request.prompt).ids), len(drawn))


def test_it_agrees_with_the_librarys_own_generate() -> None:
    subject = tiny()
    for prompt in PROMPTS:
        ids = torch.tensor([subject.encode(prompt).ids])
        out = subject.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=9, do_sample=False)
        drawn = out[0, ids.shape[1] :].tolist()
        reply = LocalGenerator(subject).generate([Request(prompt, max_tokens=9)])[0]
        assert reply.text == text_of(subject, prompt, drawn)


@pytest.mark.parametrize("family", FAMILIES)
def test_sharing_changes_no_logit_and_no_score(family: str) -> None:
    subject = tiny(family)
    rows = [subject.encode(prompt).ids for prompt in PROMPTS if prompt.startswith("Hello")]
    endings = [(7,), (8, 9, 10), (11, 12), (13, 14, 15, 16, 17)][: len(rows)]
    with torch.no_grad():
        shared, plain = (Decoder(subject.model, 0, share) for share in (True, False))
        if plain.window() > 100:
            torch.testing.assert_close(shared.start(rows)[0], plain.start(rows)[0], rtol=0, atol=1e-5)
        same = [row[:10] for row in rows[:2]]
        torch.testing.assert_close(shared.start(same)[0], plain.start(same)[0], rtol=0, atol=1e-5)
        np.testing.assert_allclose(shared.score(rows, endings), plain.score(rows, endings), rtol=1e-6)
        alone = [plain.score([row], [ending])[0] for row, ending in zip(rows, endings, strict=True)]
        np.testing.assert_allclose(shared.score(rows, endings), alone, rtol=1e-6)


def shapes_seen(subject: StandIn) -> list[tuple[int, ...]]:
    seen: list[tuple[int, ...]] = []
    subject.model.register_forward_pre_hook(
        lambda _, __, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    return seen


def test_a_shared_prefix_runs_once() -> None:
    subject = tiny()
    requests = [Request(prompt, max_tokens=1) for prompt in PROMPTS if prompt.startswith("Hello")]
    rows = [subject.encode(request.prompt).ids for request in requests]
    prefix, longest = min(common_prefix(rows), min(map(len, rows)) - 1), max(map(len, rows))
    assert prefix >= 10
    for share, expected in ((True, [(1, 1), (1, prefix), (4, longest - prefix)]), (False, [(1, 1), (4, longest)])):
        generator, seen = LocalGenerator(subject, share_prefix=share), shapes_seen(subject)
        generator.generate(requests)
        assert seen == expected


def test_only_a_text_that_outgrows_its_window_is_kept_from_unequal_companions() -> None:
    for window, expected in ((64, {4, 1}), (8, {1})):
        subject = tiny("mistral, a window of 8", sliding_window=window)
        requests = [Request(prompt, max_tokens=5) for prompt in ("Hello a", "Hello ab", "Hello abc", "Hello abcd")]
        generator, seen = LocalGenerator(subject), shapes_seen(subject)
        texts = [reply.text for reply in generator.generate(requests)]
        assert {shape[0] for shape in seen} == expected
        assert texts == [LocalGenerator(subject).generate([request])[0].text for request in requests]


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_a_finished_row_never_runs_past_the_models_positions(family: str) -> None:
    subject = tiny(family, dtype=torch.float32)
    limit = subject.max_length
    assert limit == 128
    long = "x" * (limit - 2)
    short, full = LocalGenerator(subject).generate([Request("y", max_tokens=20), Request(long, max_tokens=20)])
    assert (short.completion_tokens, full.completion_tokens) == (20, 2)
    assert full.finish_reasons == ("length",)
    with pytest.raises(InputError, match="129 positions"):
        LocalGenerator(subject).generate([Request("x" * limit)])
    with pytest.raises(InputError, match="positions"):
        LocalGenerator(subject).generate([Request("x" * (limit - 1), choices=("yes", "no"))])


def test_a_sample_depends_on_its_request_and_not_on_its_companions() -> None:
    subject = tiny()
    asked = Request("Hello world, the", max_tokens=12, temperature=1.0, seed=5, n=3)
    others = [Request(prompt, max_tokens=20, temperature=0.7, seed=index) for index, prompt in enumerate(PROMPTS)]
    alone = LocalGenerator(subject).generate([asked])[0]
    crowd = LocalGenerator(subject, batch_size=4).generate([*others, asked])[-1]
    assert alone.texts == crowd.texts
    assert len(set(alone.texts)) == 3
    other_seed = LocalGenerator(subject).generate([replace(asked, seed=6)])[0]
    assert set(other_seed.texts).isdisjoint(alone.texts)


def test_more_samples_begin_with_the_fewer() -> None:
    few, many = (Request("Hello", temperature=1.0, n=n, max_tokens=5) for n in (2, 4))
    generator = LocalGenerator(tiny())
    assert generator.generate([many])[0].texts[:2] == generator.generate([few])[0].texts


def test_dice_follow_temperature_and_top_p() -> None:
    logits = torch.tensor([2.0, 1.0, 0.5, -1.0, -3.0])
    dice = np.random.default_rng(0)
    for temperature, top_p in ((1.0, 1.0), (0.5, 1.0), (2.0, 1.0), (1.0, 0.8), (1.0, 1e-6)):
        expected = torch.softmax(logits.double() / temperature, -1).numpy()
        kept = int((np.cumsum(expected) < top_p).sum()) + 1
        expected[kept:] = 0.0
        expected /= expected.sum()
        counts = Counter(draw(logits, temperature, top_p, dice) for _ in range(1000))
        for token, share in enumerate(expected):
            assert abs(counts[token] / 1000 - share) <= 4.5 * np.sqrt(share * (1 - share) / 1000)


def test_stop_strings_and_every_end_token_end_a_text() -> None:
    subject = tiny()
    free = reference(subject, "Hello", 12)
    text = text_of(subject, "Hello", free)
    ending = text[3:5]
    stopped = LocalGenerator(subject).generate([Request("Hello", max_tokens=12, stop=("never", ending))])[0]
    assert stopped.text == text[: text.index(ending)]
    assert stopped.finish_reasons == ("stop",)
    assert stopped.completion_tokens < 12
    for place in ("generation_config", "config", "tokenizer"):
        subject = tiny()
        if place == "tokenizer":
            subject.tokenizer.eos_token = subject.tokenizer.convert_ids_to_tokens(free[4])
        else:
            getattr(subject.model, place).eos_token_id = [200, free[4]]
        until = free[: free.index(free[4])]
        reply = LocalGenerator(subject).generate([Request("Hello", max_tokens=12)])[0]
        assert reply.text == text_of(subject, "Hello", until)
        assert (reply.finish_reasons, reply.completion_tokens) == (("stop",), len(until) + 1)


@pytest.mark.parametrize("family", ["llama", "gpt2", "mamba"])
def test_choices_are_scored_as_one_forward_pass_per_choice_scores_them(family: str) -> None:
    subject = tiny(family)
    choices = ("Paris", " London", "the world is", ("yes", " yes", "yes!"))
    requests = [Request(prompt, choices=choices) for prompt in PROMPTS]
    for request, reply in zip(requests, LocalGenerator(subject, batch_size=7).generate(requests), strict=True):
        prompt = list(subject.encode(request.prompt).ids)
        expected = []
        for spellings in request.spellings():
            total = 0.0
            # "yes!" begins with "yes", so it is part of that event already.
            for text in (s for s in spellings if s != "yes!"):
                ids = subject.tokenizer(text, add_special_tokens=False)["input_ids"]
                with torch.no_grad():
                    logits = subject.model(input_ids=torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
                total += np.exp(sum(float(logits[len(prompt) + k - 1, token]) for k, token in enumerate(ids)))
            expected.append(np.log(total))
        assert reply.choice_log_probs == pytest.approx(expected, abs=1e-5)
        assert reply.text == request.spellings()[int(np.argmax(expected))][0]
        assert (reply.how, reply.finish_reasons) == ("log-probs", ("choice",))


def test_yes_and_no_sum_their_spellings() -> None:
    subject = tiny()
    questions = ["Is Paris the world? Answer:", "x", [{"role": "user", "content": "Hello?"}]]
    expected = []
    for question in questions:
        prompt = list(subject.encode(question).ids)
        sums = []
        for spellings in YES_NO:
            total = 0.0
            for text in spellings:
                ids = subject.tokenizer(text, add_special_tokens=False)["input_ids"]
                with torch.no_grad():
                    logits = subject.model(input_ids=torch.tensor([prompt + ids])).logits[0].softmax(-1)
                total += float(np.prod([float(logits[len(prompt) + k - 1, token]) for k, token in enumerate(ids)]))
            sums.append(total)
        expected.append(sums[0] / sum(sums))
    assert ask_yes_no(LocalGenerator(subject), questions) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_encoder_decoders_generate_and_score_like_the_library(kind: str) -> None:
    subject = tiny_seq2seq(kind)
    generator = LocalGenerator(subject)
    replies = generator.generate([Request(prompt[:40], max_tokens=7) for prompt in PROMPTS])
    scored = generator.generate([Request(prompt[:40], choices=("Paris", "the world")) for prompt in PROMPTS])
    for prompt, reply, score in zip(PROMPTS, replies, scored, strict=True):
        ids = torch.tensor([subject.encode(prompt[:40]).ids])
        out = subject.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=7, do_sample=False, num_beams=1
        )
        assert reply.text == subject.tokenizer.decode(out[0, 1:], skip_special_tokens=True)
        for text, value in zip(("Paris", "the world"), score.choice_log_probs or (), strict=True):
            labels = torch.tensor([subject.tokenizer(text, add_special_tokens=False)["input_ids"]])
            with torch.no_grad():
                expected = -float(subject.model(input_ids=ids, labels=labels).loss) * labels.shape[1]
            if kind == "t5":  # BART shifts labels with its own start token, so only T5's loss is the same sum
                assert value == pytest.approx(expected, abs=1e-5)


def test_greedy_samples_are_computed_once() -> None:
    subject = tiny()
    reply = LocalGenerator(subject).generate([Request("Hello", n=3, max_tokens=4)])[0]
    assert len(reply.texts) == len(reply.finish_reasons) == 3
    assert len(set(reply.texts)) == 1
    assert reply.completion_tokens == 4


def test_a_leading_space_of_the_answer_survives_a_tokenizer_that_drops_it() -> None:
    from tests.tokenizers_for_tests import llama_style

    subject = tiny()
    subject.tokenizer = llama_style()
    generator = LocalGenerator(subject)
    ids = subject.tokenizer("Hello")["input_ids"]
    world = subject.tokenizer("world", add_special_tokens=False)["input_ids"]
    assert subject.tokenizer.decode(world) == "world"
    assert generator._text(ids, world) == " world"


def test_it_holds_the_lock_and_leaves_the_model_as_it_was(unchanged: Any) -> None:
    subject = tiny("gpt2", dtype=torch.float32)
    subject.model.train()
    held: list[bool] = []

    class Lock:
        def __enter__(self) -> None:
            held.append(True)

        def __exit__(self, *_: object) -> None:
            held.append(False)

    subject.lock = Lock()
    unchanged(subject.model)
    once, twice = (LocalGenerator(subject).generate([Request("Hello world", max_tokens=8)])[0].text for _ in range(2))
    assert once == twice
    assert held[0] is True
    assert held[-1] is False
    assert subject.model.training


def test_threads_get_what_they_get_alone() -> None:
    generator = LocalGenerator(tiny())
    expected = [generator.generate([Request(prompt, max_tokens=6)])[0].text for prompt in PROMPTS]
    found: dict[int, str] = {}

    def work(index: int) -> None:
        found[index] = generator.generate([Request(PROMPTS[index], max_tokens=6)])[0].text

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(PROMPTS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[index] for index in range(len(PROMPTS))] == expected


def test_a_batch_that_does_not_fit_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = tiny()
    requests = [Request(prompt, max_tokens=5, temperature=1.0) for prompt in PROMPTS]
    expected = [reply.texts for reply in LocalGenerator(subject).generate(requests)]
    step, most = Decoder.step, [2]

    def small(self: Decoder, tokens: Any, going: Any, state: Any) -> torch.Tensor:
        if len(tokens) > most[0]:
            raise torch.OutOfMemoryError("too much")
        return step(self, tokens, going, state)

    monkeypatch.setattr(Decoder, "step", small)
    assert [reply.texts for reply in LocalGenerator(subject).generate(requests)] == expected
    most[0] = 0
    with pytest.raises(ResourceError, match="single prompt"):
        LocalGenerator(subject).generate(requests)


def test_a_cache_key_follows_every_weight() -> None:
    subject = tiny()
    generator = LocalGenerator(subject)
    before = generator.identity
    assert before == generator.identity
    assert before["weights"] == hash_weights(subject.model)
    with torch.no_grad():
        subject.model.lm_head.weight[3, 3] += 1.0
    assert generator.identity != before


def test_what_cannot_generate_is_refused() -> None:
    subject = tiny()
    for change in ({"capabilities": frozenset({"logits"})}, {"tokenizer": None}, {"edits": ("steer",)}):
        with pytest.raises(CapabilityError):
            LocalGenerator(StandIn(**{**vars(subject), **change}))
    with pytest.raises(InputError):
        LocalGenerator(subject, batch_size=0)


def test_a_loaded_subject_generates() -> None:
    loading = pytest.importorskip("pellucid.models.load")
    plain = tiny(dtype=torch.float32)
    subject = loading.load(plain.model, plain.tokenizer)
    chat = [{"role": "user", "content": "Hello"}]
    for prompt in (PROMPTS[0], chat):
        expected = LocalGenerator(plain).generate([Request(prompt, max_tokens=6)])[0]
        assert LocalGenerator(subject).generate([Request(prompt, max_tokens=6)])[0] == expected
