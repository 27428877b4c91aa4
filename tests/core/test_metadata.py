from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest

from pellucid.core.errors import CapabilityError, InputError, TargetError
from pellucid.core.metadata import Metadata, metadata_of, method, metric, study
from pellucid.core.params import (
    Positive,
    TargetLike,
    Unit,
    words,
)
from pellucid.core.presets import presets
from pellucid.core.results import Provenance, Scores


class Counter:
    """A subject that counts: every call of `forward` is one row."""

    name, capabilities = "counter", frozenset({"scores"})

    def __init__(self) -> None:
        self.records: list[SimpleNamespace] = []

    def encode(self, prompt: Any) -> Any:
        if prompt in ("", []):
            raise TargetError("The prompt is empty; write something.")
        return prompt

    def forward(self) -> None:
        for record in self.records:
            record.forwards += 1

    def require(self, needs: tuple[str, ...], name: str) -> None:
        missing = set(needs) - self.capabilities
        if missing:
            raise CapabilityError(f"{name} needs {sorted(missing)}.")

    @contextmanager
    def recorded(self) -> Iterator[SimpleNamespace]:
        record = SimpleNamespace(seconds=0.0, forwards=0, backwards=0)
        self.records.append(record)
        yield record
        assert self.records.pop() is record

    def provenance(
        self, method: str, parameters: dict[str, Any], record: Any, seed: int | None, rows: Any, paper: str
    ) -> Provenance:
        return Provenance(method=method, parameters=parameters, model=self.name, seed=seed, forwards=record.forwards)


@method(
    rows=("FAP-1",),
    paper="Li 2016",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("scores",),
    cost="steps*F",
)
def counted(
    subject: Any,
    prompt: Any,
    *,
    target: TargetLike = None,
    unit: Unit = "token",
    steps: Positive = 2,
    seed: int = 0,
    order: Literal["up", "down"] | None = None,
) -> Scores:
    """Count to `steps`."""
    for _ in range(steps):
        subject.forward()
    return Scores(values=np.array([float(len(subject.encode(prompt)))]), target=str(target))


called: Any = counted  # a call that a type checker refuses, or that gives a list


@study(rows=(), paper="none", takes="prompt", produces="scores", cost="5*F")
def twice(subject: Any, prompt: Any) -> Scores:
    """Call another method and run three rows of its own."""
    inner = counted(subject, prompt)
    assert inner.provenance.forwards == 2
    for _ in range(3):
        subject.forward()
    return inner


@metric(rows=(), paper="none", takes="labels", produces="scores", better="higher", chance=0.5)
def same(first: Any, second: Any) -> Scores:
    """Say whether two values are equal; needs no subject."""
    return Scores(values=np.array([float(first == second)]))


@metric(rows=(), paper="none", takes="models", produces="scores", better="lower")
def apart(models: Any, prompt: Any) -> Scores:
    """Run one row of the first model and two of the second."""
    models[0].forward()
    models[1].forward()
    models[1].forward()
    return Scores(values=np.zeros(1))


def test_provenance_holds_the_parameters_that_were_used() -> None:
    result = counted(Counter(), "abc", steps=3)
    assert result.values.tolist() == [3.0]
    assert result.provenance == Provenance(
        method="counted",
        parameters={"target": None, "unit": "token", "steps": 3, "seed": 0, "order": None},
        model="counter",
        seed=0,
        forwards=3,
        rows=("FAP-1",),
        paper="Li 2016",
    )


def test_nested_calls_are_counted_once_each() -> None:
    subject = Counter()
    assert twice(subject, "abc").provenance.forwards == 5
    assert twice(subject, "abc").provenance.method == "twice"
    assert subject.records == []


def test_passes_of_several_models_are_summed() -> None:
    result = apart([Counter(), Counter()], "abc")
    assert (result.provenance.forwards, result.provenance.model) == (3, "counter + counter")


def test_a_metric_without_a_subject_has_provenance_too() -> None:
    result = same(1, 1)
    assert (result.values.tolist(), result.provenance.method) == ([1.0], "same")
    assert result.provenance.parameters == {"first": 1, "second": 1}


