"""Trials of a study: pairs of prompts that differ in what is studied, and whether the model can do the task at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from scipy import stats

from pellucid.core.errors import CapabilityError, InputError
from pellucid.core.results import Evidence
from pellucid.core.targets import Target
from pellucid.engine.capture import capture
from pellucid.models.subject import Subject

ASKED_LEAST = 24  # prompts by which it is judged whether a model can do a task; fewer say too little


@dataclass(frozen=True)
class Trial:
    """One question: a clean prompt, one where what is studied is exchanged, right and wrong next tokens.

    `form` numbers the template, `places` names positions; prompts of one form have the same places.
    """

    clean: Any
    corrupt: Any
    right: tuple[int, ...]
    wrong: tuple[int, ...]
    form: int = 0
    places: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def answer(self) -> dict[str, Any]:
        """Return target and contrast as methods take them: the first right and the first wrong token."""
        return {"target": self.right[0], "contrast": self.wrong[0]}


def need_decoder(subject: Subject, study: str) -> None:
    """Raise `CapabilityError` where the subject is no causal language model with a tokenizer."""
    if subject.kind != "decoder" or subject.head != "causal-lm":
        raise CapabilityError(
            f"The study {study} reads the next token of a causal language model, but {subject.name} is of "
            f"the kind {subject.kind!r} with the head {subject.head!r}; load a decoder."
        )
    if subject.tokenizer is None:
        raise CapabilityError(
            f"The study {study} writes prompts, but {subject.name} was loaded without a tokenizer; load it by its name."
        )


def token_behind(subject: Subject, before: str, word: str) -> int | None:
    """Return the id of `word` where it is one token of its own behind `before`, else None."""
    start, both = subject.encode(before).ids, subject.encode(before + word).ids
    unknown = getattr(subject.tokenizer, "unk_token_id", None)
    fits = both[: len(start)] == start and len(both) == len(start) + 1 and both[-1] != unknown
    return both[-1] if fits else None


def one_token_words(
    subject: Subject, words: Sequence[str], what: str, fewest: int, before: str = "to"
) -> dict[str, int]:
    """Return the words that are one token behind a space, with their ids.

    Raises:
        InputError: fewer than `fewest` of them.
    """
    ids = {word: token_behind(subject, before, f" {word}") for word in words}
    found = {word: token for word, token in ids.items() if token is not None}
    if len(found) < fewest:
        raise InputError(
            f"Only {len(found)} of {len(words)} {what} are one token for {subject.name}, but {fewest} are needed; give "
            f"other {what}."
        )
    return found


def changed_places(subject: Subject, trial: Trial) -> list[int]:
    """Return the positions where the two prompts differ.

    Raises:
        InputError: prompts of different length.
    """
    good, bad = subject.encode(trial.clean).ids, subject.encode(trial.corrupt).ids
    if len(good) != len(bad):
        raise InputError(
            f"The prompt {trial.clean!r} has {len(good)} tokens and its corrupted form {len(bad)}; give words or "
            "templates that line up."
        )
    return [i for i, (a, b) in enumerate(zip(good, bad, strict=True)) if a != b]


def next_probabilities(subject: Subject, prompt: Any) -> torch.Tensor:
    """Return the probabilities [vocabulary] of the next token, in float64."""
    return capture(subject, prompt, ["logits"])["logits"][-1].double().softmax(-1).cpu()


@dataclass(frozen=True)
class Ability:
    """Whether the model does the task: which trials are right, and the accuracy with its interval in a sentence."""

    right: tuple[bool, ...]
    evidence: Evidence

    @property
    def able(self) -> bool:
        """Say whether accuracy is better than chance, by the lower end of its interval."""
        return self.evidence.ok is True


def ability(
    subject: Subject, trials: Sequence[Trial], judge: Literal["choice", "greedy"], chance: float, task: str
) -> Ability:
    """Ask the model every clean prompt.

    "choice" counts a trial as right if the right tokens together are more probable than the wrong ones, "greedy" if the
    most probable token of all is a right one. `ok` compares the lower end of the 95 % Wilson interval with chance.
    """
    right, mass = list[bool](), list[float]()
    for trial in trials:
        found = next_probabilities(subject, trial.clean)
        good, bad = float(found[list(trial.right)].sum()), float(found[list(trial.wrong)].sum())
        right.append(good > bad if judge == "choice" else int(found.argmax()) in trial.right)
        mass.append(good)
    share = sum(right) / len(right)
    interval = stats.binomtest(sum(right), len(right)).proportion_ci(method="wilson")
    able = bool(interval.low > chance)
    asked = "prefers the right answer" if judge == "choice" else "gives the right answer"
    return Ability(
        tuple(right),
        Evidence(
            "the model can do the task" if able else "the model cannot do the task",
            f"On {len(right)} prompts of {task} it {asked} in {100 * share:.0f} % (95 % interval "
            f"{100 * interval.low:.0f} "
            f"to {100 * interval.high:.0f} %, chance {100 * chance:.2g} %); the right answer has a probability of "
            f"{np.mean(mass):.3g} on average.",
            {"accuracy": share, "low": float(interval.low), "high": float(interval.high), "chance": chance,
             "probability": float(np.mean(mass)), "prompts": float(len(right))},
            ok=able,
        ),
    )  # fmt: skip


def difference_of_probabilities(trial: Trial) -> Target:
    """Return the target sum p(right) - sum p(wrong), for a task with many right answers."""
    right, wrong = list(trial.right), list(trial.wrong)

    def probability_difference(logits: torch.Tensor) -> torch.Tensor:
        found = logits.softmax(-1)
        return found[..., right].sum(-1) - found[..., wrong].sum(-1)

    return Target.function(probability_difference)
