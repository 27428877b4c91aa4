"""A generator without a model: a function answers, and is right as often as you say."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence

from pellucid.core.errors import InputError
from pellucid.generators.interface import Reply, Request, choice_reply, collect, digest

SUREST = 1.0 - 1e-6


class ScriptedGenerator:
    """Answer by a function, right with probability `skill`, to test a method that needs a language model.

    `answer` gets the text of the prompt (of a chat: its last user message) and returns the right answer. With
    probability 1 - skill another choice of the request is given instead, or, without choices, one of `alternatives`.
    Whether a request is answered rightly depends on the request and the seed alone, not on its companions; samples of
    one request differ only at a temperature above 0. Choices get probabilities that are calibrated: the given answer
    has `skill` (at most 1 - 1e-6), the others share the rest.

    Raises:
        InputError: If skill is not a probability, or a wrong answer is due and there is none.
    """

    def __init__(
        self,
        answer: Callable[[str], str],
        skill: float = 1.0,
        seed: int = 0,
        *,
        alternatives: Sequence[str] = ("yes", "no"),
        name: str = "scripted",
    ) -> None:
        """Keep the function and the skill."""
        if not 0.0 <= skill <= 1.0:
            raise InputError(f"skill is a probability between 0 and 1, but is {skill}.")
        self.answer, self.skill, self.seed = answer, float(skill), seed
        self.alternatives, self.name = tuple(alternatives), name

    @property
    def identity(self) -> Mapping[str, object]:
        """Return what tells this generator apart in a cache."""
        function = f"{getattr(self.answer, '__module__', '')}.{getattr(self.answer, '__qualname__', repr(self.answer))}"
        return {"kind": "scripted", "name": self.name, "answer": function, "skill": self.skill, "seed": self.seed,
                "alternatives": list(self.alternatives)}  # fmt: skip

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        """Answer every request, in order."""
        return collect(self.stream(requests), len(requests))

    def stream(self, requests: Sequence[Request]) -> Iterator[tuple[int, Reply]]:
        """Yield `(index, reply)`, one request after the other."""
        for index, request in enumerate(requests):
            yield index, self._choose(request) if request.choices else self._write(request)

    def _write(self, request: Request) -> Reply:
        """Give `n` texts, cut at the first stop string."""
        right = self.answer(request.question)
        texts = []
        for sample in range(request.n):
            dice = self._dice(request, sample)
            text = right if dice.random() < self.skill else dice.choice(self._wrong(right, self.alternatives))
            texts.append(cut_at(text, request.stop))
        prompt_words = sum(len(message["content"].split()) for message in request.messages)
        words = sum(len(text.split()) for text in texts)
        return Reply(tuple(texts), None, ("stop",) * request.n, prompt_words, words, how="scripted")

    def _choose(self, request: Request) -> Reply:
        """Score the choices: `skill` on the given answer, the rest shared by the others."""
        groups = request.spellings()
        right = self.answer(request.question)
        found = [index for index, group in enumerate(groups) if right in group]
        if not found:
            raise InputError(f"The scripted answer {right!r} is none of the choices {[group[0] for group in groups]}.")
        dice = self._dice(request, 0)
        given = found[0]
        if dice.random() >= self.skill:
            given = dice.choice([index for index in range(len(groups)) if index != given])
        sure = min(max(self.skill, 1.0 - SUREST), SUREST)
        rest = math.log((1.0 - sure) / (len(groups) - 1))
        log_probs = [math.log(sure) if index == given else rest for index in range(len(groups))]
        reply = choice_reply(request, log_probs, "scripted")
        return Reply((groups[given][0],), reply.choice_log_probs, ("choice",), how="scripted")

    def _dice(self, request: Request, sample: int) -> random.Random:
        """Return random numbers that depend on the request alone."""
        asked = request.as_json()
        if request.temperature == 0.0:
            sample, asked["seed"], asked["n"] = 0, 0, 1
        return random.Random(int(digest([self.seed, sample, asked])[:16], 16))

    @staticmethod
    def _wrong(right: str, alternatives: Sequence[str]) -> list[str]:
        """Return the alternatives that are not the right answer."""
        wrong = [text for text in alternatives if text != right]
        if not wrong:
            raise InputError(f"A wrong answer is due, but {right!r} has no alternative; give `alternatives`.")
        return wrong


def cut_at(text: str, stop: Sequence[str]) -> str:
    """Return the text up to the first place where a stop string begins."""
    places = [place for place in (text.find(ending) for ending in stop) if place >= 0]
    return text[: min(places)] if places else text