def test_a_sequence_of_prompts_gives_a_list_in_order() -> None:
    results = called(Counter(), ["a", "bcd"], target=[" x", None])
    assert [r.values.tolist() for r in results] == [[1.0], [3.0]]
    assert [r.target for r in results] == [" x", "None"]
    assert [r.target for r in called(Counter(), ["a", "b"], target=[4, 5])] == ["[4, 5]", "[4, 5]"]


def test_an_error_of_one_prompt_names_it() -> None:
    with pytest.raises(TargetError, match=r"^Prompt 2 of 3: The prompt is empty; write something\.$"):
        counted(Counter(), ["a", "", "b"])


def test_the_function_stays_itself() -> None:
    assert counted.__name__ == "counted"
    assert counted.__doc__ == "Count to `steps`."
    assert counted.__wrapped__.__name__ == "counted"  # type: ignore[attr-defined]
    assert metadata_of(counted).cost == "steps*F"
    assert list(__import__("inspect").signature(counted).parameters)[:2] == ["subject", "prompt"]


BAD_CALLS: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: called("gpt2", "a"),
        "counted got 'gpt2' as its subject, which is a str; pass pellucid.load(name_or_path_or_model).",
    ),
    (lambda: called(Counter(), "a", step=1), "counted has no parameter 'step' (did you mean 'steps'?)."),
    (lambda: called(Counter(), "a", steps=0), "counted got steps=0, but steps must be a whole number of at least 1."),
    (
        lambda: called(Counter(), "a", steps=True),
        "counted got steps=True, but steps must be a whole number of at least 1.",
    ),
    (
        lambda: called(Counter(), "a", steps=2.0),
        "counted got steps=2.0, but steps must be a whole number of at least 1.",
    ),
    (
        lambda: called(Counter(), "a", unit="tokn"),
        f"counted got unit='tokn', but unit must be {words(Unit)} (did you mean 'token'?).",
    ),
    (
        lambda: called(Counter(), "a", unit=[(0, 1), (1, "2")]),
        f"counted got unit=[(0, 1), (1, '2')], but unit must be {words(Unit)}.",
    ),
    (
        lambda: called(Counter(), "a", order="left"),
        "counted got order='left', but order must be 'up', 'down' or None.",
    ),
    (
        lambda: called(Counter(), ["a", "b"], target=["x"]),
        "counted got 1 values of target for 2 prompts; give one each, or one for all.",
    ),
    (
        lambda: metadata_of(print),
        "<built-in function print> is no method, metric or study; decorate it with pellucid.core.metadata.method.",
    ),
    (lambda: presets("captm"), "There is no preset 'captm' (did you mean 'captum'?)."),
]


@pytest.mark.parametrize(("call", "sentence"), BAD_CALLS, ids=range(len(BAD_CALLS)))
def test_a_bad_call_says_what_to_do(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value) == sentence


def test_missing_arguments_show_the_signature() -> None:
    with pytest.raises(InputError, match=r"missing a required argument: 'prompt'.*it takes counted\(subject"):
        called(Counter())


def test_a_lacking_capability_is_refused_before_anything_runs() -> None:
    @method(rows=(), paper="", takes="prompt", produces="scores", needs=("gradients",))
    def deep(subject: Any, prompt: Any) -> Scores:
        raise AssertionError("it ran")

    with pytest.raises(CapabilityError, match="deep needs"):
        deep(Counter(), "a")


BAD_METADATA = [
    ({"takes": "prompts"}, "takes 'prompts', which is not one of .*did you mean 'prompt'"),
    ({"produces": "score"}, "produces 'score'.*did you mean 'scores'"),
    ({"needs": ("gradient",)}, "needs 'gradient'.*did you mean 'gradients'"),
    ({"axes": ("units",)}, "axes 'units'.*did you mean 'unit'"),
    ({"kind": "metric"}, 'better="higher" or "lower"'),
]


@pytest.mark.parametrize(("wrong", "message"), BAD_METADATA)
def test_wrong_metadata_are_refused(wrong: dict[str, Any], message: str) -> None:
    right: dict[str, Any] = {
        "name": "x",
        "kind": "method",
        "rows": (),
        "paper": "",
        "takes": "prompt",
        "produces": "scores",
    }
    Metadata(**right)
    with pytest.raises(InputError, match=message):
        Metadata(**(right | wrong))
