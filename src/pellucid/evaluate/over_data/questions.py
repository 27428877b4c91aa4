"""What is explained of each example, settled once, so that every method and metric is asked about the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pellucid.core.errors import InputError
from pellucid.core.targets import Measure, Target
from pellucid.engine.generation import next_token_distribution
from pellucid.engine.question import ask
from pellucid.evaluate.over_data.examples import Example
from pellucid.models.subject import Subject


@dataclass(frozen=True)
class Wanted:
    """What is to be explained: the prediction, the label, or a generated continuation; in which measure.

    An example's own target goes before all of them.
    """

    explain: str = "predicted"
    generate: int = 0
    measure: Measure = "auto"


def check_wanted(wanted: Wanted, subject: Subject, examples: tuple[Example, ...]) -> None:
    """Raise `InputError` for what cannot be asked of these examples."""
    if wanted.explain not in ("predicted", "label"):
        raise InputError(f"There is no target {wanted.explain!r} of a data set; give 'predicted' or 'label'.")
    if wanted.generate and subject.head == "classification":
        raise InputError(f"{subject.name} is a classifier and generates nothing; leave generate out.")
    for number, example in enumerate(examples, 1):
        if wanted.explain == "label" and example.label is None and example.target is None:
            raise InputError(
                f"Example {number} has no label to explain; name its column, or explain what is predicted."
            )


def settled(subject: Subject, example: Example, wanted: Wanted) -> dict[str, Any]:
    """Return what is explained of an example, as JSON values.

    Returns:
        `ids` and `kind` as `target_of` takes them, `words` for people, and of a classifier `predicted`, its name and
        its `probability`.
    """
    question = ask(subject, example.prompt, target=_first(subject, example, wanted))
    readout = question.readout
    found: dict[str, Any] = {"kind": "own", "words": readout.description}
    if readout.function is None and readout.kind != "vector" and subject.kind != "black-box":
        longer = readout.kind == "next" and (wanted.generate > 0 or isinstance(example.target, str))
        found |= {"ids": list(readout.parts[0].ids), "kind": "continuation" if longer else "auto"}
    if subject.head == "classification" and subject.kind != "black-box":
        index, probability = next_token_distribution(subject, question.tokens)[0]
        names = subject.model.config.id2label or {}
        found |= {"predicted": int(index), "class": str(names.get(index, index)), "probability": float(probability)}
    return found


def target_of(found: dict[str, Any], subject: Subject, example: Example, wanted: Wanted) -> Target:
    """Return the target that every method and metric is given."""
    if found["kind"] == "own":
        return _first(subject, example, wanted)
    ids = tuple(found["ids"])
    what = ids if found["kind"] == "continuation" or len(ids) > 1 else ids[0]
    return Target(what, measure=wanted.measure, kind=found["kind"])


def right(found: dict[str, Any], example: Example) -> bool | None:
    """Say whether a classifier predicts the label of an example, or None where there is nothing to compare."""
    if example.label is None or "predicted" not in found:
        return None
    if isinstance(example.label, int):
        return bool(found["predicted"] == example.label)
    return bool(str(found["class"]).lower() == example.label.lower())


def _first(subject: Subject, example: Example, wanted: Wanted) -> Target:
    given = example.target if example.target is not None else example.label if wanted.explain == "label" else None
    if subject.head == "none" and isinstance(given, str):
        return Target.similarity(given)
    if given is None and wanted.generate:
        return Target.generated(wanted.generate, each=False, measure=wanted.measure)
    if isinstance(given, str) and subject.head == "causal-lm":
        return Target.continuation(given, measure=wanted.measure)
    return Target(given, measure=wanted.measure)
