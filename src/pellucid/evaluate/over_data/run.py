"""Methods times metrics over a data set: one resumable run, each explanation computed once."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.core import encoding
from pellucid.core.errors import Cancelled, InputError, MissingExtra, PellucidError, ResourceError
from pellucid.core.params import Count, Positive, Replacement, Unit, check
from pellucid.core.results import Evidence, Scores
from pellucid.core.targets import Measure
from pellucid.engine.identity import identity, steady
from pellucid.evaluate.over_data.asked import Asked, check_settings, chosen_methods, chosen_metrics
from pellucid.evaluate.over_data.evaluation import Evaluation
from pellucid.evaluate.over_data.examples import Example, as_plain, read_examples
from pellucid.evaluate.over_data.questions import Wanted, check_wanted, settled, target_of
from pellucid.evaluate.over_data.record import Record
from pellucid.evaluate.over_data.workers import Piece, check_workers, shared_out
from pellucid.methods import function
from pellucid.models.subject import Subject

Watch = Callable[[int, int, float], None]
LONGEST_SENTENCE = 500


def evaluate_dataset(
    subject: Subject, data: str | Path | Iterable[Any], *, methods: Sequence[str], metrics: Sequence[str],
    record: str | Path | None = None, columns: Mapping[str, str] | None = None, limit: int | None = None,
    explain: str = "predicted", generate: int = 0, measure: Measure = "auto", unit: Unit = "token",
    replacement: Replacement | None = None, orders: int = 5, seed: int = 0,
    settings: Mapping[str, Mapping[str, Any]] | None = None, language_model: Subject | None = None,
    workers: Positive = 1, progress: Watch | None = None,
) -> Evaluation:  # fmt: skip
    """Judge several methods by several metrics on every example of a data set.

    Each explanation is computed once and given to all metrics, and scores of changed inputs that several ask for are
    run once. All that is finished is appended to `record` at once: a run that is killed goes on where it stopped when
    it is called again, and other methods, metrics or examples can join later. What a method or metric refuses is left
    out, with the reason.

    Args:
        subject: the model, or a black box.
        data: a .csv, .tsv, .jsonl, .json or .parquet file, a folder of the `datasets` library, or texts or mappings.
        methods: names of methods that give one score per unit.
        metrics: names of metrics that judge one prompt; those of agreement take the mean over the other methods.
            `removal_perplexity` joins metrics that remove units where the model, or `language_model`, is a causal one.
        record: file of the run; None keeps nothing.
        columns: the name of the column per field (text, pair, label, rationale, target) where it is no usual one.
        limit: take the first so many examples.
        explain: "predicted" or "label", where an example has no target of its own.
        generate: explain the model's own continuation of this many tokens.
        measure: what is explained and judged: "logit", "log_prob", "prob"; "auto" as in `Target`.
        unit: what gets a score.
        replacement: how units are removed; None takes "mask" where there is such a token, else "delete".
        orders: random orders that metrics compare with, the same for all methods.
        seed: of everything random.
        settings: further parameters by the name of a method or metric.
        language_model: for `removal_perplexity`.
        workers: processes that share out examples and threads (Linux, CPU).
        progress: called with pieces done, all pieces, and the seconds left (an estimate, NaN at first).

    Returns:
        An `Evaluation`: tables with intervals and tests, and a page.

    Raises:
        InputError: an unknown name or parameter, or data that do not fit.
        FileError: a data file that cannot be read, or a record of another run that is still going on.
        CapabilityError: workers for a model that processes cannot share.
    """
    _check(locals())
    examples, wanted = read_examples(data, columns=columns, limit=limit), Wanted(explain, generate, measure)
    check_wanted(wanted, subject, examples)
    check_workers(subject, workers)
    shared = {"unit": unit, "seed": seed, "replacement": replacement, "orders": orders}
    given = dict(settings or {})
    asked = chosen_methods(subject, methods, shared, given)
    judged, notes = chosen_metrics(subject, metrics, shared, given, language_model)
    check_settings(given, [*asked, *judged])
    _check_rationales(judged, examples)
    with Record(None if record is None else Path(record)) as kept, steady():
        (run := _Run(subject, examples, asked, judged, wanted, kept)).all(progress, workers)
    if kept.damaged:
        notes = [*notes, f"{kept.damaged} damaged lines of the record were left out and their work was done again."]
    where = Path(data).name if isinstance(data, str | Path) else "rows at hand"
    return run.evaluation(where, notes, seed)


def _check(arguments: dict[str, Any]) -> None:
    types: dict[str, Any] = {
        "methods": Sequence[str], "metrics": Sequence[str], "limit": Positive | None, "generate": Count,
        "unit": Unit, "orders": Count, "workers": Positive, "seed": int, "measure": Measure,
        "replacement": Replacement | None,
    }  # fmt: skip
    check("evaluate_dataset", types, {name: arguments[name] for name in types})


def _check_rationales(metrics: Sequence[Asked], examples: Sequence[Example]) -> None:
    if any(one.role == "rationale" for one in metrics) and all(one.rationale is None for one in examples):
        raise InputError("A metric of rationales was asked for, but no example has one; name the column that holds it.")


def _digest(*parts: Any) -> str:
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=12).hexdigest()


def _model_key(subject: Subject) -> str:
    found = identity(subject) if subject.model is not None else None
    edits = [edit.describe() for edit in subject.edits]
    return found.hex() if found is not None else _digest(subject.name, subject.weights_hash(), edits)


def _plain(asked: Asked) -> dict[str, Any]:
    """Return a method or metric with what identifies the models among its parameters."""
    models = {key: _model_key(value) for key, value in asked.parameters.items() if isinstance(value, Subject)}
    return {**asked.as_plain(), "models": models}


@dataclass
class _Left:
    """How much work is left and how long each kind of it has taken, for the estimate."""

    total: int
    at_once: int = 1
    waiting: Counter[str] = field(default_factory=Counter[str])
    seconds: dict[str, tuple[float, int]] = field(default_factory=dict[str, tuple[float, int]])

    def done(self, name: str, seconds: float) -> None:
        spent, count = self.seconds.get(name, (0.0, 0))
        self.seconds[name] = (spent + seconds, count + 1)
        self.waiting[name] -= 1

    def estimate(self) -> float:
        """Return the seconds left: each kind at its own mean, a kind not met yet at the mean of all; NaN at first."""
        if not self.seconds:
            return float("nan") if self.waiting.total() else 0.0
        spent, count = np.array(list(self.seconds.values())).sum(0)
        each = {name: total / times for name, (total, times) in self.seconds.items()}
        return float(sum(left * each.get(name, spent / count) for name, left in self.waiting.items())) / self.at_once


class _Run:
    """The pieces of work of a run, by key: what is explained, explanations, and values."""

    def __init__(
        self, subject: Subject, examples: tuple[Example, ...], methods: list[Asked], metrics: list[Asked],
        wanted: Wanted, record: Record,
    ) -> None:  # fmt: skip
        self.subject, self.examples, self.record = subject, examples, record
        self.methods, self.metrics, self.wanted = methods, metrics, wanted
        self.called = {one.name: function(one.name) for one in (*methods, *metrics)}
        self.computed, self.start = 0, time.perf_counter()
        self.left, self.book = _Left(0), self._booked
        self._keys(_model_key(subject))

    def _keys(self, model: str) -> None:
        """Name every piece of work by everything that decides its result."""
        names = {one.name: _digest(_plain(one)) for one in (*self.methods, *self.metrics)}
        self.asked: list[str] = []
        self.explained: list[dict[str, str]] = []
        self.valued: list[dict[tuple[str, str], str]] = []
        for example in self.examples:
            plain = as_plain(example)
            rationale = plain.pop("rationale", None)
            if self.wanted.explain != "label":
                plain.pop("label", None)
            asked = _digest(model, plain, vars(self.wanted))
            own = {one.name: _digest(asked, names[one.name]) for one in self.methods}
            beside = {"rationale": rationale, "other": sorted(own.values())}
            self.asked.append(asked)
            self.explained.append(own)
            self.valued.append({
                (method, metric.name): _digest(key, names[metric.name], beside.get(metric.role))
                for method, key in own.items() for metric in self.metrics
            })  # fmt: skip

    def all(self, progress: Watch | None, workers: int) -> None:
        """Do what the record lacks, example by example."""
        work: dict[str, str] = {}
        for own, values in zip(self.explained, self.valued, strict=True):
            work |= {key: name for name, key in own.items()}
            work |= {key: metric for (_, metric), key in values.items()}
        self.left = _Left(
            len(work), workers, Counter(name for key, name in work.items() if key not in self.record.known)
        )
        self.progress = progress
        self._tell()
        if workers > 1:
            self._shared_out(workers)
            return
        for index in range(len(self.examples)):
            before = self.computed
            self._example(index)
            if self.computed > before:
                self.record.settle()

    def _shared_out(self, workers: int) -> None:
        """Let workers do the examples that lack something, and write what they find."""
        lacking = [i for i in range(len(self.examples)) if any(k not in self.record.known for k in self._keys_of(i))]

        def compute(index: int, hand: Callable[[Piece], None]) -> None:
            def book(piece: Piece) -> None:
                self.record.known[piece.key] = piece.entry
                hand(piece)

            self.record.__exit__()  # the file and its lock are the parent's alone
            self.book = book
            self._example(index)

        for piece in shared_out(lacking, workers, compute):
            if piece is None:
                self.record.settle()
            else:
                self._booked(piece)

    def _keys_of(self, index: int) -> list[str]:
        return [self.asked[index], *self.explained[index].values(), *self.valued[index].values()]

    def _booked(self, piece: Piece) -> None:
        """Write a finished piece of work."""
        self.record.write(piece.key, piece.entry)
        self.computed += 1
        if piece.name:
            self.left.done(piece.name, piece.seconds)
            self._tell()

    def _tell(self) -> None:
        if self.progress is not None:
            waiting = self.left.waiting.total()
            self.progress(self.left.total - waiting, self.left.total, self.left.estimate())

    def _do(self, key: str, name: str, work: Callable[[], dict[str, Any]], labels: dict[str, Any]) -> dict[str, Any]:
        """Return what the record has under a key, or do the work and write it."""
        if key in self.record.known:
            return self.record.known[key]
        start = time.perf_counter()
        try:
            entry = work()
        except (Cancelled, ResourceError, MissingExtra):
            raise
        except PellucidError as error:
            entry = {"failed": str(error)[:LONGEST_SENTENCE]}
        self.book(Piece(key, name, {**labels, **entry}, time.perf_counter() - start))
        return self.record.known[key]

    def _example(self, index: int) -> None:
        question = self._do(
            self.asked[index], "", lambda: settled(self.subject, self.examples[index], self.wanted), {"example": index}
        )
        for method in self.methods:
            key = self.explained[index][method.name]
            labels = {"example": index, "method": method.name}
            self._do(key, method.name, lambda m=method: self._explain(index, m, question), labels)
        lacking = [pair for pair, key in self.valued[index].items() if key not in self.record.known]
        scores = self._scores(index) if lacking else {}
        for method in self.methods:
            for metric in self.metrics:
                key = self.valued[index][method.name, metric.name]
                labels = {"example": index, "method": method.name, "metric": metric.name}
                self._do(key, metric.name, lambda a=method, b=metric: self._judge(index, a, b, scores), labels)

    def _target(self, index: int, question: dict[str, Any]) -> Any:
        if "failed" in question:
            raise InputError(question["failed"])
        return target_of(question, self.subject, self.examples[index], self.wanted)

    def _explain(self, index: int, method: Asked, question: dict[str, Any]) -> dict[str, Any]:
        target = self._target(index, question)
        found = self.called[method.name](self.subject, self.examples[index].prompt, target=target, **method.parameters)
        if not isinstance(found, Scores) or found.axes != ("unit",):
            raise InputError(f"{method.name} gave no single score per unit here.")
        return {"result": json.loads(encoding.as_json(found))}

    def _scores(self, index: int) -> dict[str, Scores]:
        """Return the explanations of an example by method, without those that failed."""
        entries = {name: self.record.known[key] for name, key in self.explained[index].items()}
        return {name: scores_of(entry) for name, entry in entries.items() if "result" in entry}

    def _judge(self, index: int, method: Asked, metric: Asked, scores: dict[str, Scores]) -> dict[str, Any]:
        if method.name not in scores:
            reason = self.record.known[self.explained[index][method.name]]["failed"]
            raise InputError(f"There is no explanation: {reason}")
        example, own, called = self.examples[index], scores[method.name], self.called[metric.name]
        if metric.role == "rationale":
            if example.rationale is None:
                raise InputError("The example has no rationale.")
            found = called(own, list(example.rationale), **metric.parameters)
        elif metric.role == "other":
            return {"values": _agreement([
                called(own, other, **metric.parameters) for name, other in scores.items() if name != method.name
            ])}  # fmt: skip
        else:
            target = self._target(index, self.record.known[self.asked[index]])
            asks = {"target": target} if "target" in {p["name"] for p in metric.entry.parameters} else {}
            judged: Any = own
            if metric.role == "explainer":
                judged, asks = method.name, {**asks, "settings": dict(method.parameters)}
            found = called(self.subject, example.prompt, judged, **asks, **metric.parameters)
        return {"values": encoding.encode_value({k: float(v) for k, v in found.values.items()})}

    def evaluation(self, data: str, notes: Sequence[str], seed: int) -> Evaluation:
        """Return the answer of the finished run."""
        return Evaluation(
            model=self.subject.name, data=data, examples=self.examples, methods=tuple(self.methods),
            metrics=tuple(self.metrics), questions=tuple(self.record.known[key] for key in self.asked),
            found=self.found(), kept=self.explanations(), wanted=self.wanted, notes=tuple(notes), seed=seed,
            computed=self.computed, seconds=time.perf_counter() - self.start,
        )  # fmt: skip

    def found(self) -> dict[tuple[int, str, str], dict[str, Any]]:
        """Return what was written for every example, method and metric."""
        return {
            (index, *pair): self.record.known[key]
            for index, keys in enumerate(self.valued) for pair, key in keys.items()
        }  # fmt: skip

    def explanations(self) -> dict[tuple[int, str], dict[str, Any]]:
        """Return what was written for every example and method."""
        return {
            (index, name): self.record.known[key]
            for index, keys in enumerate(self.explained) for name, key in keys.items()
        }  # fmt: skip


def scores_of(entry: Mapping[str, Any]) -> Scores:
    """Return the explanation that a line of the record holds."""
    found = encoding.from_json(json.dumps(entry["result"]))
    assert isinstance(found, Scores)
    return found


def _agreement(found: Sequence[Evidence]) -> dict[str, Any]:
    if not found:
        raise InputError("Agreement needs two methods or more; name another one.")
    names = [name for name in ("value", "chance") if all(name in one.values for one in found)]
    return dict(encoding.encode_value({name: float(np.mean([one.values[name] for one in found])) for name in names}))


__all__ = ["evaluate_dataset", "scores_of"]
