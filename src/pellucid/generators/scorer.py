"""A generator as a black box: what it gives each of a few answers, so that perturbation methods can explain it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pellucid.core.errors import GeneratorError, InputError
from pellucid.generators.interface import Choice, Generator, Request


def choice_scorer(
    generator: Generator, choices: Sequence[Choice], *, template: str = "{text}"
) -> Callable[[list[str]], list[list[float]]]:
    """Return a function `texts -> log-probabilities [texts, choices]`, to be given to `pellucid.load`.

    The log-probabilities are those that the generator reports (exact for a local model, of the first token or sampled
    for servers; see `Reply.how`).

    Args:
        generator: a local model, a server or a script.
        choices: the answers that are compared, in the order of the outputs.
        template: the prompt around each text; `{text}` stands for it.

    Raises:
        InputError: the template lacks `{text}`.
        GeneratorError: the generator scored no choices.
    """
    if "{text}" not in template:
        raise InputError(f"The template {template!r} has no place for the text; write {{text}} where it belongs.")

    def score(texts: list[str]) -> list[list[float]]:
        requests = [Request(template.replace("{text}", text), choices=tuple(choices)) for text in texts]
        replies = generator.generate(requests)
        scored = [reply.choice_log_probs for reply in replies if reply.choice_log_probs is not None]
        if len(scored) < len(texts):
            raise GeneratorError(f"{generator.name} scored no choices; use a generator that gives log-probabilities.")
        return [list(log_probs) for log_probs in scored]

    score.__name__ = generator.name
    return score
