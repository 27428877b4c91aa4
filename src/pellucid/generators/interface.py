"""What every text generator speaks: a `Request` goes in, a `Reply` comes out."""

from __future__ import annotations

import hashlib
import json
import math
from collections import abc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from pellucid.core.errors import GeneratorError, InputError, PellucidError

Prompt = str | Sequence[Mapping[str, str]]
Choice = str | Sequence[str]

YES_NO: tuple[Choice, ...] = (
    ("yes", "Yes", "YES", " yes", " Yes", " YES"),
    ("no", "No", "NO", " no", " No", " NO"),
)
"""The two answers of a yes/no question, each with the spellings whose probabilities are summed."""


@dataclass(frozen=True)
class Request:
    """Ask for text, or for the log-probability of some allowed answers.

    `prompt` is text or chat messages (`{"role": ..., "content": ...}`). `temperature` 0 is greedy. The same `seed`
    gives the same answer again (a server may not keep this promise). A stop string ends the answer and is not part of
    it. `n` answers are drawn. With `choices` nothing is generated: each choice, a string or a tuple of spellings of
    one answer, is scored as the continuation of the prompt, at temperature 1; `max_tokens`, `stop` and `n` are ignored.

    Raises:
        InputError: If a value cannot be used.
    """

    prompt: Prompt = field(hash=False)
    max_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    stop: Sequence[str] = ()
    seed: int = 0
    n: int = 1
    choices: Sequence[Choice] | None = None

    def __post_init__(self) -> None:
        """Check the values, and turn lists into tuples so that a request cannot change."""
        object.__setattr__(self, "prompt", _checked_prompt(self.prompt))
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        object.__setattr__(self, "stop", stop)
        if self.choices is not None:
            object.__setattr__(self, "choices", _checked_choices(self.choices))
        if self.max_tokens < 1 or self.n < 1:
            raise InputError(f"max_tokens and n must be at least 1, but are {self.max_tokens} and {self.n}.")
        if not 0 <= self.temperature < math.inf or not 0 < self.top_p <= 1:
            raise InputError(
                f"temperature must be 0 or more and top_p above 0 and at most 1, "
                f"but they are {self.temperature} and {self.top_p}."
            )
        if any(not text for text in stop):
            raise InputError("A stop string is empty, which would end every answer at once; leave it out.")

    @property
    def messages(self) -> list[dict[str, str]]:
        """Return the prompt as chat messages; a text becomes one user message."""
        if isinstance(self.prompt, str):
            return [{"role": "user", "content": self.prompt}]
        return [dict(message) for message in self.prompt]

    @property
    def question(self) -> str:
        """Return the text prompt, or the content of the last user message of a chat."""
        if isinstance(self.prompt, str):
            return self.prompt
        users = [message["content"] for message in self.prompt if message["role"] == "user"]
        return users[-1] if users else self.prompt[-1]["content"]

    def spellings(self) -> tuple[tuple[str, ...], ...]:
        """Return every choice as a tuple of its spellings, the first of which is its name."""
        return tuple((choice,) if isinstance(choice, str) else tuple(choice) for choice in self.choices or ())

    def as_json(self) -> dict[str, Any]:
        """Return the whole request as plain JSON values: what a cache key is made of."""
        return {
            "prompt": self.prompt if isinstance(self.prompt, str) else self.messages,
            "max_tokens": self.max_tokens,
            "temperature": float(self.temperature),
            "top_p": float(self.top_p),
            "stop": list(self.stop),
            "seed": self.seed,
            "n": self.n,
            "choices": None if self.choices is None else [list(group) for group in self.spellings()],
        }


@dataclass(frozen=True)
class Reply:
    """The answer to one request.

    `texts` holds `n` generated texts, or the name (first spelling) of the likeliest choice. `choice_log_probs` has one
    natural logarithm per choice, not renormalised; None without choices, or when no sampled answer named a choice.
    `finish_reasons` has one entry per text: "stop" (an end token or a stop string), "length", "choice", "no choice", or
    a server's own word. `how` says what the numbers are: "generated", "log-probs" (of the whole choice), "first-token
    log-probs" (of the tokens that begin it), "sampled answers" (counted; see `ServerGenerator`) or "scripted".
    `cost` is in the unit of the price; a `cached` reply shows what it cost when it was bought.
    """

    texts: tuple[str, ...]
    choice_log_probs: tuple[float, ...] | None = None
    finish_reasons: tuple[str, ...] = ("stop",)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    cached: bool = False
    how: str = "generated"

    @property
    def text(self) -> str:
        """Return the first text."""
        return self.texts[0]


@runtime_checkable
class Generator(Protocol):
    """Anything with a name that answers a list of requests, in their order.

    Two more members are used where they exist: `identity`, a mapping of plain values that tells two generators apart
    in a cache, and `stream(requests)`, which yields `(index, reply)` as soon as each answer is known.
    """

    @property
    def name(self) -> str:
        """Return the name to show."""
        ...

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        """Answer every request, in order."""
        ...


