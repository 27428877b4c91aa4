"""What a run asks for: which methods and metrics, with which parameters, and what each metric is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pellucid.core.catalogue import Entry
from pellucid.core.errors import InputError, did_you_mean
from pellucid.core.jsonable import parameter
from pellucid.core.metadata import annotations_of
from pellucid.core.params import check
from pellucid.methods import find, function
from pellucid.models.subject import Subject

PERPLEXITY = "removal_perplexity"
# What all methods and metrics that have a parameter of this name are given.
SHARED = ("unit", "seed", "replacement", "orders", "baseline")
Role = Literal["scores", "explainer", "rationale", "other"]
SAID: dict[str, str] = {
    "explainer": "asks the method again about changed inputs",
    "rationale": "compares with what people marked",
    "other": "mean agreement with the other methods of the run",
}


@dataclass(frozen=True)
class Asked:
    """A method or metric of a run, with the parameters that it is given.

    `role` says what a metric judges: the scores of a prompt, the explainer itself, scores beside a rationale, or scores
    beside those of the other methods.
    """

    entry: Entry
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    role: Role = "scores"

    @property
    def name(self) -> str:
        """Return the name of the method or metric."""
        return self.entry.name

    @property
    def removes(self) -> bool:
        """Return whether a metric takes units out of the input, so that it judges the model on unusual inputs."""
        return (
            self.role == "scores"
            and self.name != PERPLEXITY
            and any(p["name"] == "replacement" for p in self.entry.parameters)
        )

    def as_plain(self) -> dict[str, Any]:
        """Return name and parameters as JSON values."""
        return {"name": self.name, "parameters": {key: parameter(value) for key, value in self.parameters.items()}}


def chosen_methods(
    subject: Subject, names: Sequence[str], shared: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]]
) -> list[Asked]:
    """Return the methods of a run.

    Raises:
        InputError: an unknown method or parameter, or one that does not give one score per unit of a prompt.
        CapabilityError: the model lacks what a method needs.
    """
    found = []
    for name in _once(names, "method"):
        entry = find(name)
        if entry.kind != "method" or (entry.takes, entry.produces, entry.axes) != ("prompt", "scores", ("unit",)):
            raise InputError(
                f"{name} is a {entry.kind} that takes a {entry.takes} and gives {entry.produces} over "
                f"{entry.axes or 'no axes'}; methods that are compared give one score per unit of a prompt."
            )
        subject.require(entry.needs, name)
        found.append(Asked(entry, _given(entry, shared, settings)))
    return found


def chosen_metrics(
    subject: Subject, names: Sequence[str], shared: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]],
    language_model: Subject | None = None,
) -> tuple[list[Asked], list[str]]:  # fmt: skip
    """Return the metrics of a run, and notes; removal perplexity joins metrics that remove units where it can.

    Raises:
        InputError: an unknown metric or parameter, or one that judges no single prompt.
        CapabilityError: the model lacks what a metric needs.
    """
    found = []
    for name in _once(names, "metric"):
        entry = find(name)
        found.append(Asked(entry, _given(entry, shared, settings), _role(entry)))
        if found[-1].role in ("scores", "explainer"):
            subject.require(entry.needs, name)
    removing = [metric.name for metric in found if metric.removes]
    if PERPLEXITY in names or not removing:
        return _with_language_model(found, language_model), []
    lacking = _no_language_model(subject, language_model)
    if lacking:
        return found, [
            f"{', '.join(removing)} remove units; how unlike real text that leaves the inputs is not measured "
            f"({PERPLEXITY}), because {lacking}."
        ]
    entry = find(PERPLEXITY)
    found.append(Asked(entry, _given(entry, shared, settings)))
    note = f"{PERPLEXITY} stands beside {', '.join(removing)}: how unlike real text the inputs are that they judge."
    return _with_language_model(found, language_model), [note]


def _with_language_model(found: list[Asked], language_model: Subject | None) -> list[Asked]:
    if language_model is None:
        return found
    return [
        Asked(one.entry, {**one.parameters, "language_model": language_model}, one.role)
        if one.name == PERPLEXITY else one
        for one in found
    ]  # fmt: skip


def _no_language_model(subject: Subject, language_model: Subject | None) -> str:
    """Say why perplexity cannot be had, or nothing where it can."""
    model = subject if language_model is None else language_model
    if (model.kind, model.head) != ("decoder", "causal-lm"):
        what = "no language model was given and " if language_model is None else ""
        return f"{what}{model.name} is no causal language model"
    return "" if model.vocabulary == subject.vocabulary else f"{model.name} has other tokens than {subject.name}"


def _role(entry: Entry) -> Role:
    names = [p["name"] for p in entry.parameters]
    if entry.kind != "metric":
        raise InputError(f"{entry.name} is a {entry.kind}; pellucid.methods() says which names are metrics.")
    if names[:3] == ["subject", "prompt", "scores"]:
        return "scores"
    if names[:3] == ["subject", "prompt", "explainer"]:
        return "explainer"
    if names[:2] == ["scores", "rationale"]:
        return "rationale"
    if names[:2] == ["scores", "other"] and entry.takes == "prompt":
        return "other"
    raise InputError(
        f"{entry.name} takes a {entry.takes} and not one explanation of one prompt, so it has no value per example; "
        "call it from Python."
    )


def _given(entry: Entry, shared: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    own = dict(settings.get(entry.name, {}))
    known = {p["name"] for p in entry.parameters}
    for key in own:
        if key not in known:
            hint = did_you_mean(key, known) or f"; it takes {', '.join(sorted(known))}"
            raise InputError(f"{entry.name} has no parameter {key!r}{hint}.")
    given = {key: value for key, value in shared.items() if key in known and value is not None} | own
    check(entry.name, annotations_of(function(entry.name)), given)
    return given


def _once(names: Sequence[str], what: str) -> list[str]:
    given = [name.strip() for name in names if name.strip()]
    if not given:
        raise InputError(f"No {what} was named; give at least one, and pellucid.methods() lists them.")
    return list(dict.fromkeys(given))


def check_settings(settings: Mapping[str, Mapping[str, Any]], asked: Sequence[Asked]) -> None:
    """Raise `InputError` for parameters of a method or metric that is not asked for."""
    known = [one.name for one in asked]
    for name in settings:
        if name not in known:
            hint = did_you_mean(name, known)
            raise InputError(f"Parameters were given for {name!r}, which is not among {', '.join(known)}{hint}.")
