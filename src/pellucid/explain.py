"""The front door: several methods on one question, with the evidence between them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from scipy.stats import kendalltau

from pellucid.core.call import each_prompt
from pellucid.core.callable_module import make_callable
from pellucid.core.errors import InputError
from pellucid.core.jsonable import parameter
from pellucid.core.params import Count, PositiveFloat, PromptLike, TargetLike, Unit, check, shown
from pellucid.core.prompts import is_many
from pellucid.core.results import Evidence, Explanation, Scores
from pellucid.core.targets import Target
from pellucid.engine import store
from pellucid.engine.budget import Form, fitting, price
from pellucid.engine.deletion import deletion_check, plan
from pellucid.engine.generation import next_token_distribution
from pellucid.engine.question import Question, ask
from pellucid.engine.readout import Readout
from pellucid.engine.targets import name_of
from pellucid.engine.variants import default_replacement
from pellucid.methods import find, run

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

AUTO_SECONDS = 60.0
BACKWARD = 2.0
MOST_STEPS = 512


def explain(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    methods: str | Sequence[str] = "auto", unit: Unit = "token", generate: int = 0, budget: float | None = None,
    seed: int = 0,
) -> Explanation | list[Explanation]:  # fmt: skip
    """Explain one prediction: what the model says, which units mattered by several methods, and how far to trust it.

    Args:
        subject: what `pellucid.load` returned.
        prompt: text, chat messages or token ids, or a sequence of them.
        target: a token, text, class, `Target` or function of the logits; None means what the model predicts.
        contrast: the alternative ("this rather than that").
        methods: names, or "auto": integrated gradients and occlusion where each is estimated to take under 60 s, else
            gradient x input; black boxes get occlusion and Shapley values. The choice is in the notes. Path methods
            start from the mean embedding, because at the zero vector models with RMS norms are all but discontinuous
            and their scores do not add up; where they still do not, more steps are taken.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        generate: explain the model's own continuation of this many tokens, unit by generated token.
        budget: seconds that may be spent; fewer samples and then coarser units are taken so that methods fit, and
            methods and checks that do not fit even so are left out; the notes say what was done.
        seed: of everything that is sampled.

    Returns:
        An Explanation (a list of them for a sequence of prompts).

    Raises:
        ResourceError: no method fits into the budget; with what the cheapest would take.
        PellucidError: bad input, in one sentence; the model is unchanged.
    """
    asked: dict[str, Any] = {
        "subject": subject, "prompt": prompt, "target": target, "contrast": contrast, "methods": methods, "unit": unit,
        "generate": generate, "budget": budget, "seed": seed,
    }  # fmt: skip
    if is_many(prompt):
        return each_prompt("explain", explain, asked, "prompt")
    _check(asked)
    asked["target"] = _generated(target, generate) if generate else target
    with subject.recorded() as record:
        question = ask(subject, prompt, target=asked["target"], contrast=contrast, unit=unit)
        question, results, notes = _answers(question, asked)
    asked["methods"] = [result.provenance.method for result in results]
    parameters = {key: parameter(asked[key]) for key in ("methods", "unit", "generate", "budget")}
    return Explanation(
        title=f"Why {question.readout.description}?",
        provenance=subject.provenance("explain", parameters, record, seed),
        evidence=_agreement(results),
        results=tuple(results),
        tokens=question.tokens,
        target=question.readout.description,
        predictions=_predictions(question),
        continuation=_continuation(question),
        notes=(*_encoding_notes(subject, prompt), *notes),
    )


def _answers(question: Question, asked: Mapping[str, Any]) -> tuple[Question, list[Scores], list[str]]:
    """Run the methods and the deletion check within the budget.

    Returns:
        The question in the unit that was taken, the results, and what is to be said of them.
    """
    start, budget = time.perf_counter(), asked["budget"]

    def left() -> float | None:
        return None if budget is None else budget - (time.perf_counter() - start)

    names, notes = _choose(question, asked["methods"], budget)
    given = _pinned(question, asked["target"], asked["contrast"])
    given |= {"unit": asked["unit"], "seed": asked["seed"], "baseline": "mean"}
    forms: dict[str, Form] = {name: Form({}) for name in names}
    if budget is not None:
        unit, forms, more = fitting(question, names, budget, asked["unit"])
        question = replace(question, units=question.subject.units(question.tokens, unit))
        given["unit"], notes = unit, [*notes, *more]
    results, rows = [], 0.0
    for name, form in forms.items():
        seconds = left()
        own = given | dict(form.chosen)
        result, again, cost = _run(name, question, asked["prompt"], own, AUTO_SECONDS if seconds is None else seconds)
        results, notes, rows = [*results, result], [*notes, *again], rows + cost
    results, more = _checked(question, results, rows, left(), asked["seed"])
    return question, results, [*notes, *more]


def _generated(target: TargetLike, length: int) -> Target:
    if target is not None:
        raise InputError("explain got both target and generate; the generated text is the target, so give one of them.")
    return Target.generated(length)


def _check(asked: Mapping[str, Any]) -> None:
    """Raise `InputError` for an argument of a wrong type or range."""
    if not hasattr(asked["subject"], "recorded"):
        raise InputError(
            f"explain got {shown(asked['subject'])} as its subject; pass pellucid.load(name_or_path_or_model)."
        )
    types: dict[str, Any] = {
        "prompt": PromptLike,
        "target": TargetLike,
        "contrast": int | str | None,
        "methods": str | Sequence[str],
        "unit": Unit,
        "generate": Count,
        "budget": Union[PositiveFloat, None],  # noqa: UP007 - Annotated has no "|"
        "seed": int,
    }
    check("explain", types, asked)


def _choose(question: Question, methods: str | Sequence[str], budget: float | None) -> tuple[list[str], list[str]]:
    if methods == "auto":
        return _auto(question, budget)
    names = [m.strip() for m in methods.split(",")] if isinstance(methods, str) else list(methods)
    if not names:
        raise InputError('explain got an empty list of methods; name at least one, or pass "auto".')
    for name in names:
        entry = find(name)
        if entry.takes != "prompt" or entry.produces != "scores":
            raise InputError(
                f"explain runs methods that score the units of a prompt, but {name} takes a {entry.takes} and "
                f"gives {entry.produces}; use pellucid.run."
            )
    return names, []


def _auto(question: Question, budget: float | None) -> tuple[list[str], list[str]]:
    if question.subject.kind == "black-box":
        return ["occlusion", "shapley_values"], [
            "Chosen methods: occlusion and Shapley values, because a black box gives scores only."
        ]
    limit = AUTO_SECONDS if budget is None else min(AUTO_SECONDS, budget / 2)
    seconds = {name: _seconds(question, name) for name in ("integrated_gradients", "occlusion")}
    names = [name for name, needed in seconds.items() if needed <= limit] or ["gradient_x_input"]
    listed = ", ".join(f"{name} (estimated {needed:.2g} s)" for name, needed in seconds.items())
    return names, [f"Chosen methods: {', '.join(names)}, within {limit:.3g} s each; considered {listed}."]


def _seconds(question: Question, name: str) -> float:
    return price(find(name), question, {}).seconds


def _pinned(question: Question, target: TargetLike, contrast: int | str | None) -> dict[str, Any]:
    """Return the target that every method is given: the same ids, resolved once."""
    readout: Readout = question.readout
    asked = target if isinstance(target, Target) else Target(target)
    if readout.function is not None or readout.kind == "vector":
        return {"target": target}
    ids = readout.parts[0].ids
    other = readout.parts[1].ids if len(readout.parts) > 1 else None
    kind: Any = "continuation" if asked.kind in ("generated", "continuation") else "auto"
    what = ids if len(ids) > 1 or kind == "continuation" else next(iter(ids))
    contrasted = None if other is None else other if len(other) > 1 else next(iter(other))
    return {"target": Target(what, contrasted, asked.measure, kind, asked.each)}


def _run(
    name: str, question: Question, prompt: PromptLike, given: Mapping[str, Any], seconds: float
) -> tuple[Scores, list[str], float]:
    """Run a method, again with more steps where its scores do not add up and time allows.

    Returns:
        The result, notes, and the rows of the last run, those whose scores were known included.
    """
    taken = {p["name"]: p.get("default") for p in find(name).parameters}
    given = {key: value for key, value in given.items() if key in taken}
    with store.taken() as known:
        result: Scores = run(name, question.subject, prompt, **given)
    notes: list[str] = []
    steps = given.pop("steps", taken.get("steps"))
    while (
        isinstance(steps, int)
        and steps < MOST_STEPS
        and _incomplete(result)
        and 4 * result.provenance.seconds < seconds
    ):
        steps *= 4
        seconds -= 4 * result.provenance.seconds
        notes = [f"{name} was run with {steps} steps, because with fewer its scores did not add up."]
        with store.taken() as known:
            result = run(name, question.subject, prompt, steps=steps, **given)
    return result, notes, result.provenance.forwards + BACKWARD * result.provenance.backwards + known.rows


def _incomplete(result: Scores) -> bool:
    return any(evidence.name == "completeness" and evidence.ok is False for evidence in result.evidence)


def _checked(
    question: Question, results: list[Scores], spent: float, seconds: float | None, seed: int
) -> tuple[list[Scores], list[str]]:
    allowed = spent / 2
    total = sum(r.provenance.seconds for r in results)
    if seconds is not None:
        allowed = min(allowed, max(0.0, seconds) / max(total / max(spent, 1), 1e-9))
    size = plan(len(question.units), len(results), allowed)
    if size is None:
        reason = f"fewer than {4} points fit" if len(question.units) >= 3 else "the prompt has fewer than 3 units"
        return results, [
            f"The deletion check was skipped: {reason} into half the cost of the methods ({allowed:.0f} rows)."
        ]
    rankings = {r.provenance.method: r.values if r.values.ndim == 1 else r.values.sum(1) for r in results}
    replacement = default_replacement(question.subject)
    found = deletion_check(question, rankings, replacement, size, seed)
    checked = [replace(r, evidence=(*r.evidence, *found[r.provenance.method])) for r in results]
    how = "deletion and insertion" if size.insertion else "deletion"
    return checked, [
        f"The {how} check removed units by {replacement!r} at {size.points} points against {size.orders} random orders."
    ]


def _agreement(results: Sequence[Scores]) -> tuple[Evidence, ...]:
    if len(results) < 2:
        return ()
    values: dict[str, float] = {}
    for first, second in combinations(results, 2):
        a, b = first.values.reshape(-1), second.values.reshape(-1)
        varied = len(a) > 1 and np.ptp(a) > 0 and np.ptp(b) > 0
        tau: Any = kendalltau(_rough(a), _rough(b)) if varied else (float("nan"),)
        values[f"{first.provenance.method} ~ {second.provenance.method}"] = float(tau[0])
    known = [v for v in values.values() if not np.isnan(v)]
    mean = float(np.mean(known)) if known else float("nan")
    words = "agree closely" if mean > 0.7 else "agree in part" if mean > 0.3 else "do not agree"
    return (
        Evidence(
            "agreement",
            f"The methods {words} on the ranking of units (mean Kendall tau {mean:.2f}).",
            values,
            ok=bool(mean > 0.3),
        ),
    )


def _rough(scores: np.ndarray) -> np.ndarray:
    """Round scores to 2 % of the largest, so that units which do not matter are ties and not a ranking of noise."""
    return np.round(scores / (0.02 * max(float(np.abs(scores).max()), 1e-30)))


def _predictions(question: Question) -> tuple[tuple[str, float], ...]:
    subject = question.subject
    if subject.kind == "black-box" or subject.head == "none":
        return ()
    top = next_token_distribution(subject, question.tokens)
    if subject.head == "classification":
        names = subject.model.config.id2label or {}
        return tuple((str(names.get(i, i)), p) for i, p in top)
    return tuple((name_of(subject, i), p) for i, p in top)


def _continuation(question: Question) -> str:
    return "".join(question.readout.labels) if question.readout.each and question.readout.kind == "next" else ""


def _encoding_notes(subject: Subject, prompt: PromptLike) -> tuple[str, ...]:
    return () if subject.kind == "black-box" else tuple(subject.encoded(prompt).notes)


make_callable(__name__)
