"""TaSc, its training: what it learns where one word decides, and what it refuses."""

import numpy as np
import pytest

import pellucid
from pellucid.core.errors import InputError
from pellucid.methods.attention.task_scaled_attention import task_scaled_attention
from pellucid.methods.attention.task_scaled_head import task_scaled_head
from tests.methods.test_task_scaled_attention import BAD, GOOD, task
from tests.tiny import TINY


def test_it_learns_the_word_that_decides() -> None:
    subject = pellucid.load(TINY["bert-classifier"]())
    learned = task_scaled_head(subject, *task(60), steps=40)
    values = learned.evidence[0].values
    assert values["accuracy"] == 1.0 > values["most_frequent"]
    names = list(learned.tensors["ids"])
    scale = np.abs(np.asarray(learned.tensors["scale"]))
    assert min(scale[names.index(token)] for token in (GOOD, BAD)) > np.median(scale)
    prompts, labels = task(10)
    hits = {0: 0, 1: 0}
    for prompt, label in zip(prompts, labels, strict=True):
        found = task_scaled_attention(subject, prompt, head=learned)
        assert found.tokens is not None
        hits[label] += found.tokens.ids[int(found.values.argmax())] in (GOOD, BAD)
    assert max(hits.values()) == 5, "one of the two words is enough to tell the classes apart"


def test_bad_input_is_refused() -> None:
    subject = pellucid.load(TINY["bert-classifier"]())
    prompts, labels = task(6)
    with pytest.raises(InputError, match="one label per prompt"):
        task_scaled_head(subject, prompts, labels[:-1])
    with pytest.raises(InputError, match="at least two classes"):
        task_scaled_head(subject, prompts, [1] * 6)
    with pytest.raises(InputError, match="no prompt left to train on"):
        task_scaled_head(subject, prompts[:2], labels[:2], held_out=2)
