"""What the metrics of edits share: both models asked the same, figures per case, and the sentence that states them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.results import Evidence
from pellucid.engine.continuations import Ids, following_ids, forced, need_speaker, spoken, text_of
from pellucid.engine.divergence import parting, same_tokens
from pellucid.engine.edit_cases import EditCase, Question, as_cases
from pellucid.evaluate._ranking import interval
from pellucid.models.subject import Subject

DRAWS = 2000
Measured = Mapping[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Asked:
    """The answers of both models: figures by name as (before, after) per case, and what each said freely."""

    questions: tuple[Question, ...]
    measured: Measured
    said: tuple[tuple[str, str], ...]


def checked(subject: Subject, edited: Subject, cases: Sequence[Any], what: str) -> tuple[EditCase, ...]:
    """Return the cases of two models that can be compared; raise where they cannot."""
    need_speaker(subject, what)
    need_speaker(edited, what)
    same_tokens(subject, edited)
    return as_cases(cases)


def ask_both(subject: Subject, edited: Subject, questions: Sequence[Question], cases: int, length: int) -> Asked:
    """Ask both models every question, teacher-forced and, where `length` is above 0, freely to the end of the text.

    Figures, each a mean over the questions of a case, NaN where a case has none:
        prefers: whether the answer is more probable than its rival, by mean log-probability of their tokens (so that
            lengths do not count; a tie is no preference). Where no rival is known it is what the subject says before
            the change; NaN where both are the same text.
        magnitude: p(answer) - p(rival), geometric means over tokens.
        exact: whether every token of the answer is the likeliest one.
        tokens: the share of such tokens.
        says: whether the answer stands in what the model says freely, as whole words and before the rival.
    """
    # Each model reads a prompt in its own way: one may be told a context that the other is not.
    asked = [[following_ids(one, question.prompt, question.answer) for question in questions]
             for one in (subject, edited)]  # fmt: skip
    rivals = _rivals(subject, questions, asked[0])
    measured = [_forced(one, pairs, rivals) for one, pairs in zip((subject, edited), asked, strict=True)]
    said: list[tuple[str, str]] = []
    if length and questions:
        texts = []
        for one, pairs in zip((subject, edited), asked, strict=True):
            prompts = [prompt for prompt, _ in pairs]
            free = spoken(one, prompts, length)
            texts.append([text_of(one, prompt, ids) for prompt, ids in zip(prompts, free, strict=True)])
        said = list(zip(*texts, strict=True))
        for own, of_model in zip(measured, texts, strict=True):
            own["says"] = np.array([_says(text, q) for text, q in zip(of_model, questions, strict=True)])
    owners = np.array([question.case for question in questions], dtype=int)
    return Asked(
        tuple(questions),
        {name: (per_case(measured[0][name], owners, cases), per_case(measured[1][name], owners, cases))
         for name in measured[0]},
        tuple(said),
    )  # fmt: skip


def _rivals(subject: Subject, questions: Sequence[Question], pairs: Sequence[tuple[Ids, Ids]]) -> list[Ids]:
    """Return the ids of each rival; where none is known, what the subject says of the answer's length."""
    unknown = [i for i, question in enumerate(questions) if not question.rival]
    own: list[Ids] = []
    if unknown:
        longest = max(len(pairs[i][1]) for i in unknown)
        own = spoken(subject, [pairs[i][0] for i in unknown], longest)
    said = dict(zip(unknown, own, strict=True))
    return [
        said[i][: len(pairs[i][1])] if i in said else following_ids(subject, question.prompt, question.rival)[1]
        for i, question in enumerate(questions)
    ]


def _forced(subject: Subject, pairs: Sequence[tuple[Ids, Ids]], rivals: Sequence[Ids]) -> dict[str, np.ndarray]:
    have = [i for i, rival in enumerate(rivals) if rival and rival != pairs[i][1]]
    against = [(pairs[i][0], rivals[i]) for i in have]
    found = forced(subject, [*pairs, *against])
    right, other = found[: len(pairs)], dict(zip(have, found[len(pairs) :], strict=True))
    better = [float(one.log_probs.mean() > other[i].log_probs.mean()) if i in other else np.nan
              for i, one in enumerate(right)]  # fmt: skip
    further = [one.probability - other[i].probability if i in other else np.nan for i, one in enumerate(right)]
    return {
        "prefers": np.array(better),
        "magnitude": np.array(further),
        "exact": np.array([one.exact for one in right]),
        "tokens": np.array([float(one.likeliest.mean()) for one in right]),
    }


def _says(text: str, question: Question) -> float:
    """Return 1 where a text holds the answer as whole words, before the rival if that is there too."""
    place, other = _place(text, question.answer), _place(text, question.rival)
    return float(place is not None and (other is None or place < other))


def _place(text: str, words: str) -> int | None:
    if not words.strip():
        return None
    found = re.search(rf"(?<!\w){re.escape(words.strip())}(?!\w)", text, re.IGNORECASE)
    return None if found is None else found.start()


def neighbourhood(subject: Subject, edited: Subject, questions: Sequence[Question], cases: int, length: int) -> Asked:
    """Ask both models about neighbours, and say how far they part there: `same`, `kl` and, where said, `unchanged`."""
    asked = ask_both(subject, edited, questions, cases, length)
    owners = np.array([question.case for question in questions], dtype=int)
    ids = [[one.encode(question.prompt).ids for question in questions] for one in (subject, edited)]
    apart = parting(subject, edited, *ids, last=True)
    kl, same = (np.array([float(value[0]) for value in found]) for found in
                ([one.kl for one in apart], [one.same for one in apart]))  # fmt: skip
    stays = {"same": (np.ones_like(same), same), "kl": (np.zeros_like(kl), kl)}
    if asked.said:
        equal = np.array([float(before == after) for before, after in asked.said])
        stays["unchanged"] = (np.ones_like(equal), equal)
    further = {name: (per_case(b, owners, cases), per_case(a, owners, cases)) for name, (b, a) in stays.items()}
    return Asked(asked.questions, {**asked.measured, **further}, asked.said)