def answers(generator: Generator, requests: Sequence[Request]) -> abc.Generator[tuple[int, Reply], None, None]:
    """Yield `(index, reply)` as answers arrive: in any order from `stream`, else in order from one `generate`.

    Close it when you leave early, so that nothing more is asked.

    Raises:
        GeneratorError: If the generator gives another number of answers than was asked.
    """
    stream = getattr(generator, "stream", None)
    if stream is not None:
        yield from stream(requests)
        return
    replies = generator.generate(requests)
    if len(replies) != len(requests):
        raise GeneratorError(
            f"{generator.name} was asked {len(requests)} requests and gave {len(replies)} answers; "
            "its generate() must return one reply per request."
        )
    yield from enumerate(replies)


def collect(stream: Iterator[tuple[int, Reply]], count: int) -> list[Reply]:
    """Gather streamed answers in the order of the requests.

    An error on the way gets the attribute `replies`, with None where there is no answer yet, so that nothing is lost.
    """
    replies: list[Reply | None] = [None] * count
    try:
        for index, reply in stream:
            replies[index] = reply
    except PellucidError as error:
        error.replies = replies  # pyright: ignore[reportAttributeAccessIssue]
        raise
    done = [reply for reply in replies if reply is not None]
    if len(done) != count:
        raise GeneratorError(f"{count} requests were asked, but only {len(done)} were answered; ask again.")
    return done


def ask_yes_no(generator: Generator, questions: Sequence[Prompt]) -> list[float]:
    """Return p(yes), renormalised over yes and no, for each question.

    p = P(yes) / (P(yes) + P(no)), where P sums the spellings in `YES_NO`. The questions are asked as they are; end a
    text with the words that the answer follows, such as "Answer:". A local model gives the exact probabilities of
    the next tokens. A server gives those of the first token, or, where it has no log-probabilities, counts of sampled
    answers (p = (yes + 1/2) / (yes + no + 1)); `Reply.how` of `Request(question, choices=YES_NO)` tells which.

    Args:
        generator: Any generator.
        questions: Texts or chats.

    Returns:
        One probability per question; NaN where no sampled answer was a yes or a no.

    Raises:
        GeneratorError: If the generator scored no choices.
    """
    if isinstance(questions, str):
        raise InputError("ask_yes_no was given one text where a list of questions is needed; write [question].")
    replies = generator.generate([Request(question, choices=YES_NO) for question in questions])
    return [_renormalised(reply, generator.name) for reply in replies]


def digest(value: Any) -> str:
    """Return the sha256 of the canonical JSON of `value`: the same for the same content on every machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def choice_reply(request: Request, log_probs: Sequence[float], how: str, **counts: Any) -> Reply:
    """Make the reply to a request with choices: the likeliest one, and the numbers."""
    best = max(range(len(log_probs)), key=lambda index: log_probs[index])
    name = request.spellings()[best][0]
    return Reply((name,), tuple(float(value) for value in log_probs), ("choice",), how=how, **counts)


def _renormalised(reply: Reply, name: str) -> float:
    """Return p(first choice) among two."""
    if reply.choice_log_probs is None:
        if reply.finish_reasons == ("no choice",):
            return math.nan
        raise GeneratorError(f"{name} answered a yes/no question without scores; it must fill choice_log_probs.")
    yes, no = reply.choice_log_probs
    return 0.5 if yes == no else 1.0 / (1.0 + math.exp(min(no - yes, 700.0)))


def _checked_prompt(prompt: Prompt) -> Prompt:
    """Return the prompt with its messages as a tuple of plain dictionaries."""
    if isinstance(prompt, str):
        if not prompt:
            raise InputError("The prompt is empty; give at least one character.")
        return prompt
    messages = tuple(dict(message) for message in prompt)
    if not messages:
        raise InputError("The chat has no messages; give at least one.")
    for message in messages:
        if not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str):
            raise InputError(f"A chat message needs the texts 'role' and 'content', but one has {sorted(message)}.")
    return messages


def _checked_choices(choices: Sequence[Choice]) -> tuple[Choice, ...]:
    """Return the choices as tuples, all different and not empty."""
    if isinstance(choices, str):
        raise InputError(f"choices is the text {choices!r}; give a tuple of allowed answers.")
    groups = tuple(choice if isinstance(choice, str) else tuple(choice) for choice in choices)
    spelled = [text for group in groups for text in ((group,) if isinstance(group, str) else group)]
    if len(groups) < 2 or not all(spelled) or len(set(spelled)) != len(spelled) or () in groups:
        raise InputError(f"choices must be two or more different answers, none empty, but are {groups!r}.")
    return groups
