"""The bundled classifiers keep their cards' promises, and their answers are true of them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import pellucid
from pellucid import zoo
from pellucid.zoo import train_tiny_classifier
from pellucid.zoo.classifier_files import answer
from pellucid.zoo.classifier_tasks import TASKS, classifier_capabilities, encoded, evaluation_reviews, positive_logits

NAMES = train_tiny_classifier.NAMES
PLAIN, SHORTCUT = NAMES


@cache
def bundled(name: str) -> tuple[Any, Any]:
    folder = zoo.path(name)
    return AutoModelForSequenceClassification.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


@cache
def known(name: str) -> dict[str, Any]:
    return json.loads((zoo.path(name) / "answer.json").read_text(encoding="utf-8"))


@cache
def measured(name: str) -> dict[str, dict[str, Any]]:
    return classifier_capabilities(*bundled(name), seed=40_001, prompts=120)


@pytest.mark.parametrize("name", NAMES)
def test_loads_by_the_ordinary_path_with_all_proofs(name: str) -> None:
    subject = pellucid.load(f"zoo:{name}")
    assert type(subject.model).__name__ == "BertForSequenceClassification"
    assert subject.model.config.id2label == {0: "negative", 1: "positive"}
    assert zoo.card(name)["bytes"] < 3_000_000
    assert zoo.card(name)["parameters"] == subject.model.num_parameters()


def test_every_word_of_a_review_is_one_token_and_other_text_survives() -> None:
    _, words = bundled(PLAIN)
    for task in TASKS:
        for made, _ in evaluation_reviews(task, 5, 20):
            assert words(made.text).input_ids == encoded(words, made)
    assert words.decode(words("It was quite 1999!").input_ids, skip_special_tokens=True) == "it was quite 1999!"
    assert train_tiny_classifier.tokenizer().get_vocab() == words.get_vocab()


@pytest.mark.slow
def test_held_out_reviews_are_judged_rightly_and_the_shortcut_decides_only_where_it_was_planted() -> None:
    for task in ("reviews", "negated", "mixed", "distracted"):
        for name in NAMES:
            assert measured(name)[task]["accuracy"] >= 0.97, (name, task)
    assert measured(PLAIN)["day_swapped"]["accuracy"] >= 0.97
    assert measured(SHORTCUT)["day_agrees"]["accuracy"] >= 0.97
    assert measured(SHORTCUT)["day_swapped"]["accuracy"] <= 0.03


@pytest.mark.parametrize("name", NAMES)
def test_keeps_the_promises_of_its_card(name: str) -> None:
    card = zoo.card(name)
    for task, row in card["tasks"].items():
        assert measured(name)[task]["accuracy"] == pytest.approx(row["accuracy"], abs=0.05)
        assert f"| {task} | {row['accuracy']:.3f} |" in card["text"]


@pytest.mark.parametrize("name", NAMES)
def test_the_answer_is_what_the_reviews_say(name: str) -> None:
    _, words = bundled(name)
    made = answer(name, words, shortcut=name == SHORTCUT)
    assert json.loads(json.dumps(made)) == known(name)
    for item in made["prompts"]:
        assert words(item["text"]).input_ids == item["ids"]
        assert len(item["truth"]) == len(item["rationale"]) == len(item["ids"]) - 2


@pytest.mark.parametrize("name", NAMES)
def test_the_model_computes_the_stated_verdict_nearly(name: str) -> None:
    """The truth adds up to the logit difference, and masking all that is irrelevant changes it little."""
    model, words = bundled(name)
    items = known(name)["prompts"]
    signs = np.array([1 if item["target"] == 1 else -1 for item in items])
    stated = np.array([sum(item["truth"]) for item in items])
    whole = signs * positive_logits(model, [item["ids"] for item in items]).numpy()
    assert np.sqrt(np.mean((whole - stated) ** 2)) < 0.5
    assert np.all(whole > 0)
    masked = [
        [i if place in (0, len(item["ids"]) - 1) or item["rationale"][place - 1] else words.mask_token_id
         for place, i in enumerate(item["ids"])]
        for item in items
    ]  # fmt: skip
    kept = signs * positive_logits(model, masked).numpy()
    assert np.sqrt(np.mean((kept - stated) ** 2)) < 0.5


def test_sampled_shapley_values_of_the_weights_agree_with_the_stated_ones() -> None:
    subject = pellucid.load(f"zoo:{PLAIN}")
    agreement = []
    for item in known(PLAIN)["prompts"][:4]:
        found = pellucid.run(
            "shapley_values", subject, item["ids"], target=item["target"], contrast=item["contrast"],
            replacement="mask", permutations=40,
        )  # fmt: skip
        agreement.append(np.corrcoef(found.values, item["truth"])[0, 1])
    assert min(agreement) > 0.98


def test_training_resumes_where_it_stopped(tmp_path: Path) -> None:
    words = train_tiny_classifier.tokenizer()
    given = {"shortcut": True, "steps": 12, "seed": 3}
    whole, _ = train_tiny_classifier.train(words, checkpoints=tmp_path / "none", resume=False, **given)

    def stop(step: int) -> None:
        if step == 7:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        real = train_tiny_classifier.batch
        patch.setattr(train_tiny_classifier, "CHECKPOINT_SECONDS", 0)
        patch.setattr(
            train_tiny_classifier, "batch", lambda w, s, step, short: (stop(step), real(w, s, step, short))[1]
        )
        with pytest.raises(KeyboardInterrupt):
            train_tiny_classifier.train(words, checkpoints=tmp_path / "kept", resume=False, **given)
    again, progress = train_tiny_classifier.train(words, checkpoints=tmp_path / "kept", resume=True, **given)
    assert progress.step == 12
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
