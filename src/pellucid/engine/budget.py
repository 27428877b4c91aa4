"""What a method will take on one input, and the finest form of it that fits into a number of seconds.

Everything follows from a method's metadata: its cost, and which of its parameters the cost counts. A budget lowers the
numbers of samples first and makes the units coarser then; what the user gave stays as it is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pellucid.core.call import each_prompt
from pellucid.core.catalogue import Entry, find_entry
from pellucid.core.cost import SAMPLED, cost_names
from pellucid.core.errors import InputError, ResourceError
from pellucid.core.pairs import Pair
from pellucid.core.prompts import is_many
from pellucid.core.results import Evidence, Result
from pellucid.engine.fit import fit
from pellucid.engine.planning import TOKENS_PER_BATCH, Estimate, estimate
from pellucid.engine.question import Question, ask
from pellucid.engine.reading import read
from pellucid.engine.sharing import grid_share, walk
from pellucid.engine.variants import whole

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

UNITS = ("token", "word", "sentence")
PARTS = (1.0, 0.5, 0.25)
LAST_PARTS = (0.125, 0.0625)
FEWEST_SAMPLES = 4


@dataclass(frozen=True)
class Form:
    """One way to run a method: the parameters that a budget chose, and what the run will take."""

    chosen: Mapping[str, Any]
    estimate: Estimate = field(default_factory=lambda: Estimate(0.0, 0.0, 0.0, 0.0))

    @property
    def words(self) -> str:
        """Return what was chosen, or "" where the method runs as asked."""
        return " and ".join(f"{key}={value!r}" for key, value in self.chosen.items())

    def evidence(self, budget: float, name: str, seconds: float) -> Evidence:
        """Return what is to be said of a run within a budget."""
        done = f"was run with {self.words}" if self.chosen else "was run as asked"
        return Evidence(
            "budget",
            f"Within a budget of {budget:.3g} s, {name} {done}: estimated {self.estimate.seconds:.2g} s, took "
            f"{seconds:.2g} s.",
            {"budget": budget, "estimated": self.estimate.seconds, "seconds": seconds},
            ok=bool(seconds <= 1.5 * budget),
        )


def run_within(
    entry: Entry, called: Callable[..., Any], subject: Subject, given: Sequence[Any], parameters: Mapping[str, Any],
    budget: float,
) -> Any:  # fmt: skip
    """Run a method in the finest form that is estimated to fit into a budget of seconds, and say which it was.

    Raises:
        InputError: what the method takes or costs is not known before it runs.
        ResourceError: no form fits; nothing was run.
    """
    if entry.takes == "prompt" and given and is_many(given[0]):
        prompts, share = list(given[0]), budget / max(1, len(given[0]))

        def one(prompt: Any, **own: Any) -> Any:
            return run_within(entry, called, subject, [prompt, *given[1:]], own, share)

        return each_prompt(entry.name, one, {**parameters, "prompt": prompts}, "prompt")
    start = time.perf_counter()
    question = question_of(entry, subject, given, parameters)
    form = choose(entry, question, parameters, budget)
    result = called(subject, *given, **{**parameters, **form.chosen})
    evidence = form.evidence(budget, entry.name, time.perf_counter() - start)
    return result.with_evidence(evidence) if isinstance(result, Result) else result


def question_of(entry: Entry, subject: Subject, given: Sequence[Any], parameters: Mapping[str, Any]) -> Question:
    """Return the question that a call asks.

    Raises:
        InputError: the method takes something else than a prompt or a pair of prompts.
    """
    if entry.takes not in ("prompt", "pair"):
        raise InputError(
            f"What {entry.name} takes cannot be estimated, because it is given {entry.takes} and not a prompt; run it "
            "without a budget."
        )
    names = [p["name"] for p in entry.parameters if p["name"] != "subject"]
    prompt = given[0] if given else parameters[names[0]]
    wanted = {key: parameters[key] for key in ("target", "contrast") if key in parameters}
    known = {p["name"] for p in entry.parameters}
    unit = parameters.get("unit", "token") if "unit" in known else "token"
    return ask(subject, prompt.clean if isinstance(prompt, Pair) else prompt, unit=unit, **wanted)


def price(entry: Entry, question: Question, parameters: Mapping[str, Any]) -> Estimate:
    """Return what a method takes on a question.

    Args:
        entry: the method.
        question: prompt, units and readout.
        parameters: what the call gives; defaults stand for the rest.

    Raises:
        InputError: the cost of the method names something that is not known before it runs.
    """
    if not entry.cost:
        raise InputError(f"{entry.name} does not state its cost, so it cannot be estimated; run it without a budget.")
    subject, counts = question.subject, _counts(entry, question, parameters)
    forced = max((len(ids) for ids in question.readout.forced), default=0)
    length = len(question.tokens) + (0 if subject.kind in ("encoder-decoder", "black-box") else forced)
    targets = forced + 1
    share = grid_share(entry, question) if subject.kind != "black-box" else 1.0
    found = estimate(
        subject, entry.cost, counts, length, targets=targets, gradients=question.readout.size, share=share,
        tokens_per_batch=TOKENS_PER_BATCH if share < 1 else None,
    )  # fmt: skip
    if subject.kind == "black-box":
        return replace(found, seconds=found.forwards * _seconds_per_text(question))
    shared = walk(entry, question, found.forwards, parameters)
    if shared is None:
        return found
    learned = fit(subject, False, int(found.forwards * length))
    return replace(
        found,
        seconds=learned.setup.seconds + shared.seconds(learned, targets),
        bytes=shared.bytes(learned, subject, targets),
    )


def _seconds_per_text(question: Question) -> float:
    """Return the seconds that a black box takes for the prompt, from one call made once per subject."""
    subject = question.subject
    if "seconds per text" not in subject.state.cache:
        start = time.perf_counter()
        with subject.uncounted():
            read(subject, question.tokens, question.readout, [whole(question.tokens)])
        subject.state.cache["seconds per text"] = time.perf_counter() - start
    return float(subject.state.cache["seconds per text"])


def choose(
    entry: Entry, question: Question, parameters: Mapping[str, Any], budget: float, fixed: Sequence[str] = ()
) -> Form:
    """Return the finest form of a method that is estimated to fit into a budget.

    Args:
        entry: the method.
        question: prompt, units and readout, in the finest unit.
        parameters: what the call gives; these and those in `fixed` are not changed.
        budget: seconds.
        fixed: names of further parameters that stay.

    Raises:
        ResourceError: no form fits; with the estimate of the cheapest.
    """
    cheapest: Form | None = None
    for chosen in _forms(entry, question, {*parameters, *fixed}):
        asked = question
        if "unit" in chosen:
            asked = replace(question, units=question.subject.units(question.tokens, chosen["unit"]))
        form = Form(chosen, price(entry, asked, {**parameters, **chosen}))
        if form.estimate.seconds <= budget:
            return form
        if cheapest is None or form.estimate.seconds < cheapest.estimate.seconds:
            cheapest = form
    assert cheapest is not None
    how = f" with {cheapest.words}" if cheapest.chosen else ""
    raise ResourceError(
        f"{entry.name} was given {budget:.3g} s, but takes about {cheapest.estimate}{how}; raise the budget, shorten "
        "the prompt, or choose a cheaper method."
    )


def fitting(
    question: Question, names: Sequence[str], budget: float, unit: Any
) -> tuple[Any, dict[str, Form], list[str]]:
    """Return the finest unit in which all methods fit into their shares of a budget, their forms, and notes.

    One third of the budget is left for the checks. Where no unit lets all of them fit, the coarsest is taken and those
    that do not fit are left out.

    Raises:
        ResourceError: not one of them fits.
    """
    units = [unit, *(UNITS[UNITS.index(unit) + 1 :] if unit in UNITS and question.subject.kind != "black-box" else ())]
    share, refused = budget * 2 / 3 / len(names), list[str]()
    for name_of_unit in units:
        asked = replace(question, units=question.subject.units(question.tokens, name_of_unit))
        forms, refused = {}, []
        for name in names:
            entry = find_entry(name)
            assert entry is not None
            try:
                forms[name] = choose(entry, asked, {}, share, fixed=("unit",))
            except ResourceError as error:
                refused.append(str(error))
        if not refused:
            break
    if not forms:
        raise ResourceError(refused[0])
    notes = (
        [f"The unit is {name_of_unit}, so that the methods fit into {budget:.3g} s."] if name_of_unit != unit else []
    )
    notes += [f"{n} was run with {f.words}, so that it fits into {share:.3g} s." for n, f in forms.items() if f.chosen]
    return name_of_unit, forms, [*notes, *(f"Left out: {sentence}" for sentence in refused)]


def _forms(entry: Entry, question: Question, given: set[str]) -> Iterator[dict[str, Any]]:
    """Yield what could be chosen, from the finest form to the cheapest."""
    names = cost_names(entry.cost) if entry.cost else frozenset()
    samples = {
        p["name"]: (p["default"], max(int(p["min"] or 1), min(FEWEST_SAMPLES, p["default"])))
        for p in entry.parameters
        if p["name"] in names & set(SAMPLED) - given and isinstance(p["default"], int)
    }
    own = next((p["default"] for p in entry.parameters if p["name"] == "unit"), None)
    coarser: tuple[str, ...] = ()
    if own in UNITS and "unit" not in given and "units" in names and question.subject.kind != "black-box":
        coarser = UNITS[UNITS.index(own) + 1 :]
    units: list[str | None] = [None, *coarser]
    seen: list[dict[str, Any]] = []
    for unit in units:
        for part in (*PARTS, *(LAST_PARTS if unit == units[-1] else ())):
            chosen: dict[str, Any] = {} if unit is None else {"unit": unit}
            chosen |= {
                name: max(fewest, math.ceil(part * default)) for name, (default, fewest) in samples.items() if part < 1
            }
            if chosen not in seen:
                seen.append(chosen)
                yield chosen


def _counts(entry: Entry, question: Question, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value of every name in the cost that is known before the run."""
    defaults = {p["name"]: p["default"] for p in entry.parameters}
    counts = {key: value for key, value in (defaults | dict(parameters)).items() if isinstance(value, int | float)}
    length = len(question.tokens)
    counts |= {"units": len(question.units), "targets": question.readout.size, "tokens": length, "positions": length}
    counts |= {"options": len(question.readout.parts), "prompts": 1, "pairs": 1, "examples": 1, "models": 1}
    for name in cost_names(entry.cost) & {"words", "sentences"}:
        counts[name] = len(question.subject.units(question.tokens, name.removesuffix("s")))
    return counts if question.subject.kind == "black-box" else counts | _sizes(question.subject)


def _sizes(subject: Subject) -> dict[str, int]:
    """Return the sizes of a model that its config names."""
    config = subject.model.config
    layout = subject.need_layout()
    heads = next(iter(layout.stacks.values())).heads.query
    named = {
        "dimensions": ("hidden_size", "d_model"),
        "neurons": ("intermediate_size", "n_inner", "d_ff"),
        "experts": ("num_local_experts", "num_experts"),
        "classes": ("num_labels",),
    }
    found = {"layers": subject.layers, "heads": heads, "vocabulary": subject.vocabulary}
    for name, keys in named.items():
        sizes = [size for key in keys if isinstance(size := getattr(config, key, None), int)]
        if sizes:
            found[name] = sizes[0]
    return {"neurons": 4 * found.get("dimensions", 0)} | found
