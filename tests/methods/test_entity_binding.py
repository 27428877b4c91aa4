"""Entity binding on two constructed models: one that binds by an index, and one that binds by the entity's name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import InputError
from pellucid.methods.reading.entity_binding import entity_binding
from pellucid.zoo.truth import _weights
from pellucid.zoo.truth._program import CHATTER, FALLBACK, SHARP, START, Block, Head, Program, chatter

ENTITIES = ("red", "blue", "green", "gold")
ATTRIBUTES = ("one", "two", "three", "four")
PLACES = (("pos:1", "entity:0"), ("pos:2", "attribute:0"), ("pos:3", "entity:1"), ("pos:4", "attribute:1"))
NEW = tuple((place, place, SHARP) for place, _ in PLACES)
FALL = ("one", f"tok:{START}", FALLBACK)
OUT = tuple((f"tok:{word}", f"out:{word}") for word in ATTRIBUTES)
SAME = tuple((f"tok:{word}", f"tok:{word}", SHARP) for word in ENTITIES)


def model(*blocks: Block) -> pellucid.Subject:
    words = (*ENTITIES, *ATTRIBUTES, "pink")
    program = Program(
        name="binding", summary="", words=words, blocks=blocks,
        logits=(*((f"out:{word}", word, 1.0) for word in ATTRIBUTES), CHATTER),
        value=lambda *_: 0.0, inputs=(), prompts=(), pairs=(), ask=lambda words: (words[0], None),
    )  # fmt: skip
    return pellucid.load(_weights.model(program), _weights.tokenizer(program))


def bound_by_index() -> pellucid.Subject:
    """Places write an index at names; the query takes the index of its entity and looks for the attribute's."""
    index = Head("index", (*NEW, FALL), PLACES)
    find = Head("find", (*SAME, FALL), tuple((f"entity:{k}", f"asked:{k}") for k in (0, 1)))
    fetch = Head("fetch", (*((f"asked:{k}", f"attribute:{k}", 2 * SHARP) for k in (0, 1)), FALL), OUT)
    return model(*(Block((head, chatter("pink"))) for head in (index, find, fetch)))


def bound_by_name() -> pellucid.Subject:
    """The attribute keeps the name of the entity before it, and the query looks for that name: no index anywhere."""
    steps = tuple((f"pos:{i}", f"pos:{i - 1}", SHARP) for i in range(1, 8))
    before = Head("before", steps, tuple((f"tok:{word}", f"owner:{word}") for word in ENTITIES))
    fetch = Head("fetch", (*((f"tok:{word}", f"owner:{word}", SHARP) for word in ENTITIES), FALL), OUT)
    return model(*(Block((head, chatter("one", "two", "pink"))) for head in (before, fetch)))


def run(subject: pellucid.Subject, **changes: Any) -> Any:
    given: dict[str, Any] = {
        "template": "{entity} {attribute} ", "query": "{entity}", "entities": ENTITIES, "attributes": ATTRIBUTES,
        "contexts": 6, "samples": 10,
    }  # fmt: skip
    return entity_binding(subject, **{**given, **changes})


def test_binding_by_index_passes_every_test_and_a_random_vector_fails() -> None:
    found = run(bound_by_index())
    accuracy = {row[0]: row[2] for row in found.rows}
    random = accuracy.pop("random vectors")
    assert accuracy == dict.fromkeys(accuracy, 1.0)
    assert random < 0.5
    assert len(accuracy) == 8
    assert [check.ok for check in found.evidence] == [True] * 4


def test_binding_by_name_does_the_task_without_binding_vectors() -> None:
    found = run(bound_by_name())
    checks = {check.name: check for check in found.evidence}
    assert checks["task"].ok
    assert not checks["binding vectors"].ok
    assert next(row[2] for row in found.rows if row[0] == "attribute vectors swapped") == 0


def test_margins_are_those_of_the_models_own_logits() -> None:
    subject = bound_by_index()
    found = run(subject, samples=1, seed=4)
    rng = np.random.default_rng(4)
    for _ in range(7):
        names = [ENTITIES[i] for i in rng.choice(4, 2, replace=False)]
        values = [ATTRIBUTES[i] for i in rng.choice(4, 2, replace=False)]
    margins = []
    for asked, own, other in ((names[0], values[0], values[1]), (names[1], values[1], values[0])):
        text = f"{names[0]} {values[0]} {names[1]} {values[1]} {asked}"
        with torch.no_grad():
            logits = subject.model(torch.tensor([subject.encode(text).ids])).logits[0, -1]
        right, wrong = (subject.tokenizer.convert_tokens_to_ids(word) for word in (own, other))
        margins.append(float(logits[right] - logits[wrong]))
    assert found.rows[0][-1] == pytest.approx(np.mean(margins), abs=1e-5)


def test_bad_templates_and_names_are_refused() -> None:
    subject = pellucid.load("zoo:tiny-lm")
    with pytest.raises(InputError, match="once each"):
        run(subject, template="{entity} lives.")
    with pytest.raises(InputError, match="three different names"):
        run(subject, entities=("Mary", "John"))
    with pytest.raises(InputError, match="one token in its place"):
        run(subject, template="{entity} lives in {attribute}. ", entities=("Marylou", "Xylophone", "Quuxity"))