def per_case(values: np.ndarray, owners: np.ndarray, cases: int) -> np.ndarray:
    """Return the mean per case of the values that are no NaN: [cases], NaN where a case has none."""
    kept = ~np.isnan(values)
    counts = np.bincount(owners[kept], minlength=cases)
    sums = np.bincount(owners[kept], weights=values[kept], minlength=cases)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def figures(measured: Measured, main: str, seed: int) -> dict[str, float]:
    """Return every figure after and before the change, and the change, with 95 % bootstrap intervals over cases.

    The figure `main` has the names `value`, `low`, `high`, `before`, `before_low`, `before_high`, `change`,
    `change_low`, `change_high`; any other one the same with its own name in front. Cases are drawn together, so the
    interval of the change is that of paired cases. `cases` counts those that have the main figure.
    """
    found: dict[str, float] = {}
    for name, (before, after) in measured.items():
        front = "" if name == main else f"{name}_"
        for key, values in (("value", after), ("before", before), ("change", after - before)):
            label = front if key == "value" else f"{front}{key}_"
            whole = name if front and key == "value" else f"{front}{key}"
            found[whole], found[f"{label}low"], found[f"{label}high"] = interval(
                values, np.random.default_rng(seed), DRAWS
            )
    found["cases"] = float((~np.isnan(measured[main][1])).sum())
    return found


def percent(values: Mapping[str, float], name: str = "") -> str:
    """Return one share after, with its interval, and before: "96 % (90 to 100), 2 % before"."""
    front = f"{name}_" if name else ""
    after, before = values[name or "value"], values[f"{front}before"]
    if np.isnan(after):
        return "not asked"
    low, high = values[f"{front}low"], values[f"{front}high"]
    return f"{100 * after:.0f} % ({100 * low:.0f} to {100 * high:.0f}), {100 * before:.0f} % before"


def need_questions(questions: Sequence[Question], what: str, field: str) -> None:
    """Raise `InputError` where no case has a question of this kind."""
    if not questions:
        raise InputError(f"{what} needs {field}, but no case has any; give EditCase(fact, {field}=[...]).")


def shares(title: str, sentence: str, asked: Asked, seed: int, *, gains: bool = False) -> Evidence:
    """Return the evidence of a share of preferred answers; `sentence` says what is preferred.

    `ok` says, where the share shall gain, on which side of 0 the interval of its change lies, and otherwise whether
    the share surely falls (False) or surely falls by less than five points (True).
    """
    values = figures(asked.measured, "prefers", seed)
    low, high = values["change_low"], values["change_high"]
    ok = low > 0 if gains and (low > 0 or high <= 0) else None
    if not gains:
        ok = False if high < 0 else True if low > -0.05 else None
    free = f"; said freely {percent(values, 'says')}" if "says" in asked.measured else ""
    stays = f"; the likeliest next token stays in {100 * values['same']:.0f} %" if "same" in asked.measured else ""
    return Evidence(
        title,
        f"{sentence} in {percent(values)}, over {values['cases']:.0f} facts{free}{stays} (95 % intervals).",
        values,
        ok=ok,
    )


def overall(parts: Sequence[tuple[np.ndarray, np.ndarray]], seed: int) -> Evidence:
    """Return the harmonic mean of efficacy, generality and locality, each given as (before, after) per case."""
    names = ("efficacy", "generality", "locality")
    values: dict[str, float] = {}
    drawn = np.random.default_rng(seed).integers(len(parts[0][0]), size=(DRAWS, len(parts[0][0])))
    resampled = []
    for key, side in (("before", 0), ("value", 1)):
        found = np.array([_mean(part[side]) for part in parts])
        many = np.stack([_mean(part[side][drawn]) for part in parts])
        scores = harmonic(many)
        resampled.append(scores)
        values[key] = float(harmonic(found[:, None])[0])
        front = "" if side else "before_"
        values[f"{front}low"], values[f"{front}high"] = (float(q) for q in np.nanquantile(scores, [0.025, 0.975]))
        values |= {f"{name}{'' if side else '_before'}": float(one) for name, one in zip(names, found, strict=True)}
    values["change"] = values["value"] - values["before"]
    ends = np.nanquantile(resampled[1] - resampled[0], [0.025, 0.975])
    values["change_low"], values["change_high"] = float(ends[0]), float(ends[1])
    values["cases"] = float(len(parts[0][0]))
    low, high = values["change_low"], values["change_high"]
    return Evidence(
        "edit score",
        f"The harmonic mean of efficacy {values['efficacy']:.2f}, generality {values['generality']:.2f} and locality "
        f"{values['locality']:.2f} is {values['value']:.2f} (95 % interval {values['low']:.2f} to "
        f"{values['high']:.2f}); before the change it was {values['before']:.2f}.",
        values,
        ok=low > 0 if low > 0 or high <= 0 else None,
    )


def harmonic(shares_of: np.ndarray) -> np.ndarray:
    """Return the harmonic mean over the first axis, 0 where any share is 0, NaN where any is NaN."""
    smallest = shares_of.min(0)
    with np.errstate(divide="ignore"):
        found = len(shares_of) / (1 / shares_of).sum(0)
    return np.where(smallest > 0, found, np.where(np.isnan(smallest), np.nan, 0.0))


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis without NaN, NaN where nothing is left."""
    counts = (~np.isnan(values)).sum(-1)
    return np.where(counts > 0, np.nansum(values, -1) / np.maximum(counts, 1), np.nan)
