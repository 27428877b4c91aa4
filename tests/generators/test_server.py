"""The server generator against a server that fails in every way a test can think of."""

from __future__ import annotations

import email.utils
import math
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pellucid.core.errors import GeneratorError, InputError, ResourceError
from pellucid.generators import Limits, Request, ServerGenerator, ask_yes_no
from pellucid.generators import limits as limits_module
from pellucid.generators.server import count_choices, first_token_scores
from tests.generators.fake_server import Behaviour, FakeServer, completion, error, first_token, serving


@contextmanager
def connected(behaviour: Behaviour, **settings: Any) -> Iterator[tuple[FakeServer, ServerGenerator]]:
    with serving(behaviour) as fake:
        generator = ServerGenerator("m", base_url=fake.url, **settings)
        try:
            yield fake, generator
        finally:
            generator.close()


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait a hundredth of the real time after a failure."""
    real = limits_module.backoff
    monkeypatch.setattr("pellucid.generators.connection.backoff", lambda *given: real(*given) / 100)


def echo(body: dict[str, Any], number: int) -> Any:
    return completion([body["messages"][-1]["content"].upper()] * body.get("n", 1))


def test_answers_come_in_order_and_the_request_is_sent_as_it_is() -> None:
    chat = [{"role": "system", "content": "Be loud."}, {"role": "user", "content": "b"}]
    asked = [Request("a"), Request(chat, temperature=0.5, top_p=0.9, stop=("B!",), seed=7, n=2, max_tokens=3)]
    with connected(echo, api_key="secret") as (fake, generator):
        first, second = generator.generate(asked)
    assert (first.text, second.texts) == ("A", ("B", "B"))
    assert (first.prompt_tokens, first.completion_tokens, first.cost, first.how) == (10, 5, 0.0, "generated")
    bodies = sorted(fake.bodies, key=lambda body: len(body["messages"]))
    assert bodies[0] == {"model": "m", "messages": [{"role": "user", "content": "a"}], "max_tokens": 64,
                         "temperature": 0.0, "seed": 0}  # fmt: skip
    assert bodies[1] == {"model": "m", "messages": chat, "max_tokens": 3, "temperature": 0.5, "top_p": 0.9,
                         "stop": ["B!"], "seed": 7, "n": 2}  # fmt: skip
    assert {headers["authorization"] for headers in fake.headers} == {"Bearer secret"}
    assert set(fake.paths) == {"/v1/chat/completions"}


def test_no_key_of_the_environment_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "meant-for-another-server")
    with connected(echo) as (fake, generator):
        generator.generate([Request("a")])
    assert "meant-for-another-server" not in str(fake.headers)


def test_the_completions_endpoint_continues_texts() -> None:
    def behaviour(body: dict[str, Any], number: int) -> Any:
        text = {"id": "x", "object": "text_completion", "created": 0, "model": "m"}
        import json

        choices = [{"index": 0, "text": body["prompt"] + "!STOP rest", "finish_reason": "length", "logprobs": None}]
        return 200, {}, json.dumps({**text, "choices": choices}).encode()

    with connected(behaviour, endpoint="completions") as (fake, generator):
        reply = generator.generate([Request("a", stop=("STOP",))])[0]
        with pytest.raises(InputError, match="endpoint='chat'"):
            generator.generate([Request([{"role": "user", "content": "a"}])])
    assert (reply.text, reply.finish_reasons, fake.paths) == ("a!", ("length",), ["/v1/completions"])


def test_failures_that_pass_are_waited_out() -> None:
    failures: list[Any] = [error(429), error(500), error(503, "busy"), "drop", error(529)]
    with connected(lambda body, n: failures[n] if n < len(failures) else echo(body, n)) as (fake, generator):
        assert generator.generate([Request("a")])[0].text == "A"
    assert len(fake.bodies) == 6
    assert all(body == fake.bodies[0] for body in fake.bodies)


def test_a_slow_answer_is_given_up_and_asked_again() -> None:
    def behaviour(body: dict[str, Any], number: int) -> Any:
        time.sleep(0.8 if number == 0 else 0.0)
        return echo(body, number)

    with connected(behaviour, limits=Limits(timeout=0.3)) as (fake, generator):
        assert generator.generate([Request("a")])[0].text == "A"
        assert len(fake.bodies) == 2
    with (
        connected(lambda b, n: time.sleep(0.5) or echo(b, n), limits=Limits(timeout=0.1, retries=1)) as (_, generator),
        pytest.raises(GeneratorError, match=r"failed 2 times, lastly with no answer within 0\.1 seconds"),
    ):
        generator.generate([Request("a")])


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(form: str) -> None:
    def behaviour(body: dict[str, Any], number: int) -> Any:
        if number:
            return echo(body, number)
        # A date has whole seconds, so the next full second but one is 1 to 2 seconds away.
        when = "1.2" if form == "seconds" else email.utils.formatdate(math.ceil(time.time()) + 1, usegmt=True)
        return error(429, headers={"retry-after": when})

    with connected(behaviour) as (fake, generator):
        generator.generate([Request("a")])
    waited = fake.times[1] - fake.times[0]
    assert (0.9 if form == "date" else 1.2) <= waited < 4.0


def test_a_retry_after_beyond_all_patience_is_said() -> None:
    with (
        connected(lambda *_: error(429, headers={"retry-after": "7200"})) as (fake, generator),
        pytest.raises(GeneratorError, match="asks to wait 7200 seconds"),
    ):
        generator.generate([Request("a")])
    assert len(fake.bodies) == 1


def test_waits_double_and_are_random() -> None:
    for attempt in range(8):
        bound = min(0.5 * 2**attempt, 20.0)
        waits = [limits_module.backoff(attempt, 20.0) for _ in range(50)]
        assert bound / 2 <= min(waits) <= max(waits) <= bound
        assert len(set(waits)) > 40


WRONG: dict[str, tuple[Any, str]] = {
    "key": (error(401, "Incorrect key secret"), "refused the API key"),
    "url": (error(404, "Not Found"), "usually ends in /v1"),
    "model": (error(404, "no model m"), "no model m"),
    "request": (error(400, "prompt too long"), "refused the request .*prompt too long"),
    "credit": (error(429, "pay", code="insufficient_quota"), "no credit left"),
    "half a JSON": ((200, {}, b'{"choices": ['), "no valid JSON"),
    "page": ((200, {"content-type": "text/html"}, b"<html></html>"), "is a web page"),
    "plain": ((200, {"content-type": "text/plain"}, b"ok"), "is plain text"),
    "list": ((200, {}, b"[1]"), "holds no choices"),
    "null": ((200, {}, b"null"), "holds no choices"),
    "empty": ((200, {}, b"{}"), "holds no choices"),
    "no choice": ((200, {}, b'{"choices": []}'), "holds no choices"),
    "no text": ((200, {}, b'{"choices": [{"index": 0}]}'), "choice without text"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_no_retry_can_mend_is_said_at_once_in_one_sentence(case: str) -> None:
    answer, said = WRONG[case]
    with (
        connected(lambda *_: answer, api_key="secret") as (fake, generator),
        pytest.raises(GeneratorError, match=said) as raised,
    ):
        generator.generate([Request("a")])
    assert len(fake.bodies) == 1
    assert "secret" not in str(raised.value)
    assert str(raised.value).endswith(".")
    assert "\n" not in str(raised.value)


def test_a_server_that_is_not_there_is_said_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = time.monotonic()
    generator = ServerGenerator("m", base_url=f"http://127.0.0.1:{port}/v1")
    with pytest.raises(GeneratorError, match="cannot be reached"):
        generator.generate([Request("a")])
    generator.close()
    assert time.monotonic() - start < 3
    with pytest.raises(InputError, match="http://"):
        ServerGenerator("m", base_url="127.0.0.1:80")


def test_a_server_that_fails_on_gives_up_after_the_retries() -> None:
    with (
        connected(lambda *_: error(500, "broken"), limits=Limits(retries=2)) as (fake, generator),
        pytest.raises(GeneratorError, match=r"failed 3 times, lastly with status 500 .*broken"),
    ):
        generator.generate([Request("a")])
    assert len(fake.bodies) == 3


def test_a_lone_surrogate_is_refused_before_it_is_sent() -> None:
    with connected(echo) as (fake, generator), pytest.raises(InputError, match="lone surrogate"):
        generator.generate([Request("a\ud800")])
    assert fake.bodies == []


def test_only_so_many_requests_are_under_way() -> None:
    def behaviour(body: dict[str, Any], number: int) -> Any:
        time.sleep(0.03)
        return echo(body, number)

    with connected(behaviour, limits=Limits(concurrency=3)) as (fake, generator):
        texts = [reply.text for reply in generator.generate([Request(f"a{index}") for index in range(12)])]
    assert texts == [f"A{index}" for index in range(12)]
    assert fake.most_at_once == 3


def test_requests_keep_their_pace() -> None:
    with connected(echo, limits=Limits(requests_per_minute=600.0)) as (fake, generator):
        generator.generate([Request(f"a{index}") for index in range(6)])
    times = sorted(fake.times)
    assert times[-1] - times[0] >= 5 * 0.1 - 0.05


def test_a_failure_keeps_the_other_answers() -> None:
    def behaviour(body: dict[str, Any], number: int) -> Any:
        return error(400, "bad") if body["messages"][0]["content"] == "a3" else echo(body, number)

    with (
        connected(behaviour, limits=Limits(concurrency=1)) as (fake, generator),
        pytest.raises(GeneratorError, match="bad") as raised,
    ):
        generator.generate([Request(f"a{index}") for index in range(9)])
    replies = raised.value.replies  # pyright: ignore[reportAttributeAccessIssue]
    assert [None if reply is None else reply.text for reply in replies] == ["A0", "A1", "A2"] + [None] * 6
    assert len(fake.bodies) == 4


@pytest.mark.parametrize("concurrency", [1, 4])
def test_the_cost_limit_is_never_exceeded_and_the_answers_are_kept(concurrency: int) -> None:
    price, usage = (0.001, 0.01), (10, 5)
    real = usage[0] * price[0] + usage[1] * price[1]
    worst = (len("question 0") + 32) * price[0] + 8 * price[1]
    limits = Limits(concurrency=concurrency, price=price, cost_limit=0.5)
    with connected(lambda *_: completion(["x"], usage), limits=limits) as (fake, generator):
        with pytest.raises(ResourceError, match=r"cost limit of 0\.5") as raised:
            generator.generate([Request(f"question {index % 10}", max_tokens=8) for index in range(30)])
        kept = [reply for reply in raised.value.replies if reply]  # pyright: ignore[reportAttributeAccessIssue]
        assert generator.spent == pytest.approx(sum(reply.cost for reply in kept)) == pytest.approx(real * len(kept))
    # As many as fit: one more could have gone over the limit.
    assert len(kept) == len(fake.bodies) == math.floor((0.5 - worst) / real) + 1
    assert generator.spent <= 0.5


def test_an_answer_that_may_have_been_charged_counts_in_full() -> None:
    answers: list[Any] = ["drop", error(500), completion(["x"], None), completion(["x"], (10, 5))]
    limits = Limits(price=(1.0, 1.0), cost_limit=1000.0)
    with connected(lambda body, n: answers[n], limits=limits) as (_, generator):
        first, second = (generator.generate([Request("abc", max_tokens=5)])[0] for _ in range(2))
    worst = 3 + 32 + 5
    assert (first.cost, second.cost) == (2 * worst, 15)
    assert generator.spent == 2 * worst + 15


def test_limits_that_make_no_sense_are_refused() -> None:
    nonsense: list[dict[str, Any]] = [
        {"concurrency": 0}, {"retries": -1}, {"timeout": 0.0}, {"requests_per_minute": 0.0}, {"cost_limit": 1.0},
    ]  # fmt: skip
    for settings in nonsense:
        with pytest.raises(InputError):
            Limits(**settings)


def test_a_server_that_ignores_n_is_asked_again_with_other_seeds() -> None:
    with connected(lambda body, n: completion([f"seed {body['seed']}"])) as (fake, generator):
        reply = generator.generate([Request("a", temperature=1.0, n=3, seed=5)])[0]
        again = generator.generate([Request("a", temperature=1.0, n=2, seed=1)])[0]
    assert reply.texts == ("seed 5", "seed 6", "seed 7")
    assert again.texts == ("seed 1", "seed 2")
    assert [body.get("n") for body in fake.bodies] == [3, None, None, None, None]


def test_a_model_with_the_new_name_of_the_length_is_understood() -> None:
    def behaviour(body: dict[str, Any], number: int) -> Any:
        old = "max_tokens" in body
        return error(400, "Unsupported: use 'max_completion_tokens' instead.") if old else echo(body, number)

    with connected(behaviour) as (fake, generator):
        assert [generator.generate([Request(text)])[0].text for text in "ab"] == ["A", "B"]
    assert len(fake.bodies) == 3


def test_yes_and_no_come_from_the_first_token() -> None:
    shares = {" Yes": 0.4, "yes": 0.2, "Perhaps": 0.2, "No": 0.1, "no.": 0.02}
    table = {token: math.log(share) for token, share in shares.items()}

    def behaviour(body: dict[str, Any], number: int) -> Any:
        assert (body["max_tokens"], body["logprobs"], body["top_logprobs"]) == (1, True, 20)
        return completion([" Yes"], logprobs=first_token(table))

    with connected(behaviour) as (fake, generator):
        assert ask_yes_no(generator, ["Is it?"]) == pytest.approx([0.6 / 0.72])
        reply = generator.generate([Request("Is it?", choices=(("Yes", " Yes"), "No", "Unlisted"))])[0]
    assert reply.choice_log_probs == pytest.approx([math.log(0.4), math.log(0.1), math.log(0.02)])
    assert (reply.text, reply.how) == ("Yes", "first-token log-probs")
    assert len(fake.bodies) == 2


def test_first_tokens_decide_only_where_they_can() -> None:
    assert first_token_scores({"pos": -0.5, "neg": -1.0}, [["positive"], ["negative"]]) == [-0.5, -1.0]
    assert first_token_scores({"no": -0.5, "yes": -1.0}, [["no"], ["none"]]) is None
    assert first_token_scores({"\n": -0.1, "I": -2.0}, [["yes"], ["no"]]) is None
    assert first_token_scores({"yesterday": -0.1, "no": -2.0}, [["yes"], ["no"]]) == [-2.0, -2.0]
    assert first_token_scores({"yes": -9000.0, "no": -9999.0}, [["yes"], ["no"]]) == [-9000.0, -9999.0]


@pytest.mark.parametrize("refusal", ["silent", "loud"])
def test_without_log_probabilities_sampled_answers_are_counted(refusal: str) -> None:
    said = ["Yes, it is", "no", " YES.", "yesterday", "Yes", "hm", "No!", "yes"]

    def behaviour(body: dict[str, Any], number: int) -> Any:
        if "logprobs" in body:
            return error(422, "logprobs unknown") if refusal == "loud" else completion(["Yes"])
        assert body["temperature"] == 1.0
        return completion([said[body["seed"] % 8]])

    with connected(behaviour, choice_samples=8) as (fake, generator):
        request = Request("Is it?", choices=("yes", "no"))
        reply = generator.generate([request])[0]
        assert ask_yes_no(generator, ["Is it?"]) == pytest.approx([4.5 / 7])
    assert reply.choice_log_probs == pytest.approx([math.log(4.5 / 7), math.log(2.5 / 7)])
    assert (reply.text, reply.how) == ("yes", "sampled answers")
    # Log-probabilities were asked for once, and nine answers paid: one in vain, eight counted.
    assert sum("logprobs" in body for body in fake.bodies) == 1
    assert reply.completion_tokens == (40 if refusal == "loud" else 45)


def test_answers_that_name_no_choice_give_no_number() -> None:
    with connected(lambda *_: completion(["hm"]), choice_samples=3) as (_, generator):
        assert math.isnan(ask_yes_no(generator, ["Is it?"])[0])
        reply = generator.generate([Request("Is it?", choices=("yes", "no"))])[0]
    assert (reply.choice_log_probs, reply.finish_reasons) == (None, ("no choice",))


def test_counted_answers_are_whole_words() -> None:
    texts = ["None of it", "no", "No, never", " nobody", "none."]
    assert count_choices(texts, [["no", "No"], ["none"]]) == [2, 2]


def test_leaving_early_asks_nothing_more() -> None:
    gate = threading.Event()

    def behaviour(body: dict[str, Any], number: int) -> Any:
        if number:
            gate.wait(2)
        return echo(body, number)

    with connected(behaviour, limits=Limits(concurrency=1)) as (fake, generator):
        stream = generator.stream([Request(f"a{index}") for index in range(20)])
        assert next(iter(stream))[1].text == "A0"
        stream.close()  # pyright: ignore[reportAttributeAccessIssue]
        gate.set()
        time.sleep(0.2)
    assert len(fake.bodies) <= 2
