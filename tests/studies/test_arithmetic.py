"""The study of arithmetic on a model whose sums are written into one feed-forward layer, and on one that cannot add."""

from __future__ import annotations

import numpy as np
import pytest

import pellucid
from pellucid.core.errors import InputError
from pellucid.core.results import Explanation
from pellucid.studies.arithmetic import _trials, arithmetic
from pellucid.zoo.truth._program import BLANK, CHATTER, SHARP, START, Block, Head, Neuron, Program, chatter, idle_head
from pellucid.zoo.truth._weights import model, tokenizer

NUMBERS = ("zero", "one", "two", "three", "four", "five")
FILLERS = ("plus", "is", "what")
PAIRS = [(a, b) for a in range(6) for b in range(6 - a)]


def operand(place: int, name: str) -> Head:
    """A head that brings the number at one position to every later one."""
    return Head(name, (("one", f"pos:{place}", SHARP), ("one", f"tok:{START}", SHARP / 2)),
                tuple((f"tok:{n}", f"{name}:{n}") for n in NUMBERS))  # fmt: skip


ADDS = tuple(
    Neuron(f"{a} + {b}", ((f"first:{NUMBERS[a]}", 1.0), (f"second:{NUMBERS[b]}", 1.0)), -1.0,
           ((f"out:{NUMBERS[a + b]}", 1.0),))
    for a, b in PAIRS
)  # fmt: skip
BUSY = tuple(Neuron("", ((f"tok:{word}", 1.0),), 0.0, (("idle-m", 1.0),)) for word in (*NUMBERS, *FILLERS))
ADDER = Program(
    name="adder", summary="It adds.", words=(*FILLERS, *NUMBERS),
    blocks=(Block((operand(1, "first"), operand(3, "second")), BUSY[:4]),
            Block((chatter("what", "two", "four"), idle_head("idle-a", "plus")), ADDS)),
    logits=(*((f"out:{n}", n, 1.0) for n in NUMBERS), CHATTER),
    value=lambda words, target, contrast: 0.0, inputs=(), prompts=(), ask=lambda words: (BLANK, None), pairs=(),
)  # fmt: skip


@pytest.fixture(scope="module")
def adder() -> pellucid.Subject:
    return pellucid.load(model(ADDER), tokenizer=tokenizer(ADDER))


@pytest.fixture(scope="module")
def found(adder: pellucid.Subject) -> Explanation:
    return arithmetic(adder, pairs=6, templates=["{a} plus {b} is"], words=NUMBERS)


def test_the_planted_layer_computes_at_the_last_token(found: Explanation) -> None:
    layers, attention = (next(one for one in found.results if one.title == f"What {name} at a place carry, in logits")
                         for name in ("feed-forward layers", "attention layers"))  # fmt: skip
    last = layers.labels["part"].index("last token")
    others = layers.values.copy()
    others[1, last] = 0
    np.testing.assert_allclose(layers.values[1, last], 20, atol=1e-3)
    np.testing.assert_allclose(others, 0, atol=1e-3)
    assert attention.values[0, last] > 1
    assert np.abs(attention.values[1]).max() < 1e-3


def test_mediation_and_patching_agree(found: Explanation) -> None:
    assert found.evidence[0].values["accuracy"] == 1
    assert found.evidence[1].ok


def test_pairs_have_other_sums_and_line_up(adder: pellucid.Subject) -> None:
    value = {name: number for number, name in enumerate(NUMBERS)}
    for trial in _trials(adder, NUMBERS, ["{a} plus {b} is"], 8, 0):
        sums = [value[text.split()[0]] + value[text.split()[2]] for text in (trial.clean, trial.corrupt)]
        assert sums[0] != sums[1]
        assert adder.encode(f"to {NUMBERS[sums[0]]}").ids[-1] == trial.right[0]
        assert adder.encode(f"to {NUMBERS[sums[1]]}").ids[-1] == trial.wrong[0]


def test_tiny_lm_cannot_add_and_is_told_so() -> None:
    found = arithmetic(pellucid.load("zoo:tiny-lm"))
    assert found.results == ()
    assert found.notes[0].startswith("zoo:tiny-lm cannot do this task")


def test_numbers_that_are_no_tokens_are_refused(adder: pellucid.Subject) -> None:
    with pytest.raises(InputError, match=r"Fewer than three sums up to 20 are one token"):
        arithmetic(adder, templates=["{a} plus {b} is"])
    with pytest.raises(InputError, match=r"cannot be filled \('c'\); use {a} and {b}"):
        arithmetic(adder, templates=["{a} plus {c}"], words=NUMBERS)
