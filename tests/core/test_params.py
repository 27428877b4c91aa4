from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch

from pellucid.core.params import (
    Baseline,
    Named,
    Positive,
    TargetLike,
    Unit,
    at_least,
    between,
    fits,
    parse_text,
    resolve,
)
from pellucid.core.presets import PRESETS, presets
from pellucid.core.prompts import is_many
from pellucid.core.results import Scores
from pellucid.core.targets import Target

CHAT = [{"role": "user", "content": "Hello"}]


MANY = [
    ("text", False),
    (CHAT, False),
    ([1, 2, 3], False),
    (("premise", "hypothesis"), False),
    ([], False),
    (None, False),
    (np.array([1, 2]), False),
    (np.array([[1, 2]]), False),
    (torch.tensor([1, 2]), False),
    (torch.tensor([[1, 2]]), False),
    (["one", "two"], True),
    (["one"], True),
    (("one", "two", "three"), True),
    ([CHAT, CHAT], True),
    ([[1, 2], [3]], True),
    ([("a", "b"), ("c", "d")], True),
    (torch.tensor([[1, 2], [3, 4]]), True),
    (np.array([[1, 2], [3, 4]]), True),
    ([torch.tensor([1, 2]), torch.tensor([3])], True),
    (list(torch.tensor([1, 2])), False),
    (np.array(["a", "b"]), True),
]


@pytest.mark.parametrize(("prompt", "many"), MANY, ids=range(len(MANY)))
def test_what_is_a_sequence_of_prompts(prompt: Any, many: bool) -> None:
    assert is_many(prompt) is many


FITS = [
    ("Positive", 1, True),
    ("Positive", np.int64(3), True),
    ("Positive", 0, False),
    ("Positive", "1", False),
    ("float", 1, True),
    ("float", math.nan, False),
    ("float", True, False),
    ("Fraction", 1.5, False),
    ("Fraction", 0.5, True),
    ("bool", True, True),
    ("bool", 1, False),
    ("bool", np.bool_(True), True),
    ("str | None", None, True),
    ("str | None", 1, False),
    ("Baseline", "zero", True),
    ("Baseline", 7, True),
    ("Baseline", torch.zeros(2), True),
    ("Baseline", "zeros", False),
    ("Sequence[int]", [1, 2], True),
    ("Sequence[int]", [1, "2"], False),
    ("Sequence[int]", "12", False),
    ("tuple[int, str]", (1, "a"), True),
    ("tuple[int, str]", (1, 2), False),
    ("tuple[int, ...]", (1, 2, 3), True),
    ("TargetLike", Target(3), True),
    ("TargetLike", " Paris", True),
    ("TargetLike", len, True),
    ("TargetLike", 1.5, False),
    ("Scores | None", Scores(values=np.zeros(1)), True),
    ("Scores | None", 3, False),
    ("Result", Scores(values=np.zeros(1)), True),
    ("Annotated[int, between(1, 3)]", 3, True),
    ("Annotated[int, between(1, 3)]", 4, False),
    ("Callable[..., Any]", print, True),
    ("Callable[..., Any]", int, False),
    ("Mapping[str, int]", {"a": 1}, True),
    ("Mapping[str, int]", [1], False),
]


@pytest.mark.parametrize(("annotation", "value", "right"), FITS, ids=[f"{a}-{v!r}"[:60] for a, v, _ in FITS])
def test_values_are_held_to_annotations(annotation: str, value: Any, right: bool) -> None:
    assert fits(value, resolve(annotation)) is right


def test_source_text_and_objects_resolve_alike() -> None:
    assert resolve("Literal['a', 'b'] | Sequence[tuple[int, int]]") == Literal["a", "b"] | Sequence[tuple[int, int]]
    assert resolve("Annotated[int, at_least(1)]") == Annotated[int, at_least(1)] == Positive
    assert resolve("Annotated[float, Bounds(0, above=True)]").__metadata__ == resolve("PositiveFloat").__metadata__
    assert resolve("Order", {"Order": "Literal['up', 'down']"}) == Literal["up", "down"]
    assert resolve("Scores | None") == (Named("Scores"), type(None)) or resolve("Scores | None") == (
        Named("Scores"),
        None,
    )
    for unknown in ("Widget", "Widget[int]", "f(x)", "Annotated[int, evil()]"):
        with pytest.raises(LookupError):
            resolve(unknown)


PARSED = [
    ("word", Unit, "word"),
    ("[[0, 2], [2, 3]]", Unit, [(0, 2), (2, 3)]),
    ("zero", Baseline, "zero"),
    ("17", Baseline, 17),
    ("42", TargetLike, "42"),
    ("id:42", TargetLike, 42),
    ("id:4,2", TargetLike, [4, 2]),
    ("id:x", TargetLike, "id:x"),
    (" Paris", TargetLike, " Paris"),
    ("32", Positive, 32),
    ("0.25", float, 0.25),
    ("none", int | None, None),
    ("1,2,3", resolve("Sequence[int]"), [1, 2, 3]),
    ("7", resolve("Sequence[int]"), [7]),
    ("a,b", resolve("Sequence[str]"), ["a", "b"]),
    ("nope", Positive, "nope"),
    ("tokn", Unit, "tokn"),
    ("none", str | None, None),
    ("id:5", str, "id:5"),
]


@pytest.mark.parametrize(
    ("text", "annotation", "value"), PARSED, ids=[f"{t}-{i}" for i, (t, _, _) in enumerate(PARSED)]
)
def test_option_text_becomes_a_value(text: str, annotation: Any, value: Any) -> None:
    assert parse_text(text, annotation) == value


def test_limits_read_well() -> None:
    assert (str(at_least(1)), str(between(0, 1))) == (" of at least 1", " from 0 to 1")
    assert at_least(1).hold(1)
    assert not between(0, 1).hold(1.01)


def test_presets_hold_values_that_the_parameters_allow() -> None:
    types = {
        "measure": "Measure",
        "reduce": "Reduce",
        "normalise": "Normalise",
        "baseline": "Baseline",
        "replacement": "Replacement",
        "quadrature": "Quadrature",
        "steps": "Positive",
        "unit": "Unit",
    }
    for peer in PRESETS:
        for key, value in presets(peer).items():
            assert fits(value, resolve(types[key])), (peer, key)
    assert presets("captum", ("steps", "reduce")) == {"reduce": "sum", "steps": 50}
